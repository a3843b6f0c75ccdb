//! The body of a request: JSON, bounded in size and in time.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::refusal::Refusal;

/// Bytes of a body, at most.
const MAX_BODY: usize = 64 << 10;

/// How long a client may take to send one.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The whole body, which says that it is JSON. Not yet looked into.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    if !is_json(headers) {
        return Err(Refusal::NOT_JSON);
    }
    let whole = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    match whole {
        Err(_) => Err(Refusal::TOO_SLOW),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TOO_LARGE),
        Ok(Err(_)) => Err(Refusal::bad_request("the body broke off")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

/// `application/json`, whatever its parameters (RFC 8259 section 11 has none). No other type that a page may send
/// without asking first.
fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let name = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// The members of a JSON object in their order, each once, their values not yet read: so that a mistake can be told by
/// its name, and nothing is built that is not wanted.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// `what` is what the object is called in a message.
    pub(super) fn read(what: &str, text: &'a [u8]) -> Result<Self, Refusal> {
        let members: Self = serde_json::from_slice(text)
            .map_err(|error| Refusal::bad_request(format!("{what}: a JSON object is needed: {error}")))?;
        let mut names: Vec<&str> = members.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair.first() == pair.last()).and_then(<[_]>::first) {
            Some(name) => Err(Refusal::bad_request(format!("{what}: {name} is given more than once"))),
            None => Ok(members),
        }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (String, &'a RawValue)> {
        self.0.into_iter()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object).map(Members)
    }
}
