//! The one task in commit order: source to mirror to catalog to journal.
//!
//! ```text
//! Transaction ─► begin ─► each change: mirror.apply, map, append ─► (more that has already come) ─► publish
//! Part        ─► begin ─► each change: map, append          … the rest of its transaction, or discard: it comes again
//! Position    ────────────────────────────────────────────────────────────────────────────────► publish
//! Reset, the first Connected ─► a new history: empty journals, the mirror read again
//! ```
//!
//! Streams see a transaction whole or not at all: its events are appended first and published at its end. What is
//! published counts as dealt with when the source is asked for more, and is confirmed only when no journal needs it
//! for replay any more.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::canary::Canary;
use super::epoch::epoch;
use super::housekeeping::Housekeeping;
use super::judge::Judge;
use super::prepare::chain;
use super::reread;
use super::stopping;
use super::watch::Signals;
use crate::catalog::{Compiled, Mapper};
use crate::journal::Journals;
use crate::mirror::Mirror;
use crate::postgres::{Dsn, Lsn, PgTimestamp};
use crate::source::{
    Backoff, Change, Changes, ErrorKind, Identity, Part, ResetReason, Source, SourceItem, Transaction,
    Visibility,
};
use crate::telemetry::{Metrics, Phase, Readiness, Reason, State};

/// How often the window is trimmed and the gauges are set.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Changes between two signs of life to the server, and between two chances for other tasks.
const CHANGES_A_PULSE: u32 = 256;

/// How long work that awaits something else may keep the server without a sign of life.
const PULSE: Duration = Duration::from_secs(1);

/// For how long transactions that have already come may hold up the publishing of the first.
const BURST: Duration = Duration::from_millis(1);

const UNREADABLE: &str = "a spooled transaction can't be read back";

/// Keys of readiness's reasons.
const SOURCE: &str = "source";
const MIRROR: &str = "mirror";

/// What the pipeline is built from.
pub(super) struct Parts {
    pub(super) dsn: Dsn,
    pub(super) source: Source,
    pub(super) mirror: Arc<Mirror>,
    pub(super) mapper: Mapper,
    pub(super) journals: Arc<Journals>,
    pub(super) visibility: Arc<Visibility>,
    pub(super) canary: Arc<Canary>,
    pub(super) housekeeping: Housekeeping,
    pub(super) readiness: Readiness,
    pub(super) metrics: Metrics,
    pub(super) judge: Judge,
    pub(super) signals: watch::Receiver<Signals>,
}

pub(super) struct Pipeline {
    parts: Parts,
    compiled: Arc<Compiled>,
    /// None until the first connection: there is no history yet.
    identity: Option<Identity>,
    /// Partitions cut, as far as they were heeded.
    cuts: u64,
    /// Heartbeats that were applied and are not published yet.
    canaries: Vec<Bytes>,
    /// Parts of a transaction are appended, whose rest has yet to come.
    begun: bool,
    /// How far the server's log and the journals were when last looked at.
    seen: (Lsn, Lsn),
    /// Ended by `stop` only: a wait that something else must be able to break off.
    stopped: watch::Receiver<bool>,
}

/// The worker was asked to stop while the pipeline waited.
struct Stopped;

impl Pipeline {
    pub(super) fn new(parts: Parts, stopped: watch::Receiver<bool>) -> Self {
        let compiled = Arc::clone(parts.mapper.compiled());
        Self {
            parts,
            compiled,
            identity: None,
            cuts: 0,
            canaries: Vec::new(),
            begun: false,
            seen: (Lsn::ZERO, Lsn::ZERO),
            stopped,
        }
    }

    /// Until it is stopped: the transaction in hand is finished then, and what was dealt with is confirmed.
    ///
    /// # Errors
    /// The source can never work, or a spooled transaction can't be read back.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut housekeeping = interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = stopping(self.stopped.clone());
        tokio::pin!(stop);
        loop {
            let item = tokio::select! {
                biased;
                // A busy source must not keep the worker from stopping, nor from keeping its bounds.
                () = &mut stop => break,
                _ = housekeeping.tick() => {
                    self.keep_house();
                    continue;
                }
                item = self.parts.source.next() => item?,
            };
            if let Err(Stopped) = self.take(item).await? {
                break;
            }
        }
        self.keep_house();
        self.parts.source.shutdown().await;
        Ok(())
    }

    async fn take(&mut self, item: SourceItem) -> anyhow::Result<Result<(), Stopped>> {
        match &item {
            SourceItem::Part(_) | SourceItem::Transaction(_) => {}
            // The connection that the transaction came on has broken: it comes again, from its first change on.
            _ if self.begun => self.discard(),
            _ => {}
        }
        match item {
            SourceItem::Part(part) => return self.part(&part).await,
            SourceItem::Transaction(transaction) => return self.burst(transaction).await,
            SourceItem::Position { lsn, .. } => {
                self.publish(lsn);
                self.parts.visibility.advance(lsn);
            }
            SourceItem::Connected { identity, start } => {
                self.parts.readiness.mend(SOURCE);
                if self.identity.is_none() {
                    return Ok(self.begin_history(identity, start, i64::MIN).await);
                }
                self.parts.metrics.reconnects.inc();
                self.admit();
            }
            SourceItem::Reset { identity, start, .. } => {
                let now = PgTimestamp::now().unix_millis();
                return Ok(self.begin_history(identity, start, now).await);
            }
            SourceItem::Disconnected { kind, standby, error, retry_in } => {
                tracing::warn!(error, retry_in_ms = retry_in.as_millis(), "the source is away");
                self.disconnected(kind, standby, error);
            }
        }
        Ok(Ok(()))
    }

    /// Nothing of before counts: ids begin anew, and the mirror is read from the database. What committed before
    /// `known_from` (ms since 1970) may be missing.
    async fn begin_history(
        &mut self,
        identity: Identity,
        start: Lsn,
        known_from: i64,
    ) -> Result<(), Stopped> {
        let epoch = epoch(&identity, self.parts.source.kind().as_str(), self.compiled.fingerprint());
        self.parts.readiness.enter(Phase::Starting);
        self.parts.mapper.set_epoch(epoch);
        self.parts.journals.reset(epoch, start, known_from);
        self.parts.visibility.reset(start);
        self.identity = Some(identity);
        tracing::info!(%epoch, %start, "history begins");
        self.load_mirror().await?;
        self.parts.judge.begin();
        Ok(())
    }

    /// Reads the mirror, however long that takes: without it nothing can be mapped, and nobody judged.
    async fn load_mirror(&mut self) -> Result<(), Stopped> {
        let mut backoff = Backoff::new();
        loop {
            let (mirror, dsn) = (Arc::clone(&self.parts.mirror), self.parts.dsn.clone());
            let loaded = self.meanwhile(async move { reread::mirror(&mirror, &dsn).await }).await?;
            let error = match loaded {
                Ok(()) => {
                    self.parts.readiness.mend(MIRROR);
                    // A quiet outbox ends where history begins: no item would say so.
                    self.admit();
                    return Ok(());
                }
                Err(error) => error,
            };
            self.parts.readiness.degrade(MIRROR, Reason::new(chain(&error)));
            let delay = backoff.delay(error.kind());
            self.meanwhile(sleep(delay)).await?;
        }
    }

    /// Awaits something that may take long, while the server hears that we live.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        let stop = stopping(self.stopped.clone());
        tokio::pin!(work, stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return Err(Stopped),
                done = timeout(PULSE, &mut work) => match done {
                    Ok(done) => return Ok(done),
                    Err(_) => self.parts.source.pulse().await,
                },
            }
        }
    }

    /// A transaction, and those that have come with it: published together, so that a backlog costs one look at the
    /// streams a burst and not one a transaction.
    async fn burst(&mut self, first: Transaction) -> anyhow::Result<Result<(), Stopped>> {
        let began = Instant::now();
        let mut next = Some(SourceItem::Transaction(first));
        let mut done = Vec::new();
        while let Some(SourceItem::Transaction(transaction)) = next {
            if let Err(Stopped) = self.apply(&transaction).await? {
                // None of the burst was published: all of it comes again.
                self.discard();
                return Ok(Err(Stopped));
            }
            done.push((transaction.xid, transaction.end_lsn));
            let whole = matches!(transaction.changes, Changes::Memory(_)) && began.elapsed() < BURST;
            next = if whole { self.parts.source.try_next() } else { None };
        }
        if let Some((_, end)) = done.last() {
            self.publish(*end);
        }
        for (xid, end) in done {
            self.parts.visibility.record(xid, end);
        }
        match next {
            Some(SourceItem::Part(part)) => self.part(&part).await,
            _ => Ok(Ok(())),
        }
    }

    /// Drops what is not published: it comes again.
    fn discard(&mut self) {
        self.parts.journals.discard_unpublished();
        self.canaries.clear();
        self.begun = false;
    }

    /// Appends what has come of a long transaction. No row of a mirrored table is in it: the mirror stays as it was before
    /// the transaction, so that nothing but the appended has to be undone.
    async fn part(&mut self, part: &Part) -> anyhow::Result<Result<(), Stopped>> {
        self.begun = true;
        self.parts.mapper.begin_part(part).context(UNREADABLE)?;
        self.each(part.xid, &part.changes).await
    }

    /// Appends a transaction's events, and lets streams stand as it leaves their users.
    async fn apply(&mut self, transaction: &Transaction) -> anyhow::Result<Result<(), Stopped>> {
        self.parts.metrics.transactions.inc();
        self.parts.metrics.spooled.inc_by(u64::from(matches!(transaction.changes, Changes::Spooled(_))));
        self.parts.mapper.begin(transaction).context(UNREADABLE)?;
        if let Err(Stopped) = self.each(transaction.xid, &transaction.changes).await? {
            return Ok(Err(Stopped));
        }
        self.begun = false;
        self.parts.judge.settle(transaction.commit_lsn);
        Ok(Ok(()))
    }

    /// Appends the events of changes.
    async fn each(&mut self, xid: u32, changes: &Changes) -> anyhow::Result<Result<(), Stopped>> {
        self.parts.metrics.changes.inc_by(changes.len());
        let mut changes = changes.reader().context(UNREADABLE)?;
        let mut until_pulse = CHANGES_A_PULSE;
        while let Some(change) = changes.next().context(UNREADABLE)? {
            if let Err(Stopped) = self.mirror(xid, change).await? {
                return Ok(Err(Stopped));
            }
            if let Change::Canary(content) = change {
                self.canaries.push(content.clone());
            }
            let (journals, metrics) = (&self.parts.journals, &self.parts.metrics);
            self.parts.mapper.map_change(change, &self.parts.mirror, &mut |event| {
                let bytes = event.frame().len();
                if journals.append(event) {
                    metrics.event_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
                } else {
                    tracing::error!("an event came out of order and was dropped");
                }
            });
            until_pulse -= 1;
            if until_pulse == 0 {
                until_pulse = CHANGES_A_PULSE;
                self.parts.canary.moved();
                self.parts.source.pulse().await;
                tokio::task::yield_now().await;
            }
        }
        Ok(Ok(()))
    }

    /// Lets the mirror follow a change, and learns the types of its table where they are new.
    async fn mirror(&mut self, xid: u32, change: &Change) -> anyhow::Result<Result<(), Stopped>> {
        match change {
            Change::Row(row) => {
                let applied = loop {
                    let error = match self.parts.mirror.apply(xid, row) {
                        Ok(applied) => break applied,
                        Err(error) => error,
                    };
                    // What access and lookups read is behind now: nobody is let in until it was read again. What was
                    // read may not have seen this change yet, so it is applied once more.
                    self.parts.readiness.degrade(MIRROR, Reason::new(chain(&error)));
                    self.parts.readiness.enter(Phase::Starting);
                    if let Err(Stopped) = self.load_mirror().await {
                        return Ok(Err(Stopped));
                    }
                    self.parts.judge.note_all();
                };
                if let Some(applied) = applied {
                    self.parts.judge.note(&applied);
                }
                if self.parts.mapper.unknown_types(&row.relation)
                    && let Err(Stopped) = self.learn_types().await
                {
                    return Ok(Err(Stopped));
                }
            }
            Change::Truncate(relations) => {
                if self.parts.mirror.truncate(xid, relations) {
                    self.parts.judge.note_truncated(relations);
                }
            }
            Change::Emit(_) | Change::Canary(_) => {}
        }
        Ok(Ok(()))
    }

    /// Types that were made after the worker started. One attempt a relation: unknown ones go out as text.
    async fn learn_types(&mut self) -> Result<(), Stopped> {
        let dsn = self.parts.dsn.clone();
        let mut backoff = Backoff::new();
        loop {
            let dsn = dsn.clone();
            let fetched = self.meanwhile(async move { reread::types(&dsn).await }).await?;
            match fetched {
                Ok(types) => {
                    self.parts.mapper.set_types(Arc::new(types));
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "types of the database could not be read");
                    self.meanwhile(sleep(backoff.delay(error.kind()))).await?;
                }
            }
        }
    }

    fn publish(&mut self, head: Lsn) {
        self.parts.journals.publish(head);
        for content in self.canaries.drain(..) {
            self.parts.canary.hear(&content);
        }
        self.parts.source.retain(self.parts.journals.oldest_kept());
        self.admit();
    }

    /// A worker that serves a history goes on with what its journals have; one without waits its turn.
    fn disconnected(&mut self, kind: ErrorKind, standby: bool, error: String) {
        if kind == ErrorKind::Operator {
            self.parts.readiness.degrade(SOURCE, Reason::new(error));
        } else if !standby {
            self.parts.readiness.warn(SOURCE, Reason::new(error));
        }
        match self.parts.readiness.state() {
            State::Starting | State::Standby if standby => self.parts.readiness.enter(Phase::Standby),
            State::Starting | State::Standby => self.parts.readiness.enter(Phase::Starting),
            _ => self.parts.readiness.enter(Phase::SourceDown),
        };
    }

    /// Lets streams in, once the stream has passed what the mirror was read at.
    fn admit(&mut self) {
        if self.parts.mirror.advance(self.parts.journals.head()) {
            self.parts.readiness.enter(Phase::Live);
        }
    }

    fn keep_house(&mut self) {
        self.heed();
        let Parts { source, mirror, mapper, journals, canary, housekeeping, readiness, metrics, .. } =
            &mut self.parts;
        let seen = (source.server_head(), journals.head());
        if seen != self.seen {
            self.seen = seen;
            canary.moved();
        }
        if let Some((time, lsn)) = source.window_start() {
            journals.evict_before(time.unix_millis(), lsn);
            source.retain(journals.oldest_kept());
        }
        housekeeping.tell(source, mirror, mapper, journals, readiness, metrics);
    }
}

impl Pipeline {
    /// What the log does not tell, once each time that it was asked for.
    fn heed(&mut self) {
        // None watches any more: then nothing is new.
        if !self.parts.signals.has_changed().unwrap_or(false) {
            return;
        }
        let signals = self.parts.signals.borrow_and_update().clone();
        let source = &mut self.parts.source;
        if let Some(max_bytes) = signals.max_wal {
            source.limit_wal(max_bytes);
        }
        if let Some(digest) = &signals.publication {
            source.expect_publication(digest.as_deref());
        }
        if std::mem::replace(&mut self.cuts, signals.cuts) != signals.cuts {
            source.begin_anew(ResetReason::PartitionCut);
        }
    }
}
