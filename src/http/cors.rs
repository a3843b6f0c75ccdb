//! Cross-origin answers (the Fetch standard, section 3.3): by allow-list, with credentials, on errors too.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use std::sync::Arc;

use crate::access::Origins;

/// Seconds for which a browser need not ask again.
const MAX_AGE: &str = "600";

/// The headers of every answer to a request with these headers.
pub(super) fn headers(origins: &Origins, request: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![(VARY, HeaderValue::from_static("Origin"))];
    if let Some(origin) = origins.listed(request) {
        headers.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
        headers.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        headers.push((ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after")));
    }
    headers
}

/// Adds them to what passes.
pub(super) async fn layer(State(origins): State<Arc<Origins>>, request: Request, next: Next) -> Response {
    let mut added = headers(&origins, request.headers());
    let is_preflight = request.method() == Method::OPTIONS && origins.listed(request.headers()).is_some();
    if is_preflight {
        for (name, value) in [
            (
                ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, cache-control, content-type, idempotency-key, last-event-id",
            ),
            (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ] {
            added.push((name, HeaderValue::from_static(value)));
        }
    }
    let mut response = next.run(request).await;
    // What the path takes is known to the path.
    if let Some(methods) = response.headers().get(ALLOW).filter(|_| is_preflight) {
        added.push((ACCESS_CONTROL_ALLOW_METHODS, methods.clone()));
    }
    for (name, value) in added {
        response.headers_mut().append(name, value);
    }
    response
}
