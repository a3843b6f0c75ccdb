//! Couriers: they write what is new to the streams that wait, many in a row.
//!
//! ```text
//!  publish ─► mark ─┬─► Post ─► courier: read once, for each stream: filter, write      (streams that wait)
//!                   └─► waker ─► the stream's task                                      (all others)
//! ```
//!
//! Waking a task for each stream costs about as much as the write that it is woken for. A courier takes the streams of
//! one organization one after the other: one look at the journal for all of them, one read for those that stand at the
//! same place, and the very same bytes for those that take all of it. Whatever is not plain (a full socket, much to
//! catch up with, an end, a role or filter that changes, a sync) is left to the stream's own task, which is called as if
//! there were no couriers.
//!
//! A stream is in the post at most once. Rounds of few streams go first: an organization with a few does not wait for one
//! with thousands.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::Notify;

use super::Hub;
use super::lent::{Lent, Moment, Rest};
use super::seat::Seat;
use super::select::{MAX_BATCH, Reader, Selected};
use super::stream::MUCH;
use crate::catalog::event::OrganizationId;
use crate::journal::{Place, Runs, Snapshot};
use crate::postgres::Lsn;
use crate::telemetry::Metrics;

/// Streams that a courier goes to before it looks whether there is a shorter round: about a tenth of a millisecond.
const WALK: usize = 32;

/// Streams that it goes to between two chances for other tasks. Where thousands of them wait for their turn, those who open
/// streams say, few of its own would mean few for long.
pub(super) const TURN: usize = 4 * WALK;

/// Streams of an organization that something new may concern.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) organization: OrganizationId,
    pub(super) seats: Vec<Arc<Seat>>,
}

/// What couriers have to do.
#[derive(Debug, Default)]
pub(super) struct Post {
    couriers: AtomicUsize,
    rounds: Mutex<Rounds>,
    called: Notify,
}

#[derive(Debug, Default)]
struct Rounds {
    /// Of no more streams than a walk.
    short: VecDeque<Round>,
    long: VecDeque<Round>,
}

impl Post {
    pub(super) fn add(&self, round: Round) {
        let mut rounds = self.rounds();
        let queue = if round.seats.len() <= WALK { &mut rounds.short } else { &mut rounds.long };
        queue.push_back(round);
    }

    /// Sends couriers, where there are any.
    pub(super) fn call(&self) -> bool {
        let couriers = self.couriers.load(Ordering::SeqCst);
        // At once as many as have something to do: one that is called by another waits for its thread.
        let calls = match *self.rounds() {
            Rounds { ref long, .. } if !long.is_empty() => couriers,
            Rounds { ref short, .. } if !short.is_empty() => couriers.min(1),
            _ => 0,
        };
        (0..calls).for_each(|_| self.called.notify_one());
        couriers > 0
    }

    /// Sends couriers, or, where none serves, calls the streams themselves.
    pub(super) fn send(&self) {
        if self.call() {
            return;
        }
        while let Some(round) = self.take() {
            for seat in round.seats {
                seat.leave_post();
                seat.take_waker().into_iter().for_each(Waker::wake);
            }
        }
    }

    /// The next walk.
    fn take(&self) -> Option<Round> {
        let mut rounds = self.rounds();
        let walk = rounds.short.pop_front().or_else(|| {
            let round = rounds.long.front_mut()?;
            if round.seats.len() <= WALK {
                return rounds.long.pop_front();
            }
            let seats = round.seats.drain(round.seats.len() - WALK..).collect();
            Some(Round { organization: round.organization.clone(), seats })
        })?;
        let more = !(rounds.short.is_empty() && rounds.long.is_empty());
        drop(rounds);
        if more {
            self.called.notify_one();
        }
        Some(walk)
    }

    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counted among the couriers.
struct OnDuty<'a>(&'a Post);

impl<'a> OnDuty<'a> {
    fn new(post: &'a Post) -> Self {
        post.couriers.fetch_add(1, Ordering::SeqCst);
        Self(post)
    }
}

impl Drop for OnDuty<'_> {
    fn drop(&mut self) {
        self.0.couriers.fetch_sub(1, Ordering::SeqCst);
        // Another one takes what this was called for; without another, the streams' own tasks.
        self.0.send();
    }
}

impl Hub {
    /// A courier, until it is dropped. As many of them as there are threads make the most of these; without any, streams
    /// are woken instead.
    pub async fn courier(&self, metrics: Metrics) {
        let duty = OnDuty::new(&self.post);
        loop {
            let mut tally = Tally::default();
            let mut visited = 0;
            while visited < TURN
                && let Some(Round { organization, seats }) = duty.0.take()
            {
                visited += seats.len();
                let walk = Walk {
                    hub: self,
                    organization: &organization,
                    look: None,
                    now: Moment::now(),
                    tally: &mut tally,
                };
                walk.go(&seats);
            }
            if visited == 0 {
                duty.0.called.notified().await;
                continue;
            }
            metrics.writes.inc_by(tally.writes);
            metrics.bytes_written.inc_by(tally.bytes);
            metrics.frames_written.inc_by(tally.frames);
            tokio::task::yield_now().await;
        }
    }
}

/// What was written.
#[derive(Default)]
struct Tally {
    writes: u64,
    bytes: u64,
    frames: u64,
}

/// One courier's way along some streams of an organization.
struct Walk<'a> {
    hub: &'a Hub,
    organization: &'a OrganizationId,
    look: Option<Look>,
    now: Moment,
    tally: &'a mut Tally,
}

/// The journal as it was at one instant.
struct Look {
    /// How often something had been announced before.
    announcements: u64,
    snapshot: Snapshot,
    slice: Option<Slice>,
}

/// What was read for the last stream, and is likely to be what the next one needs.
struct Slice {
    after: Place,
    runs: Runs,
    /// What a stream takes that takes all of it.
    whole: Option<Selected>,
}

/// Only the stream's own task can do this.
struct Unusual;

impl Walk<'_> {
    fn go(mut self, seats: &[Arc<Seat>]) {
        seats.iter().for_each(|seat| seat.come_near());
        for seat in seats {
            // Not under the seat's lock.
            let waker = self.visit(seat);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// The waker, where the stream's task has to go on.
    fn visit(&mut self, seat: &Seat) -> Option<Waker> {
        // Before the mark is taken: who marks it later posts it again.
        seat.leave_post();
        let mut lent = seat.lent();
        // A stream that is at work looks at its mark before it waits; so does one that has a rest to write.
        let lent = lent.as_mut().filter(|lent| lent.rest.is_none())?;
        let from = seat.take_mark()?;
        match self.bring(seat, lent, from) {
            Ok(()) => None,
            Err(Unusual) => {
                seat.mark(from);
                seat.take_waker()
            }
        }
    }

    fn bring(&mut self, seat: &Seat, lent: &mut Lent, from: Lsn) -> Result<(), Unusual> {
        let look = Look::recent(&mut self.look, self.hub, self.organization);
        if look.snapshot.view.generation != lent.progress.generation {
            return Err(Unusual);
        }
        let end = (look.snapshot.view.head, 0);
        // What was published before the mark does not concern it.
        let after = lent.progress.after.max((from, 0));
        let slice = look.read(after)?;
        let filtered;
        let selected = {
            let control = seat.control();
            if control.end.is_some() || control.holds_until() != Lsn::MAX {
                return Err(Unusual);
            }
            let reader = Reader {
                user: &seat.user,
                role: control.role.as_deref(),
                filter: &control.filter,
                most: usize::MAX,
            };
            if reader.takes_all_of(&slice.runs.runs) {
                slice.whole.get_or_insert_with(|| reader.select(&slice.runs.runs, after))
            } else {
                filtered = reader.select(&slice.runs.runs, after);
                &filtered
            }
        };
        if selected.sync.is_some() || selected.stopped_at.is_some() {
            return Err(Unusual);
        }
        if let Some(last) = selected.last_frame {
            let bytes: usize = selected.frames.iter().map(Bytes::len).sum();
            // Who has much to catch up with does so by turns.
            let may = bytes < MUCH && self.now.second < lent.until;
            let written = if may { lent.outlet.offer(&selected.frames) } else { 0 };
            if written == 0 {
                return Err(Unusual);
            }
            self.tally.add(written, selected.count);
            lent.progress.give_id(last, self.now.instant);
            if written < bytes {
                lent.progress.after = after.max(end);
                lent.rest = Some(Rest { frames: selected.frames.clone(), written }.into());
                return Err(Unusual);
            }
        }
        lent.progress.after = after.max(end);
        Ok(())
    }
}

impl Look {
    /// One that is no older than the last mark that was taken: announcements are counted before they mark.
    fn recent<'a>(last: &'a mut Option<Self>, hub: &Hub, organization: &OrganizationId) -> &'a mut Self {
        let announcements = hub.announcements();
        last.take_if(|look| look.announcements != announcements);
        last.get_or_insert_with(|| {
            let snapshot = hub.journals().snapshot(organization);
            Self { announcements, snapshot, slice: None }
        })
    }

    /// All there is after a place.
    fn read(&mut self, after: Place) -> Result<&mut Slice, Unusual> {
        self.slice.take_if(|slice| slice.after != after);
        let slice = match self.slice.take() {
            Some(slice) => slice,
            None => {
                let runs = self.snapshot.read(after, Lsn::MAX, MAX_BATCH).map_err(|_| Unusual)?;
                Slice { after, runs, whole: None }
            }
        };
        if slice.runs.covered < (self.snapshot.view.head, 0) {
            return Err(Unusual);
        }
        Ok(self.slice.insert(slice))
    }
}

impl Tally {
    fn add(&mut self, bytes: usize, frames: usize) {
        self.writes += 1;
        self.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        self.frames += u64::try_from(frames).unwrap_or(u64::MAX);
    }
}
