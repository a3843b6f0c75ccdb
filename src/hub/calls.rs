//! Whom to call once no lock is held any more.

use std::sync::Arc;
use std::task::Waker;

use super::seat::Seat;
use crate::postgres::Lsn;

#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) tasks: Vec<Waker>,
    /// Streams to which a courier has to go.
    pub(super) posted: Vec<Arc<Seat>>,
}

impl Calls {
    /// Marks these, and notes those whose mark is news.
    pub(super) fn mark<'a>(&mut self, seats: impl Iterator<Item = &'a Arc<Seat>>, from: Lsn) {
        for seat in seats {
            if !seat.mark(from) {
                continue;
            }
            if !seat.lends() {
                self.tasks.extend(seat.take_waker());
            } else if seat.post() {
                self.posted.push(seat.clone());
            }
        }
    }
}
