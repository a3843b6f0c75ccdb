//! An open stream: messages in, items and statuses out.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::SourceItem;
use super::assembler::Assembler;
use super::policy::SourceError;
use super::progress::{Boundary, Progress};
use crate::postgres::pgoutput::LogicalMessage;
use crate::postgres::replication::{Keepalive, XLogData};
use crate::postgres::{Lsn, PgTimestamp, ReplicationMessage, ReplicationStream, pgoutput};

/// A server that answers nothing for so long is gone. Each status asks for an answer, so one that lives answers.
const SILENCE: Duration = Duration::from_secs(60);

/// A server that shuts down asks again as soon as it was answered, until all is confirmed that it ever sent. One that
/// does not asks after half its `wal_sender_timeout`, and hears of us before.
const STOPPING_PINGS: u32 = 3;
const STOPPING_PING_WITHIN: Duration = Duration::from_secs(1);

/// So many messages in so long are a flood. Below, nothing is ever held up.
const FLOOD: u32 = 200;
const FLOW_SPAN: Duration = Duration::from_millis(10);

/// How long a flood is left to gather; the timer makes up to twice of it.
const GATHER: Duration = Duration::from_millis(1);

/// What is sent so long after its commit, by the server's clock, is a backlog, and comes sooner if it is gathered. What is
/// sent sooner is live, however much it is: a quiet organization's event in it must not wait.
const LATE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Link {
    stream: ReplicationStream,
    assembler: Assembler,
    opened: Instant,
    heard: Instant,
    /// How many bytes had come when that was last looked at.
    received: u64,
    /// When the last status was sent, and how far we were; none before the first.
    status: Option<(Instant, Lsn)>,
    status_interval: Duration,
    reply_due: bool,
    pings: u32,
    /// The newest position between transactions that was not yet yielded.
    position: Option<Boundary>,
    /// Everything up to here was handed out, on this connection or one before.
    handed_out: Lsn,
    flow: Flow,
}

/// How much comes. The server sends every message by itself, so a reader that is woken by each costs both sides a
/// system call a message, and the server's is what limits a backlog. In the flood of a backlog the reader waits a moment,
/// and then takes in one read what has gathered in the socket.
#[derive(Debug)]
struct Flow {
    since: Instant,
    /// Messages since then.
    taken: u32,
    /// As of the last span that was over.
    floods: bool,
    /// As of the last transaction that began.
    late: bool,
}

impl Flow {
    fn is_backlog(&mut self) -> bool {
        if self.since.elapsed() >= FLOW_SPAN {
            self.floods = self.taken >= FLOOD;
            self.taken = 0;
            self.since = Instant::now();
        }
        self.floods && self.late
    }

    fn began(&mut self, committed_at: PgTimestamp, sent_at: PgTimestamp) {
        let micros = sent_at.as_micros().saturating_sub(committed_at.as_micros());
        self.late = u128::try_from(micros).is_ok_and(|micros| micros >= LATE.as_micros());
    }
}

impl Link {
    pub(super) fn new(
        stream: ReplicationStream,
        assembler: Assembler,
        status_interval: Duration,
        handed_out: Lsn,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            assembler,
            opened: now,
            heard: now,
            received: 0,
            status: None,
            status_interval,
            reply_due: false,
            pings: 0,
            position: None,
            handed_out,
            flow: Flow { since: now, taken: 0, floods: false, late: false },
        }
    }

    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Everything that has already come is taken before anything is awaited.
    pub(super) async fn next(&mut self, progress: &mut Progress) -> Result<SourceItem, SourceError> {
        loop {
            if let Some(item) = self.try_next(progress)? {
                return Ok(item);
            }
            self.send_status_if_due(progress).await?;
            if let Some(boundary) = self.position.take() {
                let (server_time, lsn) = boundary;
                self.hand_out(boundary, progress);
                return Ok(SourceItem::Position { lsn, server_time });
            }
            if self.flow.is_backlog() {
                // Cancelled, it has done nothing.
                sleep(GATHER).await;
            }
            let due = self.status.map_or_else(Instant::now, |(at, _)| at + self.status_interval);
            let message = tokio::select! {
                biased;
                // First: whether the server is silent is only known once what it sent is read.
                message = self.stream.next() => message?,
                () = sleep_until(due) => continue,
                () = sleep_until(self.heard + SILENCE) => {
                    // A gigabyte may take longer to come than silence may last.
                    let received = self.stream.received();
                    if received != self.received {
                        (self.received, self.heard) = (received, Instant::now());
                        continue;
                    }
                    return Err(SourceError::Silent { seconds: SILENCE.as_secs() });
                }
            };
            if let Some(item) = self.accept(message, progress)? {
                return Ok(item);
            }
        }
    }

    /// A transaction, or a part of one, out of what has already come.
    pub(super) fn try_next(&mut self, progress: &mut Progress) -> Result<Option<SourceItem>, SourceError> {
        while let Some(message) = self.stream.try_next()? {
            if let Some(item) = self.accept(message, progress)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    pub(super) async fn send_status_if_due(&mut self, progress: &mut Progress) -> Result<(), SourceError> {
        let due = self.reply_due
            || self.status.is_none_or(|(at, processed)| {
                at.elapsed() >= self.status_interval
                    || progress.processed().bytes_since(processed) >= progress.status_bytes()
            });
        if due { self.send_status(progress).await } else { Ok(()) }
    }

    /// Confirms what may be confirmed and leaves.
    pub(super) async fn finish(mut self, progress: &mut Progress) -> Result<(), SourceError> {
        self.send_status(progress).await?;
        Ok(self.stream.finish().await?)
    }

    async fn send_status(&mut self, progress: &mut Progress) -> Result<(), SourceError> {
        let (processed, confirmed) = (progress.processed(), progress.confirm());
        let sending = self.stream.status(processed, confirmed, confirmed, true);
        timeout(SILENCE, sending).await.map_err(|_| SourceError::Silent { seconds: SILENCE.as_secs() })??;
        self.status = Some((Instant::now(), processed));
        self.reply_due = false;
        Ok(())
    }

    fn accept(
        &mut self,
        message: ReplicationMessage,
        progress: &mut Progress,
    ) -> Result<Option<SourceItem>, SourceError> {
        self.heard = Instant::now();
        self.flow.taken += 1;
        match message {
            ReplicationMessage::XLogData(data) => self.data(data, progress),
            ReplicationMessage::Keepalive(keepalive) => self.keepalive(keepalive, progress).map(|()| None),
        }
    }

    fn data(&mut self, data: XLogData, progress: &mut Progress) -> Result<Option<SourceItem>, SourceError> {
        progress.observe(data.sent_at, data.wal_end);
        self.pings = 0;
        let message = pgoutput::decode(data.data.clone())?;
        if let LogicalMessage::Begin(begin) = &message {
            self.flow.began(begin.commit_time, data.sent_at);
        }
        let Some(transaction) = self.assembler.push(&data.data, message)? else {
            let part = self.assembler.take_part();
            // A commit record lies below the end that was handed out with it, and above any end before.
            let part = part.filter(|part| part.commit_lsn >= self.handed_out);
            if part.is_some() {
                // The transaction's own end comes after it.
                self.position = None;
            }
            return Ok(part.map(SourceItem::Part));
        };
        if transaction.end_lsn <= self.handed_out {
            return Ok(None);
        }
        self.position = None;
        self.hand_out((transaction.commit_time, transaction.end_lsn), progress);
        Ok(Some(SourceItem::Transaction(transaction)))
    }

    fn keepalive(&mut self, keepalive: Keepalive, progress: &mut Progress) -> Result<(), SourceError> {
        progress.observe(keepalive.sent_at, keepalive.wal_end);
        if keepalive.reply_requested {
            self.reply_due = true;
            let answered = self
                .status
                .is_some_and(|(at, _)| at.elapsed() < STOPPING_PING_WITHIN.min(self.status_interval));
            self.pings = if answered { self.pings + 1 } else { 0 };
            if self.pings >= STOPPING_PINGS {
                return Err(SourceError::ServerStops);
            }
        }
        // Within a transaction it is a position of the log, but not one between transactions.
        if !self.assembler.is_open() && keepalive.wal_end > self.handed_out {
            self.position = Some((keepalive.sent_at, keepalive.wal_end));
        }
        Ok(())
    }

    fn hand_out(&mut self, boundary: Boundary, progress: &mut Progress) {
        self.handed_out = boundary.1;
        progress.hand_out(boundary);
    }
}
