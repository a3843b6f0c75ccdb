//! The listeners, and how a server stops.
//!
//! A stopping server goes on listening while its streams are told to leave: probes and whoever connects are told
//! that it is draining, instead of finding nobody.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::address::{InvalidNetwork, TrustedProxies, counted};
use super::connection;
use super::descriptors;
use super::emit;
use super::endpoint::{Endpoint, InvalidPreset};
use super::limits::Limits;
use super::live::Live;
use super::lobby::Lobby;
use super::places::Places;
use super::recheck::{self, Recheck};
use super::registry::Registry;
use super::router;
use super::state::{Phase, Services, State};
use crate::access::{Origins, OriginsError};
use crate::config::{Config, WhenFull};
use crate::hub;
use crate::telemetry;

/// How long requests in hand may take when everything else has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Connections that wait to be accepted, as far as the system lets them (net.core.somaxconn). Who finds no place is not
/// told: their first packet is dropped, and they try again after 1 s, 3 s, 7 s, … A crowd comes when a worker restarts.
const BACKLOG: i32 = 4096;

/// How long to let the process be when it has no descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The HTTP server, bound and not yet serving.
pub struct Server {
    pub(super) state: Arc<State>,
    public: Front,
    admin: Option<Front>,
}

struct Front {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Origins(#[from] OriginsError),
    #[error(transparent)]
    Proxies(#[from] InvalidNetwork),
    #[error(transparent)]
    Preset(#[from] InvalidPreset),
    #[error("{setting} {address}")]
    Bind { setting: &'static str, address: SocketAddr, source: io::Error },
}

impl Server {
    /// Checks the configuration and takes the addresses.
    ///
    /// # Errors
    /// When something is configured that can't be served, or an address can't be had.
    pub async fn bind(config: &Config, services: Services) -> Result<Self, ServerError> {
        let endpoints = Endpoint::all(&services.vocabulary, &config.presets, &services.live, &router::TAKEN)?;
        let shares = descriptors::share_out(config.limits.streams);
        let state = Arc::new(State {
            http: config.http.clone(),
            services,
            origins: Arc::new(Origins::new(&config.http.allowed_origins)?),
            proxies: TrustedProxies::new(&config.http.trusted_proxies)?,
            limits: Limits::new(&config.limits),
            registry: Registry::new(),
            recheck: Recheck::new(config.access.session_recheck),
            emits: Places::new(emit::IN_HAND.0, emit::IN_HAND.1),
            emitters: config.access.emitters.iter().cloned().collect(),
            max_emit: usize::try_from(config.journal.max_event.0)
                .unwrap_or(emit::MAX_BODY)
                .min(emit::MAX_BODY),
            phase: watch::Sender::new(Phase::Serving),
            lobby: Lobby::new(shares.guests, config.limits.streams_per_address != 0),
            connections: Live::new(),
            streams: Live::new(),
            max_staleness: config.access.max_staleness,
            stale_after: config.canary.stale_after,
            max_age: config.replay.max_age,
            events_per_minute: config.limits.events_per_minute,
            stream_limits: hub::Limits {
                streams: shares.streams,
                streams_per_user: config.limits.streams_per_user,
                evict_oldest: config.limits.when_full == WhenFull::EvictOldest,
            },
        });
        let router = router::public(&state, &endpoints);
        let public = Front::bind("http.listen", config.http.listen, router).await?;
        let admin = match config.http.admin_listen {
            Some(address) => Some(Front::bind("http.admin_listen", address, router::admin(&state)).await?),
            None => None,
        };
        Ok(Self { state, public, admin })
    }

    /// The address of `http.listen`, its port chosen when the configured one is 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.public.address
    }

    /// The address of `http.admin_listen`.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|front| front.address)
    }

    /// Serves until `shutdown`, then drains: returns when every stream was told and closed, at the latest shortly
    /// after `http.drain`.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { state, public, admin } = self;
        let mut listening = JoinSet::new();
        for front in [Some(public), admin].into_iter().flatten() {
            listening.spawn(front.accept(Arc::clone(&state)));
        }
        listening.spawn(tell_age(Arc::clone(&state)));
        listening.spawn(recheck::run(Arc::clone(&state)));
        shutdown.await;

        state.services.readiness.enter(telemetry::Phase::Draining);
        state.services.presence.close();
        let until = Instant::now() + state.http.drain;
        state.enter(Phase::Draining { until });
        let _ = timeout_at(until, state.streams.ended()).await;
        listening.shutdown().await;
        state.enter(Phase::Closed);
        let ended = async { tokio::join!(state.connections.ended(), state.streams.ended()) };
        let _ = timeout(LAST_ANSWERS, ended).await;
    }
}

impl Front {
    async fn bind(setting: &'static str, address: SocketAddr, router: Router) -> Result<Self, ServerError> {
        let error = |source| ServerError::Bind { setting, address, source };
        let listener = TcpListener::bind(address).await.map_err(error)?;
        // Said again, it is the new length.
        socket2::SockRef::from(&listener).listen(BACKLOG).map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        Ok(Self { listener, address, router })
    }

    /// Takes connections for ever.
    async fn accept(self, state: Arc<State>) {
        loop {
            match self.listener.accept().await {
                Ok((socket, peer)) => {
                    if let Err(error) = tune(&socket, state.http.write_timeout) {
                        // The client has gone before it was looked at.
                        tracing::debug!(%error, "connection lost");
                        continue;
                    }
                    let address = state.proxies.peer(peer.ip()).map(counted);
                    let Some(guest) = state.lobby.admit(address).await else {
                        tracing::debug!("connection refused: every other one of its address is busy");
                        continue;
                    };
                    let (state, router) = (Arc::clone(&state), self.router.clone());
                    tokio::spawn(connection::serve(state, router, socket, peer, guest));
                }
                Err(error) if is_of_one_client(&error) => tracing::debug!(%error, "connection lost"),
                Err(error) => {
                    tracing::warn!(%error, "can't accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Wakes the streams when what they show grows stale, and when it is fresh again.
async fn tell_age(state: Arc<State>) {
    let mut age = state.services.freshness.subscribe();
    while age.changed().await.is_ok() {
        state.services.hub.wake_all();
    }
}

/// Frames leave at once; a peer that acknowledges nothing is given up by the kernel too.
fn tune(socket: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(socket).set_tcp_user_timeout(Some(write_timeout))?;
    Ok(())
}

/// Errors that accept(2) hands on from a connection that is gone already.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
