//! From nothing to a stream: who the server is, what became of the slot, and where to start.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::item::{Identity, ResetReason};
use super::lineage;
use super::policy::SourceError;
use super::progress::History;
use super::publication;
use crate::postgres::dsn::Dsn;
use crate::postgres::pgoutput::LongMessages;
use crate::postgres::replication::{SystemIdentity, TextRow};
use crate::postgres::schema::TableName;
use crate::postgres::{Lsn, ReplicationConnection, ReplicationStream, StreamError};

/// How often a slot that is another worker's is looked at.
const BUSY_POLL: Duration = Duration::from_millis(400);

/// The longest that the server goes without a status; it also bounds how stale its view of us is.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// No command takes the server so long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the transactions in progress are waited for when history begins anew, and how often they are looked at.
const SETTLE: Duration = Duration::from_secs(1);
const SETTLE_POLL: Duration = Duration::from_millis(20);

/// What to connect to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) dsn: Dsn,
    pub(super) slot: String,
    pub(super) publication: String,
    pub(super) long: LongMessages,
    /// Of the publication: those whose changes matter. None: all of it.
    pub(super) tables: Vec<TableName>,
}

/// What came before, and may go on.
#[derive(Clone, Debug)]
pub(super) struct Past {
    /// None in an empty process.
    pub(super) history: Option<History>,
    /// It is known that it can't.
    pub(super) broken: Option<ResetReason>,
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

pub(super) async fn connect(target: Target, past: Past) -> Result<Attempt, SourceError> {
    let connection = ReplicationConnection::connect(&target.dsn).await?;
    open(connection, &target, &past).await
}

/// As [`connect`], on a connection that found the slot busy.
pub(super) async fn retry(
    connection: ReplicationConnection,
    target: Target,
    past: Past,
) -> Result<Attempt, SourceError> {
    sleep(BUSY_POLL).await;
    open(connection, &target, &past).await
}

async fn open(
    mut connection: ReplicationConnection,
    target: &Target,
    past: &Past,
) -> Result<Attempt, SourceError> {
    let system = answered(connection.identify_system()).await?;
    let about = fetch_session(&mut connection, target).await?;
    let slot = fetch_slot(&mut connection, target).await?;
    if slot.as_ref().is_some_and(|slot| slot.active) {
        return Ok(Attempt::Busy(connection));
    }
    let identity = about.identity(&system, target)?;

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
    if reset.is_none() {
        let history = past.history.as_ref();
        let differs = |history| broken(history, &identity, system.position, slot_confirmed);
        reset = past.broken.or_else(|| history.and_then(differs));
        if reset == Some(ResetReason::ServerChanged)
            && let Some(history) = history
            && descends(&mut connection, history, &identity, slot_confirmed).await?
        {
            reset = Some(ResetReason::Promoted);
        }
        match (reset, history) {
            (None | Some(ResetReason::Promoted), Some(history)) => start = history.processed,
            (None, None) => {}
            // Not the window again, of which the streams that are open have seen some; nor what can't be decoded.
            (Some(_), _) => start = settled_position(&mut connection).await?.max(slot_confirmed),
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

/// The log's end, once what committed below is visible to who reads the database when told to. Not waited for any
/// longer than [`SETTLE`]: a transaction in progress then is most likely one that will commit above.
async fn settled_position(connection: &mut ReplicationConnection) -> Result<Lsn, SourceError> {
    // Left to right: whatever has a commit record below the position has an older id.
    const POSITION: &str = "select pg_catalog.pg_current_wal_insert_lsn() as position, \
                            pg_catalog.pg_current_xact_id() as xid";
    let rows = answered(connection.simple_query(POSITION)).await?;
    let row = rows.first().ok_or(SourceError::Answer("the end of the log"))?;
    let position = row.get("position").and_then(|text| text.parse().ok());
    let position = position.ok_or(SourceError::Answer("the end of the log"))?;
    let xid = row.get("xid").and_then(|text| text.parse::<u64>().ok());
    let deadline = Instant::now() + SETTLE;
    while Instant::now() < deadline {
        let oldest = "select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) as xid";
        let rows = answered(connection.simple_query(oldest)).await?;
        let oldest = rows.first().and_then(|row| row.get("xid")).and_then(|text| text.parse::<u64>().ok());
        if oldest >= xid {
            break;
        }
        sleep(SETTLE_POLL).await;
    }
    Ok(position)
}

/// Why the server can't continue a history.
fn broken(history: &History, identity: &Identity, flushed: Lsn, slot_confirmed: Lsn) -> Option<ResetReason> {
    let same_server = Identity { publication: history.identity.publication.clone(), ..identity.clone() };
    if history.identity != same_server {
        Some(ResetReason::ServerChanged)
    } else if history.identity != *identity {
        Some(ResetReason::PublicationChanged)
    } else if flushed < history.processed {
        Some(ResetReason::ServerBehind)
    } else if slot_confirmed > history.processed {
        // The server starts no earlier than there, and says nothing about it.
        Some(ResetReason::SlotAdvanced)
    } else {
        None
    }
}

/// Whether a server on another timeline has all of a history, and its slot all that comes after: a standby that was
/// promoted with the slot synchronised. (<https://www.postgresql.org/docs/current/logicaldecoding-explanation.html>)
async fn descends(
    connection: &mut ReplicationConnection,
    history: &History,
    identity: &Identity,
    slot_confirmed: Lsn,
) -> Result<bool, SourceError> {
    let before = &history.identity;
    let promoted = Identity { timeline: before.timeline, ..identity.clone() } == *before
        && identity.timeline > before.timeline
        && slot_confirmed <= history.processed;
    if !promoted {
        return Ok(false);
    }
    let rows = match answered(connection.simple_query(&lineage::command(identity.timeline))).await {
        Ok(rows) => rows,
        // Its file is not there, or may not be read: nothing is proven.
        Err(SourceError::Stream(StreamError::Server(error))) => {
            tracing::debug!(%error, "the server does not tell its timeline's history");
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let content = rows.first().and_then(|row| row.get("content")).unwrap_or_default();
    Ok(lineage::left_at(content, before.timeline).is_some_and(|end| end >= history.processed))
}

/// What else is asked of the server.
#[derive(Debug)]
struct Session {
    database_oid: Option<u32>,
    sender_timeout: Duration,
    /// None: there is no such publication.
    publication: Option<String>,
}

impl Session {
    fn identity(&self, system: &SystemIdentity, target: &Target) -> Result<Identity, SourceError> {
        let missing = || SourceError::NoPublication { publication: target.publication.clone() };
        Ok(Identity {
            system_identifier: system.system_id.clone(),
            timeline: system.timeline,
            database_oid: self.database_oid.ok_or(SourceError::Answer("the database"))?,
            database: system.database.clone(),
            publication: self.publication.clone().ok_or_else(missing)?,
        })
    }
}

async fn fetch_session(
    connection: &mut ReplicationConnection,
    target: &Target,
) -> Result<Session, SourceError> {
    let sql = format!(
        "select (select oid from pg_catalog.pg_database where datname = current_database()) as database, \
         (select setting from pg_catalog.pg_settings where name = 'wal_sender_timeout') as timeout, \
         ({}) as publication",
        publication::digest_sql(&target.publication, &target.tables)
    );
    let rows = answered(connection.simple_query(&sql)).await?;
    let row = rows.first().ok_or(SourceError::Answer("the session"))?;
    let millis = row.get("timeout").and_then(|text| text.parse().ok());
    Ok(Session {
        database_oid: row.get("database").and_then(|text| text.parse().ok()),
        sender_timeout: Duration::from_millis(millis.ok_or(SourceError::Answer("wal_sender_timeout"))?),
        publication: row.get("publication").map(str::to_owned),
    })
}

async fn fetch_slot(
    connection: &mut ReplicationConnection,
    target: &Target,
) -> Result<Option<Slot>, SourceError> {
    let sql = format!(
        "select plugin, database, active, restart_lsn, confirmed_flush_lsn, wal_status, two_phase, \
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
    if row.get("two_phase") == Some("t") {
        return Err(SourceError::TwoPhaseSlot { slot: name.to_owned() });
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
        Identity {
            system_identifier: "7".to_owned(),
            timeline,
            database_oid: 5,
            database: "app".to_owned(),
            publication: "p".to_owned(),
        }
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
        let other = Identity { publication: "q".to_owned(), ..identity(1) };
        let published_anew = super::broken(&history, &other, Lsn::new(200), Lsn::new(50));
        assert_eq!(published_anew, Some(ResetReason::PublicationChanged));
        assert_eq!(broken(1, 99, 50), Some(ResetReason::ServerBehind));
        assert_eq!(broken(1, 200, 101), Some(ResetReason::SlotAdvanced));
    }
}
