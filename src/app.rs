//! The wiring: every task that lives long is spawned here, and only here everything is known.
//!
//! ```text
//! start ─► listen ─► prepare (schema, catalog; as often as it takes) ─┬─► pipeline: source ─► mirror ─► catalog ─► journal
//!              │                                                      │                                          │
//!              └── until then: probes, and "starting" to everyone ────┴─► http: access ─► hub ─► streams ◄───────┘
//! ```
//!
//! The pipeline is one task, in commit order; a stream is a task of its own, and as long as it waits, couriers, one for
//! each thread, write for it. A client that blocks holds its own task and nothing else, and the pipeline waits for nobody but Postgres. Stopping goes from the back: streams are told
//! and closed over `http.drain` while the pipeline still feeds them, then the transaction in hand is finished, what
//! was dealt with is confirmed, and the slot is left.

mod canary;
mod epoch;
mod housekeeping;
mod judge;
mod pipeline;
mod prepare;
mod reread;
mod watch;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::watch as signal;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use crate::access::{Authenticator, Memberships};
use crate::catalog::{Catalog, Mapper};
use crate::config::Config;
use crate::emit::Emitter;
use crate::http::{Server, Services, Vocabulary};
use crate::hub::Hub;
use crate::journal::Journals;
use crate::live::{self, Live, Query, Questions};
use crate::mirror::Mirror;
use crate::postgres::Dsn;
use crate::presence::Presence;
use crate::source::{Kind, Source, Visibility};
use crate::telemetry::{Freshness, Metrics, Readiness};
use canary::{Canary, Keeper};
use housekeeping::Housekeeping;
use judge::Judge;
use pipeline::{Parts, Pipeline};
use watch::Watch;

/// How old the visible position may be that a stream goes on from after it lost its place.
const VISIBLE: Duration = Duration::from_secs(1);

/// Told the address of HTTP once it is bound.
pub type Listening = Box<dyn FnOnce(SocketAddr) + Send>;

/// What a run is asked beside its configuration.
#[derive(Default)]
pub struct RunOptions {
    /// The reference domain's catalog, unless `catalog.path` names another.
    pub reference: bool,
    pub listening: Option<Listening>,
}

/// Serves until `shutdown`, then drains and confirms.
///
/// # Errors
/// What no waiting mends: a configuration or a catalog that is wrong, an address that is taken, a database that can
/// never be a source.
pub async fn run(
    config: Config,
    options: RunOptions,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let url = config.database.url.as_ref().context("database.url is not set")?;
    let dsn = Dsn::parse(url.expose()).context("database.url")?;
    let mut app = App::start(config, dsn, options.reference).await?;
    if let Some(listening) = options.listening {
        listening(app.address());
    }
    tokio::select! {
        biased;
        ended = app.ended() => ended,
        () = shutdown => app.stop().await,
    }
}

/// A running worker. Dropped without [`App::stop`], it ends at once, as a crash would.
pub struct App {
    address: SocketAddr,
    stop: signal::Sender<bool>,
    http: JoinHandle<()>,
    worker: JoinHandle<anyhow::Result<()>>,
    /// Ends with it.
    _beside: JoinSet<()>,
}

impl App {
    /// Listens, and works from then on. Returns before anybody is let in: `/readyz` tells when.
    ///
    /// # Errors
    /// A configuration or a catalog that is wrong, or an address that is taken.
    pub async fn start(config: Config, dsn: Dsn, reference: bool) -> anyhow::Result<Self> {
        let catalog = prepare::catalog(&config, reference)?;
        let readiness = Readiness::new();
        let metrics = Metrics::new(&readiness);
        let freshness = Freshness::default();
        let max_answer = config.journal.max_event.0;
        let queries = config.presets.iter().filter_map(|preset| Query::load(preset, max_answer));
        let (live, questions) = Live::new(queries.collect::<Result<Vec<_>, _>>()?);
        let journals = Journals::new(config.replay.max_memory.0);
        let visibility = Arc::new(Visibility::new(dsn.clone()));
        let memberships = Arc::new(OnceLock::new());
        let emitter = Arc::new(OnceLock::new());
        let hub = Hub::new(Arc::clone(&journals));
        let presence = Presence::new(Arc::clone(&hub), config.presence.grace);
        let authenticator = Authenticator::new(&config.access)?.with_database(&dsn, &readiness);
        let mut beside = JoinSet::new();
        beside.spawn(authenticator.keep(readiness.clone()));
        for _ in 0..Handle::current().metrics().num_workers() {
            let (hub, metrics) = (Arc::clone(&hub), metrics.clone());
            beside.spawn(async move { hub.courier(metrics).await });
        }
        let services = Services {
            authenticator,
            memberships: Arc::clone(&memberships),
            emitter: Arc::clone(&emitter),
            live: live.clone(),
            vocabulary: Vocabulary::new(catalog.channels(), catalog.tag_names(), &config.channels),
            hub: Arc::clone(&hub),
            visibility: Arc::clone(&visibility) as _,
            presence: Arc::clone(&presence),
            readiness: readiness.clone(),
            freshness: freshness.clone(),
            metrics: metrics.clone(),
        };
        let server = Server::bind(&config, services).await?;
        let address = server.address();
        tracing::info!(%address, "listening");

        let stop = signal::Sender::new(false);
        // The streams are told and closed while the pipeline still feeds them.
        let drained = signal::Sender::new(false);
        let stopped = drained.subscribe();
        let worker = Worker {
            config,
            dsn,
            memberships,
            emitter,
            live,
            questions,
            hub,
            presence,
            journals,
            visibility,
            readiness,
            freshness,
            metrics,
        };
        let worker = tokio::spawn(worker.run(catalog, stopped));
        let serving = server.run(stopping(stop.subscribe()));
        let http = tokio::spawn(async move {
            serving.await;
            drained.send_replace(true);
        });
        Ok(Self { address, stop, http, worker, _beside: beside })
    }

    /// The address of `http.listen`, its port chosen when the configured one is 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the worker's end, which is early when nobody asked for it.
    ///
    /// # Errors
    /// Why the worker can't go on.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.worker).await.context("the worker's task broke")?
    }

    /// Drains the streams, finishes the transaction in hand, confirms, and returns.
    ///
    /// # Errors
    /// What ended the worker before it was stopped.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        self.ended().await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.http.abort();
        self.worker.abort();
    }
}

/// What the worker's task owns or shares with HTTP.
struct Worker {
    config: Config,
    dsn: Dsn,
    memberships: Arc<OnceLock<Memberships>>,
    emitter: Arc<OnceLock<Arc<Emitter>>>,
    live: Live,
    questions: Questions,
    hub: Arc<Hub>,
    presence: Arc<Presence>,
    journals: Arc<Journals>,
    visibility: Arc<Visibility>,
    readiness: Readiness,
    freshness: Freshness,
    metrics: Metrics,
}

impl Worker {
    async fn run(self, catalog: Catalog, stopped: signal::Receiver<bool>) -> anyhow::Result<()> {
        let prepared = tokio::select! {
            biased;
            () = stopping(stopped.clone()) => return Ok(()),
            prepared = prepare::prepare(&self, &catalog) => prepared?,
        };
        let Self {
            config,
            dsn,
            memberships,
            emitter,
            live,
            questions,
            hub,
            presence,
            journals,
            visibility,
            readiness,
            freshness,
            metrics,
        } = self;
        let mirror = Arc::new(
            Mirror::new(prepared.mirror_specs.clone(), config.mirror.max_memory.0).following(prepared.source),
        );
        // Set once: this is the only place.
        let _ = memberships.set(Memberships::new(&config.access, &prepared.mirror_specs, &mirror)?);
        visibility.follow(prepared.source);
        let in_log = prepared.source == Kind::Wal;
        let emits = Emitter::new(&dsn, Arc::clone(&prepared.compiled), in_log, readiness.clone());
        let _ = emitter.set(Arc::new(emits));
        let tables = watch::tables(&prepared.compiled, &prepared.mirror_specs, &prepared.schema);
        let read = tables.iter().map(|(table, _)| table.clone()).collect();
        let watch =
            Watch::new(&config, prepared.source, dsn.clone(), tables, readiness.clone(), metrics.clone());
        // What a row of theirs leaves behind, or asks for, concerns the whole transaction.
        let whole = mirror.tables().chain(prepared.compiled.tables_with_related()).cloned().collect();
        let mut mapper = Mapper::new(
            prepared.compiled,
            Arc::new(prepared.schema.types),
            journals.epoch(),
            config.journal.max_event.0,
            prepared.emit_secret,
        );
        if !in_log {
            mapper.set_outbox();
        }
        let canary = Arc::new(Canary::new());
        let keeper = Keeper {
            canary: Arc::clone(&canary),
            source: prepared.source,
            dsn: dsn.clone(),
            config: config.canary,
            readiness: readiness.clone(),
            freshness,
            metrics: metrics.clone(),
        };
        let runner = live::Runner::new(
            &live,
            questions,
            dsn.clone(),
            Arc::clone(&visibility),
            readiness.clone(),
            metrics.clone(),
        );
        let visible = keep_visible(Arc::clone(&visibility), Arc::clone(&journals));
        let parts = Parts {
            source: Source::new(prepared.source, &config, dsn.clone(), read).in_parts(whole),
            signals: watch.signals(),
            judge: Judge::new(hub, memberships, Arc::clone(&presence)),
            dsn,
            mirror,
            mapper,
            journals,
            visibility,
            canary,
            housekeeping: Housekeeping::default(),
            readiness,
            metrics,
        };
        // Tasks of their own, so that a pipeline that hangs is noticed; they end with this future, however that ends.
        let mut beside = JoinSet::new();
        beside.spawn(keeper.run());
        beside.spawn(watch.run());
        beside.spawn(visible);
        beside.spawn(presence.run());
        beside.spawn(runner.run());
        Pipeline::new(parts, stopped).run().await
    }
}

/// Tells the journals up to where commits are visible. A stream that lost its place goes on from there: its client
/// reads the database, and what that does not show yet is sent.
async fn keep_visible(visibility: Arc<Visibility>, journals: Arc<Journals>) {
    let mut rounds = interval(VISIBLE);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let generation = journals.view().generation;
        let visible = visibility.visible().await.position;
        // One of another history says nothing about this one.
        if journals.view().generation == generation {
            journals.set_visible(visible);
        }
    }
}

/// Resolves once the sender says so, or is gone.
async fn stopping(mut stopped: signal::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}
