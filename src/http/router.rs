//! What is where.

use std::sync::Arc;

use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post, put};
use axum::{Router, middleware::Next};
use http::header::{ALLOW, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, StatusCode};

use super::admission;
use super::connection::{Handover, Peer};
use super::console;
use super::control;
use super::cors;
use super::emit;
use super::endpoint::{Endpoint, NATIVE};
use super::probes;
use super::refusal::Refusal;
use super::state::State;
use super::stats;
use super::stream_head;
use super::tickets;
use crate::telemetry::metrics::Outcome;

/// Methods of a path that is only read, and of the one whose streams can be changed without an id in the path.
const READ: &str = "GET, HEAD, OPTIONS";
const CONTROLLED: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

const STATS: &str = "/api/realtime/stats";

/// One open stream.
const STREAM: &str = "/api/realtime/stream/{connectionId}";

/// Bytes of the longest path and query.
const MAX_TARGET: usize = 8 << 10;

/// Paths that no preset can have.
pub(super) const TAKEN: [&str; 9] =
    ["/", "/health", "/healthz", "/readyz", "/readyz/reasons", "/metrics", STATS, emit::PATH, tickets::PATH];

/// The paths of `http.listen`.
pub(super) fn public(state: &Arc<State>, endpoints: &[Arc<Endpoint>]) -> Router {
    let guarded = from_fn_with_state(Arc::clone(state), probes::guard);
    let mut router = Router::new()
        .route("/", readable(console::page))
        .merge(probes(state))
        .merge(guarded_probes(state).route_layer(guarded))
        .route(emit::PATH, emits(state));
    for endpoint in endpoints {
        let (state, endpoint) = (Arc::clone(state), Arc::clone(endpoint));
        let path = endpoint.path.clone();
        let methods = if endpoint.native { CONTROLLED } else { READ };
        let open = move |request: Request| {
            let (state, endpoint) = (Arc::clone(&state), Arc::clone(&endpoint));
            async move { stream(&state, &endpoint, request).await }
        };
        router = router.route(&path, get(open).options(move || allow(methods)));
    }
    let own = Router::new()
        // Beside the GET that opens one.
        .route(NATIVE, post(control::change).put(control::change).delete(control::close))
        .route(
            STREAM,
            put(control::change).delete(control::close).options(|| allow("PUT, DELETE, OPTIONS")),
        )
        .route(STATS, readable(stats::stats))
        .route(tickets::PATH, post(tickets::mint).options(|| allow("POST, OPTIONS")))
        .with_state(Arc::clone(state));
    finished(router.merge(own)).layer(from_fn_with_state(Arc::clone(&state.origins), cors::layer))
}

/// The paths of `http.admin_listen`.
pub(super) fn admin(state: &Arc<State>) -> Router {
    finished(probes(state).merge(guarded_probes(state)))
}

fn probes(state: &Arc<State>) -> Router {
    Router::new()
        .route("/health", readable(probes::alive))
        .route("/healthz", readable(probes::alive))
        .route("/readyz", readable(probes::ready))
        .with_state(Arc::clone(state))
}

fn guarded_probes(state: &Arc<State>) -> Router {
    Router::new()
        .route("/readyz/reasons", readable(probes::reasons))
        .route("/metrics", readable(probes::metrics))
        .with_state(Arc::clone(state))
}

fn finished(router: Router) -> Router {
    router
        .fallback(|| async { Refusal::NOT_FOUND })
        .method_not_allowed_fallback(|| async { Refusal::METHOD_NOT_ALLOWED })
        .layer(from_fn(bounded))
        .layer(from_fn(hardened))
}

/// GET and HEAD by the handler, OPTIONS by what is allowed.
fn readable<H, T, S>(handler: H) -> MethodRouter<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    get(handler).options(|| allow(READ))
}

fn allow(methods: &'static str) -> impl Future<Output = impl IntoResponse> + Send {
    std::future::ready((StatusCode::NO_CONTENT, [(ALLOW, methods)]))
}

fn emits(state: &Arc<State>) -> MethodRouter {
    let state = Arc::clone(state);
    let emit = move |request: Request| async move { emit::emit(&state, request).await };
    post(emit).options(|| allow("POST, OPTIONS"))
}

/// Refuses what nobody writes by hand and no front end needs.
async fn bounded(request: Request, next: Next) -> Response {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET { Refusal::URI_TOO_LONG.into_response() } else { next.run(request).await }
}

/// What every answer says to browsers: it is of no other type than it says, and its URL, which may hold a token, is
/// nobody else's business.
async fn hardened(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Opens a stream. It returns only when there is none: an opened one takes the connection.
async fn stream(state: &State, endpoint: &Arc<Endpoint>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    match open(state, endpoint, &request).await {
        Ok(response) => response,
        Err(refusal) => {
            state.services.metrics.opened(outcome(&refusal));
            refusal.answer(&request.headers)
        }
    }
}

async fn open(
    state: &State,
    endpoint: &Arc<Endpoint>,
    request: &http::request::Parts,
) -> Result<Response, Refusal> {
    let judged = admission::judge(state, endpoint, request).await?;
    if request.method == Method::HEAD {
        return Ok(stream_head::response());
    }
    let (Some(Peer(peer)), Some(handover)) = (request.extensions.get(), request.extensions.get::<Handover>())
    else {
        return Err(Refusal::INTERNAL);
    };
    let admitted = judged.open(state, endpoint, peer.ip(), &request.headers).await?;
    let resumed = admitted.stream.resumed();
    state.services.metrics.opened(if resumed { Outcome::resumed } else { Outcome::opened });
    handover.hand_over(admitted).await;
    Err(Refusal::INTERNAL)
}

fn outcome(refusal: &Refusal) -> Outcome {
    match refusal.status() {
        StatusCode::UNAUTHORIZED => Outcome::unauthorized,
        StatusCode::FORBIDDEN => Outcome::forbidden,
        StatusCode::TOO_MANY_REQUESTS => Outcome::limited,
        StatusCode::BAD_REQUEST => Outcome::bad_request,
        _ => Outcome::unavailable,
    }
}
