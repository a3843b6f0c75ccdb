//! How many streams there are, and who makes room when there are as many as there may be.
//!
//! A stream that was told to end counts until it has left, since it holds a socket; but it goes on no more, so it does
//! not make room a second time. So there may be a few more than the limit, for as long as farewells take to be written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::room::Room;
use super::seat::{EndReason, Seat};
use crate::catalog::event::OrganizationId;

/// Streams beyond the limit that may be ending while others have their places. More are refused: a client that takes
/// nothing holds its socket until the write times out.
const ENDING: u32 = 64;

/// The most streams there may be; 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub streams: u32,
    /// Of one user in one organization.
    pub streams_per_user: u32,
    /// A new one takes the place of the oldest that the limit counts, of its own user first; else it is refused.
    pub evict_oldest: bool,
}

/// Which limit is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("the most streams are open")]
    Streams,
    #[error("the most streams of this user in this organization are open")]
    User,
}

/// Organizations with streams.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    pub(super) by_organization: HashMap<OrganizationId, Arc<Room>>,
    pub(super) streams: usize,
    pub(super) next_number: u64,
    /// Those that would make room, where streams do.
    by_age: BTreeMap<u64, Arc<Seat>>,
}

impl Rooms {
    /// Ends what has to make room for one more, or says which limit is met. What is returned is to be woken.
    pub(super) fn make_room(
        &mut self,
        organization: &OrganizationId,
        user: &str,
        limits: Limits,
    ) -> Result<Vec<Arc<Seat>>, Full> {
        let met = |limit: u32, count: usize| limit > 0 && count >= limit as usize;
        let most = limits.streams.saturating_add(if limits.evict_oldest { ENDING } else { 0 });
        if limits.streams > 0 && met(most, self.streams) {
            return Err(Full::Streams);
        }
        let mut evicted = Vec::new();
        if let Some(room) = self.by_organization.get(organization) {
            let room = room.lock();
            match met(limits.streams_per_user, room.count_of_user(user)) {
                true if !limits.evict_oldest => return Err(Full::User),
                true => evicted = room.evict(user, limits.streams_per_user as usize),
                false => {}
            }
        }
        for seat in &evicted {
            self.by_age.remove(&seat.number);
        }
        while limits.evict_oldest
            && met(limits.streams, self.by_age.len())
            && let Some((_, seat)) = self.by_age.pop_first()
        {
            seat.control().end.get_or_insert(EndReason::Evicted);
            evicted.push(seat);
        }
        Ok(evicted)
    }

    /// One that entered may be the oldest one day.
    pub(super) fn may_make_room(&mut self, seat: &Arc<Seat>, limits: Limits) {
        if limits.evict_oldest && limits.streams > 0 {
            self.by_age.insert(seat.number, seat.clone());
        }
    }

    pub(super) fn left(&mut self, seat: &Seat) {
        self.streams = self.streams.saturating_sub(1);
        self.by_age.remove(&seat.number);
    }
}
