//! From nothing to a stream: who the server is, what became of the slot, and where to start.

use std::time::Duration;

use tokio::time::timeout;

use super::item::{Identity, ResetReason};
use super::policy::SourceError;
use super::progress::History;
use crate::postgres::dsn::Dsn;
use crate::postgres::pgoutput::LongMessages;
use crate::postgres::replication::{SystemIdentity, TextRow};
use crate::postgres::{Lsn, ReplicationConnection, ReplicationStream, StreamError};

/// How often a slot that is another worker's is looked at.
const BUSY_POLL: Duration = Duration::from_millis(400);

/// The longest that the server goes without a status; it also bounds how stale its view of us is.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// No command takes the server so long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What to connect to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) dsn: Dsn,
    pub(super) slot: String,
    pub(super) publication: String,
    pub(super) long: LongMessages,
}

/// A stream that has begun.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) stream: ReplicationStream,
    pub(super) identity: Identity,
    /// Every transaction that commits at or after is streamed.
    pub(super) start: Lsn,
    /// Why `start` does not continue the history that there was.
    pub(super) reset: Option<ResetReason>,
    pub(super) slot_confirmed: Lsn,
    /// How often the server must hear of us.
    pub(super) status_interval: Duration,
}

/// How far an attempt has come.
#[derive(Debug)]
pub(super) enum Attempt {
    Opened(Box<Opened>),
    /// Another worker has the slot. The connection waits.
    Busy(ReplicationConnection),
}

/// The slot's row in `pg_replication_slots`.
#[derive(Debug)]
struct Slot {
    active: bool,
    lost: bool,
    confirmed: Lsn,
}

pub(super) async fn connect(target: Target, history: Option<History>) -> Result<Attempt, SourceError> {
    let connection = ReplicationConnection::connect(&target.dsn).await?;
    open(connection, &target, history.as_ref()).await
}

/// As [`connect`], on a connection that found the slot busy.
pub(super) async fn retry(
    connection: ReplicationConnection,
    target: Target,
    history: Option<History>,
) -> Result<Attempt, SourceError> {
    tokio::time::sleep(BUSY_POLL).await;
    open(connection, &target, history.as_ref()).await
}

async fn open(
    mut connection: ReplicationConnection,
    target: &Target,
    history: Option<&History>,
) -> Result<Attempt, SourceError> {
    let system = answered(connection.identify_system()).await?;
    let about = fetch_session(&mut connection, &target.publication).await?;
    let identity = about.identity(&system)?;
    let slot = fetch_slot(&mut connection, target).await?;
    if slot.as_ref().is_some_and(|slot| slot.active) {
        return Ok(Attempt::Busy(connection));
    }
    if !about.published {
        return Err(SourceError::NoPublication { publication: target.publication.clone() });
    }

    let (slot_confirmed, mut reset) = match slot {
        Some(slot) if !slot.lost => (slot.confirmed, None),
        Some(_) => {
            let name = literal(&target.slot);
            connection.simple_query(&format!("select pg_catalog.pg_drop_replication_slot({name})")).await?;
            (connection.create_slot(&target.slot).await?, Some(ResetReason::SlotLost))
        }
        None => (connection.create_slot(&target.slot).await?, Some(ResetReason::SlotMissing)),
    };
    let mut start = slot_confirmed;
    if let Some(history) = history
        && reset.is_none()
    {
        reset = broken(history, &identity, system.position, slot_confirmed);
        if reset.is_none() {
            start = history.processed;
        }
    }

    let status_interval = match about.sender_timeout {
        Duration::ZERO => STATUS_INTERVAL,
        timeout => STATUS_INTERVAL.min(timeout / 3),
    };
    let stream = answered(connection.start(&target.slot, start, &target.publication, target.long)).await?;
    let opened = Opened { stream, identity, start, reset, slot_confirmed, status_interval };
    Ok(Attempt::Opened(Box::new(opened)))
}

/// A command's answer, or an error where a dead connection would keep us for ever. Creating a slot is not such a
/// command: it waits for every transaction in progress.
async fn answered<T>(command: impl Future<Output = Result<T, StreamError>>) -> Result<T, SourceError> {
    let answer = timeout(ANSWER_TIMEOUT, command).await;
    Ok(answer.map_err(|_| SourceError::Silent { seconds: ANSWER_TIMEOUT.as_secs() })??)
}

/// Why the server can't continue a history.
fn broken(history: &History, identity: &Identity, flushed: Lsn, slot_confirmed: Lsn) -> Option<ResetReason> {
    if history.identity != *identity {
        Some(ResetReason::ServerChanged)
    } else if flushed < history.processed {
        Some(ResetReason::ServerBehind)
    } else if slot_confirmed > history.processed {
        // The server starts no earlier than there, and says nothing about it.
        Some(ResetReason::SlotAdvanced)
    } else {
        None
    }
}

/// What else is asked of the server.
#[derive(Debug)]
struct Session {
    database_oid: Option<u32>,
    sender_timeout: Duration,
    published: bool,
}

impl Session {
    fn identity(&self, system: &SystemIdentity) -> Result<Identity, SourceError> {
        Ok(Identity {
            system_identifier: system.system_id.clone(),
            timeline: system.timeline,
            database_oid: self.database_oid.ok_or(SourceError::Answer("the database"))?,
            database: system.database.clone(),
        })
    }
}

async fn fetch_session(
    connection: &mut ReplicationConnection,
    publication: &str,
) -> Result<Session, SourceError> {
    let sql = format!(
        "select (select oid from pg_catalog.pg_database where datname = current_database()) as database, \
         (select setting from pg_catalog.pg_settings where name = 'wal_sender_timeout') as timeout, \
         exists (select from pg_catalog.pg_publication where pubname = {}) as published",
        literal(publication)
    );
    let rows = answered(connection.simple_query(&sql)).await?;
    let row = rows.first().ok_or(SourceError::Answer("the session"))?;
    let millis = row.get("timeout").and_then(|text| text.parse().ok());
    Ok(Session {
        database_oid: row.get("database").and_then(|text| text.parse().ok()),
        sender_timeout: Duration::from_millis(millis.ok_or(SourceError::Answer("wal_sender_timeout"))?),
        published: row.get("published") == Some("t"),
    })
}

async fn fetch_slot(
    connection: &mut ReplicationConnection,
    target: &Target,
) -> Result<Option<Slot>, SourceError> {
    let sql = format!(
        "select plugin, database, active, restart_lsn, confirmed_flush_lsn, wal_status, \
         plugin = 'pgoutput' and database = current_database() and not temporary as ours \
         from pg_catalog.pg_replication_slots where slot_name = {}",
        literal(&target.slot)
    );
    let rows = answered(connection.simple_query(&sql)).await?;
    rows.first().map(|row| read_slot(row, &target.slot)).transpose()
}

fn read_slot(row: &TextRow, name: &str) -> Result<Slot, SourceError> {
    if row.get("ours") != Some("t") {
        return Err(SourceError::ForeignSlot {
            slot: name.to_owned(),
            plugin: row.get("plugin").unwrap_or("physical").to_owned(),
            database: row.get("database").unwrap_or("none").to_owned(),
        });
    }
    let active = row.get("active") == Some("t");
    let confirmed = row.get("confirmed_flush_lsn").and_then(|text| text.parse().ok());
    // One that is being made has no positions yet, and is active.
    let lost =
        row.get("wal_status") == Some("lost") || row.get("restart_lsn").is_none() || confirmed.is_none();
    Ok(Slot { active, lost: lost && !active, confirmed: confirmed.unwrap_or(Lsn::ZERO) })
}

/// `'text'`, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(timeline: u32) -> Identity {
        Identity { system_identifier: "7".to_owned(), timeline, database_oid: 5, database: "app".to_owned() }
    }

    #[test]
    fn history_goes_on_only_where_nothing_can_be_missing() {
        let history = History { identity: identity(1), processed: Lsn::new(100) };
        let broken = |timeline, flushed, confirmed| {
            broken(&history, &identity(timeline), Lsn::new(flushed), Lsn::new(confirmed))
        };
        assert_eq!(broken(1, 100, 100), None);
        assert_eq!(broken(1, 200, 50), None);
        assert_eq!(broken(2, 200, 50), Some(ResetReason::ServerChanged));
        assert_eq!(broken(1, 99, 50), Some(ResetReason::ServerBehind));
        assert_eq!(broken(1, 200, 101), Some(ResetReason::SlotAdvanced));
    }
}
