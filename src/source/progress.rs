//! How far a source has come, and what it may confirm.

use std::time::Duration;

use tokio::time::Instant;

use super::confirm::{Timeline, Window, confirmable};
use super::item::Identity;
use crate::postgres::{Lsn, PgTimestamp};

/// A status costs both sides a packet.
const MIN_STATUS_BYTES: u64 = 1 << 18;

/// What a reconnect continues from.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) identity: Identity,
    /// The end of the last whole transaction dealt with, or a later position between transactions.
    pub(super) processed: Lsn,
}

/// A position between transactions and the server's time of it.
pub(super) type Boundary = (PgTimestamp, Lsn);

#[derive(Debug)]
pub(super) struct Progress {
    identity: Option<Identity>,
    timeline: Timeline,
    /// What was handed out last, while nobody knows yet whether it was dealt with.
    in_hand: Option<Boundary>,
    processed: Lsn,
    confirmed: Lsn,
    oldest_kept: Option<Lsn>,
    clock: ServerClock,
    /// The end of the server's log, as its last message told it.
    server_head: Lsn,
}

impl Progress {
    pub(super) fn new(window: Window) -> Self {
        Self {
            identity: None,
            timeline: Timeline::new(window),
            in_hand: None,
            processed: Lsn::ZERO,
            confirmed: Lsn::ZERO,
            oldest_kept: None,
            clock: ServerClock::default(),
            server_head: Lsn::ZERO,
        }
    }

    /// None in an empty process.
    pub(super) fn history(&self) -> Option<History> {
        let identity = self.identity.clone()?;
        Some(History { identity, processed: self.processed })
    }

    /// History starts at `start`, and nothing of what was before counts.
    pub(super) fn begin(&mut self, identity: Identity, start: Lsn) {
        self.identity = Some(identity);
        self.timeline.clear();
        self.in_hand = None;
        self.oldest_kept = None;
        self.processed = start;
        self.confirmed = start;
        self.clock = ServerClock::default();
    }

    /// History goes on, on a new connection.
    pub(super) fn resume(&mut self, slot_confirmed: Lsn) {
        self.confirmed = self.confirmed.max(slot_confirmed);
    }

    pub(super) fn hand_out(&mut self, boundary: Boundary) {
        self.in_hand = Some(boundary);
    }

    /// What was handed out has been dealt with.
    pub(super) fn settle(&mut self) {
        if let Some((time, lsn)) = self.in_hand.take() {
            self.timeline.push(time, lsn);
            self.processed = self.processed.max(lsn);
        }
    }

    /// The last position handed out.
    pub(super) fn head(&self) -> Lsn {
        self.in_hand.map_or(self.processed, |(_, lsn)| lsn)
    }

    pub(super) fn processed(&self) -> Lsn {
        self.processed
    }

    pub(super) fn confirmed(&self) -> Lsn {
        self.confirmed
    }

    pub(super) fn observe(&mut self, server_time: PgTimestamp, server_head: Lsn) {
        self.clock.observe(server_time);
        self.server_head = server_head;
    }

    pub(super) fn server_head(&self) -> Lsn {
        self.server_head
    }

    pub(super) fn retain(&mut self, oldest_kept: Option<Lsn>) {
        self.oldest_kept = oldest_kept;
    }

    pub(super) fn limit_wal(&mut self, max_bytes: u64) {
        self.timeline.limit_wal(max_bytes);
    }

    /// So many bytes of log are worth a status of their own: what can be confirmed is not pinned for longer.
    pub(super) fn status_bytes(&self) -> u64 {
        (self.timeline.max_wal() / 16).max(MIN_STATUS_BYTES)
    }

    /// Where the replay window begins by its age and its log: the server's time, and the position that was head then
    /// or that the log's budget demands, whichever is later. None before the server told its time.
    pub(super) fn window_start(&self) -> Option<(PgTimestamp, Lsn)> {
        let now = self.clock.now()?;
        let max_age = i64::try_from(self.timeline.max_age().as_micros()).unwrap_or(i64::MAX);
        let time = PgTimestamp::from_micros(now.as_micros().saturating_sub(max_age));
        Some((time, self.timeline.forgettable(self.confirmed, now).max(self.confirmed)))
    }

    /// Moves what is confirmed as far as it may.
    pub(super) fn confirm(&mut self) -> Lsn {
        if let Some(now) = self.clock.now() {
            self.confirmed =
                confirmable(self.confirmed, &self.timeline, self.processed, self.oldest_kept, now);
            self.timeline.forget_before(self.confirmed);
        }
        self.confirmed
    }
}

/// The server's clock as its last message told it, carried on by ours.
#[derive(Debug, Default)]
struct ServerClock(Option<(PgTimestamp, Instant)>);

impl ServerClock {
    fn observe(&mut self, server_time: PgTimestamp) {
        self.0 = Some((server_time, Instant::now()));
    }

    fn now(&self) -> Option<PgTimestamp> {
        let (time, at) = self.0?;
        Some(later(time, at.elapsed()))
    }
}

fn later(time: PgTimestamp, by: Duration) -> PgTimestamp {
    let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    PgTimestamp::from_micros(time.as_micros().saturating_add(micros))
}
