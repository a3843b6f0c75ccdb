//! `POST /api/realtime/events`: a service emits an event over HTTP.
//!
//! Who may: a token with the scope `walcast:emit`, which its issuer gives to services.
//!
//! | the token | is good for |
//! | --- | --- |
//! | names organizations (`organizationId`, `organizations`) | these, whatever its subject is a member of |
//! | names none, its subject is one of `access.emitters` | all |
//! | names none, its subject is a member of organizations | these |
//! | names none, its subject is a member of none | all, unless `access.emitters` names others |
//!
//! Good for all is only what stands in the header `Authorization`. The last line is why the setting exists: without it
//! nothing tells a service from a user who lost their last membership.

mod event;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::digest;
use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::{HeaderMap, HeaderName, StatusCode};
use serde::Serialize;

use super::admission::BEHIND;
use super::body;
use super::query::Query;
use super::refusal::Refusal;
use super::state::State;
use crate::access::Principal;
use crate::catalog::EventId;
use crate::emit::EmitError;

pub(super) const PATH: &str = "/api/realtime/events";

const SCOPE: &str = "walcast:emit";

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Characters of the longest key.
const MAX_KEY: usize = 255;

/// Bytes of the longest body, unless no event may be as long.
pub(super) const MAX_BODY: usize = 1 << 20;

/// Requests in hand at once, each with its body in memory; and of one subject.
pub(super) const IN_HAND: (usize, usize) = (64, 16);

const NO_SCOPE: Refusal =
    Refusal::fixed(StatusCode::FORBIDDEN, "forbidden", "the token lacks the scope walcast:emit");
const NOT_YOURS: Refusal = Refusal::fixed(
    StatusCode::FORBIDDEN,
    "forbidden",
    "you may not emit for this organization, or it does not exist",
);
const TOO_MANY: Refusal = Refusal::fixed(
    StatusCode::TOO_MANY_REQUESTS,
    "too_many_requests",
    "too many events of yours are being emitted at once",
);

/// What the caller can rely on: the event is committed, and a stream that starts at `position` shows it.
#[derive(Serialize)]
struct Answer {
    accepted: bool,
    position: Option<String>,
}

pub(super) async fn emit(state: &State, request: Request) -> Response {
    match accept(state, request).await {
        Ok(answer) => (StatusCode::ACCEPTED, [(CACHE_CONTROL, "no-store")], Json(answer)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn accept(state: &State, request: Request) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    let query = Query::read(head.uri.query())?;
    let principal = state.authenticate(&query, &head.headers).await?;
    if !principal.has_scope(SCOPE) {
        return Err(NO_SCOPE);
    }
    if let Some(name) = query.names().find(|name| !["token", "ticket"].contains(name)) {
        return Err(Refusal::bad_request(format!("{name}: unknown parameter; the event is in the body")));
    }
    state.check_open()?;
    body::check_type(&head.headers)?;
    let key = key_of(&head.headers)?;
    let _place = state.emits.take(&principal.subject).ok_or(TOO_MANY)?;
    let body = body::read(&head.headers, body, state.max_emit).await?;
    let emission = event::read(&body).map_err(Refusal::bad_request)?;
    drop(body);
    // What a browser adds by itself, or what stands in a URL, is a user's.
    let may_be_service = head.headers.contains_key(AUTHORIZATION);
    match stands(state, &principal, &emission.organization)? {
        Standing::Bound => {}
        Standing::Foreign => return Err(NOT_YOURS),
        Standing::Emitter | Standing::Unknown if !may_be_service => return Err(NOT_YOURS),
        Standing::Emitter => {}
        // Who was made a member just now is one: that is read first.
        Standing::Unknown => {
            let visible = state.services.visibility.visible().await;
            let stands = stands(state, &principal, &emission.organization)?;
            if matches!(stands, Standing::Foreign) {
                return Err(NOT_YOURS);
            }
            if !visible.current && state.memberships()?.are_mirrored() {
                return Err(BEHIND);
            }
            if matches!(stands, Standing::Unknown) && !state.emitters.is_empty() {
                return Err(NOT_YOURS);
            }
        }
    }
    let emitter = Arc::clone(state.emitter()?);
    emitter.judge(&emission).map_err(|why| Refusal::bad_request(format!("type or only: {why}")))?;
    let key = key.map(|key| scoped(&principal.subject, &emission.organization, key));
    // A task of its own: what has begun is finished, also when the caller has gone, so that sessions stay bounded.
    let emitting = tokio::spawn(async move { emitter.emit(&emission, key).await });
    let accepted = emitting.await.unwrap_or(Err(EmitError::Unknown))?;
    let epoch = state.services.hub.journals().epoch();
    let position = accepted.after.map(|after| EventId::position(epoch, after).to_string());
    Ok(Answer { accepted: true, position })
}

/// How a token's bearer stands to an organization.
enum Standing {
    /// The token names it, or its subject is a member.
    Bound,
    /// The token, or a membership, says where else they belong.
    Foreign,
    /// It names none, and its subject is a service by configuration.
    Emitter,
    /// Nothing says where they belong.
    Unknown,
}

fn stands(state: &State, principal: &Principal, organization: &str) -> Result<Standing, Refusal> {
    let memberships = state.memberships()?;
    if !principal.may_ask_for(organization) {
        return Ok(Standing::Foreign);
    }
    let named = principal.default_organization.as_deref();
    if named.is_some() || !principal.organizations.is_empty() {
        let is_named = named == Some(organization) || principal.organizations.contains_key(organization);
        return Ok(if is_named { Standing::Bound } else { Standing::Foreign });
    }
    if state.emitters.contains(&*principal.subject) {
        return Ok(Standing::Emitter);
    }
    if memberships.role_of(organization, principal).is_some() {
        return Ok(Standing::Bound);
    }
    let belongs = !memberships.organizations_of(principal).is_empty();
    Ok(if belongs { Standing::Foreign } else { Standing::Unknown })
}

fn key_of(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter().map(http::HeaderValue::as_bytes);
    let (Some(key), rest) = (values.next(), values.next()) else {
        return Ok(None);
    };
    let visible = key.iter().all(u8::is_ascii_graphic);
    if rest.is_some() || !visible || !(1..=MAX_KEY).contains(&key.len()) {
        return Err(Refusal::bad_request(format!(
            "Idempotency-Key: once, 1 to {MAX_KEY} visible ASCII characters without spaces"
        )));
    }
    Ok(Some(key))
}

/// One subject's key for one organization: nobody meets another's.
fn scoped(subject: &str, organization: &str, key: &[u8]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in [subject.as_bytes(), organization.as_bytes(), key] {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut scoped = [0; 32];
    scoped.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    scoped
}

impl From<EmitError> for Refusal {
    fn from(error: EmitError) -> Self {
        match error {
            EmitError::Refused(why) => Self::bad_request(why),
            EmitError::Conflict => Self::fixed(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "Idempotency-Key: used for another event; a new event needs a new key",
            ),
            EmitError::NotAllowed => Self::unavailable("emit_not_allowed", error.to_string()),
            EmitError::Busy => Self::unavailable("busy", error.to_string()),
            EmitError::Away => Self::unavailable("database_away", error.to_string()),
            EmitError::Unknown => Self::unavailable("outcome_unknown", error.to_string()),
        }
    }
}

impl Refusal {
    fn unavailable(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_subjects_for_one_organization() {
        let keys = [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("", "ab", "c")];
        let scoped = keys.map(|(subject, organization, key)| scoped(subject, organization, key.as_bytes()));
        for (at, key) in scoped.iter().enumerate() {
            assert!(scoped.iter().skip(at + 1).all(|other| other != key));
        }
    }

    #[test]
    fn a_key_is_given_once_and_can_be_seen() {
        let key = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, value.parse().unwrap());
            }
            key_of(&headers).map(|key| key.map(<[u8]>::to_vec)).map_err(|refusal| refusal.status())
        };
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&["\"8e03978e\""]), Ok(Some(b"\"8e03978e\"".to_vec())));
        let long = "x".repeat(256);
        for wrong in [&["a", "a"][..], &[""], &["a b"], &[&long]] {
            assert_eq!(key(wrong), Err(StatusCode::BAD_REQUEST), "{wrong:?}");
        }
    }
}
