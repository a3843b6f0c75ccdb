//! What every request and every stream of the server shares.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::address::TrustedProxies;
use super::endpoint::Vocabulary;
use super::limits::Limits;
use super::live;
use super::lobby::Lobby;
use super::places::Places;
use super::query::Query;
use super::recheck::Recheck;
use super::refusal::Refusal;
use super::registry::Registry;
use crate::access::{Authenticator, Claim, Credential, Memberships, Origins, Principal, TokenError};
use crate::config;
use crate::emit::Emitter;
use crate::hub::{self, Hub};
use crate::live::Live;
use crate::presence::Presence;
use crate::source;
use crate::telemetry::{Freshness, Metrics, Readiness, State as Standing};

/// Tells the position all of whose commits a new snapshot of the database sees, and whether the worker is behind.
///
/// Decoding runs ahead of visibility: a stream that starts "now" starts there, so that who connects and then reads
/// the database misses nothing. An older position is right too.
pub trait Visibility: Send + Sync {
    fn visible(&self) -> Pin<Box<dyn Future<Output = source::Visible> + Send + '_>>;
}

impl Visibility for source::Visibility {
    fn visible(&self) -> Pin<Box<dyn Future<Output = source::Visible> + Send + '_>> {
        Box::pin(self.visible())
    }
}

/// What the server is built over.
pub struct Services {
    pub authenticator: Authenticator,
    /// Set once the database is known; nobody is let in before.
    pub memberships: Arc<OnceLock<Memberships>>,
    /// Set once the database is known.
    pub emitter: Arc<OnceLock<Arc<Emitter>>>,
    pub live: Live,
    pub vocabulary: Vocabulary,
    pub hub: Arc<Hub>,
    pub visibility: Arc<dyn Visibility>,
    pub presence: Arc<Presence>,
    pub readiness: Readiness,
    pub freshness: Freshness,
    pub metrics: Metrics,
}

/// Where the server stands; it only moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// Streams end, spread until then.
    Draining {
        until: Instant,
    },
    /// Whatever is still open ends now.
    Closed,
}

pub(super) struct State {
    pub(super) http: config::Http,
    pub(super) services: Services,
    pub(super) origins: Arc<Origins>,
    pub(super) proxies: TrustedProxies,
    pub(super) limits: Arc<Limits>,
    pub(super) registry: Arc<Registry>,
    pub(super) recheck: Arc<Recheck>,
    /// Events that are being emitted, by subject.
    pub(super) emits: Arc<Places<Arc<str>>>,
    /// Subjects that may emit for every organization; empty: none is told apart.
    pub(super) emitters: BTreeSet<String>,
    /// Bytes of a request to emit.
    pub(super) max_emit: usize,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) lobby: Arc<Lobby>,
    pub(super) connections: live::Live,
    pub(super) streams: live::Live,
    pub(super) max_staleness: Duration,
    /// From when on streams are told that what they show is old.
    pub(super) stale_after: Duration,
    /// How long an event can be replayed, at most.
    pub(super) max_age: Duration,
    /// What is sent to one stream, at most; 0 is no limit.
    pub(super) events_per_minute: u32,
    pub(super) stream_limits: hub::Limits,
}

impl State {
    /// Moves on, and lets every stream see it.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
        self.services.hub.wake_all();
    }

    /// Who asks.
    pub(super) async fn authenticate(
        &self,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Principal, Refusal> {
        let credential = self.credential(query, headers)?;
        let principal = self.services.authenticator.judge(&credential).await;
        let principal = principal.inspect_err(|error| refused(&credential, error))?;
        self.check_origin(&credential, headers)?;
        Ok(principal)
    }

    /// Who asks for a stream; a ticket is to be redeemed before it opens.
    pub(super) async fn authenticate_for_stream(
        &self,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<(Principal, Option<Claim>), Refusal> {
        let credential = self.credential(query, headers)?;
        let judged = self.services.authenticator.judge_for_stream(&credential).await;
        let judged = judged.inspect_err(|error| refused(&credential, error))?;
        self.check_origin(&credential, headers)?;
        Ok(judged)
    }

    fn credential<'a>(&self, query: &'a Query, headers: &'a HeaderMap) -> Result<Credential<'a>, Refusal> {
        let (ticket, token) = (query.scalar("ticket")?, query.scalar("token")?);
        Ok(self.services.authenticator.choose(headers, ticket, token)?)
    }

    fn check_origin(&self, credential: &Credential<'_>, headers: &HeaderMap) -> Result<(), Refusal> {
        if credential.is_ambient() && !self.origins.admits_ambient(headers) {
            return Err(Refusal::ORIGIN);
        }
        Ok(())
    }

    /// Of whom a token speaks, whatever carried it.
    pub(super) async fn authenticate_token(&self, token: &str) -> Result<Principal, Refusal> {
        let principal = self.services.authenticator.authenticate(token).await;
        Ok(principal.inspect_err(|error| tracing::debug!(%error, "token refused"))?)
    }

    pub(super) fn memberships(&self) -> Result<&Memberships, Refusal> {
        self.services.memberships.get().ok_or(STARTING)
    }

    pub(super) fn emitter(&self) -> Result<&Arc<Emitter>, Refusal> {
        self.services.emitter.get().ok_or(STARTING)
    }

    /// Whether memberships are known, be they of a while ago.
    pub(super) fn check_informed(&self) -> Result<(), Refusal> {
        match self.services.readiness.snapshot().state() {
            Standing::Starting => Err(STARTING),
            Standing::Standby => Err(STANDBY),
            Standing::Ready | Standing::Degraded | Standing::SourceDown | Standing::Draining => Ok(()),
        }
    }

    /// Whether somebody new may be let in now.
    pub(super) fn check_open(&self) -> Result<(), Refusal> {
        if *self.phase.borrow() != Phase::Serving {
            return Err(DRAINING);
        }
        let snapshot = self.services.readiness.snapshot();
        match snapshot.state() {
            Standing::Starting => Err(STARTING),
            Standing::Standby => Err(STANDBY),
            Standing::Draining => Err(DRAINING),
            Standing::SourceDown if snapshot.source_away().is_some_and(|away| away > self.max_staleness) => {
                Err(Refusal::transient(
                    "stale",
                    "the database has been away for too long to judge by what is known",
                ))
            }
            Standing::Ready | Standing::Degraded | Standing::SourceDown => Ok(()),
        }
    }
}

fn refused(credential: &Credential<'_>, error: &TokenError) {
    tracing::debug!(?credential, %error, "credential refused");
}

const STARTING: Refusal = Refusal::transient("starting", "the worker is starting");
const STANDBY: Refusal = Refusal::transient("standby", "another worker is serving");
const DRAINING: Refusal = Refusal::transient("draining", "the worker is stopping");
