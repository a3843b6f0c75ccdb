//! A stream: a cursor in its organization's journal and in `*`, and what it is owed next.
//!
//! It holds no event. Live, slow and resuming are one loop: take the mark, take a snapshot, read on from the cursor.
//! A stream that has read all and is not marked stands, for whoever asks, at the head: what was published since does
//! not concern it, and is never read.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::sleep_until;

use super::lent::{Outlet, Progress, Rest, Waiting};
use super::pace::Pace;
use super::room::Room;
use super::seat::{Control, EndReason, Seat};
use super::select::{MAX_BATCH, Reader};
use super::start::Placement;
use super::{Hub, StreamHandle};
use crate::catalog::event::{EventId, OrganizationId, SyncReason};
use crate::journal::{Place, Snapshot};
use crate::postgres::Lsn;

/// Bytes of a batch that takes as long to write as many small ones. Who has much to catch up with would write as fast
/// as the kernel copies.
pub(super) const MUCH: usize = 64 * 1024;

/// What a stream sends next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Whole frames in the order of their ids. Never empty; at most 256 KiB unless one frame alone is larger.
    Frames(Vec<Bytes>),
    /// What its [`Outlet`] did not take of frames that were counted already. The bytes up to there were written.
    Rest(Rest),
    /// To be written as a `data.sync` frame with this id: the sync's own (truncated, unroutable), or the position
    /// that the stream goes on from, which is the newest that a reader of the database is sure to see.
    Sync { reason: SyncReason, id: EventId },
    /// Frames that are no part of the history, without ids.
    Notices(Vec<Bytes>),
    /// Nothing comes any more, and nothing that was not sent before may be sent now.
    End(EndReason),
}

/// One connection's way through the journal. Dropped, it leaves the hub.
#[derive(Debug)]
pub struct Stream {
    /// Keeps its place in the hub.
    pub(super) membership: Membership,
    pub(super) progress: Progress,
    /// Where couriers write while it waits; none: it writes everything itself.
    pub(super) outlet: Option<Arc<dyn Outlet>>,
    /// What a courier could not write.
    pub(super) rest: Option<Box<Rest>>,
    /// There may be more after `after` whether or not the seat is marked.
    behind: bool,
    /// The last batch was a large one: others have a turn before the next.
    gave_much: bool,
    resumed: bool,
    /// What it must be told before anything else; it goes on after `after`.
    sync: Option<SyncReason>,
    /// Its last batch was of the journal: notices that wait come before the next, so that they are not kept waiting
    /// by a writer that never pauses.
    gave_frames: bool,
    pace: Option<Box<Pace>>,
}

/// A registered seat, which leaves its room when dropped.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) hub: Arc<Hub>,
    pub(super) room: Arc<Room>,
    pub(super) organization: OrganizationId,
    pub(super) seat: Arc<Seat>,
}

enum Step {
    Send(Batch),
    /// Read a good deal and found nothing yet.
    Again,
    Wait,
}

impl Stream {
    pub(super) fn new(membership: Membership, placement: Placement) -> Self {
        Self {
            membership,
            progress: Progress {
                generation: placement.view.generation,
                epoch: placement.view.epoch,
                after: placement.after,
                carried: placement.after,
                carried_at: Instant::now(),
            },
            outlet: None,
            rest: None,
            behind: true,
            gave_much: false,
            resumed: placement.resumed,
            sync: placement.sync,
            gave_frames: false,
            pace: None,
        }
    }

    /// The same stream, sent its events at this pace.
    #[must_use]
    pub fn paced(mut self, pace: Option<Box<Pace>>) -> Self {
        self.pace = pace;
        self
    }

    /// Gives no events before `until`: what is published meanwhile costs the stream nothing. Its end, a new history and
    /// notices do not wait.
    pub fn hold(&mut self, until: tokio::time::Instant) {
        self.pace.get_or_insert_with(Pace::open).hold(until);
    }

    /// The same stream, whose events come by this outlet where that is possible ([`Hub::courier`]), and by
    /// [`next`](Self::next) where not. One that is paced has to be asked.
    #[must_use]
    pub fn through(mut self, outlet: Arc<dyn Outlet>) -> Self {
        if self.pace.is_none() {
            self.outlet = Some(outlet);
            self.membership.seat.will_lend();
        }
        self
    }

    /// What has to be written before anything else may be, where that is not what [`next`](Self::next) gives.
    pub fn take_rest(&mut self) -> Option<Rest> {
        self.rest.take().map(|rest| *rest)
    }

    /// When its client was last given an id in a data frame, by this stream or for it.
    #[must_use]
    pub const fn carried_at(&self) -> Instant {
        self.progress.carried_at
    }

    /// The position up to which everything was sent or filtered out on this stream: what a client that has this id
    /// may resume after. Before the first batch, where the stream starts; while a sync is owed, before everything:
    /// who loses the connection with this id and comes back is told again, instead of never.
    #[must_use]
    pub fn cursor(&self) -> EventId {
        if self.sync.is_some() {
            return EventId::position(self.progress.epoch, Lsn::ZERO);
        }
        let mut place = self.progress.after;
        if !self.behind {
            // In this order: what was published below it was marked before.
            let announced = self.membership.hub.announced();
            if !self.membership.seat.is_marked() {
                place = place.max((announced, 0));
            }
        }
        self.id(place)
    }

    /// Whether it started after an id that the client had, with nothing missed.
    #[must_use]
    pub const fn resumed(&self) -> bool {
        self.resumed
    }

    #[must_use]
    pub fn organization(&self) -> &OrganizationId {
        &self.membership.organization
    }

    /// What ends or changes this stream from elsewhere.
    #[must_use]
    pub fn handle(&self) -> StreamHandle {
        StreamHandle::new(&self.membership)
    }

    /// Whether the id that the client was last given in a data frame is older than a quarter of the window: of its
    /// age (`max_age`), or, once something has been given up, of what the window spans, whatever bounds it (age, log,
    /// memory). Then the next keepalive should be a data frame with [`cursor`](Self::cursor)'s id, and [`carried`](Self::carried) be told.
    #[must_use]
    pub fn owes_id(&self, max_age: Duration) -> bool {
        if self.progress.carried_at.elapsed() > max_age / 4 {
            return true;
        }
        let snapshot = self.membership.hub.journals().snapshot(&self.membership.organization);
        let start = snapshot.floor().0.max(snapshot.view.window_start);
        if start <= snapshot.view.origin {
            return false;
        }
        let head = snapshot.view.head;
        u128::from(head.bytes_since(self.progress.carried.0)) * 4 > u128::from(head.bytes_since(start))
    }

    /// A data frame with this id was written that no batch gave.
    pub fn carried(&mut self, id: EventId) {
        if id.epoch == self.progress.epoch {
            self.progress.give_id(id.place(), Instant::now());
        }
    }

    /// Waits until there is something to send. Cancel-safe: a batch is returned or nothing has happened.
    pub async fn next(&mut self) -> Batch {
        match self.next_unless(|| None::<Infallible>).await {
            Ok(batch) => batch,
            Err(never) => match never {},
        }
    }

    /// As [`next`](Self::next), unless `signal` has something that goes first. It is asked before each batch, and
    /// whenever the stream is woken ([`Hub::wake_all`], [`StreamHandle::wake`]): who changes what it looks at wakes the
    /// stream after. So whatever concerns a stream comes to its task by one waker.
    pub async fn next_unless<T>(&mut self, signal: impl Fn() -> Option<T>) -> Result<Batch, T> {
        if std::mem::take(&mut self.gave_much) {
            tokio::task::yield_now().await;
        }
        loop {
            if let Some(rest) = self.rest.take() {
                return Ok(Batch::Rest(*rest));
            }
            if std::mem::take(&mut self.gave_frames)
                && let Some(batch) = self.take_notices()
            {
                return Ok(batch);
            }
            let most = match self.pace {
                // On the heap: a stream that is not paced does not carry what one that is needs.
                Some(_) => Box::pin(self.turn(|| signal().is_some())).await,
                None => usize::MAX,
            };
            if let Some(signal) = signal() {
                return Err(signal);
            }
            if most == 0 {
                match self.take_notices() {
                    Some(batch) => return Ok(batch),
                    None => continue,
                }
            }
            match self.step(most) {
                Step::Send(batch) => {
                    self.gave_frames = matches!(batch, Batch::Frames(_));
                    return Ok(batch);
                }
                Step::Again => tokio::task::yield_now().await,
                Step::Wait => {
                    if let Some(batch) = self.take_notices() {
                        return Ok(batch);
                    }
                    let waiting = Waiting::new(self);
                    poll_fn(|context| {
                        // The waker is there before the signal is looked at: a later one finds it.
                        let called = waiting.stream().membership.seat.poll_called(context);
                        if signal().is_some() { Poll::Ready(()) } else { called }
                    })
                    .await;
                }
            }
        }
    }

    fn take_notices(&mut self) -> Option<Batch> {
        let seat = &self.membership.seat;
        if !seat.take_flag() {
            return None;
        }
        let (filter, noticed, end) = {
            let control = seat.control();
            (control.newest_filter().clone(), control.noticed, control.end)
        };
        if let Some(reason) = end {
            self.behind = true;
            return Some(Batch::End(reason));
        }
        let notices = self.membership.room.notices();
        if !notices.pass(&filter) {
            return None;
        }
        let taken = notices.after(noticed, &seat.user);
        drop(notices);
        let mut control = seat.control();
        let Ok(taken) = taken else {
            self.behind = true;
            return Some(Batch::End(*control.end.get_or_insert(EndReason::Lagging)));
        };
        // Somebody may have skipped what was just taken.
        control.noticed = control.noticed.max(taken.number);
        drop(control);
        if taken.more {
            // Nobody has to be woken: this is who would be.
            let _ = seat.flag();
        }
        (!taken.frames.is_empty()).then_some(Batch::Notices(taken.frames))
    }

    /// Waits until the stream is to end: for who is busy with what [`next`](Self::next) gave.
    pub async fn ended(&self) -> EndReason {
        poll_fn(|context| self.membership.seat.poll_ended(context)).await
    }

    /// Waits for the stream's turn to send, or for what does not wait for it: a signal, its end, a new history, notices.
    /// How many frames may be sent; 0: none, and something else may wait.
    async fn turn(&mut self, signalled: impl Fn() -> bool) -> usize {
        while let Some(pace) = &mut self.pace {
            let opens = match pace.allows(tokio::time::Instant::now()) {
                Ok(most) => return most,
                Err(opens) => opens,
            };
            tokio::select! {
                // Who is interrupted is not asked again.
                biased;
                () = poll_fn(|context| {
                    let interrupted =
                        self.membership.seat.poll_interrupted(context, |c| self.is_interrupted(c));
                    if signalled() { Poll::Ready(()) } else { interrupted }
                }) => {
                    let control = self.membership.seat.control();
                    return usize::from(self.is_interrupted(&control));
                }
                () = sleep_until(opens) => {}
            }
        }
        usize::MAX
    }

    fn is_interrupted(&self, control: &Control) -> bool {
        control.end.is_some() || self.membership.hub.journals().view().generation != self.progress.generation
    }

    fn step(&mut self, most: usize) -> Step {
        let mark = self.membership.seat.take_mark();
        if mark.is_none() && !self.behind {
            return Step::Wait;
        }
        let (control, snapshot) = {
            let control = self.membership.seat.control();
            // Under the lock: a filter that changes later holds from a position that this head does not reach.
            let snapshot = self.membership.hub.journals().snapshot(&self.membership.organization);
            (control.clone(), snapshot)
        };
        if let Some(reason) = control.end {
            self.behind = true;
            return Step::Send(Batch::End(reason));
        }
        if snapshot.view.generation != self.progress.generation {
            self.progress.generation = snapshot.view.generation;
            self.progress.epoch = snapshot.view.epoch;
            self.sync = None;
            self.membership.seat.control().pass(Lsn::MAX);
            return self.go_on(SyncReason::HistoryReset, snapshot.restart());
        }
        if let Some(reason) = self.sync.take() {
            return self.go_on(reason, self.progress.after);
        }
        if let Some(from) = mark.filter(|_| !self.behind) {
            // What was published before the mark does not concern it.
            self.progress.after = self.progress.after.max((from, 0));
        }
        let until = control.holds_until();
        let step = self.read(&snapshot, until, &control, most);
        if until == Lsn::MAX {
            return step;
        }
        match step {
            Step::Wait if until <= snapshot.view.head => {
                self.membership.seat.control().pass(until);
                self.behind = true;
                Step::Again
            }
            // A role from a transaction on that is not published yet: its publish is waited for.
            Step::Wait => Step::Wait,
            step => {
                self.behind = true;
                step
            }
        }
    }

    /// Reads on, of commits below `until`. `Wait`: there is no more.
    fn read(&mut self, snapshot: &Snapshot, until: Lsn, control: &Control, most: usize) -> Step {
        let Ok(read) = snapshot.read(self.progress.after, until, MAX_BATCH) else {
            return self.go_on(SyncReason::SlowConsumer, snapshot.restart());
        };
        let user = &self.membership.seat.user;
        let reader = Reader { user, role: control.role.as_deref(), filter: &control.filter, most };
        let selected = reader.select(&read.runs, self.progress.after);
        let end = (until.min(snapshot.view.head), 0);
        let reached = selected.stopped_at.unwrap_or(read.covered);
        self.progress.after = self.progress.after.max(reached);
        self.behind = reached < end;
        if let Some((reason, place)) = selected.sync {
            self.progress.give_id(place, Instant::now());
            return Step::Send(Batch::Sync { reason, id: self.id(place) });
        }
        if let Some(place) = selected.last_frame {
            self.progress.give_id(place, Instant::now());
            self.gave_much = selected.frames.iter().map(Bytes::len).sum::<usize>() >= MUCH;
            if let Some(pace) = &mut self.pace {
                pace.sent(tokio::time::Instant::now(), selected.count, self.progress.after, end);
            }
            return Step::Send(Batch::Frames(selected.frames));
        }
        if self.behind { Step::Again } else { Step::Wait }
    }

    fn go_on(&mut self, reason: SyncReason, after: Place) -> Step {
        self.progress.after = after;
        self.behind = true;
        self.progress.give_id(after, Instant::now());
        Step::Send(Batch::Sync { reason, id: self.id(after) })
    }

    const fn id(&self, place: Place) -> EventId {
        EventId { epoch: self.progress.epoch, commit_lsn: place.0, ordinal: place.1 }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.hub.leave(&self.organization, &self.room, &self.seat);
    }
}
