//! From a request for a stream to an open stream, or a refusal.
//!
//! The order of the checks decides what a refusal tells to whom. Who is nobody learns that (401), or that their query
//! names two credentials or is no text (400), and nothing else. Anybody known learns of their request's own mistakes
//! (400), then that the worker can't judge now. Whether an organization exists nobody learns: one that does not has
//! no members (403). Limits come last, since only who may open a stream can use one up.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use http::request::Parts;

use super::address::counted;
use super::delivery::Admitted;
use super::endpoint::Endpoint;
use super::frames::{self, Welcome};
use super::limits::AddressFull;
use super::parameters::{Begin, Parameters};
use super::query::Query;
use super::refusal::Refusal;
use super::state::State;
use super::stream_head;
use crate::access::{Membership, Principal};
use crate::catalog::OrganizationId;
use crate::hub::{Filter, Full, Pace, Start, Subscription};

const BUSY: Refusal = Refusal::transient("busy", "too many streams are being opened at once");

/// Somebody known, who asks for what they may have.
pub(super) struct Judged {
    principal: Principal,
    organization: Arc<str>,
    parameters: Parameters,
}

/// Everything that can be said without opening a stream.
pub(super) fn judge(state: &State, endpoint: &Endpoint, request: &Parts) -> Result<Judged, Refusal> {
    let query = Query::read(request.uri.query())?;
    let principal = state.authenticate(&query, &request.headers)?;
    let parameters = Parameters::read(endpoint, &query, &request.headers)?;
    state.check_open()?;
    let organization = match &parameters.organization {
        Some(organization) => Arc::clone(organization),
        None => default_organization(state, &principal)?,
    };
    let judged = Judged { principal, organization, parameters };
    judged.membership(state)?;
    Ok(judged)
}

/// What a preset takes when the request names no organization.
fn default_organization(state: &State, principal: &Principal) -> Result<Arc<str>, Refusal> {
    if let Some(organization) = &principal.default_organization {
        return Ok(Arc::clone(organization));
    }
    let mut organizations = state.memberships()?.organizations_of(principal).into_iter();
    match (organizations.next(), organizations.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(Refusal::bad_request(
            "organizationId: required, since the token does not say which organization",
        )),
    }
}

impl Judged {
    fn membership(&self, state: &State) -> Result<Membership, Refusal> {
        state.memberships()?.role_of(&self.organization, &self.principal).ok_or(Refusal::FORBIDDEN)
    }

    /// Takes a place and opens the stream.
    pub(super) async fn open(
        self,
        state: &State,
        endpoint: &Endpoint,
        peer: IpAddr,
        headers: &HeaderMap,
    ) -> Result<Admitted, Refusal> {
        if !state.limits.may_open(Instant::now()) {
            return Err(BUSY);
        }
        let organization = OrganizationId::new(&self.organization);
        let address = counted(state.proxies.client(peer, headers));
        let permit = state.limits.admit(address)?;
        let start = start(state, self.parameters.begin).await;
        // Again, for what was committed while the position was asked for.
        let membership = self.membership(state)?;
        let subscription = Subscription {
            organization: organization.clone(),
            user: self.principal.subject.to_string(),
            role: membership.role.clone(),
            filter: Filter {
                channels: self.parameters.channels.clone(),
                types: self.parameters.types,
                tags: self.parameters.tags,
            },
            start,
        };
        let stream = state.services.hub.open_within(subscription, state.stream_limits).await?;
        let stream = stream.paced(Pace::new(state.events_per_minute, self.parameters.interval));

        let connection_id = format!("{:032x}", random_id());
        let name = state.memberships()?.organization_name(&self.organization);
        let channels = self.parameters.channels.as_ref().unwrap_or(&endpoint.channels);
        let channels: Vec<&str> = channels.iter().map(AsRef::as_ref).collect();
        let mut first = stream_head::encode(&state.origins, headers);
        first.extend(frames::connected(
            stream.cursor(),
            &Welcome {
                connection_id: &connection_id,
                client_id: &connection_id,
                organization_id: &self.organization,
                organization: frames::Organization {
                    id: &self.organization,
                    name: name.as_deref(),
                    role: membership.role.as_deref(),
                },
                channels: &channels,
                resumed: stream.resumed(),
                message: "Real-time connection established",
            },
        ));
        Ok(Admitted {
            first,
            stream,
            organization,
            expires_at: self.principal.expires_at,
            keepalive: self.parameters.keepalive,
            permit,
        })
    }
}

async fn start(state: &State, begin: Begin) -> Start {
    match begin {
        Begin::Now => Start::Now(state.services.visibility.position().await),
        Begin::Earliest => Start::Earliest,
        Begin::After(id) => Start::After(id),
        Begin::Since(age) => Start::Since(age),
        Begin::Unreadable => Start::Unreadable,
    }
}

/// Not guessable: who knows a stream's id may come to control it.
fn random_id() -> u128 {
    let mut bytes = [0; 16];
    // aws-lc aborts rather than hand out bytes that are not random.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u128::from_ne_bytes(bytes)
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        Self::full(match full {
            Full::User => "you have too many streams open in this organization",
            Full::Streams => "the worker has too many streams open",
        })
    }
}

impl From<AddressFull> for Refusal {
    fn from(AddressFull: AddressFull) -> Self {
        Self::full("your address has too many streams open")
    }
}
