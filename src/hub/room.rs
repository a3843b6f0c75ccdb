//! The streams of one organization, indexed by what may concern them.
//!
//! A stream with a tag filter is found by the values of its first tag name, else one with types by those, else one
//! with channels by those, else it concerns everything. So an event costs what it may wake. The index may find too
//! many (the other conditions are the stream's own), never too few: a stream that was not found skips what was
//! published without looking at it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::calls::Calls;
use super::filter::Filter;
use super::notices::{NoticeKind, Notices};
use super::seat::{EndReason, Seat};
use crate::catalog::event::TagIter;
use crate::journal::{Block, Label};
use crate::postgres::Lsn;

/// Entries with an audience are asked stream by stream up to so many a block; then all are woken.
const AUDIENCE_CHECKS: usize = 64;

/// By number, so that the oldest is woken first.
pub(super) type Seats = BTreeMap<u64, Arc<Seat>>;

#[derive(Debug, Default)]
pub(super) struct Room {
    state: Mutex<RoomState>,
    /// Taken after the state, where both are, and before nothing: a reader does not hold up who publishes.
    notices: Mutex<Notices>,
}

#[derive(Debug, Default)]
pub(super) struct RoomState {
    pub(super) seats: Seats,
    /// The numbers of each user's seats.
    users: HashMap<Arc<str>, BTreeSet<u64>>,
    any: Seats,
    by_channel: HashMap<Arc<str>, Seats>,
    by_type: HashMap<Arc<str>, Seats>,
    by_tag: HashMap<u16, HashMap<Box<[u8]>, Seats>>,
}

impl Room {
    pub(super) fn lock(&self) -> MutexGuard<'_, RoomState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notices(&self) -> MutexGuard<'_, Notices> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RoomState {
    /// One filter for streams that want the same, where the last one that came does.
    pub(super) fn share(&self, filter: Filter) -> Arc<Filter> {
        let last = self.seats.last_key_value().map(|(_, seat)| seat.control().newest_filter().clone());
        last.filter(|last| **last == filter).unwrap_or_else(|| Arc::new(filter))
    }

    pub(super) fn insert(&mut self, seat: &Arc<Seat>, filter: &Filter) {
        self.seats.insert(seat.number, seat.clone());
        self.users.entry(seat.user.clone()).or_default().insert(seat.number);
        self.index(seat, filter);
    }

    pub(super) fn remove(&mut self, seat: &Seat, filter: &Filter) {
        if self.seats.remove(&seat.number).is_none() {
            return;
        }
        if let Entry::Occupied(mut numbers) = self.users.entry(seat.user.clone()) {
            numbers.get_mut().remove(&seat.number);
            if numbers.get().is_empty() {
                numbers.remove();
            }
        }
        self.unindex(seat.number, filter);
    }

    pub(super) fn count_of_user(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, BTreeSet::len)
    }

    /// The oldest first.
    pub(super) fn of_user(&self, user: &str) -> impl Iterator<Item = &Arc<Seat>> {
        self.users.get(user).into_iter().flatten().filter_map(|number| self.seats.get(number))
    }

    /// Ends the user's oldest streams, so that fewer than `limit` go on. They are to be woken.
    pub(super) fn evict(&self, user: &str, limit: usize) -> Vec<Arc<Seat>> {
        let mut going_on: Vec<_> =
            self.of_user(user).filter(|seat| seat.control().end.is_none()).cloned().collect();
        going_on.truncate((going_on.len() + 1).saturating_sub(limit));
        for seat in &going_on {
            seat.control().end.get_or_insert(EndReason::Evicted);
        }
        going_on
    }

    pub(super) fn index(&mut self, seat: &Arc<Seat>, filter: &Filter) {
        let number = seat.number;
        if let Some((name, values)) = filter.tags.first() {
            let by_value = self.by_tag.entry(*name).or_default();
            for value in values {
                by_value.entry(value.clone()).or_default().insert(number, seat.clone());
            }
        } else if let Some(types) = &filter.types {
            for event_type in types {
                self.by_type.entry(event_type.clone()).or_default().insert(number, seat.clone());
            }
        } else if let Some(channels) = &filter.channels {
            for channel in channels {
                self.by_channel.entry(channel.clone()).or_default().insert(number, seat.clone());
            }
        } else {
            self.any.insert(number, seat.clone());
        }
    }

    pub(super) fn unindex(&mut self, number: u64, filter: &Filter) {
        if let Some((name, values)) = filter.tags.first() {
            let Entry::Occupied(mut by_value) = self.by_tag.entry(*name) else {
                return;
            };
            for value in values {
                remove_from(by_value.get_mut(), value, number);
            }
            if by_value.get().is_empty() {
                by_value.remove();
            }
        } else if let Some(types) = &filter.types {
            types.iter().for_each(|event_type| remove_from(&mut self.by_type, event_type, number));
        } else if let Some(channels) = &filter.channels {
            channels.iter().for_each(|channel| remove_from(&mut self.by_channel, channel, number));
        } else {
            self.any.remove(&number);
        }
    }

    pub(super) fn mark_all(&self, from: Lsn, calls: &mut Calls<'_>) {
        calls.mark(self.seats.values(), from);
    }

    /// Wakes every stream, one that waits its turn too.
    pub(super) fn rouse_all(&self, calls: &mut Calls<'_>) {
        calls.tasks.extend(self.seats.values().filter_map(|seat| seat.rouse(Lsn::ZERO)));
    }

    /// Marks every stream that an entry of `block` may concern.
    pub(super) fn mark(&self, block: &Block, from: Lsn, calls: &mut Calls<'_>) {
        if block.labels().iter().any(|label| matches!(label, Label::Sync { .. })) {
            return self.mark_all(from, calls);
        }
        if !self.by_tag.is_empty() {
            self.mark_by_tag(block, from, calls);
        }
        if self.any.is_empty() && self.by_type.is_empty() && self.by_channel.is_empty() {
            return;
        }
        if block.is_plain() {
            calls.mark(self.any.values(), from);
            block.labels().iter().for_each(|label| self.mark_by_label(label, from, calls));
            return;
        }
        let mut checks = 0;
        let mut any_done = false;
        let mut done = vec![false; block.labels().len()];
        for entry in block.entries(0..block.len()) {
            let Some(done) = done.get_mut(usize::from(entry.label_number)).filter(|done| !**done) else {
                continue;
            };
            if let Some(audience) = entry.audience.filter(|_| checks < AUDIENCE_CHECKS) {
                checks += 1;
                let any = (!any_done).then_some(&self.any);
                let seats = any.into_iter().chain(self.by_label(entry.label)).flat_map(Seats::values);
                let admitted = seats.filter(|seat| seat.is_admitted(audience));
                calls.mark(admitted, from);
            } else {
                *done = true;
                if !std::mem::replace(&mut any_done, true) {
                    calls.mark(self.any.values(), from);
                }
                self.mark_by_label(entry.label, from, calls);
            }
        }
    }

    /// Flags every stream that notices of this kind may concern.
    pub(super) fn flag(&self, kind: &NoticeKind, wakers: &mut Vec<Waker>) {
        let seats = std::iter::once(&self.any).chain(self.by_label(&kind.0)).flat_map(Seats::values);
        wakers.extend(seats.filter_map(|seat| seat.flag()));
    }

    fn mark_by_label(&self, label: &Label, from: Lsn, calls: &mut Calls<'_>) {
        let seats = self.by_label(label).flat_map(Seats::values);
        calls.mark(seats, from);
    }

    fn mark_by_tag(&self, block: &Block, from: Lsn, calls: &mut Calls<'_>) {
        for entry in block.entries(0..block.len()) {
            for (name, value) in TagIter::over(entry.tags) {
                let Some(seats) = self.by_tag.get(&name).and_then(|by_value| by_value.get(value)) else {
                    continue;
                };
                let concerned =
                    seats.values().filter(|seat| entry.audience.is_none_or(|a| seat.is_admitted(a)));
                calls.mark(concerned, from);
            }
        }
    }

    fn by_label(&self, label: &Label) -> impl Iterator<Item = &Seats> {
        let (by_type, by_channel) = match label {
            Label::Data { event_type, channel } => {
                (self.by_type.get(event_type), self.by_channel.get(channel))
            }
            Label::Sync { .. } => (None, None),
        };
        by_type.into_iter().chain(by_channel)
    }
}

fn remove_from<K: std::hash::Hash + Eq + Clone>(index: &mut HashMap<K, Seats>, key: &K, number: u64) {
    let Entry::Occupied(mut seats) = index.entry(key.clone()) else {
        return;
    };
    seats.get_mut().remove(&number);
    if seats.get().is_empty() {
        seats.remove();
    }
}
