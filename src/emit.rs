//! Events that services hand in: written by `walcast.emit`, so that order, ids and durability are those of any other.
//!
//! ```text
//! Emission ─► judged by the catalog ─► a session of the pool ─► walcast.emit, or emit_once under a key ─► Accepted
//! ```
//!
//! Whoever is answered "accepted" can rely on the commit. Everything is bounded: sessions, the wait for one, and the
//! time a statement may take. It knows neither HTTP nor who may emit.

mod error;
mod pool;

use std::sync::Arc;

use tokio_postgres::types::{ToSql, Type};

use crate::catalog::Compiled;
use crate::postgres::{Dsn, Lsn};
use crate::telemetry::{Readiness, Reason};

pub use error::EmitError;
use pool::{Pool, Session};

/// Readiness's reason when this role may not emit.
const REASON: &str = "emit_http";

/// The position is read before the event is written: the event lies beyond it.
const EMIT: &str = "with here as materialized (select pg_catalog.pg_current_wal_insert_lsn()::text as lsn)
    select 'emitted', here.lsn, walcast.emit($1, $2, $3::jsonb, $4, $5::jsonb, $6::jsonb) from here";

const EMIT_ONCE: &str = "select outcome, after_lsn::text
    from walcast.emit_once($7, $1, $2, $3::jsonb, coalesce($4, 'custom'), $5::jsonb, $6::jsonb)";

/// An event to be written. What is JSON is text that is JSON.
#[derive(Clone, Debug)]
pub struct Emission {
    pub organization: String,
    pub event_type: String,
    pub data: String,
    pub channel: Option<String>,
    pub tags: Option<String>,
    pub only: Option<Only>,
}

/// Who may see it: one of the roles, or the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Only {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// The event is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The event comes after it. None where positions of the log are none of the events'.
    pub after: Option<Lsn>,
}

/// Writes events into one database.
pub struct Emitter {
    pool: Arc<Pool>,
    compiled: Arc<Compiled>,
    /// Events lie at positions of the write-ahead log.
    in_log: bool,
    role: String,
    readiness: Readiness,
}

impl Emitter {
    #[must_use]
    pub fn new(dsn: &Dsn, compiled: Arc<Compiled>, in_log: bool, readiness: Readiness) -> Self {
        Self { pool: Pool::new(dsn.clone()), compiled, in_log, role: dsn.user.clone(), readiness }
    }

    /// Whether an event of this type and restriction would go out, as the catalog has it.
    ///
    /// # Errors
    /// Why the worker would drop it.
    pub fn judge(&self, emission: &Emission) -> Result<(), String> {
        let only = emission.only.as_ref().map(|only| (only.roles.as_slice(), only.user.as_deref()));
        self.compiled.judge_emit(&emission.event_type, only)
    }

    /// Commits the event. Under a key (a hash of 32 bytes over whatever makes a request the same), an event that was
    /// committed under it within a day is not written again. To be awaited to its end: dropped before, the server goes on
    /// with a statement that no bound counts any more.
    ///
    /// # Errors
    /// Nothing was written, or, where the error says so, it is not known.
    pub async fn emit(&self, emission: &Emission, key: Option<[u8; 32]>) -> Result<Accepted, EmitError> {
        let outcome = attempt(&self.pool, emission, key).await;
        match &outcome {
            Ok(_) => drop(self.readiness.mend(REASON)),
            Err(EmitError::NotAllowed) => self.readiness.degrade(REASON, self.not_allowed()),
            Err(_) => {}
        }
        outcome.map(|after| Accepted { after: self.in_log.then_some(after) })
    }

    fn not_allowed(&self) -> Reason {
        let role = postgres_protocol::escape::escape_identifier(&self.role);
        Reason::new(
            "events can't be emitted over HTTP: this role may not call walcast.emit and walcast.emit_once; run \
             `walcast migrate`, then `walcast setup --role`",
        )
        .mended_by(format!(
            "GRANT USAGE ON SCHEMA walcast TO {role}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA walcast TO {role};"
        ))
    }
}

async fn attempt(pool: &Arc<Pool>, emission: &Emission, key: Option<[u8; 32]>) -> Result<Lsn, EmitError> {
    let session = pool.session().await?;
    let reused = session.is_reused();
    let outcome = write(session, emission, key).await;
    match outcome {
        // Closed by the server while it lay idle, perhaps after it was used: under a key asking again does no harm.
        Err(EmitError::Unknown) if reused && key.is_some() => {
            write(pool.new_session().await?, emission, key).await
        }
        other => other,
    }
}

async fn write(session: Session, emission: &Emission, key: Option<[u8; 32]>) -> Result<Lsn, EmitError> {
    let Emission { organization, event_type, data, channel, tags, only } = emission;
    let only = only.as_ref().and_then(|only| serde_json::to_string(only).ok());
    let key = key.as_ref().map(<[u8; 32]>::as_slice);
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![
        (organization, Type::TEXT),
        (event_type, Type::TEXT),
        (data, Type::TEXT),
        (channel, Type::TEXT),
        (tags, Type::TEXT),
        (&only, Type::TEXT),
    ];
    if key.is_some() {
        parameters.push((&key, Type::BYTEA));
    }
    let rows = session.query(if key.is_some() { EMIT_ONCE } else { EMIT }, &parameters).await?;
    let row = rows.first().ok_or(EmitError::Unknown)?;
    let (outcome, after): (&str, &str) =
        row.try_get(0).and_then(|outcome| Ok((outcome, row.try_get(1)?))).map_err(|_| EmitError::Unknown)?;
    match (outcome, after.parse()) {
        ("emitted" | "repeated", Ok(after)) => Ok(after),
        ("conflict", _) => Err(EmitError::Conflict),
        _ => Err(EmitError::Unknown),
    }
}
