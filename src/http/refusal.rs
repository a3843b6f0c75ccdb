//! Where a refusal becomes an answer: the one place that knows status codes of errors.
//!
//! An answer names what the caller may know and nothing else: the same for every organization, existing or not. What
//! passes by itself is, for an `EventSource`, a 200 that ends: at any other status a browser gives up for good.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;

use crate::access::{CredentialError, TokenError};

/// Bytes of a message: enough for the names of many channels.
const MAX_MESSAGE: usize = 4000;

/// How long who met a full limit is asked to wait.
const LIMIT_RETRY: Duration = Duration::from_secs(10);

/// Milliseconds within which those who were told to come back do, so that not all come at once.
const COME_BACK_MILLIS: std::ops::RangeInclusive<u64> = 1000..=5000;

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    /// It will pass by itself.
    passing: bool,
}

/// The wire form.
#[derive(Serialize)]
struct Answer<'a> {
    error: &'a str,
    message: &'a str,
}

impl Refusal {
    pub(super) const fn fixed(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message: Cow::Borrowed(message), passing: false }
    }

    const fn passing(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message: Cow::Borrowed(message), passing: true }
    }

    pub(super) const NOT_FOUND: Self =
        Self::fixed(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path");
    pub(super) const METHOD_NOT_ALLOWED: Self = Self::fixed(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path does not take this method",
    );
    pub(super) const URI_TOO_LONG: Self =
        Self::fixed(StatusCode::URI_TOO_LONG, "uri_too_long", "the path and query have more than 8192 bytes");
    pub(super) const FORBIDDEN: Self =
        Self::fixed(StatusCode::FORBIDDEN, "forbidden", "you may not read this, or it does not exist");
    pub(super) const ORIGIN: Self = Self::fixed(
        StatusCode::FORBIDDEN,
        "origin_not_allowed",
        "a cookie does not count from this origin, which http.allowed_origins does not list; a token does",
    );
    /// Also for somebody else's: which there are is nobody's business.
    pub(super) const NO_STREAM: Self =
        Self::fixed(StatusCode::NOT_FOUND, "not_found", "you have no open stream of this id");
    pub(super) const OTHER_NODE: Self = Self::fixed(
        StatusCode::MISDIRECTED_REQUEST,
        "other_node",
        "this stream is, or was, on another node, which alone can change it",
    );
    pub(super) const NOT_JSON: Self = Self::fixed(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "the body has to be JSON: Content-Type: application/json",
    );
    pub(super) const TOO_MANY_TICKETS: Self =
        Self::fixed(StatusCode::TOO_MANY_REQUESTS, "too_many_tickets", "you have asked for too many tickets");
    pub(super) const INTERNAL: Self =
        Self::fixed(StatusCode::INTERNAL_SERVER_ERROR, "internal", "this should not have happened");

    pub(super) fn of(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), passing: false }
    }

    pub(super) fn too_large(most: usize) -> Self {
        let message = format!("the body has more than {most} bytes");
        Self::of(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// `message` names the parameter and what is allowed. What a request says may be in it, so it is cut.
    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            let end = message.floor_char_boundary(MAX_MESSAGE);
            message.to_mut().truncate(end);
            message.to_mut().push('…');
        }
        Self::of(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// A limit is met; `message` says which.
    pub(super) fn full(message: String) -> Self {
        Self::of(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", message)
    }

    /// The worker can't serve it now; `code` is a word of readiness, or why.
    pub(super) const fn transient(code: &'static str, message: &'static str) -> Self {
        Self::passing(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// A rate is exceeded for the moment; `message` says which.
    pub(super) const fn too_fast(message: &'static str) -> Self {
        Self::passing(StatusCode::TOO_MANY_REQUESTS, "busy", message)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer to a request for a stream.
    pub(super) fn answer(self, request: &HeaderMap) -> Response {
        if self.passing && accepts_event_stream(request) { self.ended_stream() } else { self.into_response() }
    }

    fn ended_stream(&self) -> Response {
        let body = format!(": {}\nretry: {}\n\n", self.code, fastrand::u64(COME_BACK_MILLIS));
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    fn retry_after(&self) -> Option<Duration> {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS if !self.passing => Some(LIMIT_RETRY),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Some(Duration::from_millis(fastrand::u64(COME_BACK_MILLIS)))
            }
            _ => None,
        }
    }
}

impl From<CredentialError> for Refusal {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Missing => Self::fixed(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "a token is needed: Authorization: Bearer, or the parameter token or ticket",
            ),
            CredentialError::Unusable => Self::from(TokenError::Malformed),
        }
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired => {
                Self::fixed(StatusCode::UNAUTHORIZED, "token_expired", "the token has expired")
            }
            TokenError::Unavailable(_) => {
                Self::transient("credentials", "the worker can't judge credentials of this kind now")
            }
            TokenError::Used | TokenError::TicketOnly => Self::fixed(
                StatusCode::UNAUTHORIZED,
                "invalid_token",
                "a ticket opens one stream and nothing else: ask for another one",
            ),
            // What is wrong with a token helps only who forges one.
            _ => Self::fixed(StatusCode::UNAUTHORIZED, "invalid_token", "the token is not valid"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response =
            (self.status, Json(Answer { error: self.code, message: &self.message })).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Whether the client names `text/event-stream` in `Accept`, as every `EventSource` does.
fn accepts_event_stream(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = values.flat_map(|value| value.split(',')).filter_map(|part| part.split(';').next());
    types.any(|name| name.trim().eq_ignore_ascii_case("text/event-stream"))
}
