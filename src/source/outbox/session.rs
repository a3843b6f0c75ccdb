//! One connection to the outbox: the lock, numbering, reading, pruning.
//!
//! Everything is asked of `walcast`'s own functions (`migrations/walcast/0003_outbox.sql`), so that the worker's role
//! may do nothing else. The lock is the session's: whoever has it is the one reader, for as long as it is connected.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, pin_mut};
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::assembly::{Assembly, Change};
use super::relation::{Definition, Omitted};
use super::triggers;
use crate::postgres::client::{self, Client};
use crate::postgres::dsn::Dsn;
use crate::postgres::pgoutput::{
    Begin, Commit, EmittedMessage, LogicalMessage, LongMessages, OldTuple, Tuple,
};
use crate::postgres::schema::TableName;
use crate::postgres::{Lsn, PgTimestamp};
use crate::source::item::{Identity, ResetReason};
use crate::source::policy::SourceError;
use crate::source::progress::History;
use crate::source::{CANARY_PREFIX, EMIT_PREFIX, Transaction};

/// A server that answers nothing for so long is gone. Numbering a backlog of millions may take longer: it goes on in
/// the server, which keeps the lock until then, and is found done.
const SILENCE: Duration = Duration::from_secs(60);

/// NOTIFY wakes at once; this is for the one that was lost.
const POLL: Duration = Duration::from_secs(1);

/// Where nothing notifies. A round that finds nothing takes the server a tenth of a millisecond.
const POLL_UNNOTIFIED: Duration = Duration::from_millis(100);

/// Transactions of one round: more are read by the next one.
const ROUND_TRANSACTIONS: i64 = 1000;

/// Transactions pruned at a time, so that reading does not wait for long.
const PRUNED_TRANSACTIONS: i32 = 5000;

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

const NUMBER: &str = "
select walcast.number_outbox(), pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000";

const TRANSACTIONS: &str = "
select position, ends, xid::text, pg_catalog.date_part('epoch', numbered_at) * 1000000
  from walcast.outbox_transactions where position >= $1 and position < $2 order by position limit $3";

/// A message that is too long to be verified is not believed: it reads as empty.
const ROWS: &str = "
select t.position, o.operation::text, o.relation, o.old_row, o.new_row,
       case when octet_length(o.message) > $3 then '' else o.message end, o.omitted::text
  from walcast.outbox_transactions t join walcast.outbox o on o.xid = t.xid
 where t.position >= $1 and t.position <= $2 order by t.position, o.id";

/// Whose history it is, and how much that has no place in it.
const HISTORY: &str = "
select s.history::text, s.gaps = walcast.outbox_gap_count(), s.floor from walcast.outbox_state s";

/// All at once and before the rows: a query among them would wait for its answer behind rows that nobody reads.
const DEFINITIONS: &str = "select id, definition from walcast.outbox_relations where id <> all ($1)";

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

#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    /// The id of the history that is read.
    history: String,
    statements: Statements,
    /// By their ids; they never change.
    definitions: HashMap<i64, Definition>,
    long: LongMessages,
    /// Writers say that there is something. They don't where transactions may be prepared, which NOTIFY forbids.
    notifies: bool,
}

#[derive(Debug)]
struct Statements {
    number: Statement,
    history: Statement,
    transactions: Statement,
    rows: Statement,
    definitions: Statement,
}

/// What a round is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    /// Up to here was read.
    pub(super) from: Lsn,
    /// What lies below is to be forgotten.
    pub(super) prune: Option<Lsn>,
    /// Bytes of transactions in memory at once; a single one above is spooled.
    pub(super) max_transaction: u64,
}

/// What a round has found.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) transactions: VecDeque<Transaction>,
    /// Every transaction that had committed when the round began lies below.
    pub(super) head: Lsn,
    pub(super) server_time: PgTimestamp,
    /// The end of a transaction that can't be read; nothing beyond it was read.
    pub(super) unreadable: Option<Lsn>,
    /// Where history begins, if that was moved.
    pub(super) floor: Option<Lsn>,
}

/// A transaction's place.
#[derive(Clone, Copy, Debug)]
struct Place {
    position: i64,
    begin: Begin,
    ends: Lsn,
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
    let statements = Statements {
        number: answered(client.prepare(NUMBER)).await?,
        history: answered(client.prepare(HISTORY)).await?,
        transactions: answered(client.prepare(TRANSACTIONS)).await?,
        rows: answered(client.prepare(ROWS)).await?,
        definitions: answered(client.prepare(DEFINITIONS)).await?,
    };
    let session = Session {
        client,
        history,
        statements,
        definitions: HashMap::new(),
        long: target.long,
        notifies: get(&about, 5)?,
    };
    Ok(Attempt::Opened(Box::new(Opened { session, identity, floor, start, reset })))
}

impl Session {
    /// How long the next round may wait for [`Session::woken`].
    pub(super) const fn patience(&self) -> Duration {
        if self.notifies { POLL } else { POLL_UNNOTIFIED }
    }

    /// Returns when there may be something new. Cancel-safe.
    pub(super) async fn woken(&self) {
        self.client.notified().await;
    }

    /// Numbers what is new and reads from where the last round ended.
    pub(super) async fn round(mut self, task: Task) -> Result<(Self, Round), SourceError> {
        let floor = match task.prune {
            Some(below) => Some(self.prune(below).await?),
            None => None,
        };
        let numbered = answered(self.client.query_one(&self.statements.number, &[])).await?;
        let mut round = Round {
            transactions: VecDeque::new(),
            head: position(get(&numbered, 0)?)?,
            server_time: time(get(&numbered, 1)?),
            unreadable: None,
            floor,
        };
        if round.head > task.from {
            let places = self.places(task).await?;
            self.learn_definitions().await?;
            self.read(&places, task.max_transaction, &mut round).await?;
        }
        self.is_whole(task.from).await?;
        Ok((self, round))
    }

    /// After reading: nothing of what was read comes after something that is missing. What had no room is counted, and
    /// what was taken away has begun another history, before it commits.
    async fn is_whole(&self, from: Lsn) -> Result<(), SourceError> {
        let row = answered(self.client.query_one(&self.statements.history, &[])).await?;
        if get::<&str>(&row, 0)? != self.history || !get::<bool>(&row, 1)? {
            Err(SourceError::Broken(ResetReason::OutboxCut))
        } else if position(get(&row, 2)?)? > from {
            Err(SourceError::Broken(ResetReason::OutboxPruned))
        } else {
            Ok(())
        }
    }

    /// Returns where history begins then.
    pub(super) async fn prune(&self, below: Lsn) -> Result<Lsn, SourceError> {
        let below = number(below);
        let prune = "select walcast.prune_outbox($1, $2)";
        let row = answered(self.client.query_one(prune, &[&below, &PRUNED_TRANSACTIONS])).await?;
        position(get(&row, 0)?)
    }

    /// The next transactions: as many as fit into the budget, or the first, whatever its size.
    async fn places(&self, task: Task) -> Result<Vec<Place>, SourceError> {
        let from = number(task.from);
        let budget = i64::try_from(task.max_transaction).unwrap_or(i64::MAX);
        let limit = from.saturating_add(budget).max(from.saturating_add(1));
        let bounds: [&(dyn ToSql + Sync); 3] = [&from, &limit, &ROUND_TRANSACTIONS];
        let mut places = Vec::new();
        for row in answered(self.client.query(&self.statements.transactions, &bounds)).await? {
            let xid: String = get(&row, 2)?;
            let xid: u64 = xid.parse().map_err(|_| SourceError::Answer("a transaction's id"))?;
            let at: i64 = get(&row, 0)?;
            let begin = Begin {
                final_lsn: position(at)?,
                commit_time: time(get(&row, 3)?),
                // The low bits, as the log has them.
                xid: u32::try_from(xid & u64::from(u32::MAX)).unwrap_or_default(),
            };
            let place = Place { position: at, begin, ends: position(get(&row, 1)?)? };
            if !places.is_empty() && place.ends.bytes_since(task.from) > task.max_transaction {
                break;
            }
            places.push(place);
        }
        Ok(places)
    }

    async fn read(
        &self,
        places: &[Place],
        max_transaction: u64,
        round: &mut Round,
    ) -> Result<(), SourceError> {
        let (Some(first), Some(last)) = (places.first(), places.last()) else {
            return Ok(());
        };
        let longest = i32::try_from(self.long.max_bytes).unwrap_or(i32::MAX);
        let bounds: [&(dyn ToSql + Sync); 3] = [&first.position, &last.position, &longest];
        let rows = answered(self.client.query_raw(&self.statements.rows, bounds)).await?;
        pin_mut!(rows);
        let mut assembly = Assembly::new(max_transaction);
        let mut next = answered(next_row(rows.as_mut())).await?;
        for place in places {
            assembly.push(LogicalMessage::Begin(place.begin))?;
            while let Some(row) = next.take() {
                if get::<i64>(&row, 0)? != place.position {
                    next = Some(row);
                    break;
                }
                let change = self.change(&row)?;
                // A long one is not kept beside what was made of it.
                drop(row);
                match change {
                    Some(change) => assembly.change(change)?,
                    None => {
                        round.unreadable = Some(place.ends);
                        return Ok(());
                    }
                }
                next = answered(next_row(rows.as_mut())).await?;
            }
            let commit = Commit {
                commit_lsn: place.begin.final_lsn,
                end_lsn: place.ends,
                commit_time: place.begin.commit_time,
            };
            round.transactions.extend(assembly.push(LogicalMessage::Commit(commit))?);
        }
        Ok(())
    }

    /// A row of the outbox as a message of the log; none when it does not read as one of its table.
    fn change(&self, row: &Row) -> Result<Option<Change>, SourceError> {
        let operation: &str = get(row, 1)?;
        if let "M" | "C" = operation {
            let message = EmittedMessage {
                transactional: true,
                lsn: position(get(row, 0)?)?,
                prefix: if operation == "M" { EMIT_PREFIX } else { CANARY_PREFIX }.to_owned(),
                content: Bytes::copy_from_slice(get::<&str>(row, 5)?.as_bytes()),
            };
            return Ok(Some(Change { table: None, message: LogicalMessage::Message(message) }));
        }
        let id: Option<i64> = get(row, 2)?;
        let Some(definition) = id.and_then(|id| self.definitions.get(&id)) else {
            return Ok(None);
        };
        let Ok([old, new]) = Omitted::parse(get(row, 6)?) else {
            return Ok(None);
        };
        let mut kept = 0;
        let mut tuple = |column, omitted: &[Omitted]| -> Result<Option<Tuple>, SourceError> {
            let text: Option<&str> = get(row, column)?;
            Ok(text.and_then(|text| definition.tuple(text, omitted, self.long, &mut kept).ok()))
        };
        let relation = definition.relation.id;
        let message = match (operation, tuple(3, &old)?.map(OldTuple::Full), tuple(4, &new)?) {
            ("I", None, Some(new)) => LogicalMessage::Insert { relation, new },
            ("U", Some(old), Some(new)) => LogicalMessage::Update { relation, old: Some(old), new },
            ("D", Some(old), None) => LogicalMessage::Delete { relation, old },
            ("T", None, None) => LogicalMessage::Truncate {
                relations: vec![relation],
                cascade: false,
                restart_identity: false,
            },
            _ => return Ok(None),
        };
        Ok(Some(Change { table: Some(Arc::clone(&definition.relation)), message }))
    }

    /// Those of every row that has a place by now.
    async fn learn_definitions(&mut self) -> Result<(), SourceError> {
        let known: Vec<i64> = self.definitions.keys().copied().collect();
        for row in answered(self.client.query(&self.statements.definitions, &[&known])).await? {
            match Definition::parse(get(&row, 1)?) {
                Ok(definition) => _ = self.definitions.insert(get(&row, 0)?, definition),
                Err(error) => tracing::error!(%error, "a table's description in the outbox can't be read"),
            }
        }
        Ok(())
    }
}

async fn next_row(
    mut rows: std::pin::Pin<&mut tokio_postgres::RowStream>,
) -> Result<Option<Row>, tokio_postgres::Error> {
    rows.next().await.transpose()
}

/// An answer, or an error where a dead connection would keep us for ever.
async fn answered<T>(
    asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, SourceError> {
    match timeout(SILENCE, asked).await {
        Ok(answer) => answer.map_err(SourceError::Outbox),
        Err(_) => Err(SourceError::Silent { seconds: SILENCE.as_secs() }),
    }
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, SourceError> {
    row.try_get(column).map_err(SourceError::Outbox)
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

fn number(position: Lsn) -> i64 {
    i64::try_from(position.as_u64()).unwrap_or(i64::MAX)
}

fn position(number: i64) -> Result<Lsn, SourceError> {
    u64::try_from(number).map(Lsn::new).map_err(|_| SourceError::Answer("a position of the outbox"))
}

/// From microseconds since 1970, whole numbers of which a double holds exactly until 2255.
#[expect(clippy::cast_possible_truncation, reason = "a time of our century")]
fn time(micros: f64) -> PgTimestamp {
    PgTimestamp::from_unix_micros(micros as i64)
}
