//! `GET /api/realtime/stats`: who listens to what on this node, of the caller's organizations; of all with the scope.
//!
//! Users are named to managers and admins of their organization only, and to who has the scope.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use serde::Serialize;

use super::endpoint::joined;
use super::probes::STATS_SCOPE;
use super::query::Query;
use super::refusal::Refusal;
use super::state::State;
use crate::catalog::OrganizationId;

/// Roles to which the users of their organization are named.
const OVERSEERS: [&str; 2] = ["admin", "manager"];

/// What a query may hold: who asks.
const PARAMETERS: [&str; 2] = ["token", "ticket"];

/// Channels whose streams are counted apart.
const HEATMAP: &str = "heatmap";
const ISSUES: &str = "issues";

/// The answer. Counts are of streams that are open now.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    total_connections: usize,
    /// Of them, those that are not about to end.
    active_connections: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_by_user: Option<BTreeMap<Arc<str>, usize>>,
    organizations: BTreeMap<String, Organization>,
    sse: Sse,
    websocket: Websocket,
    /// Every commit below it was published.
    position: String,
    /// Log that the database has written and the worker has not processed.
    lag_bytes: u64,
}

#[derive(Debug, Default, Serialize)]
struct Organization {
    connections: usize,
    /// Streams by channel; one without a channel filter counts for each.
    channels: BTreeMap<Arc<str>, usize>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sse {
    total_connections: usize,
    /// Streams that asked for the channel by name, or whose path does.
    heatmap_streams: usize,
    issue_streams: usize,
}

/// No stream of this server is one.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Websocket {
    total_connections: usize,
    rooms: usize,
}

pub(super) async fn stats(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    match try_stats(&state, &request).await {
        Ok(stats) => ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(stats)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn try_stats(state: &State, request: &Parts) -> Result<Stats, Refusal> {
    let query = Query::read(request.uri.query())?;
    let principal = state.authenticate(&query, &request.headers).await?;
    if let Some(name) = query.names().find(|name| !PARAMETERS.contains(name)) {
        let allowed = joined(&PARAMETERS);
        return Err(Refusal::bad_request(format!("{name}: unknown parameter; allowed are {allowed}")));
    }
    let memberships = state.memberships()?;
    let oversees_all = principal.has_scope(STATS_SCOPE);
    if !oversees_all && memberships.are_mirrored() {
        state.check_informed()?;
        // Who was made a member just now sees their organization, and who was one until just now does not. A worker that
        // can't come so far tells what it knows.
        state.services.visibility.visible().await;
    }
    let hub = &state.services.hub;
    let organizations: Vec<OrganizationId> = if oversees_all {
        hub.organizations().into_iter().map(|(organization, _)| organization).collect()
    } else {
        memberships.organizations_of(&principal).iter().map(|id| OrganizationId::new(id)).collect()
    };
    let mut stats = Stats {
        position: hub.journals().position().to_string(),
        lag_bytes: state.services.metrics.lag_bytes.get(),
        ..Stats::default()
    };
    for id in organizations {
        let role = memberships.role_of(id.as_str(), &principal).and_then(|membership| membership.role);
        let oversees = oversees_all || role.is_some_and(|role| OVERSEERS.contains(&&*role));
        stats.add(state, &id, oversees);
    }
    Ok(stats)
}

impl Stats {
    fn add(&mut self, state: &State, id: &OrganizationId, names_users: bool) {
        let mut by_user = names_users.then(|| self.connections_by_user.get_or_insert_default());
        let mut organization = Organization::default();
        let mut unfiltered = 0;
        for stream in state.services.hub.handles(id) {
            organization.connections += 1;
            self.active_connections += usize::from(!stream.is_ending());
            if let Some(by_user) = &mut by_user {
                *by_user.entry(stream.user().clone()).or_default() += 1;
            }
            let filter = stream.filter();
            let Some(channels) = &filter.channels else {
                unfiltered += 1;
                continue;
            };
            self.sse.heatmap_streams += usize::from(channels.contains(HEATMAP));
            self.sse.issue_streams += usize::from(channels.contains(ISSUES));
            for channel in channels {
                *organization.channels.entry(channel.clone()).or_default() += 1;
            }
        }
        if unfiltered > 0 {
            for channel in &state.services.vocabulary.channels {
                *organization.channels.entry(channel.clone()).or_default() += unfiltered;
            }
        }
        self.total_connections += organization.connections;
        self.sse.total_connections += organization.connections;
        self.organizations.insert(id.as_str().to_owned(), organization);
    }
}
