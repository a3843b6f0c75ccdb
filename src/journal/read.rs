//! Reading: one organization's log and the `*` log as one, in the order of ids.

use std::sync::Arc;

use super::View;
use super::block::Place;
use super::log::{BelowFloor, Floor, Log, Portion, Run};
use crate::catalog::event::EventId;
use crate::postgres::Lsn;

/// What a reader holds of the journals: everything in it was true at one instant.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) view: View,
    /// The floor of an organization that has no log.
    pub(super) base: Floor,
    pub(super) own: Option<Arc<Log>>,
    pub(super) every: Arc<Log>,
}

/// Runs in the order of their places.
#[derive(Debug)]
pub(crate) struct Runs {
    pub(crate) runs: Vec<Run>,
    /// Everything after the place asked for and up to here is in `runs`.
    pub(crate) covered: Place,
}

impl Snapshot {
    /// A place below this can't be resumed.
    pub(crate) fn floor(&self) -> Place {
        self.own_floor().place.max(self.every.floor().place)
    }

    /// Whether the transaction of this id is one that the organization saw, or the very last one it has lost.
    pub(crate) fn names(&self, id: EventId) -> bool {
        let place = id.place();
        place == self.own_floor().place
            || place == self.every.floor().place
            || self.own.as_ref().is_some_and(|log| log.names(id.commit_lsn))
            || self.every.names(id.commit_lsn)
    }

    /// Where a stream goes on that can't have what was before: at the newest position whose commits a client that
    /// reads the database now does see.
    pub(crate) fn restart(&self) -> Place {
        let visible = self.view.visible.map_or(self.view.head, |visible| visible.min(self.view.head));
        self.floor().max((visible, 0))
    }

    /// The position before the first entry that committed at `millis` or later; none: there is no such entry.
    pub(crate) fn since(&self, millis: i64) -> Option<Lsn> {
        let own = self.own.as_ref().and_then(|log| log.since(millis));
        own.into_iter().chain(self.every.since(millis)).min().filter(|lsn| *lsn < self.view.head)
    }

    /// Whether something that committed at `millis` or later may be missing: it was evicted, or this history began later.
    pub(crate) fn lost_since(&self, millis: i64) -> bool {
        let lost = |floor: Floor| floor.millis.is_some_and(|time| time >= millis);
        millis < self.view.known_from || lost(self.own_floor()) || lost(self.every.floor())
    }

    /// Entries after `after` of commits below `below` (at most the head): some, then no more than about
    /// `max_weight` bytes.
    pub(crate) fn read(&self, after: Place, below: Lsn, max_weight: usize) -> Result<Runs, BelowFloor> {
        let below = below.min(self.view.head);
        let own = match &self.own {
            Some(log) => log.read(after, below, max_weight)?,
            None if after < self.base.place => return Err(BelowFloor),
            None => Portion { runs: Vec::new(), covered: (below, 0) },
        };
        let every = self.every.read(after, below, max_weight)?;
        let covered = own.covered.min(every.covered);
        if every.runs.is_empty() && own.covered <= covered {
            return Ok(Runs { runs: own.runs, covered });
        }
        Ok(Runs { runs: merge(own.runs, every.runs, covered), covered })
    }

    fn own_floor(&self) -> Floor {
        self.own.as_ref().map_or(self.base, |log| log.floor())
    }
}

/// Two ordered lists of runs as one, up to and with `end`. Runs are cut where the other list's entries come between.
fn merge(left: Vec<Run>, right: Vec<Run>, end: Place) -> Vec<Run> {
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    let mut merged = Vec::new();
    loop {
        let first = |run: Option<&Run>| run.and_then(Run::first);
        let (l, r) = (first(left.peek()), first(right.peek()));
        let (from, until) = match (l, r) {
            (Some(l), Some(r)) if l < r => (&mut left, Some(r)),
            (Some(l), Some(_)) => (&mut right, Some(l)),
            (Some(_), None) => (&mut left, None),
            (None, Some(_)) => (&mut right, None),
            (None, None) => return merged,
        };
        let Some(run) = from.peek_mut() else { return merged };
        let mut stop = run.block.count_to(end);
        if let Some(until) = until {
            stop = stop.min(run.block.count_before(until));
        }
        if stop <= run.range.start {
            // Its first entry is beyond the end, and so is everything after it.
            return merged;
        }
        let stop = stop.min(run.range.end);
        merged.push(Run { block: run.block.clone(), range: run.range.start..stop });
        run.range.start = stop;
        if run.range.is_empty() {
            from.next();
        }
    }
}

impl Run {
    pub(crate) fn first(&self) -> Option<Place> {
        self.block.place(self.range.start)
    }

    pub(crate) fn last(&self) -> Option<Place> {
        self.block.place(self.range.end.checked_sub(1)?)
    }
}
