//! "Now": a position all of whose commits a new snapshot sees.
//!
//! Decoding runs ahead of visibility: a transaction is in the WAL before it leaves the list of those in progress. Who
//! connects, is told a position and then reads the database must find everything up to it. So the pipeline records
//! what it has dealt with, and the answer is the end of the longest beginning of that record that a snapshot, taken
//! by an SQL connection of this service, sees whole.
//!
//! It also runs behind: what was committed just before somebody connects may not have been decoded yet, and they would
//! be shown it as new. So the pipeline is first given a moment to reach what the server's log ends at.
//!
//! An older answer is always right too, only less useful: that is what a server out of reach gives.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::{Kind, Snapshot};
use crate::postgres::Lsn;
use crate::postgres::client::{Client, connect};
use crate::postgres::dsn::Dsn;

/// Transactions remembered one by one. Beyond, neighbours become one: nobody has asked for long.
const MAX_ENTRIES: usize = 1 << 16;

/// A snapshot takes microseconds; without one after so long the last answer is given again.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the pipeline may take to reach the log's end: a few milliseconds in health, and with
/// `synchronous_commit = off` up to three times `wal_writer_delay`. A worker that is far behind says where it is, and
/// its streams see what it has yet to read.
const CATCH_UP: Duration = Duration::from_secs(1);

/// A page of the log begins with a header, that of a segment's first page is longer. (`xlog_internal.h`)
const PAGE: u64 = 8192;
const PAGE_HEADER: u64 = 24;
const SEGMENT_HEADER: u64 = 40;

/// What numbering needs, whatever the role or the database is set to: to see what committed while it waited for its
/// lock, and to keep that lock no longer than it takes, which with `local` no standby decides.
const SESSION: &str = "set default_transaction_isolation = 'read committed'; set synchronous_commit = local";

/// After a failure nobody else waits for another one this soon.
const PAUSE: Duration = Duration::from_secs(1);

/// Shared between the pipeline, which records, and whoever asks.
#[derive(Debug)]
pub struct Visibility {
    dsn: Dsn,
    /// Of the source; until it is known nothing is recorded, and the log's end will do.
    source: OnceLock<Kind>,
    record: Mutex<Record>,
    /// Held by the one who asks the server; the others wait for it.
    connection: tokio::sync::Mutex<Connection>,
    /// Rounds of asking the server that have begun.
    rounds: AtomicU64,
    /// Wakes who waits for the pipeline.
    moved: Notify,
}

#[derive(Debug, Default)]
struct Connection {
    client: Option<Client>,
    not_before: Option<Instant>,
    /// The last round that ended, and whether the pipeline came to what was committed when it began.
    round: u64,
    current: bool,
    /// Where the server's log ended in that round; none: the server did not say.
    end: Option<Lsn>,
}

/// What somebody who asks is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visible {
    /// Every commit below it is published, and seen by a new snapshot.
    pub position: Lsn,
    /// Everything that was committed when it was asked for has been processed, as far as anybody knows: where not, the
    /// worker is behind, or the server does not answer.
    pub current: bool,
}

/// What the pipeline dealt with and no snapshot is known to see whole.
#[derive(Debug, Default)]
struct Record {
    unseen: VecDeque<Entry>,
    visible: Lsn,
    head: Lsn,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The newest of the transactions that it stands for.
    xid: u32,
    end: Lsn,
    /// Stands for several, of which only the newest is known: seen once all that are older have ended.
    several: bool,
}

impl Visibility {
    #[must_use]
    pub fn new(dsn: Dsn) -> Self {
        Self {
            dsn,
            source: OnceLock::new(),
            record: Mutex::default(),
            connection: tokio::sync::Mutex::default(),
            rounds: AtomicU64::new(0),
            moved: Notify::new(),
        }
    }

    /// Whose positions the pipeline records. The first answer stays.
    pub fn follow(&self, source: Kind) {
        let _ = self.source.set(source);
    }

    /// History begins anew at `start`.
    pub fn reset(&self, start: Lsn) {
        *self.lock() = Record { unseen: VecDeque::new(), visible: start, head: start };
    }

    /// The pipeline has published this transaction.
    pub fn record(&self, xid: u32, end_lsn: Lsn) {
        self.lock().push(xid, end_lsn);
        self.moved.notify_waiters();
    }

    /// Every commit below is published; from positions between transactions.
    pub fn advance(&self, head: Lsn) {
        let mut record = self.lock();
        record.head = record.head.max(head);
        if record.unseen.is_empty() {
            record.visible = record.head;
        }
        drop(record);
        self.moved.notify_waiters();
    }

    /// The newest position known to be visible whole. Callers at the same time share one query; cancel-safe.
    pub async fn visible(&self) -> Visible {
        let current = self.round().await.current;
        Visible { position: self.known(), current }
    }

    /// As [`visible`](Self::visible), without asking: it may have been known to be further since.
    pub fn known(&self) -> Lsn {
        self.lock().visible
    }

    /// Returns once the pipeline has dealt with everything that a snapshot taken before this call could see, however
    /// long that takes; false: the server does not say how far that is. Cancel-safe.
    pub async fn passed(&self) -> bool {
        let end = self.round().await.end;
        match end {
            Some(end) => self.reach(end).await,
            None => return false,
        }
        true
    }

    /// A round that began after this call: it knows what was committed before.
    async fn round(&self) -> tokio::sync::MutexGuard<'_, Connection> {
        let begun = self.rounds.load(Ordering::Acquire);
        let mut connection = self.connection.lock().await;
        if connection.round <= begun {
            let round = self.rounds.fetch_add(1, Ordering::AcqRel) + 1;
            connection.end = None;
            connection.current = self.look(&mut connection).await;
            connection.round = round;
        }
        connection
    }

    /// Whether the pipeline came to the log's end.
    async fn look(&self, connection: &mut Connection) -> bool {
        if connection.not_before.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        // Taken out: if this future is dropped halfway, so is the connection.
        let client = connection.client.take();
        match timeout(QUERY_TIMEOUT, self.see(client)).await {
            Ok(Ok((client, end, current))) => {
                connection.client = Some(client);
                connection.not_before = None;
                connection.end = Some(end);
                return current;
            }
            Ok(Err(error)) => {
                tracing::debug!(error, "no snapshot: the visible position stays where it is");
                connection.not_before = Some(Instant::now() + PAUSE);
            }
            Err(_) => connection.not_before = Some(Instant::now() + PAUSE),
        }
        false
    }

    /// Lets the pipeline catch up, then takes a snapshot: on the connection that there was, or on a new one.
    async fn see(&self, client: Option<Client>) -> Result<(Client, Lsn, bool), String> {
        let old = match client {
            Some(client) => self.end(&client).await.ok().map(|end| (client, end)),
            None => None,
        };
        let (client, end) = match old {
            Some(alive) => alive,
            None => {
                let client = connect(&self.dsn).await.map_err(|error| error.to_string())?;
                client.batch_execute(SESSION).await.map_err(|error| error.to_string())?;
                let end = self.end(&client).await?;
                (client, end)
            }
        };
        // Late is no failure.
        let current = timeout(CATCH_UP, self.reach(end)).await.is_ok();
        let all_seen = self.lock().unseen.is_empty();
        if !all_seen {
            let snapshot: Snapshot = query(&client, "select pg_catalog.pg_current_snapshot()::text").await?;
            self.lock().see(&snapshot);
        }
        Ok((client, end, current))
    }

    /// Above every commit that a snapshot can see by now.
    async fn end(&self, client: &Client) -> Result<Lsn, String> {
        match self.source.get().copied().unwrap_or_default() {
            Kind::Wal => log_end(client).await,
            Kind::Outbox => {
                // Somebody waits for what this numbers: the reader is woken, whether or not writers do that.
                const NUMBER: &str =
                    "select walcast.number_outbox()::text from pg_catalog.pg_notify('walcast', '')";
                query(client, NUMBER).await.map(Lsn::new)
            }
        }
    }

    async fn reach(&self, end: Lsn) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Before looking: a move in between is not missed.
            moved.as_mut().enable();
            if self.lock().head >= end {
                return;
            }
            moved.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the log ends: above every commit that a snapshot can see by now, flushed or not.
async fn log_end(client: &Client) -> Result<Lsn, String> {
    query(client, "select pg_catalog.pg_current_wal_insert_lsn()::text").await.map(before_header)
}

/// The insert position steps over the header of a page that nothing is written to yet; a walsender stops before it.
fn before_header(insert: Lsn) -> Lsn {
    match insert.as_u64() % PAGE {
        header @ (PAGE_HEADER | SEGMENT_HEADER) => insert.back(header),
        _ => insert,
    }
}

async fn query<T: FromStr<Err: ToString>>(client: &Client, sql: &str) -> Result<T, String> {
    let row = client.query_one(sql, &[]).await;
    let text: String = row.and_then(|row| row.try_get(0)).map_err(|error| error.to_string())?;
    text.parse().map_err(|error: T::Err| error.to_string())
}

impl Record {
    fn push(&mut self, xid: u32, end: Lsn) {
        self.head = self.head.max(end);
        if self.unseen.len() >= MAX_ENTRIES {
            self.halve();
        }
        self.unseen.push_back(Entry { xid, end, several: false });
    }

    /// Takes off the front what the snapshot sees; what comes after the first that it does not see has to wait.
    fn see(&mut self, snapshot: &Snapshot) {
        while let Some(entry) = self.unseen.front() {
            let seen = if entry.several { snapshot.is_past(entry.xid) } else { snapshot.sees(entry.xid) };
            if !seen {
                return;
            }
            self.visible = entry.end;
            self.unseen.pop_front();
        }
        self.visible = self.head;
    }

    fn halve(&mut self) {
        let mut pairs = VecDeque::with_capacity(MAX_ENTRIES);
        while let Some(first) = self.unseen.pop_front() {
            pairs.push_back(self.unseen.pop_front().map_or(first, |second| first.and(second)));
        }
        self.unseen = pairs;
    }
}

impl Entry {
    fn and(self, later: Self) -> Self {
        // Ids wrap around; of two in a stream the newer is less than half the circle ahead.
        let later_is_newer = later.xid.wrapping_sub(self.xid) < 1 << 31;
        let xid = if later_is_newer { later.xid } else { self.xid };
        Self { xid, end: later.end, several: true }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(xids: &[u32]) -> Record {
        let mut record = Record::default();
        for (place, xid) in xids.iter().enumerate() {
            record.push(*xid, Lsn::new(100 * (place as u64 + 1)));
        }
        record
    }

    #[test]
    fn visible_ends_before_the_first_transaction_that_a_snapshot_misses() {
        let mut record = record(&[10, 12, 11, 14]);
        record.see(&"11:13:11".parse().unwrap());
        assert_eq!(record.visible, Lsn::new(200));
        record.see(&"13:13:".parse().unwrap());
        assert_eq!(record.visible, Lsn::new(300));
        record.see(&"15:15:".parse().unwrap());
        assert_eq!(record.visible, Lsn::new(400));
    }

    #[test]
    fn a_position_counts_once_every_transaction_before_it_is_seen() {
        let visibility = Visibility::new("postgres://u@localhost/d".parse().unwrap());
        visibility.reset(Lsn::new(50));
        visibility.record(10, Lsn::new(100));
        visibility.advance(Lsn::new(500));
        assert_eq!(visibility.lock().visible, Lsn::new(50));
        visibility.lock().see(&"11:11:".parse().unwrap());
        assert_eq!(visibility.lock().visible, Lsn::new(500));
        visibility.advance(Lsn::new(600));
        assert_eq!(visibility.lock().visible, Lsn::new(600));
    }

    #[test]
    fn memory_is_bounded_while_nobody_asks() {
        let mut record = Record::default();
        for xid in 0..300_000u32 {
            record.push(xid, Lsn::new(u64::from(xid) + 1));
        }
        assert!(record.unseen.len() <= MAX_ENTRIES);
        record.see(&"150000:300000:150000".parse().unwrap());
        assert!(record.visible > Lsn::new(140_000) && record.visible <= Lsn::new(150_000));
        record.see(&"300000:300000:".parse().unwrap());
        assert_eq!(record.visible, Lsn::new(300_000));
    }

    proptest! {
        #[test]
        fn coalescing_never_makes_more_visible(
            xids in prop::collection::vec(0..60u32, 1..40),
            start in prop_oneof![Just(0u32), Just(u32::MAX - 30)],
            xmax in 0..70u64, in_progress in prop::collection::btree_set(0..70u64, 0..8),
        ) {
            let era = (1u64 << 33) + u64::from(start);
            let in_progress: Vec<_> = in_progress.into_iter().filter(|xid| *xid < xmax).collect();
            let xmin = in_progress.first().copied().unwrap_or(xmax);
            let list: Vec<_> = in_progress.iter().map(|xid| (era + xid).to_string()).collect();
            let snapshot: Snapshot = format!("{}:{}:{}", era + xmin, era + xmax, list.join(",")).parse().unwrap();
            let xids: Vec<_> = xids.into_iter().map(|xid| start.wrapping_add(xid)).collect();
            let (mut exact, mut coarse) = (record(&xids), record(&xids));
            coarse.halve();
            coarse.halve();
            exact.see(&snapshot);
            coarse.see(&snapshot);
            prop_assert!(coarse.visible <= exact.visible);
            let seen = xids.iter().take_while(|xid| snapshot.sees(**xid)).count();
            prop_assert_eq!(exact.visible, Lsn::new(100 * seen as u64));
        }
    }
}
