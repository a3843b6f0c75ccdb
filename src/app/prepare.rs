//! What has to be known before anything flows: the catalog, the schema that it is compiled against, and whether the
//! database can be a source at all.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::Worker;
use crate::access::Memberships;
use crate::catalog::{Catalog, CatalogErrors, Compiled};
use crate::config::{Config, Secret, SourceKind};
use crate::live::{self, Flaw};
use crate::mirror::MirrorSpec;
use crate::postgres::client::{self, Client};
use crate::postgres::schema::{Schema, SchemaError};
use crate::source::{Backoff, ErrorKind, Kind, Prospects, SourceError, sqlstate};
use crate::telemetry::Reason;

/// The reason under which readiness tells that the worker can't begin.
const DATABASE: &str = "database";

/// The reason under which it tells that emitted events can't be verified.
const EMIT: &str = "emit";

/// Everything that the rest of the worker is built from.
pub(super) struct Prepared {
    pub(super) source: Kind,
    pub(super) compiled: Arc<Compiled>,
    pub(super) schema: Schema,
    pub(super) mirror_specs: Vec<MirrorSpec>,
    /// The key of `walcast.emit`'s signatures, in hexadecimal; none where it can't be read.
    pub(super) emit_secret: Option<Secret>,
}

#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the database refused a query")]
    Query(#[from] tokio_postgres::Error),
    #[error("the schema can't be read")]
    Schema(#[from] SchemaError),
    #[error("the catalog does not fit the database")]
    Catalog(#[from] CatalogErrors),
    #[error(transparent)]
    Live(Flaw),
    #[error("the presets' live queries can't be checked: {0}")]
    Unchecked(String),
    #[error("wal_level is {0}, and reading the log needs logical: alter system, then restart the server")]
    WalLevel(String),
    #[error("no source is set up in this database, and its log can't be read: run `walcast setup`")]
    NotSetUp,
    #[error(
        "this role may not read walcast.meta, which says what is set up: run `walcast setup --role` for it"
    )]
    Hidden,
    #[error(
        "source.kind is {configured}, and the database is set up for {stored}: run `walcast setup` with this \
         configuration, or set source.kind to {stored} or auto"
    )]
    OtherSource { configured: Kind, stored: Kind },
}

impl PrepareError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Source(error) => error.kind(),
            Self::Query(error) | Self::Schema(SchemaError::Query(error)) => query_kind(error),
            Self::Schema(_) | Self::WalLevel(_) | Self::NotSetUp | Self::Hidden => ErrorKind::Operator,
            Self::Unchecked(_) => ErrorKind::Transient,
            Self::Live(flaw) => flaw.kind,
            Self::Catalog(_) | Self::OtherSource { .. } => ErrorKind::Fatal,
        }
    }

    fn reason(&self) -> Reason {
        let reason = Reason::new(chain(self));
        match self {
            Self::WalLevel(_) => reason.mended_by("ALTER SYSTEM SET wal_level = logical;"),
            _ => reason,
        }
    }
}

/// What to do about a query that failed: a broken connection has no SQLSTATE.
pub(super) fn query_kind(error: &tokio_postgres::Error) -> ErrorKind {
    error.code().map_or(ErrorKind::Transient, |state| sqlstate(state.code()))
}

/// An error and what caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let deeper = error.to_string();
        // Errors that print their cause themselves would say it twice.
        if !text.contains(&deeper) {
            text.push_str(": ");
            text.push_str(&deeper);
        }
        cause = error.source();
    }
    text
}

/// The configured catalog as it was written.
///
/// # Errors
/// There is none, or it is wrong.
pub(super) fn catalog(config: &Config, reference: bool) -> anyhow::Result<Catalog> {
    match &config.catalog.path {
        Some(path) => Catalog::load(path).context("catalog.path"),
        None if reference => Ok(Catalog::reference()),
        None => Err(anyhow!("no catalog: set catalog.path, or serve the reference domain")),
    }
}

/// Tries until it succeeds; what stands in the way is told by readiness.
///
/// # Errors
/// What no waiting mends.
pub(super) async fn prepare(worker: &Worker, catalog: &Catalog) -> anyhow::Result<Prepared> {
    let mut backoff = Backoff::new();
    loop {
        let error = match attempt(worker, catalog).await {
            Ok(prepared) => {
                worker.readiness.mend(DATABASE);
                return Ok(prepared);
            }
            Err(error) => error,
        };
        let kind = error.kind();
        if kind == ErrorKind::Fatal {
            return Err(error.into());
        }
        worker.readiness.degrade(DATABASE, error.reason());
        sleep(backoff.delay(kind)).await;
    }
}

async fn attempt(worker: &Worker, catalog: &Catalog) -> Result<Prepared, PrepareError> {
    let client = client::connect(&worker.dsn).await.map_err(SourceError::from)?;
    let source = find_source(&client, worker.config.source.kind).await?;
    let schema = Schema::fetch(&client).await?;
    let (compiled, missing) = catalog.compile_lenient(&schema)?;
    for error in &missing {
        worker.readiness.degrade(format!("catalog {}", error.place), Reason::new(error.message.clone()));
    }
    for flaw in live::check_all(&worker.live, &worker.dsn).await.map_err(PrepareError::Unchecked)? {
        if flaw.kind == ErrorKind::Fatal {
            return Err(PrepareError::Live(flaw));
        }
        // What it lacks may come; everything else goes on.
        worker.readiness.degrade(format!("live {}", flaw.path), flaw.reason());
    }
    let mut mirror_specs = compiled.mirror_specs().to_vec();
    Memberships::require(&worker.config.access, &mut mirror_specs);
    let emit_secret = emit_secret(worker, &client).await?;
    Ok(Prepared { source, compiled: Arc::new(compiled), schema, mirror_specs, emit_secret })
}

/// What the database is set up for. One that does not say (set up before there was a choice) is read by its log.
async fn find_source(client: &Client, configured: SourceKind) -> Result<Kind, PrepareError> {
    let prospects = Prospects::fetch(client, None).await?;
    let source = match prospects.stored {
        Some(stored) => stored,
        None if prospects.choose(configured) == Kind::Outbox => {
            return Err(if prospects.hidden { PrepareError::Hidden } else { PrepareError::NotSetUp });
        }
        None => Kind::Wal,
    };
    let asked = prospects.choose(configured);
    if asked != source {
        return Err(PrepareError::OtherSource { configured: asked, stored: source });
    }
    if source == Kind::Wal && prospects.wal_level != "logical" {
        return Err(PrepareError::WalLevel(prospects.wal_level));
    }
    tracing::info!(%source, why = prospects.why(configured), "the source is chosen");
    Ok(source)
}

/// Without the secret only emitted events are missing, so everything else goes on.
async fn emit_secret(worker: &Worker, client: &Client) -> Result<Option<Secret>, PrepareError> {
    let read = client.query_one("select encode(value, 'hex') from walcast.secret", &[]).await;
    let error = match read {
        Ok(row) => {
            worker.readiness.mend(EMIT);
            return Ok(Some(Secret::new(row.try_get(0)?)));
        }
        Err(error) => error,
    };
    let text = match error.code() {
        Some(&(SqlState::UNDEFINED_TABLE | SqlState::INVALID_SCHEMA_NAME)) => {
            "walcast.emit is not there: run `walcast migrate`"
        }
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            "events of walcast.emit are dropped: this role may not read walcast.secret; run `walcast setup --role`"
        }
        _ => return Err(error.into()),
    };
    worker.readiness.degrade(EMIT, Reason::new(text));
    Ok(None)
}
