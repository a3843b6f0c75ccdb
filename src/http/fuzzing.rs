//! What a fuzzer is given of this module: a query and a `Last-Event-ID`, as a client would send them.

use http::{HeaderMap, HeaderValue};

use super::endpoint::{Endpoint, Vocabulary};
use super::parameters::Parameters;
use super::query::Query;
use crate::config::{Channels, Preset};

/// Reads them on the native path and on a preset of any shape.
///
/// # Panics
/// When the fixed endpoints can't be made.
#[expect(clippy::unwrap_used, reason = "the endpoints are fixed")]
pub fn read_request(query: &str, last_event_id: &[u8]) {
    let preset: Preset = toml::from_str(
        "path = '/p'\nchannels = ['issues', 'custom']\nparameters = { statuses = 'status' }\nkeepalive = { type = 'beat' }",
    )
    .unwrap();
    let vocabulary = Vocabulary::new(["issues", "lots"], ["priority", "status"], &Channels::default());
    let endpoints = Endpoint::all(&vocabulary, &[preset], &[]).unwrap();
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(last_event_id) {
        headers.insert("last-event-id", value);
    }
    let Ok(query) = Query::read(Some(query)) else { return };
    for endpoint in &endpoints {
        match Parameters::read(endpoint, &query, &headers) {
            Ok(read) => assert!(!endpoint.native || read.organization.is_some_and(|id| !id.is_empty())),
            Err(refusal) => assert!(!refusal.message().is_empty()),
        }
    }
}
