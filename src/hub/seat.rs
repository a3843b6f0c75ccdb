//! A stream as the rest of the process sees it: its mark, its waker, and what may be changed while it is live.
//!
//! The mark says from where on there may be something for the stream; none: everything that publishers have been
//! through does not concern it. Two orders make sure that no wake-up is lost:
//! - A publisher moves the head, then marks, then (if it set the mark) wakes. A stream takes the mark, then reads the
//!   head. Both change the mark atomically: either the stream takes this mark, or the publisher finds none and wakes.
//! - A stream stores its waker, then looks at the mark. One that lends (`lent`) does that before both; a courier looks
//!   whether it was lent, then takes the mark.
//!
//! The flag says that there may be notices, and follows the same orders.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::task::AtomicWaker;

use super::filter::Filter;
use super::lent::Lent;
use crate::catalog::event::Audience;
use crate::postgres::Lsn;

const NO_MARK: u64 = u64::MAX;

/// Roles that wait for a stream to come to where they begin. Of more, the last two become one: only a stream that takes
/// nothing while its user's role changes again and again has so many.
const MAX_NEXT_ROLES: usize = 16;

/// Why a stream ends for good. It is its last batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Its user is no member of the organization any more.
    Revoked,
    /// It made room for a newer one.
    Evicted,
    /// Its user closed it.
    Closed,
    /// Its token expired.
    Expired,
    /// The process stops.
    Draining,
    /// It took so little that notices were dropped before it had them. Its journal may be whole: it can come back.
    Lagging,
}

#[derive(Debug)]
pub(super) struct Seat {
    /// Counts up with each stream of the hub: the order of age.
    pub(super) number: u64,
    pub(super) user: Arc<str>,
    mark: AtomicU64,
    flag: AtomicBool,
    waker: AtomicWaker,
    control: Mutex<Control>,
    /// What the stream left while it waits. Held while a courier writes, and before `control`.
    lent: Mutex<Option<Lent>>,
    /// It lends: what is new is for a courier to bring.
    lends: AtomicBool,
    /// A courier is on its way.
    posted: AtomicBool,
}

/// What a later layer may change.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) role: Option<Arc<str>>,
    /// The role for what commits at or above a position, in the order of positions.
    next_roles: VecDeque<(Lsn, Option<Arc<str>>)>,
    pub(super) filter: Arc<Filter>,
    /// The filter of what commits at or above a position that nobody has read yet.
    next_filter: Option<(Lsn, Arc<Filter>)>,
    pub(super) end: Option<EndReason>,
    /// The number of the last notice that the stream has seen.
    pub(super) noticed: u64,
}

impl Seat {
    pub(super) fn new(number: u64, user: Arc<str>, role: Option<Arc<str>>, filter: Arc<Filter>) -> Self {
        let control =
            Control { role, next_roles: VecDeque::new(), filter, next_filter: None, end: None, noticed: 0 };
        Self {
            number,
            user,
            mark: AtomicU64::new(NO_MARK),
            flag: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            control: Mutex::new(control),
            lent: Mutex::new(None),
            lends: AtomicBool::new(false),
            posted: AtomicBool::new(false),
        }
    }

    /// Looks at what it has apart from each other, for nothing: from many streams little lies in the processor's caches, and
    /// what is asked for together comes together. What is changed by one atomic instruction after the other does not.
    pub(super) fn come_near(&self) {
        let flags = (self.number, self.mark.load(Ordering::Relaxed));
        black_box((flags, self.lent.is_poisoned(), self.control.is_poisoned()));
    }

    /// There may be something for it from `from` on. True: that is news, and the stream may be waiting.
    pub(super) fn mark(&self, from: Lsn) -> bool {
        let from = from.as_u64().min(NO_MARK - 1);
        self.mark.fetch_min(from, Ordering::AcqRel) == NO_MARK
    }

    pub(super) fn lent(&self) -> MutexGuard<'_, Option<Lent>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it lends when it waits.
    pub(super) fn will_lend(&self) {
        self.lends.store(true, Ordering::Release);
    }

    /// Whether what is new is for a courier to bring.
    pub(super) fn lends(&self) -> bool {
        self.lends.load(Ordering::Acquire)
    }

    /// A courier is to come. False: one is on its way already, and will find the mark.
    pub(super) fn post(&self) -> bool {
        !self.posted.swap(true, Ordering::AcqRel)
    }

    /// The courier is here, and takes the mark after this.
    pub(super) fn leave_post(&self) {
        self.posted.swap(false, Ordering::AcqRel);
    }

    /// There may be notices for it. The waker, when the stream may be waiting.
    pub(super) fn flag(&self) -> Option<Waker> {
        if self.flag.swap(true, Ordering::AcqRel) { None } else { self.waker.take() }
    }

    pub(super) fn take_flag(&self) -> bool {
        // Most often there is none; then nothing is written.
        self.flag.load(Ordering::Relaxed) && self.flag.swap(false, Ordering::AcqRel)
    }

    /// As [`mark`](Self::mark), for the stream's own task; also for one that is marked already: one that is paced waits
    /// with its mark set.
    pub(super) fn rouse(&self, from: Lsn) -> Option<Waker> {
        self.mark(from);
        self.take_waker()
    }

    pub(super) fn take_mark(&self) -> Option<Lsn> {
        let mark = self.mark.swap(NO_MARK, Ordering::AcqRel);
        (mark != NO_MARK).then(|| Lsn::new(mark))
    }

    pub(super) fn is_marked(&self) -> bool {
        self.mark.load(Ordering::Acquire) != NO_MARK
    }

    /// Ready when there is a mark or a flag. They stay: who waits may give up.
    pub(super) fn poll_called(&self, context: &Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        let called = self.is_marked() || self.flag.load(Ordering::Acquire);
        if called { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ready when there is a flag, or `interrupted` holds, whatever the mark is.
    pub(super) fn poll_interrupted(
        &self,
        context: &Context<'_>,
        interrupted: impl FnOnce(&Control) -> bool,
    ) -> Poll<()> {
        self.waker.register(context.waker());
        let ready = self.flag.load(Ordering::Acquire) || interrupted(&self.control());
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Also when it was marked before: it may wait for its client, and has to hear that it ends.
    pub(super) fn take_waker(&self) -> Option<Waker> {
        self.waker.take()
    }

    /// Ready when the stream is to end.
    pub(super) fn poll_ended(&self, context: &Context<'_>) -> Poll<EndReason> {
        self.waker.register(context.waker());
        self.control().end.map_or(Poll::Pending, Poll::Ready)
    }

    /// By a role that it has, or will have once it comes so far.
    pub(super) fn is_admitted(&self, audience: &Audience) -> bool {
        let control = self.control();
        let next = control.next_roles.iter().map(|(_, role)| role);
        std::iter::once(&control.role).chain(next).any(|role| audience.admits(&self.user, role.as_deref()))
    }
}

impl Control {
    pub(super) fn newest_filter(&self) -> &Arc<Filter> {
        self.next_filter.as_ref().map_or(&self.filter, |(_, filter)| filter)
    }

    pub(super) fn newest_role(&self) -> &Option<Arc<str>> {
        self.next_roles.back().map_or(&self.role, |(_, role)| role)
    }

    /// From where on it holds: from the position of one that still waits, else from `head`.
    pub(super) fn set_next_filter(&mut self, head: Lsn, filter: Arc<Filter>) -> Lsn {
        let from = self.next_filter.as_ref().map_or(head, |(from, _)| *from);
        self.next_filter = Some((from, filter));
        from
    }

    /// `from` is above every position given before.
    pub(super) fn set_next_role(&mut self, from: Lsn, role: Option<Arc<str>>) {
        let full = self.next_roles.len() >= MAX_NEXT_ROLES;
        match self.next_roles.back_mut() {
            Some(last) if full || last.0 >= from => last.1 = role,
            _ => self.next_roles.push_back((from, role)),
        }
    }

    /// At once, for whatever is not read yet.
    pub(super) fn set_role(&mut self, role: Option<Arc<str>>) {
        self.next_roles.clear();
        self.role = role;
    }

    /// Below this position it is judged as it is.
    pub(super) fn holds_until(&self) -> Lsn {
        let filter = self.next_filter.as_ref().map(|(from, _)| *from);
        let role = self.next_roles.front().map(|(from, _)| *from);
        filter.into_iter().chain(role).min().unwrap_or(Lsn::MAX)
    }

    /// The stream has read everything below `position`.
    pub(super) fn pass(&mut self, position: Lsn) {
        if let Some((_, filter)) = self.next_filter.take_if(|(from, _)| *from <= position) {
            self.filter = filter;
        }
        while self.next_roles.front().is_some_and(|(from, _)| *from <= position) {
            if let Some((_, role)) = self.next_roles.pop_front() {
                self.role = role;
            }
        }
    }
}
