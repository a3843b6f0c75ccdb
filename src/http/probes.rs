//! What operators ask: whether the process lives, whether it is ready and why not, its metrics.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::address::is_local;
use super::connection::Peer;
use super::query::Query;
use super::refusal::Refusal;
use super::state::State;
use crate::telemetry;
use crate::telemetry::metrics::CONTENT_TYPE as METRICS_TYPE;

/// The scope that lets a token read these from elsewhere.
pub(super) const STATS_SCOPE: &str = "walcast:stats";

/// The process lives; nothing is said about the database.
pub(super) async fn alive() -> Response {
    plain(StatusCode::OK, "ok")
}

/// One word: 503 where nobody is let in.
pub(super) async fn ready(Shared(state): Shared<Arc<State>>) -> Response {
    let standing = state.services.readiness.state();
    let status = if standing.is_admitting() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    plain(status, standing.word())
}

/// The word, and what the worker can't do, with the SQL that mends it.
pub(super) async fn reasons(Shared(state): Shared<Arc<State>>) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        state: &'static str,
        reasons: Vec<Reason<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<Reason<'a>>,
    }
    #[derive(Serialize)]
    struct Reason<'a> {
        reason: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        sql: Option<&'a str>,
    }
    impl<'a> Reason<'a> {
        fn of((reason, said): (&'a str, &'a telemetry::Reason)) -> Self {
            Self { reason, message: &said.text, sql: said.sql.as_deref() }
        }
    }
    let snapshot = state.services.readiness.snapshot();
    let answer = Answer {
        state: snapshot.state().word(),
        reasons: snapshot.reasons().map(Reason::of).collect(),
        warnings: snapshot.warnings().map(Reason::of).collect(),
    };
    uncached(Json(answer).into_response())
}

pub(super) async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let text = state.services.metrics.encode();
    uncached(([(CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

/// Lets pass who sits on this machine, or bears the scope.
pub(super) async fn guard(
    Shared(state): Shared<Arc<State>>,
    request: Request,
    next: axum::middleware::Next,
) -> Response {
    let (request, body) = request.into_parts();
    match may_see(&state, &request).await {
        Ok(()) => next.run(Request::from_parts(request, body)).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn may_see(state: &State, request: &Parts) -> Result<(), Refusal> {
    let Some(Peer(peer)) = request.extensions.get().copied() else {
        return Err(Refusal::INTERNAL);
    };
    if is_local(peer.ip(), &request.headers) {
        return Ok(());
    }
    let query = Query::read(request.uri.query())?;
    let principal = state.authenticate(&query, &request.headers).await?;
    if principal.has_scope(STATS_SCOPE) { Ok(()) } else { Err(Refusal::FORBIDDEN) }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    uncached((status, text).into_response())
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
