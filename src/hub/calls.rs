//! Whom to call once no lock is held any more.

use std::sync::Arc;
use std::task::Waker;

use super::seat::Seat;
use crate::postgres::Lsn;

/// Seats that are gone near to at a time: more would not stay near.
const NEAR: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) tasks: Vec<Waker>,
    /// Streams to which a courier has to go.
    pub(super) posted: Vec<Arc<Seat>>,
}

impl Calls {
    /// Marks these, and notes those whose mark is news.
    pub(super) fn mark<'a>(&mut self, mut seats: impl Iterator<Item = &'a Arc<Seat>>, from: Lsn) {
        let mut near = Vec::new();
        loop {
            near.extend(seats.by_ref().take(NEAR));
            if near.is_empty() {
                return;
            }
            near.iter().for_each(|seat| seat.come_near());
            near.drain(..).for_each(|seat| self.mark_one(seat, from));
        }
    }

    fn mark_one(&mut self, seat: &Arc<Seat>, from: Lsn) {
        if !seat.mark(from) {
            return;
        }
        if !seat.lends() {
            self.tasks.extend(seat.take_waker());
        } else if seat.post() {
            self.posted.push(seat.clone());
        }
    }
}
