//! Whether a connection may read the outbox, and from where.
//!
//! The lock is the session's: whoever has it is the one reader, for as long as it is connected. Who has it asks what
//! is there, and whether it goes on with the history that came before.

use super::answer::{answered, get, number, position};
use super::session::Session;
use super::triggers;
use crate::postgres::Lsn;
use crate::postgres::client::{self, Client};
use crate::postgres::dsn::Dsn;
use crate::postgres::pgoutput::LongMessages;
use crate::postgres::schema::TableName;
use crate::source::item::{Identity, ResetReason};
use crate::source::policy::SourceError;
use crate::source::progress::History;

/// Numbering needs to see what committed a moment ago, and to be on disk before an id is told: with `local`, no
/// standby can hold it up.
const SESSION: &str = "set default_transaction_isolation = 'read committed'; set synchronous_commit = local; \
                       set statement_timeout = 0; set lock_timeout = 0; set idle_session_timeout = 0";

/// `walcast` and 1; numbering has a lock of its own.
const TRY_LOCK: &str = "select pg_catalog.pg_try_advisory_lock(2002874371, 1)";

/// The first half of a WAL file's name is the timeline; a server in recovery has none to write to, and refuses.
const ABOUT: &str = "
select s.floor, s.head, d.oid, d.datname::text,
       pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8),
       pg_catalog.current_setting('max_prepared_transactions') = '0'
  from walcast.outbox_state s, pg_catalog.pg_database d
 where d.datname = pg_catalog.current_database()";

/// What to connect to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) dsn: Dsn,
    /// Whose changes matter. None: of all that have triggers.
    pub(super) tables: Vec<TableName>,
    /// What is kept of a row.
    pub(super) long: LongMessages,
}

/// What came before, and may go on.
#[derive(Clone, Debug)]
pub(super) struct Past {
    /// None in an empty process.
    pub(super) history: Option<History>,
    /// It is known that it can't.
    pub(super) broken: Option<ResetReason>,
}

/// How far an attempt has come.
#[derive(Debug)]
pub(super) enum Attempt {
    Opened(Box<Opened>),
    /// Another worker reads. The connection waits.
    Busy(Client),
    /// The outbox was full, and not all that found no room in it has ended.
    Gap(Client),
}

/// A session that has the lock.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) session: Session,
    pub(super) identity: Identity,
    /// Where history begins.
    pub(super) floor: Lsn,
    /// Every transaction that lies at or above is read.
    pub(super) start: Lsn,
    /// Why `start` does not continue the history that there was.
    pub(super) reset: Option<ResetReason>,
}

pub(super) async fn open(target: Target, past: Past) -> Result<Attempt, SourceError> {
    let client = client::connect(&target.dsn).await?;
    answered(client.batch_execute(SESSION)).await?;
    retry(client, target, past).await
}

/// As [`open`], on a connection that found the outbox busy.
pub(super) async fn retry(client: Client, target: Target, past: Past) -> Result<Attempt, SourceError> {
    let locked: bool = get(&answered(client.query_one(TRY_LOCK, &[])).await?, 0)?;
    if !locked {
        return Ok(Attempt::Busy(client));
    }
    answered(client.batch_execute("listen walcast")).await?;
    let processed = past.history.as_ref().map(|history| number(history.processed));
    let opened = answered(client.query_one("select walcast.open_outbox($1)::text", &[&processed])).await?;
    let Some(history) = get::<Option<String>>(&opened, 0)? else {
        return Ok(Attempt::Gap(client));
    };
    let about = answered(client.query_one(ABOUT, &[])).await?;
    let published = answered(client.query_one(&triggers::digest_sql(&target.tables), &[])).await?;
    let timeline: String = get(&about, 4)?;
    let identity = Identity {
        system_identifier: history.clone(),
        timeline: u32::from_str_radix(&timeline, 16).map_err(|_| SourceError::Answer("the timeline"))?,
        database_oid: get(&about, 2)?,
        database: get(&about, 3)?,
        publication: get(&published, 0)?,
    };
    let (floor, head) = (position(get(&about, 0)?)?, position(get(&about, 1)?)?);
    let differs = |history: &History| broken(history, &identity, floor, head);
    let reset = past.broken.filter(|_| past.history.is_some());
    let reset = reset.or_else(|| past.history.as_ref().and_then(differs));
    let start = match past.history {
        // Not the window again, of which the streams that are open have seen some.
        _ if reset.is_some() => {
            position(get(&answered(client.query_one("select walcast.number_outbox()", &[])).await?, 0)?)?
        }
        Some(history) => history.processed,
        None => floor,
    };
    let session = Session::new(client, history, target.long, get(&about, 5)?).await?;
    Ok(Attempt::Opened(Box::new(Opened { session, identity, floor, start, reset })))
}

/// Why what is there can't continue a history.
fn broken(history: &History, identity: &Identity, floor: Lsn, head: Lsn) -> Option<ResetReason> {
    let before = &history.identity;
    let same_server = Identity {
        publication: before.publication.clone(),
        system_identifier: before.system_identifier.clone(),
        ..identity.clone()
    };
    if *before == same_server && before.system_identifier != identity.system_identifier {
        Some(ResetReason::OutboxCut)
    } else if *before != same_server {
        Some(ResetReason::ServerChanged)
    } else if history.identity != *identity {
        Some(ResetReason::PublicationChanged)
    } else if head < history.processed {
        Some(ResetReason::ServerBehind)
    } else if floor > history.processed {
        Some(ResetReason::OutboxPruned)
    } else {
        None
    }
}
