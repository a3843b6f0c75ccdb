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
mod preconditions;
mod prepare;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::access::{Authenticator, Memberships};
use crate::config::Config;
use crate::http::{Listeners, Server, Services, Vocabulary};
use crate::hub::Hub;
use crate::journal::Journals;
use crate::mirror::Mirror;
use crate::postgres::{Dsn, Lsn};
use crate::source::Visibility;
use crate::telemetry::{Metrics, Phase, Readiness};
use pipeline::Pipeline;
use prepare::{Prepared, prepare};

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
pub async fn run(config: Config, options: RunOptions, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let url = config.database.url.as_ref().context("database.url is not set")?;
    let dsn = Dsn::parse(url.expose()).context("database.url")?;
    let mut app = App::start(config, dsn, options.reference).await?;
    if let Some(listening) = options.listening {
        listening(app.address());
    }
    tokio::select! {
        biased;
        ended = app.ended() => return ended,
        () = shutdown => {}
    }
    app.stop().await
}

/// A running worker. Dropped without [`App::stop`], it ends at once, as a crash would.
pub struct App {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl App {
    /// Listens, and works from then on. Returns before anybody is let in: `/readyz` tells when.
    ///
    /// # Errors
    /// A configuration or a catalog that is wrong, or an address that is taken.
    pub async fn start(config: Config, dsn: Dsn, reference: bool) -> anyhow::Result<Self> {
        let catalog = prepare::catalog(&config, reference)?;
        let authenticator = Authenticator::new(&config.access)?;
        let listeners = Listeners::bind(&config.http).await?;
        let address = listeners.address();
        tracing::info!(%address, "listening");
        let (stop, stopped) = watch::channel(false);
        let worker = Worker { config, dsn, readiness: Readiness::new() };
        let task = tokio::spawn(worker.run(catalog, authenticator, listeners, stopped));
        Ok(Self { address, stop, task })
    }

    /// The address of `http.listen`, its port chosen when the configured one is 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for an end that nobody asked for.
    ///
    /// # Errors
    /// Why the worker can't go on.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.task).await.context("the worker's task broke")?
    }

    /// Drains the streams, finishes the transaction in hand, confirms, and returns.
    ///
    /// # Errors
    /// What ended the worker before it was stopped.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        // Whoever listens may have ended by itself.
        let _ = self.stop.send(true);
        self.ended().await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker {
    config: Config,
    dsn: Dsn,
    readiness: Readiness,
}

/// Resolves once the worker is asked to stop, or its owner is gone.
async fn stopping(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}
