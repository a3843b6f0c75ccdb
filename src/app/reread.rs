//! What the pipeline reads of the database besides its source: the mirror, and types that are new.

use super::prepare::query_kind;
use crate::mirror::{LoadError, Mirror};
use crate::postgres::schema::{SchemaError, Types};
use crate::postgres::{Dsn, client};
use crate::source::{ErrorKind, SourceError};

/// Why the mirror, or the types, could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Connect(#[from] SourceError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the types of the database can't be read")]
    Types(#[from] SchemaError),
}

impl ReadError {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(error) => error.kind(),
            Self::Load(LoadError::Query(error) | LoadError::Schema(SchemaError::Query(error)))
            | Self::Types(SchemaError::Query(error)) => query_kind(error),
            Self::Load(_) | Self::Types(_) => ErrorKind::Operator,
        }
    }
}

/// Reads the mirror in one snapshot, on a connection of its own.
pub(super) async fn mirror(mirror: &Mirror, dsn: &Dsn) -> Result<(), ReadError> {
    if mirror.is_empty() {
        return Ok(());
    }
    let client = client::connect(dsn).await.map_err(SourceError::from)?;
    let snapshot = mirror.load(&client).await?;
    tracing::info!(barrier = %snapshot.barrier, bytes = mirror.bytes(), "mirror read");
    Ok(())
}

/// The database's types, as they are now.
pub(super) async fn types(dsn: &Dsn) -> Result<Types, ReadError> {
    let client = client::connect(dsn).await.map_err(SourceError::from)?;
    Ok(Types::fetch(&client).await?)
}
