//! A connection that has the lock of the outbox: numbering, reading, pruning.
//!
//! Everything is asked of `walcast`'s own functions (`migrations/walcast/0003_outbox.sql`), so that the worker's role
//! may do nothing else. A round reads whole transactions, and says so only when nothing before them is missing.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::answer::{answered, get, number, position, time};
use super::assembly::Assembly;
use super::relation::Definition;
use super::row::{self, ROWS};
use crate::postgres::client::Client;
use crate::postgres::pgoutput::{Begin, Commit, LogicalMessage, LongMessages};
use crate::postgres::{Lsn, PgTimestamp};
use crate::source::Transaction;
use crate::source::item::ResetReason;
use crate::source::policy::SourceError;

/// NOTIFY wakes at once; this is for the one that was lost.
const POLL: Duration = Duration::from_secs(1);

/// Where nothing notifies. A round that finds nothing takes the server a tenth of a millisecond.
const POLL_UNNOTIFIED: Duration = Duration::from_millis(100);

/// Transactions of one round: more are read by the next one.
const ROUND_TRANSACTIONS: i64 = 1000;

/// Transactions pruned at a time, so that reading does not wait for long.
const PRUNED_TRANSACTIONS: i32 = 5000;

const NUMBER: &str = "
select walcast.number_outbox(), pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000";

const TRANSACTIONS: &str = "
select position, ends, xid::text, pg_catalog.date_part('epoch', numbered_at) * 1000000
  from walcast.outbox_transactions where position >= $1 and position < $2 order by position limit $3";

/// Whose history it is, and how much that has no place in it.
const HISTORY: &str = "
select s.history::text, s.gaps = walcast.outbox_gap_count(), s.floor from walcast.outbox_state s";

/// All at once and before the rows: a query among them would wait for its answer behind rows that nobody reads.
const DEFINITIONS: &str = "select id, definition from walcast.outbox_relations where id <> all ($1)";

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

impl Session {
    /// On a connection that has the lock. `notifies`: whether writers say that there is something.
    pub(super) async fn new(
        client: Client,
        history: String,
        long: LongMessages,
        notifies: bool,
    ) -> Result<Self, SourceError> {
        let statements = Statements {
            number: answered(client.prepare(NUMBER)).await?,
            history: answered(client.prepare(HISTORY)).await?,
            transactions: answered(client.prepare(TRANSACTIONS)).await?,
            rows: answered(client.prepare(ROWS)).await?,
            definitions: answered(client.prepare(DEFINITIONS)).await?,
        };
        Ok(Self { client, history, statements, definitions: HashMap::new(), long, notifies })
    }

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
                let change = row::change(&row, &self.definitions, self.long)?;
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
