//! What the run knows beside its events: when each commit was, who stood where, and what was broken meanwhile.

use std::ops::RangeInclusive;

use crate::reader::{Micros, Place, Spec};
use crate::writer::Standing;

/// `replay.max_age` of the run.
const WINDOW: Micros = 15_000_000;

/// A commit's time is taken before it is written, and what is older than the window is looked for once a second.
const SLACK: Micros = 1_500_000;

/// How long after a commit somebody may still be judged by what was before it, while the source is away.
const LAG: Micros = 30_000_000;

/// A place of somebody in an organization, from a commit on.
#[derive(Clone, Debug)]
pub struct Placed {
    pub lsn: u64,
    pub time: Micros,
    pub standing: Standing,
}

/// A place in the order, and from before when to when its writer was at it.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    pub lsn: u64,
    pub began: Micros,
    pub ended: Micros,
}

#[derive(Debug, Default)]
pub struct Facts {
    /// Position and time of every commit, in order.
    pub commits: Vec<(u64, Micros)>,
    /// In the order of their commits.
    pub placed: Vec<Placed>,
    /// From where a history was broken, to where the worker had begun another.
    pub resets: Vec<RangeInclusive<u64>>,
    /// Where an organization wrote more than its window holds.
    pub floods: Vec<(&'static str, RangeInclusive<u64>)>,
    /// In the order of their places.
    pub acknowledged: Vec<Acknowledged>,
    /// The window holds less than is written in its time: any organization may lose of it at any time.
    pub tight: bool,
}

impl Facts {
    /// The role at the beginning of the run.
    pub fn first_role(user: &str) -> &'static str {
        if user == "ann" { "employee" } else { "admin" }
    }

    fn of<'a>(&'a self, spec: &'a Spec) -> impl DoubleEndedIterator<Item = &'a Placed> {
        let same = |placed: &&Placed| {
            placed.standing.organization == spec.organization && placed.standing.user == spec.user
        };
        self.placed.iter().filter(same)
    }

    /// The roles by which an event may be judged on a connection that was opened then: the one of its own commit, and,
    /// where that was before, those of the opening, which replay goes by.
    pub fn roles(&self, spec: &Spec, lsn: u64, opened: Micros) -> Vec<&'static str> {
        let first = Self::first_role(spec.user);
        let before = self.of(spec).rev().find(|placed| placed.lsn <= lsn);
        let mut roles: Vec<_> =
            before.map_or(Some(first), |placed| placed.standing.role).into_iter().collect();
        let commit = self.commits.partition_point(|(at, _)| *at < lsn);
        if self.commits.get(commit).is_some_and(|(at, time)| *at == lsn && *time > opened) {
            return roles;
        }
        let earliest = self.of(spec).rev().find(|placed| placed.time < opened - LAG);
        roles.extend(earliest.map_or(Some(first), |placed| placed.standing.role));
        let meanwhile = self.of(spec).filter(|placed| (opened - LAG..=opened).contains(&placed.time));
        roles.extend(meanwhile.filter_map(|placed| placed.standing.role));
        roles
    }

    /// Every role that the stream's user ever has.
    pub fn all_roles(&self, spec: &Spec) -> Vec<&'static str> {
        let later = self.of(spec).filter_map(|placed| placed.standing.role);
        std::iter::once(Self::first_role(spec.user)).chain(later).collect()
    }

    /// The loss of a membership by which a connection that was opened then must have ended before this position: its
    /// user was no member from that commit on, and, where they are one again, opened it before that. `anew`: the
    /// position from which on a new history was told on this connection.
    pub fn revoked_by<'a>(
        &'a self,
        spec: &'a Spec,
        opened: Micros,
        anew: Option<u64>,
        lsn: u64,
    ) -> Option<&'a Placed> {
        let placed: Vec<_> = self.of(spec).collect();
        let found = placed.iter().enumerate().find(|(at, gone)| {
            let back = placed.get(at + 1);
            // A new history begins with memberships as they are then: what went and came before leaves no trace.
            let unseen = anew.is_some_and(|anew| {
                let read = |reset: &&RangeInclusive<u64>| anew <= *reset.end();
                let until = self.resets.iter().find(read).map_or(anew, |reset| *reset.end());
                back.is_some_and(|back| back.lsn <= until)
            });
            gone.standing.role.is_none()
                && lsn >= gone.lsn
                && !unseen
                && (opened < gone.time || back.is_none_or(|back| lsn < back.lsn && opened < back.time))
        });
        found.map(|(_, gone)| *gone)
    }

    /// Whether the stream's user was no member at some time between two moments, or within the lag before.
    pub fn was_away(&self, spec: &Spec, from: Micros, to: Micros) -> bool {
        let placed: Vec<_> = self.of(spec).collect();
        placed.iter().enumerate().any(|(at, gone)| {
            let back = placed.get(at + 1).map_or(Micros::MAX, |back| back.time.saturating_add(LAG));
            gone.standing.role.is_none() && gone.time <= to && from <= back
        })
    }

    /// Whether there is a cause for what a stream was told that stood at `from`, and goes on at `place`.
    pub fn founded(
        &self,
        spec: &Spec,
        reason: &str,
        from: Option<Place>,
        place: Place,
        time: Micros,
    ) -> bool {
        // A client that begins, or was told before and lost the connection then, has no place of its own.
        let Some((from, _)) = from.filter(|(lsn, _)| *lsn > 0) else { return true };
        let meets = |range: &RangeInclusive<u64>| from <= *range.end() && place.0 >= *range.start();
        if self.resets.iter().any(meets) {
            return true;
        }
        let lost = || {
            let next = self.commits.partition_point(|(lsn, _)| *lsn < from);
            let old = self.commits.get(next).is_some_and(|(_, at)| time - at >= WINDOW - SLACK);
            old || self
                .floods
                .iter()
                .any(|(organization, range)| *organization == spec.organization && meets(range))
        };
        matches!(reason, "history_expired" | "slow_consumer") && (self.tight || lost())
    }
}
