//! Who is online: arrivals and departures in, announcements out. No clock, no IO: the time is an argument.
//!
//! ```text
//!          arrive ─► Here ◄─── arrive ───┐
//!            ▲        │ last stream ends │
//!          arrive     └────────────► Leaving ─ grace is over ─┐
//!            │                                                ▼
//!            └────────────────────────────────────────────── Gone ─ announced ─► forgotten
//! ```
//!
//! Invariants:
//! - Whoever read the roll of a room at some moment, and every announcement since, knows who is online as soon as
//!   nobody waits to be announced. Some announcements may be redundant, none is missing.
//! - A user waits in line once, whatever they do: what is announced is how they are when their turn comes.
//! - Memory is an entry for each user who is online, leaving or in line.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::roll::Roll;
use crate::catalog::OrganizationId;

/// What everybody is to be told of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) user: Arc<str>,
    pub(super) is_online: bool,
}

/// Every organization's users.
#[derive(Debug)]
pub(super) struct Attendance {
    grace: Duration,
    rooms: HashMap<OrganizationId, Room>,
    /// Users without a stream, by when they are gone.
    leaving: BTreeSet<(Instant, OrganizationId, Arc<str>)>,
    /// Rooms with somebody in line, each once, the next first.
    waiting: VecDeque<OrganizationId>,
}

#[derive(Debug, Default)]
struct Room {
    users: BTreeMap<Arc<str>, User>,
    /// Who is to be announced, each once.
    line: VecDeque<Arc<str>>,
    roll: Roll,
    /// How often the roll was read.
    readings: u64,
}

#[derive(Debug)]
struct User {
    streams: u32,
    standing: Standing,
    /// What everybody thinks of them; none: some one thing, some the other. Not in line, it is what is so.
    known: Option<bool>,
    in_line: bool,
    /// The room's readings when they last came or went.
    since: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Here,
    /// Online until then, unless they come back.
    Leaving(Instant),
    Gone,
}

impl Attendance {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, rooms: HashMap::new(), leaving: BTreeSet::new(), waiting: VecDeque::new() }
    }

    /// A stream of the user opens.
    pub(super) fn arrive(&mut self, organization: &OrganizationId, name: &Arc<str>) {
        let room = self.rooms.entry(organization.clone()).or_default();
        let unknown = User::unknown(room.readings);
        let user = room.users.entry(name.clone()).or_insert(unknown);
        user.streams = user.streams.saturating_add(1);
        match std::mem::replace(&mut user.standing, Standing::Here) {
            Standing::Here => {}
            Standing::Leaving(at) => {
                self.leaving.remove(&(at, organization.clone(), name.clone()));
            }
            Standing::Gone => {
                room.roll.add(name);
                room.flipped(organization, name, &mut self.waiting);
            }
        }
    }

    /// A stream of the user ends. With the last one their grace begins.
    pub(super) fn leave(&mut self, organization: &OrganizationId, name: &Arc<str>, now: Instant) {
        let Some(room) = self.rooms.get_mut(organization) else { return };
        let Some(user) = room.users.get_mut(name) else { return };
        user.streams = user.streams.saturating_sub(1);
        if user.streams > 0 {
            return;
        }
        if !user.is_online() {
            room.forget(name);
            self.sweep(organization);
        } else if self.grace.is_zero() {
            self.dismiss(organization, name);
        } else {
            let at = now + self.grace;
            user.standing = Standing::Leaving(at);
            self.leaving.insert((at, organization.clone(), name.clone()));
        }
    }

    /// The user is gone, whatever streams they still have: those are about to end.
    pub(super) fn dismiss(&mut self, organization: &OrganizationId, name: &Arc<str>) {
        let Some(room) = self.rooms.get_mut(organization) else { return };
        let Some(user) = room.users.get_mut(name) else { return };
        match std::mem::replace(&mut user.standing, Standing::Gone) {
            Standing::Gone => return,
            Standing::Here => {}
            Standing::Leaving(at) => {
                self.leaving.remove(&(at, organization.clone(), name.clone()));
            }
        }
        room.roll.remove();
        room.flipped(organization, name, &mut self.waiting);
        room.forget(name);
        self.sweep(organization);
    }

    pub(super) fn is_online(&self, organization: &OrganizationId, name: &str) -> bool {
        let user = self.rooms.get(organization).and_then(|room| room.users.get(name));
        user.is_some_and(User::is_online)
    }

    /// Those whose grace is over are gone.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some((_, organization, name)) = self.leaving.first().filter(|(at, ..)| *at <= now).cloned()
        {
            self.dismiss(&organization, &name);
        }
    }

    /// When somebody's grace is over next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.leaving.first().map(|(at, ..)| *at)
    }

    pub(super) fn is_anybody_in_line(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whose turn it is, room by room. `budget` is how many announcements may be delivered, `streams` to how many each
    /// goes: at least one is announced, and a crowd's line goes on at the next call, behind the other rooms'.
    pub(super) fn announce(
        &mut self,
        mut budget: usize,
        streams: impl Fn(&OrganizationId) -> usize,
    ) -> Vec<(OrganizationId, Vec<Change>)> {
        let mut announced = Vec::new();
        // Each at most once a call.
        for _ in 0..self.waiting.len() {
            let Some(organization) = (if budget > 0 { self.waiting.pop_front() } else { None }) else {
                break;
            };
            let Some(room) = self.rooms.get_mut(&organization) else { continue };
            let to = streams(&organization).max(1);
            // Half of what is left, so that one room does not take the turns of all.
            let changes = room.next_in_line((budget / 2 / to).max(1));
            budget = budget.saturating_sub(changes.len().saturating_mul(to));
            if !room.line.is_empty() {
                self.waiting.push_back(organization.clone());
            }
            self.sweep(&organization);
            if !changes.is_empty() {
                announced.push((organization, changes));
            }
        }
        announced
    }

    /// Who is online, as a JSON array in pieces. What changes after it is announced.
    pub(super) fn online(&mut self, organization: &OrganizationId) -> [Bytes; 2] {
        let Some(room) = self.rooms.get_mut(organization) else {
            return Roll::default().read(std::iter::empty());
        };
        room.readings += 1;
        room.roll.read(room.users.iter().filter(|(_, user)| user.is_online()).map(|(name, _)| name))
    }

    /// Keeps nothing of a room in which nobody is.
    fn sweep(&mut self, organization: &OrganizationId) {
        let empty = |room: &Room| room.users.is_empty() && room.line.is_empty();
        if self.rooms.get(organization).is_some_and(empty) {
            self.rooms.remove(organization);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.leaving.is_empty() && self.waiting.is_empty()
    }
}

impl Room {
    /// The user has come or gone just now: in line, unless everybody thinks so already.
    fn flipped(
        &mut self,
        organization: &OrganizationId,
        name: &Arc<str>,
        waiting: &mut VecDeque<OrganizationId>,
    ) {
        let Some(user) = self.users.get_mut(name) else { return };
        let before = !user.is_online();
        // Who read the roll since they last came or went thinks what was so until now.
        if user.since != self.readings && user.known != Some(before) {
            user.known = None;
        }
        user.since = self.readings;
        if user.known == Some(!before) || std::mem::replace(&mut user.in_line, true) {
            return;
        }
        if self.line.is_empty() {
            waiting.push_back(organization.clone());
        }
        self.line.push_back(name.clone());
    }

    fn next_in_line(&mut self, most: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < most {
            let Some(name) = self.line.pop_front() else { break };
            let Some(user) = self.users.get_mut(&name) else { continue };
            user.in_line = false;
            let is_online = user.is_online();
            // They may have changed their mind since they were put in line.
            if user.known.replace(is_online) != Some(is_online) {
                changes.push(Change { user: name.clone(), is_online });
            }
            self.forget(&name);
        }
        changes
    }

    /// Keeps nothing of a user of whom there is nothing to say.
    fn forget(&mut self, name: &Arc<str>) {
        let nothing = |user: &User| user.streams == 0 && !user.is_online() && !user.in_line;
        if self.users.get(name).is_some_and(nothing) {
            self.users.remove(name);
        }
    }
}

impl User {
    const fn unknown(readings: u64) -> Self {
        Self { streams: 0, standing: Standing::Gone, known: Some(false), in_line: false, since: readings }
    }

    const fn is_online(&self) -> bool {
        !matches!(self.standing, Standing::Gone)
    }
}
