//! A live stream in the hands of somebody else: to end it, to change what it may see.

use std::sync::Arc;
use std::task::Waker;

use super::Hub;
use super::filter::Filter;
use super::room::Room;
use super::seat::{Control, EndReason, Seat};
use super::stream::Membership;
use crate::catalog::event::{EventId, OrganizationId};
use crate::postgres::Lsn;

/// Outlives the stream without harm: then its calls do nothing.
#[derive(Clone, Debug)]
pub struct StreamHandle {
    hub: Arc<Hub>,
    room: Arc<Room>,
    organization: OrganizationId,
    seat: Arc<Seat>,
}

impl StreamHandle {
    pub(super) fn new(membership: &Membership) -> Self {
        let Membership { hub, room, organization, seat } = membership;
        Self::of(hub, room, organization, seat)
    }

    pub(super) fn of(
        hub: &Arc<Hub>,
        room: &Arc<Room>,
        organization: &OrganizationId,
        seat: &Arc<Seat>,
    ) -> Self {
        Self { hub: hub.clone(), room: room.clone(), organization: organization.clone(), seat: seat.clone() }
    }

    /// Counts up over the hub's life: the lower, the older the stream.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.seat.number
    }

    #[must_use]
    pub fn organization(&self) -> &OrganizationId {
        &self.organization
    }

    #[must_use]
    pub fn user(&self) -> &Arc<str> {
        &self.seat.user
    }

    /// The role last set.
    #[must_use]
    pub fn role(&self) -> Option<Arc<str>> {
        self.seat.control().newest_role().clone()
    }

    /// Its last batch is near.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.seat.control().end.is_some()
    }

    /// The filter last set.
    #[must_use]
    pub fn filter(&self) -> Arc<Filter> {
        self.seat.control().newest_filter().clone()
    }

    /// Ends the stream: its next batch is the reason, whatever else it had to send. The first reason stays.
    pub fn end(&self, reason: EndReason) {
        self.seat.control().end.get_or_insert(reason);
        wake(self.look());
    }

    /// Lets the stream look at what is not the hub's to tell: see [`Stream::next_unless`](super::Stream::next_unless).
    pub fn wake(&self) {
        wake(self.seat.take_waker());
    }

    /// From now on nothing is written for it after this second since 1970; it is woken, to find out itself.
    pub fn offer_until(&self, second: u64) {
        if let Some(lent) = self.seat.lent().as_mut() {
            lent.until = second;
        }
        self.wake();
    }

    /// From now on, for everything that is not read yet.
    pub fn set_role(&self, role: Option<Arc<str>>) {
        self.change(|control| control.set_role(role));
    }

    /// For what commits at or above `from`, a transaction that is not published yet.
    pub fn set_role_from(&self, from: Lsn, role: Option<Arc<str>>) {
        self.change(|control| control.set_next_role(from, role));
    }

    fn change(&self, change: impl FnOnce(&mut Control)) {
        let room = self.room.lock();
        change(&mut self.seat.control());
        // Under the room's lock: what is published later finds the stream by its new standing.
        let waker = self.look();
        drop(room);
        wake(waker);
    }

    /// Replaces the filter, without a gap: what commits below the answer is still judged by the old one, what commits
    /// at or above it by the new. (Set again before the stream came so far: the newest holds from the first answer.)
    pub fn set_filter(&self, filter: Filter) -> EventId {
        let filter = Arc::new(filter.ordered());
        let mut room = self.room.lock();
        let mut control = self.seat.control();
        let view = self.hub.journals().view();
        let old = control.newest_filter().clone();
        let notices = self.room.notices();
        if !notices.pass(&old) {
            // What was told while it did not listen is not told later.
            control.noticed = notices.number();
        }
        drop(notices);
        let from = control.set_next_filter(view.head, filter.clone());
        drop(control);
        if room.seats.contains_key(&self.seat.number) {
            room.unindex(self.seat.number, &old);
            room.index(&self.seat, &filter);
        }
        // Marked under the room's lock: what is being announced meanwhile was found by the old filter or is read now.
        let waker = self.look();
        drop(room);
        wake(waker);
        EventId::position(view.epoch, from)
    }

    /// Its client knows by another way how things stand: only notices from now on are new.
    pub fn skip_notices(&self) {
        let number = self.room.notices().number();
        self.seat.control().noticed = number;
    }

    /// The position of everything that is published by now.
    #[must_use]
    pub fn position(&self) -> EventId {
        self.hub.journals().position()
    }

    /// Lets the stream look at what was changed.
    fn look(&self) -> Option<Waker> {
        self.seat.rouse(self.hub.announced())
    }
}

fn wake(waker: Option<Waker>) {
    waker.into_iter().for_each(Waker::wake);
}
