//! Whom to call once no lock is held any more. Couriers are no streams: where there are many to go to, they set out while
//! the rest is still being marked.

use std::sync::Arc;
use std::task::Waker;

use super::courier::{Post, Round, TURN};
use super::seat::Seat;
use crate::catalog::event::OrganizationId;
use crate::postgres::Lsn;

/// Seats that are gone near to at a time: more would not stay near.
const NEAR: usize = 32;

/// Of one organization.
#[derive(Debug)]
pub(super) struct Calls<'a> {
    organization: &'a OrganizationId,
    post: &'a Post,
    pub(super) tasks: Vec<Waker>,
    /// Streams to which a courier has to go.
    posted: Vec<Arc<Seat>>,
}

impl<'a> Calls<'a> {
    pub(super) const fn new(organization: &'a OrganizationId, post: &'a Post) -> Self {
        Self { organization, post, tasks: Vec::new(), posted: Vec::new() }
    }

    /// Posts the rest. Without a courier, who is posted is called only by [`Post::send`].
    pub(super) fn done(mut self) -> Vec<Waker> {
        if !self.posted.is_empty() {
            self.add();
        }
        self.tasks
    }

    fn add(&mut self) {
        let seats = std::mem::take(&mut self.posted);
        self.post.add(Round { organization: self.organization.clone(), seats });
    }

    /// Marks these, and notes those whose mark is news.
    pub(super) fn mark<'s>(&mut self, mut seats: impl Iterator<Item = &'s Arc<Seat>>, from: Lsn) {
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
            if self.posted.len() == TURN {
                self.add();
                self.post.call();
            }
        }
    }
}
