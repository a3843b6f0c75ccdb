//! The head of a stream's answer: as bytes for a socket taken from the HTTP server, as a response for HEAD.

use std::convert::Infallible;
use std::time::SystemTime;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, REFERRER_POLICY};
use http::{HeaderMap, HeaderValue};

use super::cors;
use crate::access::Origins;

/// `X-Accel-Buffering` keeps nginx from collecting frames before it passes them on.
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_TYPE, "text/event-stream"),
    (CACHE_CONTROL, "no-cache, no-transform"),
    (HeaderName::from_static("x-accel-buffering"), "no"),
    // Its URL may hold a token.
    (REFERRER_POLICY, "no-referrer"),
    // The body ends where the connection ends.
    (CONNECTION, "close"),
];

/// The status line and headers, up to the body.
pub(super) fn encode(origins: &Origins, request: &HeaderMap) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    let mut line = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    };
    for (name, value) in &HEADERS {
        line(name.as_str(), value.as_bytes());
    }
    for (name, value) in cors::headers(origins, request) {
        line(name.as_str(), value.as_bytes());
    }
    line("date", httpdate::fmt_http_date(SystemTime::now()).as_bytes());
    head.extend_from_slice(b"\r\n");
    head
}

/// The answer to HEAD; what every answer carries is added on its way out.
pub(super) fn response() -> Response {
    // Of no known length: an empty body would be announced as one.
    let body = stream::empty::<Result<Bytes, Infallible>>();
    let mut response = Response::new(Body::from_stream(body));
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
