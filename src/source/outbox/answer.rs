//! What the server answers: waited for no longer than it may take, its numbers read as positions and times.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::postgres::{Lsn, PgTimestamp};
use crate::source::policy::SourceError;

/// A server that answers nothing for so long is gone. Numbering a backlog of millions may take longer: it goes on in
/// the server, which keeps the lock until then, and is found done.
const SILENCE: Duration = Duration::from_secs(60);

/// An answer, or an error where a dead connection would keep us for ever.
pub(super) async fn answered<T>(
    asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, SourceError> {
    match timeout(SILENCE, asked).await {
        Ok(answer) => answer.map_err(SourceError::Outbox),
        Err(_) => Err(SourceError::Silent { seconds: SILENCE.as_secs() }),
    }
}

pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, SourceError> {
    row.try_get(column).map_err(SourceError::Outbox)
}

/// A position as the database has it.
pub(super) fn number(position: Lsn) -> i64 {
    i64::try_from(position.as_u64()).unwrap_or(i64::MAX)
}

pub(super) fn position(number: i64) -> Result<Lsn, SourceError> {
    u64::try_from(number).map(Lsn::new).map_err(|_| SourceError::Answer("a position of the outbox"))
}

/// From microseconds since 1970, whole numbers of which a double holds exactly until 2255.
#[expect(clippy::cast_possible_truncation, reason = "a time of our century")]
pub(super) fn time(micros: f64) -> PgTimestamp {
    PgTimestamp::from_unix_micros(micros as i64)
}
