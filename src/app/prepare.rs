//! What has to be known before anything flows: the catalog, the schema it is compiled against, what kind of source
//! the database can be.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::time::sleep;

use super::Worker;
use crate::access::Memberships;
use crate::catalog::{Catalog, CatalogErrors, Compiled};
use crate::config::{Config, Secret, SourceKind};
use crate::mirror::MirrorSpec;
use crate::postgres::client::{self, Client};
use crate::postgres::schema::{Schema, SchemaError};
use crate::postgres::{ConnectError, Dsn};
use crate::source::{Backoff, ErrorKind, SourceError, sqlstate};
use crate::telemetry::Reason;

/// The reason under which it is told that the worker can't begin.
const KEY: &str = "database";

/// Everything that the rest of the worker is built from.
pub(super) struct Prepared {
    pub(super) compiled: Arc<Compiled>,
    pub(super) schema: Schema,
    pub(super) mirror_specs: Vec<MirrorSpec>,
    /// The key of `walcast.emit`'s signatures; none where it can't be read.
    pub(super) emit_secret: Option<Secret>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Query(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("the catalog does not fit the database:\n{0}")]
    Catalog(#[from] CatalogErrors),
    #[error(
        "wal_level is {wal_level}, and source.kind = \"wal\" needs logical: `alter system set wal_level = logical`, \
         then restart the server"
    )]
    WalLevel { wal_level: String },
}

impl PrepareError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(error) => SourceError::kind_of_connect(error),
            Self::Query(error) | Self::Schema(SchemaError::Query(error)) => {
                error.code().map_or(ErrorKind::Transient, |state| sqlstate(state.code()))
            }
            Self::Schema(_) | Self::WalLevel { .. } => ErrorKind::Operator,
            Self::Catalog(_) => ErrorKind::Fatal,
        }
    }
}

/// The configured catalog as it was written.
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
                worker.readiness.mend(KEY);
                return Ok(prepared);
            }
            Err(error) => error,
        };
        let kind = error.kind();
        if kind == ErrorKind::Fatal {
            return Err(error.into());
        }
        let delay: Duration = backoff.delay(kind);
        worker.readiness.degrade(KEY, Reason::new(chain(&error)));
        sleep(delay).await;
    }
}

async fn attempt(worker: &Worker, catalog: &Catalog) -> Result<Prepared, PrepareError> {
    let client = client::connect(&worker.dsn).await?;
    check_source(&client, worker.config.source.kind).await?;
    let schema = Schema::fetch(&client).await?;
    let (compiled, missing) = catalog.compile_lenient(&schema)?;
    for (place, column) in &missing {
        worker.readiness.degrade(format!("column {column}"), Reason::new(format!("{place}: {column} is gone")));
    }
    let mut mirror_specs = compiled.mirror_specs().to_vec();
    Memberships::require(&worker.config.access, &mut mirror_specs);
    let emit_secret = emit_secret(worker, &client).await;
    Ok(Prepared { compiled: Arc::new(compiled), schema, mirror_specs, emit_secret })
}
