//! A table as a source: what triggers and `walcast.emit` wrote, numbered in the order in which it was seen committed.
//!
//! ```text
//! Waiting ─ delay over ─► Connecting ─ has the lock ─► Idle ─ NOTIFY, or a second ─► Reading ─► Idle
//!                          │      ▲                     ▲                               │
//!                          └ busy ┘                     └──── at once, if there is more ┘
//! ```
//!
//! Positions are bytes of this history, given once and for ever: ids, the replay window and its bounds work as they do
//! over the log. What is confirmed is pruned. Every await here may be cancelled: what is under way lives in the
//! source, not in a future.

mod answer;
mod assembly;
mod opening;
mod relation;
mod row;
mod session;
pub(super) mod triggers;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::EMIT_PREFIX;
use super::backoff::Backoff;
use super::confirm::Window;
use super::news::News;
use super::policy::{ErrorKind, Fatal, SourceError};
use super::progress::{History, Progress};
use super::{ResetReason, SourceItem, Transaction};
use crate::config;
use crate::postgres::client::Client;
use crate::postgres::dsn::Dsn;
use crate::postgres::pgoutput::LongMessages;
use crate::postgres::schema::TableName;
use crate::postgres::{Lsn, PgTimestamp};
use opening::{Attempt, Opened, Past, Target};
use session::{Round, Session, Task};

/// How soon an outbox that was found busy is tried again.
const BUSY_DELAY: Duration = Duration::from_millis(400);

/// How soon it is looked again whether a gap can be closed: each look may hold writers up for a tenth of that.
const GAP_DELAY: Duration = Duration::from_secs(1);

/// How often what left the window is pruned; more often where the window is short.
const PRUNE_INTERVAL: Duration = Duration::from_secs(10);

const PRUNE_AT_MOST: Duration = Duration::from_millis(500);

/// A worker that stops waits no longer for its last pruning.
const FAREWELL: Duration = Duration::from_secs(5);

/// Transactions from `walcast.outbox`.
pub struct OutboxSource {
    target: Target,
    window: Window,
    max_transaction: u64,
    phase: Phase,
    progress: Progress,
    backoff: Backoff,
    /// Known of the history that there is: it can't be continued.
    broken: Option<ResetReason>,
    /// To be yielded before anything else is done.
    news: News,
    /// Read and not yet yielded.
    batch: VecDeque<Transaction>,
    /// What comes after the batch can't be read, up to here.
    unreadable: Option<Lsn>,
    /// When was pruned last, and what is left of it.
    pruned: (Instant, Lsn),
}

enum Phase {
    Waiting {
        until: Instant,
    },
    Connecting(Pending<Attempt>),
    Idle {
        session: Box<Session>,
        until: Instant,
    },
    Reading(Pending<(Session, Round)>),
    /// The session was given up outside of `next`, which is to report it.
    Broken(SourceError),
}

type Pending<T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send>>;

impl OutboxSource {
    /// Connects at the first call of [`OutboxSource::next`].
    #[must_use]
    pub fn new(source: &config::Source, replay: &config::Replay, dsn: Dsn) -> Self {
        let window = Window { max_age: replay.max_age, max_wal: replay.max_wal.0 };
        Self {
            target: Target {
                dsn,
                tables: Vec::new(),
                long: LongMessages {
                    prefix: EMIT_PREFIX,
                    max_bytes: usize::try_from(source.max_row.0).unwrap_or(usize::MAX),
                },
            },
            window,
            max_transaction: source.max_transaction.0,
            phase: Phase::Waiting { until: Instant::now() },
            progress: Progress::new(window),
            backoff: Backoff::new(),
            broken: None,
            news: News::default(),
            batch: VecDeque::new(),
            unreadable: None,
            pruned: (Instant::now(), Lsn::ZERO),
        }
    }

    /// Reads only changes of these tables: what becomes of the others' triggers breaks no history.
    #[must_use]
    pub fn of_tables(mut self, tables: Vec<TableName>) -> Self {
        self.target.tables = tables;
        self
    }

    /// The next step, waiting for it as long as it takes; by calling, what was yielded before has been dealt with.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Only what can never work; everything else is retried, and told as [`SourceItem::Disconnected`].
    pub async fn next(&mut self) -> Result<SourceItem, Fatal> {
        self.progress.settle();
        loop {
            if let Some(item) = self.news.pop() {
                return Ok(item);
            }
            if let Some(transaction) = self.batch.pop_front() {
                return Ok(SourceItem::Transaction(self.hand_out(transaction)));
            }
            if let Some(after) = self.unreadable.take() {
                self.skip(after);
                continue;
            }
            match &mut self.phase {
                Phase::Waiting { until } => {
                    sleep_until(*until).await;
                    let attempt = opening::open(self.target.clone(), self.past());
                    self.phase = Phase::Connecting(Box::pin(attempt));
                }
                Phase::Connecting(attempt) => match attempt.await {
                    Ok(Attempt::Opened(opened)) => self.opened(*opened),
                    Ok(Attempt::Busy(connection)) => {
                        self.wait(connection, &SourceError::OutboxBusy, BUSY_DELAY);
                    }
                    Ok(Attempt::Gap(connection)) => {
                        self.wait(connection, &SourceError::OutboxGap, GAP_DELAY);
                    }
                    Err(error) => self.failed(error)?,
                },
                Phase::Idle { session, until } => {
                    tokio::select! {
                        biased; // no reason to wait for the other when one has come
                        () = session.woken() => {}
                        () = sleep_until(*until) => {}
                    }
                    self.read();
                }
                Phase::Reading(round) => match round.await {
                    Ok((session, round)) => self.took(session, round),
                    Err(error) => self.failed(error)?,
                },
                Phase::Broken(_) => {
                    let now = Phase::Waiting { until: Instant::now() };
                    if let Phase::Broken(error) = std::mem::replace(&mut self.phase, now) {
                        self.failed(error)?;
                    }
                }
            }
        }
    }

    /// A transaction that has already come, without waiting, so that a burst is published at once. What was yielded
    /// before is not dealt with by this.
    pub fn try_next(&mut self) -> Option<SourceItem> {
        if !self.news.is_empty() {
            return None;
        }
        let transaction = self.batch.pop_front()?;
        Some(SourceItem::Transaction(self.hand_out(transaction)))
    }

    /// As of the log's source: the start of the oldest transaction that the journals keep.
    pub fn retain(&mut self, oldest_kept: Option<Lsn>) {
        self.progress.retain(oldest_kept);
    }

    /// The end of what was numbered, as the last round saw it.
    #[must_use]
    pub fn server_head(&self) -> Lsn {
        self.progress.server_head()
    }

    /// Where the replay window begins.
    #[must_use]
    pub fn window_start(&self) -> Option<(PgTimestamp, Lsn)> {
        self.progress.window_start()
    }

    /// What lies below may be pruned.
    #[must_use]
    pub fn confirmed(&self) -> Lsn {
        self.progress.confirmed()
    }

    /// What is written by now: where it is not what this history began with, another begins.
    pub fn expect_publication(&mut self, digest: Option<&str>) {
        let Some(digest) = digest else { return };
        let changed = self.progress.history().is_some_and(|history| history.identity.publication != digest);
        if changed {
            self.break_off(ResetReason::PublicationChanged);
        }
    }

    /// Something happened that no row tells: gives the history up, and begins another.
    pub fn begin_anew(&mut self, reason: ResetReason) {
        self.broken = Some(reason);
        self.break_off(reason);
    }

    /// Leaves the session, if there is one: the next one says where to begin.
    fn break_off(&mut self, reason: ResetReason) {
        if matches!(self.phase, Phase::Idle { .. } | Phase::Reading(_)) {
            self.batch.clear();
            self.unreadable = None;
            self.phase = Phase::Broken(SourceError::Broken(reason));
        }
    }

    /// Prunes what may be, and gives up the lock, so that another worker has it at once.
    pub async fn shutdown(mut self) {
        let Phase::Idle { session, .. } = self.phase else {
            return;
        };
        let below = self.progress.confirm();
        match timeout(FAREWELL, session.prune(below)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the outbox could not be pruned before leaving"),
            Err(_) => tracing::debug!("the outbox was not pruned before leaving: its server did not answer"),
        }
    }

    fn hand_out(&mut self, transaction: Transaction) -> Transaction {
        self.progress.hand_out((transaction.commit_time, transaction.end_lsn));
        transaction
    }

    fn opened(&mut self, opened: Opened) {
        let Opened { session, identity, floor, start, reset } = opened;
        self.broken = None;
        if reset.is_some() || self.progress.history().is_none() {
            self.progress.begin(identity.clone(), start);
        } else {
            self.progress.resume(floor);
        }
        if let Some(reason) = reset {
            tracing::warn!(%start, %reason, "history can't be continued");
        }
        tracing::info!(%start, "reading from the outbox");
        self.news.connected(identity, start, reset);
        self.pruned = (Instant::now(), floor);
        self.phase = Phase::Idle { session: Box::new(session), until: Instant::now() };
    }

    /// On the connection that there is.
    fn wait(&mut self, connection: Client, reason: &SourceError, delay: Duration) {
        self.news.disconnected(reason, delay);
        let (target, past) = (self.target.clone(), self.past());
        self.phase = Phase::Connecting(Box::pin(async move {
            tokio::time::sleep(delay).await;
            opening::retry(connection, target, past).await
        }));
    }

    fn past(&self) -> Past {
        Past { history: self.progress.history(), broken: self.broken }
    }

    /// From idle to reading; from anything else, nothing.
    fn read(&mut self) {
        let waiting = Phase::Waiting { until: Instant::now() };
        match std::mem::replace(&mut self.phase, waiting) {
            Phase::Idle { session, .. } => {
                let prune = self.prune_if_due();
                let task = Task { from: self.progress.head(), prune, max_transaction: self.max_transaction };
                self.phase = Phase::Reading(Box::pin(session.round(task)));
            }
            other => self.phase = other,
        }
    }

    /// What may be pruned, when it is time to.
    fn prune_if_due(&mut self) -> Option<Lsn> {
        let (at, floor) = self.pruned;
        let interval = PRUNE_INTERVAL.min(self.window.max_age / 4).max(PRUNE_AT_MOST);
        let much = self.progress.processed().bytes_since(floor) >= self.window.max_wal;
        if at.elapsed() < interval && !much {
            return None;
        }
        self.pruned.0 = Instant::now();
        let below = self.progress.confirm();
        (below > floor).then_some(below)
    }

    fn took(&mut self, session: Session, round: Round) {
        let Round { transactions, head, server_time, unreadable, floor } = round;
        self.backoff.reset();
        self.progress.observe(server_time, head);
        if let Some(floor) = floor {
            self.pruned = (Instant::now(), floor);
        }
        let read_to = transactions.back().map_or(self.progress.head(), |last| last.end_lsn);
        let until = if read_to < head { Instant::now() } else { Instant::now() + session.patience() };
        self.batch = transactions;
        self.unreadable = unreadable;
        self.phase = Phase::Idle { session: Box::new(session), until };
    }

    /// Nothing tells what a transaction changed: all that was derived from the database is derived again.
    fn skip(&mut self, after: Lsn) {
        let Some(History { identity, .. }) = self.progress.history() else {
            return;
        };
        let reason = ResetReason::OutboxUnreadable;
        tracing::error!(position = %after, %reason, "history can't be continued");
        self.progress.begin(identity.clone(), after);
        self.news.connected(identity, after, Some(reason));
    }

    fn failed(&mut self, error: SourceError) -> Result<(), Fatal> {
        let kind = error.kind();
        if kind == ErrorKind::Fatal {
            return Err(Fatal::from(error));
        }
        let delay = self.backoff.delay(kind);
        self.news.disconnected(&error, delay);
        self.phase = Phase::Waiting { until: Instant::now() + delay };
        Ok(())
    }
}

impl std::fmt::Debug for OutboxSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = match &self.phase {
            Phase::Waiting { .. } => "waiting",
            Phase::Connecting(_) => "connecting",
            Phase::Idle { .. } => "idle",
            Phase::Reading(_) => "reading",
            Phase::Broken(_) => "broken",
        };
        f.debug_struct("OutboxSource")
            .field("target", &self.target)
            .field("phase", &phase)
            .finish_non_exhaustive()
    }
}
