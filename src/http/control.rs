//! Changing and closing an open stream, by its own user.
//!
//! The order of the checks: who asks (401); whether the request can be read (400); whether the stream is theirs (404,
//! the same for another's and for none; 421 for another node's); whether the change fits the stream's path (400);
//! whether they are still a member (403). Then the token is renewed and the filter set, or neither.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::admission::names_presence;
use super::body;
use super::endpoint::{Endpoint, NATIVE, joined};
use super::expiry::renew;
use super::members::Members;
use super::parameters;
use super::query::Query;
use super::refusal::Refusal;
use super::registry::{Entry, NotHere};
use super::state::State;
use crate::access::Principal;
use crate::catalog::EventId;
use crate::hub::{EndReason, Filter};

/// What a body may hold.
const MEMBERS: [&str; 5] = ["connectionId", "channels", "types", "tags", "token"];

/// What a query may hold: the stream's id, and who asks.
const PARAMETERS: [&str; 3] = ["connectionId", "token", "ticket"];

/// Bytes of a body.
const MAX_BODY: usize = 64 << 10;

/// Values of a filter: no more than a query can name.
const MAX_VALUES: usize = 8192;

/// `PUT`: replaces the filters, renews the token.
pub(super) async fn change(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    answer(try_change(&state, &request, body).await)
}

/// `DELETE`: ends the stream.
pub(super) async fn close(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    answer(try_close(&state, &request, body).await)
}

fn answer(outcome: Result<Response, Refusal>) -> Response {
    outcome.unwrap_or_else(IntoResponse::into_response)
}

async fn try_change(state: &State, request: &Parts, body: Body) -> Result<Response, Refusal> {
    let (principal, query) = ask(state, request).await?;
    let text = read(request, body).await?;
    let wishes = Wishes::read(&text)?;
    let (id, stream) = find(state, request, &query, wishes.connection_id.as_deref(), &principal)?;
    let filter = wishes.filter(&stream.endpoint)?;
    state.check_open()?;
    match &wishes.token {
        Some(token) => renew(state, token, &stream.handle, &stream.expiry).await?,
        None => {
            let organization = stream.handle.organization().as_str();
            state.memberships()?.role_of(organization, &principal).ok_or(Refusal::FORBIDDEN)?;
        }
    }
    let (position, filter) = match filter {
        Some(filter) => (stream.handle.set_filter(filter.clone()), Arc::new(filter)),
        None => (stream.handle.position(), stream.handle.filter()),
    };
    // After the filter: from here on the stream is told what the list does not show yet.
    let online = names_presence(filter.channels.as_ref()).then(|| stream.present.online_meanwhile());
    let standing = Standing::of(state, &id, &stream, &filter, position, online);
    Ok(([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(standing)).into_response())
}

async fn try_close(state: &State, request: &Parts, body: Body) -> Result<Response, Refusal> {
    let (principal, query) = ask(state, request).await?;
    let text = if has_body(request) { read(request, body).await? } else { Bytes::new() };
    let named = if text.is_empty() { None } else { Wishes::read_id(&text)? };
    let (id, stream) = find(state, request, &query, named.as_deref(), &principal)?;
    state.registry.forget(&id);
    stream.handle.end(EndReason::Closed);
    Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, HeaderValue::from_static("no-store"))]).into_response())
}

async fn read(request: &Parts, body: Body) -> Result<Bytes, Refusal> {
    body::check_type(&request.headers)?;
    body::read(&request.headers, body, MAX_BODY).await
}

/// A DELETE need not have one, and then says nothing of its type.
fn has_body(request: &Parts) -> bool {
    let length = request.headers.get(http::header::CONTENT_LENGTH);
    length.is_some_and(|length| length != "0")
        || request.headers.contains_key(http::header::TRANSFER_ENCODING)
}

/// Who asks, and a query in which nothing is misspelt.
async fn ask(state: &State, request: &Parts) -> Result<(Principal, Query), Refusal> {
    let query = Query::read(request.uri.query())?;
    let principal = state.authenticate(&query, &request.headers).await?;
    if let Some(name) = query.names().find(|name| !PARAMETERS.contains(name)) {
        let allowed = joined(&PARAMETERS);
        return Err(Refusal::bad_request(format!("{name}: unknown parameter; allowed are {allowed}")));
    }
    Ok((principal, query))
}

/// The caller's own stream.
fn find(
    state: &State,
    request: &Parts,
    query: &Query,
    in_body: Option<&str>,
    principal: &Principal,
) -> Result<(String, Arc<Entry>), Refusal> {
    let in_path = request.uri.path().strip_prefix(NATIVE).and_then(|rest| rest.strip_prefix('/'));
    let mut named = [in_path, query.scalar("connectionId")?, in_body].into_iter().flatten();
    let Some(id) = named.next() else {
        return Err(Refusal::bad_request(
            "connectionId: required, in the path, the body or the query: what the stream's frame connected says",
        ));
    };
    if named.any(|other| other != id) {
        return Err(Refusal::bad_request("connectionId: given more than once, and not the same"));
    }
    match state.registry.find(id) {
        Ok(entry) if is_theirs(&entry, principal) => Ok((id.to_owned(), entry)),
        Ok(_) | Err(NotHere::Unknown) => Err(Refusal::NO_STREAM),
        Err(NotHere::OtherNode) => Err(Refusal::OTHER_NODE),
    }
}

/// Also within what the caller's credential is bound to.
fn is_theirs(stream: &Entry, principal: &Principal) -> bool {
    **stream.handle.user() == *principal.subject
        && principal.may_ask_for(stream.handle.organization().as_str())
}

/// A body, read as far as it can be without knowing the stream.
#[derive(Debug, Default)]
struct Wishes {
    connection_id: Option<String>,
    channels: Vec<String>,
    types: Vec<String>,
    tags: Vec<(String, Vec<String>)>,
    token: Option<String>,
    /// A filter is named. None is named and a token is not, all are taken away.
    names_filters: bool,
}

impl Wishes {
    fn read(text: &[u8]) -> Result<Self, Refusal> {
        let mut wishes = Self::default();
        for (name, value) in Members::read("the body", text)?.into_iter() {
            match name.as_str() {
                "connectionId" => wishes.connection_id = scalar(&name, value)?,
                "token" => wishes.token = scalar(&name, value)?,
                "channels" => wishes.channels = list(&name, value)?,
                "types" => wishes.types = list(&name, value)?,
                "tags" => wishes.tags = tags(value)?,
                _ => {
                    let allowed = joined(&MEMBERS);
                    return Err(Refusal::bad_request(format!("{name}: unknown; allowed are {allowed}")));
                }
            }
            wishes.names_filters |= ["channels", "types", "tags"].contains(&name.as_str());
        }
        let values: usize = wishes.tags.iter().map(|(_, values)| values.len()).sum();
        if wishes.channels.len() + wishes.types.len() + values > MAX_VALUES {
            return Err(Refusal::bad_request(format!(
                "channels, types, tags: at most {MAX_VALUES} values together"
            )));
        }
        Ok(wishes)
    }

    /// What closes a stream may name it and nothing else.
    fn read_id(text: &[u8]) -> Result<Option<String>, Refusal> {
        let mut id = None;
        for (name, value) in Members::read("the body", text)?.into_iter() {
            if name != "connectionId" {
                return Err(Refusal::bad_request(format!("{name}: unknown; allowed is connectionId")));
            }
            id = scalar(&name, value)?;
        }
        Ok(id)
    }

    /// The new filter; none: a token alone leaves it.
    fn filter(&self, endpoint: &Endpoint) -> Result<Option<Filter>, Refusal> {
        if self.token.is_some() && !self.names_filters {
            return Ok(None);
        }
        let mut tags: Vec<(u16, Vec<Box<[u8]>>)> = Vec::new();
        for (name, values) in &self.tags {
            let Some((_, tag)) = endpoint.tags.iter().find(|(known, _)| **known == **name) else {
                let allowed: Vec<&str> = endpoint.tags.iter().map(|(name, _)| &**name).collect();
                return Err(Refusal::bad_request(format!(
                    "tags: there is no tag {name:?} here; allowed are {}",
                    joined(&allowed)
                )));
            };
            parameters::add_tag(&mut tags, *tag, values.iter().map(|value| value.as_bytes().into()));
        }
        let mut channels =
            parameters::channels("channels", endpoint, self.channels.iter().map(String::as_str))?;
        if endpoint.live.is_some() {
            if !self.types.is_empty() {
                return Err(Refusal::bad_request(
                    "types: this stream shows what a query answers; it is filtered by tags alone",
                ));
            }
            // Whatever may change the answer goes on to be heard.
            channels = Some(endpoint.channels.clone());
        }
        Ok(Some(Filter { channels, types: parameters::types(self.types.iter().map(String::as_str))?, tags }))
    }
}

fn scalar(name: &str, value: &RawValue) -> Result<Option<String>, Refusal> {
    serde_json::from_str(value.get()).map_err(|_| Refusal::bad_request(format!("{name}: a text is needed")))
}

/// A list of texts, or one text; null is none.
fn list(name: &str, value: &RawValue) -> Result<Vec<String>, Refusal> {
    let list = match value.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str(value.get()).map(|one| vec![one]),
        _ => serde_json::from_str::<Option<Vec<String>>>(value.get()).map(Option::unwrap_or_default),
    };
    let list = list.map_err(|_| Refusal::bad_request(format!("{name}: a list of texts is needed")))?;
    if list.iter().any(String::is_empty) {
        return Err(Refusal::bad_request(format!("{name}: an empty text is no value")));
    }
    Ok(list)
}

/// An object of lists; what a tag has no value of is not filtered on.
fn tags(value: &RawValue) -> Result<Vec<(String, Vec<String>)>, Refusal> {
    if value.get() == "null" {
        return Ok(Vec::new());
    }
    let mut tags = Vec::new();
    for (name, value) in Members::read("tags", value.get().as_bytes())?.into_iter() {
        let values = list(&format!("tags: {name}"), value)?;
        tags.push((name, values));
    }
    Ok(tags)
}

/// How the stream is now: what could be sent again to leave it so.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Standing<'a> {
    connection_id: &'a str,
    organization_id: &'a str,
    channels: BTreeSet<&'a str>,
    types: BTreeSet<&'a str>,
    tags: serde_json::Map<String, serde_json::Value>,
    /// What commits at or above it is filtered so; what is below, as before.
    position: String,
    /// Seconds since 1970.
    expires_at: u64,
    /// Who is online, where presence is asked for by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<Box<RawValue>>,
}

impl<'a> Standing<'a> {
    fn of(
        state: &State,
        id: &'a str,
        stream: &'a Entry,
        filter: &'a Filter,
        position: EventId,
        online: Option<[Bytes; 2]>,
    ) -> Self {
        let names = |names: &'a BTreeSet<Arc<str>>| names.iter().map(AsRef::as_ref).collect();
        let tags = filter.tags.iter().filter_map(|(tag, values)| {
            let name = state.services.vocabulary.tags.get(usize::from(*tag))?;
            let values: Vec<_> =
                values.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
            Some((name.to_string(), values.into()))
        });
        Self {
            connection_id: id,
            organization_id: stream.handle.organization().as_str(),
            channels: names(filter.channels.as_ref().unwrap_or(&stream.endpoint.channels)),
            types: filter.types.as_ref().map_or_else(BTreeSet::new, names),
            tags: tags.collect(),
            position: position.to_string(),
            expires_at: stream.expiry.at(),
            online: online.and_then(|pieces| serde_json::from_slice(&pieces.concat()).ok()),
        }
    }
}
