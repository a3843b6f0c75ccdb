//! The wiring: every task that lives long is spawned here, and only here everything is known.
//!
//! ```text
//! start ─► listen ─► prepare (schema, catalog; as often as it takes) ─┬─► pipeline: source ─► mirror ─► catalog ─► journal
//!              │                                                      │                                          │
//!              └── until then: probes, and "starting" to everyone ────┴─► http: access ─► hub ─► streams ◄───────┘
//! ```
//!
//! The pipeline is one task, in commit order; a stream is a task of its own. A client that blocks holds its own task
//! and nothing else, and the pipeline waits for nobody but Postgres. Stopping goes from the back: streams are told
//! and closed over `http.drain` while the pipeline still feeds them, then the transaction in hand is finished, what
//! was dealt with is confirmed, and the slot is left.

mod epoch;
mod housekeeping;
mod pipeline;
mod prepare;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::access::{Authenticator, Memberships};
use crate::catalog::{Catalog, Mapper};
use crate::config::Config;
use crate::http::{Server, Services, Vocabulary};
use crate::hub::Hub;
use crate::journal::Journals;
use crate::mirror::Mirror;
use crate::postgres::Dsn;
use crate::source::{Source, Visibility};
use crate::telemetry::{Metrics, Readiness};
use housekeeping::Housekeeping;
use pipeline::{Parts, Pipeline};

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
    stop: watch::Sender<bool>,
    http: JoinHandle<()>,
    worker: JoinHandle<anyhow::Result<()>>,
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
        let journals = Journals::new(config.replay.max_memory.0);
        let visibility = Arc::new(Visibility::new(dsn.clone()));
        let memberships = Arc::new(OnceLock::new());
        let services = Services {
            authenticator: Authenticator::new(&config.access)?,
            memberships: Arc::clone(&memberships),
            vocabulary: Vocabulary::new(catalog.channels(), catalog.tag_names(), &config.channels),
            hub: Hub::new(Arc::clone(&journals)),
            visibility: Arc::clone(&visibility) as _,
            readiness: readiness.clone(),
            metrics: metrics.clone(),
        };
        let server = Server::bind(&config, services).await?;
        let address = server.address();
        tracing::info!(%address, "listening");

        let stop = watch::Sender::new(false);
        // The streams are told and closed while the pipeline still feeds them.
        let drained = watch::Sender::new(false);
        let stopped = drained.subscribe();
        let worker = Worker { config, dsn, memberships, journals, visibility, readiness, metrics };
        let worker = tokio::spawn(worker.run(catalog, stopped));
        let serving = server.run(stopping(stop.subscribe()));
        let http = tokio::spawn(async move {
            serving.await;
            drained.send_replace(true);
        });
        Ok(Self { address, stop, http, worker })
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
    journals: Arc<Journals>,
    visibility: Arc<Visibility>,
    readiness: Readiness,
    metrics: Metrics,
}

impl Worker {
    async fn run(self, catalog: Catalog, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let prepared = tokio::select! {
            biased;
            () = stopping(stopped.clone()) => return Ok(()),
            prepared = prepare::prepare(&self, &catalog) => prepared?,
        };
        let Self { config, dsn, memberships, journals, visibility, readiness, metrics } = self;
        let mirror = Arc::new(
            Mirror::new(prepared.mirror_specs.clone(), config.mirror.max_memory.0).following(prepared.source),
        );
        // Set once: this is the only place.
        let _ = memberships.set(Memberships::new(&config.access, &prepared.mirror_specs, &mirror)?);
        visibility.follow(prepared.source);
        let mapper = Mapper::new(
            prepared.compiled,
            Arc::new(prepared.schema.types),
            journals.epoch(),
            config.journal.max_event.0,
            prepared.emit_secret,
        );
        let parts = Parts {
            source: Source::new(prepared.source, &config.source, &config.replay, dsn.clone()),
            dsn,
            mirror,
            mapper,
            journals,
            visibility,
            housekeeping: Housekeeping::default(),
            readiness,
            metrics,
        };
        Pipeline::new(parts, stopped).run().await
    }
}

/// Resolves once the sender says so, or is gone.
async fn stopping(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}
