//! A replication slot as a source.
//!
//! ```text
//! Waiting ─ delay over ─► Connecting ─ opened ─► Streaming ─ error ─► Waiting
//!                          │      ▲
//!                          └ busy ┘  another worker has the slot: asked again twice a second
//! ```
//!
//! Every await here may be cancelled: what is under way lives in the source, not in a future, and goes on with the
//! next call. What was handed out counts as dealt with when [`WalSource::next`] is called again, and only then may it
//! be confirmed.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::assembler::Assembler;
use super::backoff::Backoff;
use super::confirm::Window;
use super::connect::{self, Attempt, Opened, Past, Target};
use super::link::Link;
use super::news::News;
use super::parts::Parts;
use super::policy::{ErrorKind, Fatal, SourceError};
use super::progress::Progress;
use super::relations::EMIT_PREFIX;
use super::{ResetReason, SourceItem};
use crate::config;
use crate::postgres::dsn::Dsn;
use crate::postgres::pgoutput::LongMessages;
use crate::postgres::schema::TableName;
use crate::postgres::{Lsn, PgTimestamp};

/// How soon a slot that was found busy when starting is tried again.
const BUSY_DELAY: Duration = Duration::from_millis(400);

/// A connection that stood for so long was a success, even if the database was idle.
const STOOD: Duration = Duration::from_secs(30);

/// Transactions from a replication slot.
pub struct WalSource {
    target: Target,
    window: Window,
    max_transaction: u64,
    /// As [`WalSource::in_parts`] was told.
    whole: Option<Vec<TableName>>,
    phase: Phase,
    progress: Progress,
    backoff: Backoff,
    /// Known of the history that there is, or of the log that is next: it can't be continued.
    broken: Option<ResetReason>,
    /// To be yielded before anything else is done.
    news: News,
}

enum Phase {
    Waiting {
        until: Instant,
    },
    Connecting(Connecting),
    Streaming(Box<Link>),
    /// The stream broke outside of `next`, which is to report it.
    Broken(SourceError),
}

type Connecting = Pin<Box<dyn Future<Output = Result<Attempt, SourceError>> + Send>>;

impl WalSource {
    /// Connects at the first call of [`WalSource::next`].
    #[must_use]
    pub fn new(source: &config::Source, replay: &config::Replay, dsn: Dsn) -> Self {
        let window = Window { max_age: replay.max_age, max_wal: replay.max_wal.0 };
        Self {
            target: Target {
                slot: slot_name(source, &dsn.database),
                publication: source.publication.clone(),
                long: LongMessages {
                    prefix: EMIT_PREFIX,
                    max_bytes: usize::try_from(source.max_row.0).unwrap_or(usize::MAX),
                },
                tables: Vec::new(),
                dsn,
            },
            window,
            max_transaction: source.max_transaction.0,
            whole: None,
            phase: Phase::Waiting { until: Instant::now() },
            progress: Progress::new(window),
            backoff: Backoff::new(),
            broken: None,
            news: News::default(),
        }
    }

    /// Reads only these of the published tables: what becomes of the others breaks no history.
    #[must_use]
    pub fn of_tables(mut self, tables: Vec<TableName>) -> Self {
        self.target.tables = tables;
        self
    }

    /// Hands out long transactions in [`Part`](super::Part)s, as they come, as far as no row of these tables is among them.
    #[must_use]
    pub fn in_parts(mut self, whole: Vec<TableName>) -> Self {
        self.whole = Some(whole);
        self
    }

    /// The slot that is read.
    #[must_use]
    pub fn slot(&self) -> &str {
        &self.target.slot
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
            match &mut self.phase {
                Phase::Waiting { until } => {
                    sleep_until(*until).await;
                    let attempt = connect::connect(self.target.clone(), self.past());
                    self.phase = Phase::Connecting(Box::pin(attempt));
                }
                Phase::Connecting(attempt) => match attempt.await {
                    Ok(Attempt::Opened(opened)) => self.opened(*opened),
                    Ok(Attempt::Busy(connection)) => {
                        let busy = SourceError::SlotBusy { slot: self.target.slot.clone() };
                        self.news.disconnected(&busy, BUSY_DELAY);
                        let attempt = connect::retry(connection, self.target.clone(), self.past());
                        self.phase = Phase::Connecting(Box::pin(attempt));
                    }
                    Err(error) => self.failed(error)?,
                },
                Phase::Streaming(link) => match link.next(&mut self.progress).await {
                    Ok(item) => {
                        if matches!(item, SourceItem::Transaction(_)) || link.age() >= STOOD {
                            self.backoff.reset();
                        }
                        return Ok(item);
                    }
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

    /// A transaction, or a part of one, that has already come, without waiting, so that a burst is published at once. What was yielded
    /// before is not dealt with by this.
    pub fn try_next(&mut self) -> Option<SourceItem> {
        if !self.news.is_empty() {
            return None;
        }
        let Phase::Streaming(link) = &mut self.phase else {
            return None;
        };
        match link.try_next(&mut self.progress) {
            Ok(item) => item,
            Err(error) => {
                self.phase = Phase::Broken(error);
                None
            }
        }
    }

    /// Tells the server that we live, if it is time to. To be called often during long work; it costs next to
    /// nothing.
    pub async fn pulse(&mut self) {
        if let Phase::Streaming(link) = &mut self.phase
            && let Err(error) = link.send_status_if_due(&mut self.progress).await
        {
            self.phase = Phase::Broken(error);
        }
    }

    /// The commit position of the oldest transaction that the journals keep; none when they keep nothing. It is
    /// forgotten at a [`SourceItem::Reset`].
    pub fn retain(&mut self, oldest_kept: Option<Lsn>) {
        self.progress.retain(oldest_kept);
    }

    /// The end of the server's log, as its last message told it.
    #[must_use]
    pub fn server_head(&self) -> Lsn {
        self.progress.server_head()
    }

    /// Where the replay window begins: what committed before that time, or below that position, is to be given up.
    /// None while nobody knows the server's time.
    #[must_use]
    pub fn window_start(&self) -> Option<(PgTimestamp, Lsn)> {
        self.progress.window_start()
    }

    /// What the server was last told that it may forget.
    #[must_use]
    pub fn confirmed(&self) -> Lsn {
        self.progress.confirmed()
    }

    /// Bytes of log from the confirmed position to the head, from now on; never more than was configured.
    pub fn limit_wal(&mut self, max_bytes: u64) {
        self.progress.limit_wal(max_bytes.min(self.window.max_wal));
    }

    /// What is published by now: where it is not what this history began with, another begins. None: there is no
    /// publication, without which PostgreSQL 18 goes on and sends nothing, where older ones break off.
    pub fn expect_publication(&mut self, digest: Option<&str>) {
        let changed =
            self.progress.history().is_some_and(|history| Some(&*history.identity.publication) != digest);
        if changed && matches!(self.phase, Phase::Streaming(_)) {
            self.phase = Phase::Broken(SourceError::Broken(ResetReason::PublicationChanged));
        }
    }

    /// Something happened that no stream tells: gives the history up, and begins another.
    pub fn begin_anew(&mut self, reason: ResetReason) {
        self.broken = Some(reason);
        if matches!(self.phase, Phase::Streaming(_)) {
            self.phase = Phase::Broken(SourceError::Broken(reason));
        }
    }

    /// Confirms and leaves the slot, so that another worker has it at once. What was yielded last may have been
    /// broken off: it is decoded again.
    pub async fn shutdown(mut self) {
        if let Phase::Streaming(link) = self.phase
            && let Err(error) = link.finish(&mut self.progress).await
        {
            tracing::debug!(%error, "the replication connection broke while it was being closed");
        }
    }

    fn past(&self) -> Past {
        Past { history: self.progress.history(), broken: self.broken }
    }

    fn opened(&mut self, opened: Opened) {
        self.broken = None;
        let Opened { stream, identity, start, reset, slot_confirmed, status_interval } = opened;
        let first = self.progress.history().is_none();
        if reset.is_some() || first {
            self.progress.begin(identity.clone(), start);
        } else {
            self.progress.resume(slot_confirmed);
        }
        if let Some(reason) = reset {
            tracing::warn!(slot = self.target.slot, %start, %reason, "history can't be continued");
        }
        tracing::info!(slot = self.target.slot, %start, "reading from the replication slot");
        self.news.connected(identity, start, reset);
        let head = self.progress.head();
        let parts = self.whole.clone().map(|whole| Parts::new(whole, self.max_transaction));
        let assembler = Assembler::new(self.max_transaction).in_parts(parts);
        self.phase = Phase::Streaming(Box::new(Link::new(stream, assembler, status_interval, head)));
    }

    fn failed(&mut self, error: SourceError) -> Result<(), Fatal> {
        let kind = error.kind();
        if kind == ErrorKind::Fatal {
            return Err(Fatal::from(error));
        }
        let delay = if error.is_slot_busy() {
            BUSY_DELAY
        } else if error.is_unpublished_log(&self.target.publication) {
            // Where the publication is there again, the next attempt goes on after what was written without it.
            self.broken = Some(ResetReason::PublicationChanged);
            self.backoff.delay(ErrorKind::Transient)
        } else {
            self.backoff.delay(kind)
        };
        self.news.disconnected(&error, delay);
        self.phase = Phase::Waiting { until: Instant::now() + delay };
        Ok(())
    }
}

impl std::fmt::Debug for WalSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = match &self.phase {
            Phase::Waiting { .. } => "waiting",
            Phase::Connecting(_) => "connecting",
            Phase::Streaming(_) => "streaming",
            Phase::Broken(_) => "broken",
        };
        f.debug_struct("WalSource")
            .field("target", &self.target)
            .field("phase", &phase)
            .finish_non_exhaustive()
    }
}

/// The configured slot, or `walcast_<database>`, in the letters that a slot's name may have.
#[must_use]
pub fn slot_name(source: &config::Source, database: &str) -> String {
    /// `NAMEDATALEN - 1`.
    const MAX_BYTES: usize = 63;
    if let Some(slot) = &source.slot {
        return slot.clone();
    }
    let letter = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || c == '_' => c,
        _ => '_',
    };
    "walcast_".chars().chain(database.chars().map(letter)).take(MAX_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_named_for_its_database_in_letters_that_slots_may_have() {
        let mut source = config::Source::default();
        assert_eq!(slot_name(&source, "app"), "walcast_app");
        assert_eq!(slot_name(&source, "My-App"), "walcast_my_app");
        assert_eq!(slot_name(&source, &"é".repeat(80)).len(), 63);
        source.slot = Some("Own".to_owned());
        assert_eq!(slot_name(&source, "app"), "Own");
    }
}
