//! From a request for a stream to an open stream, or a refusal.
//!
//! The order of the checks decides what a refusal tells to whom. Who is nobody learns that (401), or that their query
//! names two credentials or is no text (400), and nothing else. Anybody known learns of their request's own mistakes
//! (400), then that the worker can't judge now. Whether an organization exists nobody learns: one that does not has
//! no members (403). Limits come last, since only who may open a stream can use one up.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;

use super::address::counted;
use super::delivery::Admitted;
use super::endpoint::Endpoint;
use super::expiry::Expiry;
use super::frames::{self, Welcome};
use super::limits::AddressFull;
use super::parameters::{Begin, Parameters};
use super::query::Query;
use super::refusal::Refusal;
use super::registry::{ConnectionId, Entry, Registered};
use super::state::State;
use super::stream_head;
use super::view::View;
use crate::access::{Claim, Membership, Principal, TokenError};
use crate::catalog::OrganizationId;
use crate::hub::{self, Filter, Full, Pace, Start, StreamHandle, Subscription};
use crate::postgres::Lsn;
use crate::presence;

pub(super) const BEHIND: Refusal =
    Refusal::transient("behind", "the worker has yet to read what is committed by now");
const BUSY: Refusal = Refusal::too_fast("too many streams are being opened at once");

/// Somebody known, who asks for what they may have.
pub(super) struct Judged {
    principal: Principal,
    /// To be used up by the stream.
    ticket: Option<Claim>,
    organization: Arc<str>,
    parameters: Parameters,
    /// All of whose commits a reader of the database sees since the request came.
    visible: Lsn,
}

/// What an open stream is known by.
struct Entered {
    registered: Registered,
    connection_id: ConnectionId,
    expiry: Arc<Expiry>,
    /// Who is online, for who asks for it.
    online: Option<[Bytes; 2]>,
}

/// Everything that can be said without opening a stream.
pub(super) async fn judge(state: &State, endpoint: &Endpoint, request: &Parts) -> Result<Judged, Refusal> {
    let query = Query::read(request.uri.query())?;
    let (principal, ticket) = state.authenticate_for_stream(&query, &request.headers).await?;
    let parameters = Parameters::read(endpoint, &query, &request.headers)?;
    state.check_open()?;
    // The worker is given a moment to come to what is committed by now: a new member may connect at once, and who was
    // one until just now gets nothing. Whether or not the organization exists, it takes as long.
    let visible = state.services.visibility.visible().await;
    let organization = place(state, &principal, &parameters);
    // What is not known yet may let them in: they are not sent away for good.
    let known = visible.current || !state.memberships()?.are_mirrored();
    let organization = if known { organization? } else { organization.map_err(|_| BEHIND)? };
    Ok(Judged { principal, ticket, organization, parameters, visible: visible.position })
}

/// The organization that is meant, of which the principal is a member.
fn place(state: &State, principal: &Principal, parameters: &Parameters) -> Result<Arc<str>, Refusal> {
    let organization = match &parameters.organization {
        Some(organization) => Arc::clone(organization),
        None => default_organization(state, principal)?,
    };
    state.memberships()?.role_of(&organization, principal).ok_or(Refusal::FORBIDDEN)?;
    Ok(organization)
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

    /// Judges a registered stream once more: a change that was processed before was judged without it. What is
    /// processed after this looked is judged with it.
    fn settle(&self, state: &State, stream: &StreamHandle) -> Result<Membership, Refusal> {
        loop {
            let membership = self.membership(state)?;
            if membership.role == stream.role() {
                return Ok(membership);
            }
            stream.set_role(membership.role);
        }
    }

    fn subscription(&self, membership: &Membership) -> Subscription {
        Subscription {
            organization: OrganizationId::new(&self.organization),
            user: self.principal.subject.to_string(),
            role: membership.role.clone(),
            filter: Filter {
                channels: self.parameters.channels.clone(),
                types: self.parameters.types.clone(),
                tags: self.parameters.tags.clone(),
            },
            start: match self.parameters.begin {
                Begin::Now => Start::Now(self.visible),
                Begin::Earliest => Start::Earliest,
                Begin::After(id) => Start::After(id),
                Begin::Since(age) => Start::Since(age),
                Begin::Unreadable => Start::Unreadable,
            },
        }
    }

    /// Makes an open stream known: to its organization, to who looks at its session again, and by its id.
    fn enter(&self, state: &State, endpoint: &Arc<Endpoint>, handle: StreamHandle) -> Entered {
        let present = state.services.presence.enter(&handle);
        let asks = names_presence(self.parameters.channels.as_ref());
        let online = asks.then(|| present.online(&handle));
        let expiry = Expiry::new(self.principal.expires_at);
        let session = self.principal.session.clone();
        let watching =
            session.and_then(|session| state.recheck.watch(session, handle.clone(), Arc::clone(&expiry)));
        let entry = Entry {
            handle,
            endpoint: Arc::clone(endpoint),
            expiry: Arc::clone(&expiry),
            present,
            _watching: watching,
        };
        let connection_id = state.registry.new_id();
        let registered = state.registry.register(connection_id, entry);
        Entered { registered, connection_id, expiry, online }
    }

    /// Takes a place and opens the stream.
    pub(super) async fn open(
        self,
        state: &State,
        endpoint: &Arc<Endpoint>,
        peer: IpAddr,
        headers: &HeaderMap,
    ) -> Result<Admitted, Refusal> {
        if !state.limits.may_open(Instant::now()) {
            return Err(BUSY);
        }
        let address = counted(state.proxies.client(peer, headers));
        let mut permit = state.limits.admit(address).map_err(|AddressFull| {
            let most = state.limits.streams_per_address;
            Refusal::full(format!("your address has as many streams open as one may: {most}"))
        })?;
        let membership = self.membership(state)?;
        let subscription = self.subscription(&membership);
        // The last that can refuse by itself: a ticket is not lost to what would pass.
        if let Some(ticket) = self.ticket {
            state.services.authenticator.tickets().redeem(ticket)?;
        }
        let stream = state.services.hub.open_within(subscription, state.stream_limits).await;
        let stream = stream.map_err(|full| too_many(full, state.stream_limits))?;
        let stream = match endpoint.live {
            // Its events are not sent.
            Some(_) => stream,
            None => stream.paced(Pace::new(state.events_per_minute, self.parameters.interval)),
        };
        let membership = self.settle(state, &stream.handle())?;
        permit.hold(&stream.handle());

        // Finding the place may have taken a moment.
        if self.principal.remaining(SystemTime::now()).is_zero() {
            return Err(TokenError::Expired.into());
        }
        let Entered { registered, connection_id, expiry, online } =
            self.enter(state, endpoint, stream.handle());
        let connection_id = connection_id.to_string();
        let name = state.memberships()?.organization_name(&self.organization);
        let organization = frames::Organization {
            id: &self.organization,
            name: name.as_deref(),
            role: membership.role.as_deref(),
        };
        let channels = self.parameters.channels.as_ref().unwrap_or(&endpoint.channels);
        let channels: Vec<&str> = channels.iter().map(AsRef::as_ref).collect();
        let welcome = Welcome::new(&connection_id, organization, &channels, stream.resumed());
        let head = stream_head::encode(&state.origins, headers);
        let first = frames::connected(head, stream.cursor(), &welcome, online);
        let view = endpoint.live.as_ref().map(|showing| {
            let (interval, patience) = (self.parameters.interval, state.stale_after);
            View::new(showing, &state.services.live, stream.handle(), interval, patience)
        });
        Ok(Admitted { first, stream, expiry, keepalive: self.parameters.keepalive, permit, registered, view })
    }
}

/// By name: the list of who is online grows with the crowd, and is not for everybody who listens to everything.
pub(super) fn names_presence(channels: Option<&BTreeSet<Arc<str>>>) -> bool {
    channels.is_some_and(|names| names.contains(presence::CHANNEL))
}

fn too_many(full: Full, limits: hub::Limits) -> Refusal {
    Refusal::full(match full {
        Full::User => {
            let most = limits.streams_per_user;
            format!("you have as many streams open in this organization as one user may: {most}")
        }
        Full::Streams => "the worker has as many streams open as it may".to_owned(),
    })
}
