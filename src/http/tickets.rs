//! `POST /api/realtime/tickets`: a token that may travel in headers, for a ticket that may stand in a URL.
//!
//! Whoever is known by a token or a cookie gets one, for any of their organizations or, asked so, for one of them. A
//! ticket gets no other: what it stands for would outlive its half minute.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::admission::BEHIND;
use super::body;
use super::query::Query;
use super::refusal::Refusal;
use super::state::State;
use crate::access::{MintError, Ticket};

pub(super) const PATH: &str = "/api/realtime/tickets";

/// Bytes of a body: an organization's id and its name.
const MAX_BODY: usize = 4 << 10;

/// What may be asked for.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Asked {
    organization_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    ticket: &'a str,
    expires_in: u64,
}

pub(super) async fn mint(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    match minted(&state, &request, body).await {
        Ok(Ticket { text, expires_in }) => {
            let mut response = Json(Answer { ticket: &text, expires_in }).into_response();
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn minted(state: &State, request: &Parts, body: Body) -> Result<Ticket, Refusal> {
    let query = Query::read(request.uri.query())?;
    let principal = state.authenticate(&query, &request.headers).await?;
    let asked = read(&request.headers, body).await?;
    let organization = asked.organization_id.as_deref();
    if organization == Some("") {
        return Err(Refusal::bad_request("organizationId: the id of an organization, or left out"));
    }
    if let Some(organization) = organization {
        state.check_open()?;
        // Who was made a member just now may ask at once.
        let visible = state.services.visibility.visible().await;
        let known = visible.current || !state.memberships()?.are_mirrored();
        let unknown = if known { Refusal::FORBIDDEN } else { BEHIND };
        state.memberships()?.role_of(organization, &principal).ok_or(unknown)?;
    }
    Ok(state.services.authenticator.tickets().mint(&principal, organization)?)
}

/// No body asks for nothing in particular.
async fn read(headers: &HeaderMap, body: Body) -> Result<Asked, Refusal> {
    let body = body::read(headers, body, MAX_BODY).await?;
    if body.is_empty() {
        return Ok(Asked::default());
    }
    body::check_type(headers)?;
    // An array would be taken for the members in their order.
    let object = body.trim_ascii_start().starts_with(b"{");
    let asked = if object { serde_json::from_slice(&body).ok() } else { None };
    asked.ok_or(Refusal::bad_request("the body is {\"organizationId\": \"…\"} in JSON, {}, or nothing"))
}

impl From<MintError> for Refusal {
    fn from(error: MintError) -> Self {
        match error {
            MintError::TooMany => Self::TOO_MANY_TICKETS,
            MintError::TooLarge => Self::bad_request(
                "organizationId: required, since what the token says of all organizations does not fit into a ticket",
            ),
            MintError::Random => Self::INTERNAL,
        }
    }
}
