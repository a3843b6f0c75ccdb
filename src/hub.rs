//! Streams: cursors in a journal, filtered, woken.
//!
//! ```text
//!  publish ─► Listener ─► Room (of the organization) ─► seats that may be concerned: mark, call
//!                                                             │
//!  Stream::next or a courier ◄── select (filter, audience) ◄── Snapshot::read
//! ```
//!
//! Invariants:
//! - A stream sees the entries of its organization's journal and of `*` that its filter and standing let through,
//!   each once, in the order of ids; where that can't be proven, a sync comes before anything later.
//! - A stream's memory is constant: it holds a position, and while it writes one batch.
//! - No lock is held across an await, and none is held while a stream's waker runs.
//!
//! Beside its journal a room has notices: frames without an id, for who listens now. They yield to the journal.
//!
//! Every stream belongs to one organization; there is no way to reach all of them but its journals. The hub knows
//! neither HTTP nor tokens: a subscription comes judged.

mod calls;
mod courier;
mod filter;
mod handle;
mod lent;
mod notices;
mod pace;
mod room;
mod rooms;
mod seat;
mod select;
mod start;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::catalog::event::OrganizationId;
use crate::journal::{Journals, Listener, Touched};
use crate::postgres::Lsn;

pub use filter::Filter;
pub use handle::StreamHandle;
pub use lent::{Outlet, Rest};
pub use notices::{Notice, NoticeKind};
pub use pace::Pace;
pub use rooms::{Full, Limits};
pub use seat::EndReason;
pub use start::Start;
pub use stream::{Batch, Stream};

use calls::Calls;
use courier::Post;
use room::{Room, RoomState};
use rooms::Rooms;
use seat::Seat;
use stream::Membership;

/// How long an id that is ahead of this node may take to be reached. Longer than a node lags behind another in
/// health, shorter than a client's patience.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who listens to what, and from where on.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub organization: OrganizationId,
    pub user: String,
    pub role: Option<Arc<str>>,
    pub filter: Filter,
    pub start: Start,
}

/// All live streams.
#[derive(Debug)]
pub struct Hub {
    journals: Arc<Journals>,
    rooms: RwLock<Rooms>,
    /// Every stream that something below this position concerns was marked.
    announced: AtomicU64,
    /// How often there was something to announce; counted before anybody is marked.
    announcements: AtomicU64,
    post: Post,
    patience: Duration,
}

impl Hub {
    #[must_use]
    pub fn new(journals: Arc<Journals>) -> Arc<Self> {
        Self::with_patience(journals, PATIENCE)
    }

    /// With another time that an id ahead of this node may take to be reached.
    #[must_use]
    pub fn with_patience(journals: Arc<Journals>, patience: Duration) -> Arc<Self> {
        let announced = AtomicU64::new(journals.head().as_u64());
        let hub = Arc::new(Self {
            journals,
            rooms: RwLock::default(),
            announced,
            announcements: AtomicU64::new(0),
            post: Post::default(),
            patience,
        });
        let listener: Weak<dyn Listener> = Arc::<Self>::downgrade(&hub);
        hub.journals.listen(listener);
        hub
    }

    /// Registers a stream and finds where it starts, which may take a moment (an id ahead of this node is waited
    /// for, bounded). Cancelled, it leaves nothing behind.
    pub async fn open(self: &Arc<Self>, subscription: Subscription) -> Stream {
        let Subscription { organization, user, role, filter, start } = subscription;
        let membership = self.enter(&mut self.rooms_mut(), organization, user.into(), role, filter);
        self.start(membership, start).await
    }

    /// As [`open`](Self::open), within limits that are judged and taken in one step.
    pub async fn open_within(
        self: &Arc<Self>,
        subscription: Subscription,
        limits: Limits,
    ) -> Result<Stream, Full> {
        let Subscription { organization, user, role, filter, start } = subscription;
        let (membership, evicted) = {
            let mut rooms = self.rooms_mut();
            let evicted = rooms.make_room(&organization, &user, limits)?;
            let membership = self.enter(&mut rooms, organization, user.into(), role, filter);
            rooms.may_make_room(&membership.seat, limits);
            (membership, evicted)
        };
        evicted.iter().filter_map(|seat| seat.rouse(Lsn::ZERO)).for_each(Waker::wake);
        Ok(self.start(membership, start).await)
    }

    /// Live streams in all.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.rooms().streams
    }

    /// Live streams of an organization.
    #[must_use]
    pub fn streams_of(&self, organization: &OrganizationId) -> usize {
        self.room(organization).map_or(0, |room| room.lock().seats.len())
    }

    /// Live streams of a user in an organization.
    #[must_use]
    pub fn streams_of_user(&self, organization: &OrganizationId, user: &str) -> usize {
        self.room(organization).map_or(0, |room| room.lock().count_of_user(user))
    }

    /// Organizations with live streams, and how many.
    #[must_use]
    pub fn organizations(&self) -> Vec<(OrganizationId, usize)> {
        let count = |(organization, room): (&OrganizationId, &Arc<Room>)| {
            (organization.clone(), room.lock().seats.len())
        };
        self.rooms().by_organization.iter().map(count).collect()
    }

    /// Lets every stream look at what is not the hub's to tell: see [`Stream::next_unless`].
    pub fn wake_all(&self) {
        let mut wakers = Vec::new();
        for room in self.rooms().by_organization.values() {
            wakers.extend(room.lock().seats.values().filter_map(|seat| seat.take_waker()));
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The live streams of an organization, the oldest first.
    #[must_use]
    pub fn handles(self: &Arc<Self>, organization: &OrganizationId) -> Vec<StreamHandle> {
        let Some(room) = self.room(organization) else {
            return Vec::new();
        };
        let state = room.lock();
        state.seats.values().map(|seat| StreamHandle::of(self, &room, organization, seat)).collect()
    }

    /// Tells the streams of an organization whose filters let this kind through. The wakers are to be woken when no
    /// lock is held any more.
    pub fn tell(
        &self,
        organization: &OrganizationId,
        kind: &NoticeKind,
        notices: impl Iterator<Item = Notice>,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(room) = self.room(organization) else { return };
        let state = room.lock();
        // Kept before anybody is flagged: who takes the flag finds them.
        room.notices().add(kind, notices, Instant::now());
        state.flag(kind, wakers);
    }

    /// The live streams of a user in an organization, the oldest first.
    #[must_use]
    pub fn handles_of_user(self: &Arc<Self>, organization: &OrganizationId, user: &str) -> Vec<StreamHandle> {
        let Some(room) = self.room(organization) else {
            return Vec::new();
        };
        let state = room.lock();
        state.of_user(user).map(|seat| StreamHandle::of(self, &room, organization, seat)).collect()
    }

    #[must_use]
    pub fn journals(&self) -> &Arc<Journals> {
        &self.journals
    }

    async fn start(&self, membership: Membership, start: Start) -> Stream {
        let placement = start::place(&self.journals, &membership.organization, start, self.patience).await;
        Stream::new(membership, placement)
    }

    fn enter(
        self: &Arc<Self>,
        rooms: &mut Rooms,
        organization: OrganizationId,
        user: Arc<str>,
        role: Option<Arc<str>>,
        filter: Filter,
    ) -> Membership {
        rooms.streams += 1;
        rooms.next_number += 1;
        let room = rooms.by_organization.entry(organization.clone()).or_default().clone();
        let mut state = room.lock();
        let filter = state.share(filter.ordered());
        let seat = Arc::new(Seat::new(rooms.next_number, user, role, filter.clone()));
        seat.control().noticed = room.notices().number();
        state.insert(&seat, &filter);
        drop(state);
        Membership { hub: self.clone(), room, organization, seat }
    }

    fn leave(&self, organization: &OrganizationId, room: &Room, seat: &Seat) {
        let mut rooms = self.rooms_mut();
        rooms.left(seat);
        let mut state = room.lock();
        let filter = seat.control().newest_filter().clone();
        state.remove(seat, &filter);
        if state.seats.is_empty() {
            rooms.by_organization.remove(organization);
        }
    }

    /// Every stream that something below this position concerns was marked.
    fn announced(&self) -> Lsn {
        Lsn::new(self.announced.load(Ordering::Acquire))
    }

    fn room(&self, organization: &OrganizationId) -> Option<Arc<Room>> {
        self.rooms().by_organization.get(organization).cloned()
    }

    fn rooms(&self) -> RwLockReadGuard<'_, Rooms> {
        self.rooms.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn rooms_mut(&self) -> RwLockWriteGuard<'_, Rooms> {
        self.rooms.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn announcements(&self) -> u64 {
        self.announcements.load(Ordering::Acquire)
    }

    /// Marks room by room, says up to where that was done, and only then calls streams.
    fn announce(&self, up_to: Lsn, mark: impl FnOnce(&Rooms, &mut dyn FnMut(Calls<'_>))) {
        self.announcements.fetch_add(1, Ordering::AcqRel);
        let mut groups = Vec::new();
        mark(&self.rooms(), &mut |calls| {
            let tasks = calls.done();
            if !tasks.is_empty() {
                groups.push(tasks);
            }
        });
        self.announced.store(up_to.as_u64(), Ordering::Release);
        self.post.send();
        // Who is woken first runs first: an organization with a few streams does not wait for one with thousands.
        groups.sort_by_key(Vec::len);
        groups.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Listener for Hub {
    fn published(&self, before: Lsn, head: Lsn, touched: &[Touched]) {
        self.announce(head, |rooms, call| {
            for touched in touched {
                let every = touched.organization.is_every();
                let all = every.then(|| rooms.by_organization.iter());
                let one = rooms.by_organization.get_key_value(&touched.organization);
                for (organization, room) in all.into_iter().flatten().chain(one) {
                    let mut calls = Calls::new(organization, &self.post);
                    mark(&room.lock(), touched, before, &mut calls);
                    call(calls);
                }
            }
        });
    }

    fn reset(&self, start: Lsn) {
        self.announce(start, |rooms, call| {
            for (organization, room) in &rooms.by_organization {
                let mut calls = Calls::new(organization, &self.post);
                room.lock().rouse_all(&mut calls);
                call(calls);
            }
        });
    }
}

/// Marks every stream of a room that may be concerned by what was published from `before` on.
fn mark(room: &RoomState, touched: &Touched, before: Lsn, calls: &mut Calls<'_>) {
    if touched.lost {
        return room.mark_all(before, calls);
    }
    touched.blocks.iter().for_each(|block| room.mark(block, before, calls));
}
