//! The independent judge: what committed, in the order that Postgres itself tells, against what each stream saw.
//!
//! The order of commits is what `order` saw of it, beside the worker. So an event's place is known without any code of
//! the worker's.

mod facts;
pub mod proof;

use std::collections::HashMap;

use super::deed::{Expected, SYNC};
use super::reader::{Micros, Place, Reader, Seen, Spec};
pub use facts::{Acknowledged, Facts, Placed};

/// A committed event and the position of its commit.
#[derive(Debug)]
pub struct Committed {
    pub lsn: u64,
    pub event: Expected,
}

/// What was counted; all but the last three must be 0.
#[derive(Debug, Default)]
pub struct Verdict {
    pub missed: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub foreign: u64,
    pub untold: u64,
    /// A `data.sync` without a cause.
    pub unfounded: u64,
    /// Data or an id that is not what it must be.
    pub wrong: u64,
    pub delivered: u64,
    /// Streams that ended because their user was no member any more.
    pub revoked: u64,
    pub told: HashMap<String, u64>,
    /// The first of each, in words.
    pub evidence: Vec<String>,
}

impl Verdict {
    /// Missed, duplicated, reordered, foreign, untold, unfounded, wrong.
    pub const fn counts(&self) -> [u64; 7] {
        let Self { missed, duplicated, reordered, foreign, untold, unfounded, wrong, .. } = self;
        [*missed, *duplicated, *reordered, *foreign, *untold, *unfounded, *wrong]
    }

    pub fn holds(&self) -> bool {
        self.counts() == [0; 7]
    }

    fn blame(&mut self, count: impl FnOnce(&mut Self) -> &mut u64, evidence: impl FnOnce() -> String) {
        *count(self) += 1;
        if self.evidence.len() < 40 {
            self.evidence.push(evidence());
        }
    }
}

/// The frames that each id was seen with, over all streams and all lives of the worker.
#[derive(Debug, Default)]
pub struct Ids {
    frames: HashMap<String, u64>,
}

/// Whether a stream is to see an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sight {
    Owed,
    /// The role of its user changes about then: the log does not tell by which one it is judged.
    Free,
    Hidden,
}

/// Judges the order itself: what had committed before a transaction began comes before it.
pub fn judge_order(commits: &[Acknowledged], verdict: &mut Verdict) {
    let mut latest: Option<&Acknowledged> = None;
    for commit in commits {
        if let Some(before) = latest.filter(|before| before.began > commit.ended) {
            let evidence = || {
                let at = (commit.lsn, before.lsn);
                format!(
                    "what is at {} had ended before what is at {} began: {commit:?}, {before:?}",
                    at.0, at.1
                )
            };
            verdict.blame(|v| &mut v.reordered, evidence);
        }
        if latest.is_none_or(|latest| latest.began < commit.began) {
            latest = Some(commit);
        }
    }
}

/// One stream's case.
struct Case<'a> {
    reader: &'a Reader,
    facts: &'a Facts,
    /// What it selects, and its user may see in some role.
    expected: Vec<&'a Committed>,
    by_key: HashMap<&'a str, Vec<usize>>,
    /// The first of `expected` that it has not seen. Before the first position that it is told, it is owed nothing.
    next: Option<usize>,
    /// When this connection was opened.
    opened: Micros,
    /// Where a new history began, when that was told on this connection.
    anew: Option<u64>,
    /// Where the stream stands, as it knows.
    cursor: Option<Place>,
    must_be_told: bool,
    /// Nothing came on this connection yet, and it asked for nothing that was before.
    fresh: bool,
}

/// Judges one stream. `history` is everything that committed, in order.
pub fn judge(reader: &Reader, history: &[Committed], facts: &Facts, ids: &mut Ids, verdict: &mut Verdict) {
    let spec = &reader.spec;
    let roles = facts.all_roles(spec);
    let may_see = |committed: &&Committed| {
        spec.selects(&committed.event) && roles.iter().any(|role| spec.admits(&committed.event, Some(role)))
    };
    let expected: Vec<&Committed> = history.iter().filter(may_see).collect();
    let mut by_key: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, committed) in expected.iter().enumerate() {
        by_key.entry(&committed.event.key).or_default().push(at);
    }
    let mut case = Case {
        reader,
        facts,
        expected,
        by_key,
        next: None,
        opened: 0,
        anew: None,
        cursor: None,
        must_be_told: false,
        fresh: false,
    };
    for (step, seen) in reader.log.iter().enumerate() {
        case.look(step, seen, ids, verdict);
    }
    case.end(verdict);
}

impl<'a> Case<'a> {
    fn spec(&self) -> &'a Spec {
        &self.reader.spec
    }

    fn name_of(&self, of: &Committed) -> String {
        format!("{} {:?}: {}", self.spec().path, self.spec().query, of.event.key)
    }

    fn sight(&self, of: &Committed) -> Sight {
        let roles = self.facts.roles(self.spec(), of.lsn, self.opened);
        let admitted = roles.iter().filter(|role| self.spec().admits(&of.event, Some(role))).count();
        match admitted {
            // One who never had a role there sees what everybody does.
            _ if of.event.only.is_none() => Sight::Owed,
            0 => Sight::Hidden,
            all if all == roles.len() => Sight::Owed,
            _ => Sight::Free,
        }
    }

    fn look(&mut self, step: usize, seen: &Seen, ids: &mut Ids, verdict: &mut Verdict) {
        let spec = self.spec();
        match seen {
            Seen::Refused { head, asked, time } => {
                let away = head.starts_with("HTTP/1.1 403 ") && self.facts.was_away(spec, *asked, *time);
                if !away {
                    verdict.blame(|v| &mut v.wrong, || format!("{}: refused: {head}", spec.path));
                }
            }
            Seen::Revoked { time } => {
                verdict.revoked += 1;
                if !self.facts.was_away(spec, self.opened, *time) {
                    verdict.blame(
                        |v| &mut v.wrong,
                        || format!("{}: {} of {} was revoked", spec.path, spec.user, spec.organization),
                    );
                }
            }
            Seen::Position(place) => self.cursor = Some(*place),
            Seen::Connected { asked, at, resumed, time } => {
                (self.opened, self.anew, self.fresh) = (*time, None, asked.is_none());
                match asked {
                    None => {
                        self.next = Some(self.expected.partition_point(|committed| committed.lsn < at.0));
                        self.cursor = Some(*at);
                    }
                    Some(_) => {
                        self.must_be_told = !resumed;
                        self.cursor = *asked;
                    }
                }
            }
            Seen::Sync { reason, place, time } => self.told(step, reason, *place, *time, verdict),
            Seen::Event { .. } => self.event(step, seen, ids, verdict),
        }
    }

    fn told(&mut self, step: usize, reason: &str, place: Place, time: Micros, verdict: &mut Verdict) {
        *verdict.told.entry(reason.to_owned()).or_default() += 1;
        let spec = self.spec();
        let unfounded = || format!("{} of {}: {reason} at {place:?}", spec.path, spec.organization);
        if matches!(reason, "truncated" | "unroutable") {
            // It has a place of its own, as events have.
            let key = format!("{SYNC} {reason}");
            match self.place_of(&key, place.0).filter(|at| self.expected[*at].lsn == place.0) {
                Some(at) => self.go_to(at, step, &place, verdict),
                None => verdict.blame(|v| &mut v.unfounded, unfounded),
            }
        } else {
            // What had gone when it came, and what went while it was there, are told apart.
            let fits = match reason {
                "history_expired" => self.must_be_told || self.fresh,
                "slow_consumer" => !self.must_be_told,
                _ => true,
            };
            if !fits || !self.facts.founded(spec, reason, self.cursor, place, time) {
                let from = self.cursor;
                verdict.blame(|v| &mut v.unfounded, || format!("{}, from {from:?}", unfounded()));
            }
            self.must_be_told = false;
            self.anew = Some(place.0);
            self.next = Some(self.after(place, step));
        }
        (self.cursor, self.fresh) = (Some(place), false);
    }

    fn event(&mut self, step: usize, seen: &Seen, ids: &mut Ids, verdict: &mut Verdict) {
        let Seen::Event { id, place, organization, key, data, .. } = seen else { return };
        let spec = self.spec();
        verdict.delivered += 1;
        (self.cursor, self.fresh) = (Some(*place), false);
        if std::mem::take(&mut self.must_be_told) {
            verdict.blame(
                |v| &mut v.untold,
                || format!("{}: not resumed, and not told, before {id}", spec.path),
            );
        }
        let key = key.as_deref().unwrap_or("?");
        let about =
            || format!("{} of {} {key} of {organization} ({id}): {data}", spec.user, spec.organization);
        if let Some(gone) = self.facts.revoked_by(spec, self.opened, self.anew, place.0) {
            let evidence = || {
                let (opened, anew) = (self.opened, self.anew);
                format!("no member since {gone:?} (opened {opened}, anew {anew:?}): {}", about())
            };
            verdict.blame(|v| &mut v.foreign, evidence);
        }
        if self.next.is_none() {
            return;
        }
        let Some(at) =
            self.place_of(key, place.0).filter(|at| self.sight(self.expected[*at]) != Sight::Hidden)
        else {
            verdict.blame(|v| &mut v.foreign, || format!("{} saw, as {}", spec.path, about()));
            return;
        };
        check(self.expected[at], spec, seen, ids, verdict);
        self.go_to(at, step, place, verdict);
    }

    /// The expected event of this key: of that commit, and to come rather than gone (one commit may have two of a key);
    /// else the first that is to come, else the last there was.
    fn place_of(&self, key: &str, lsn: u64) -> Option<usize> {
        let places = || self.by_key.get(key).into_iter().flatten().copied();
        let from = self.next.unwrap_or_default();
        let here = |at: &usize| self.expected[*at].lsn == lsn;
        let exact = places().filter(here).find(|at| *at >= from).or_else(|| places().find(here));
        exact.or_else(|| places().find(|at| *at >= from)).or_else(|| places().last())
    }

    /// The stream came to `at`; what it passed over it did not see.
    fn go_to(&mut self, at: usize, step: usize, place: &Place, verdict: &mut Verdict) {
        let Some(from) = self.next else { return };
        if at < from {
            // What was passed over before and comes late is an order that was broken, not a second copy.
            let before = self.reader.log[..step].iter().any(|seen| match seen {
                Seen::Event { place: other, .. } | Seen::Sync { place: other, .. } => other == place,
                _ => false,
            });
            let evidence = format!("{} ({place:?})", self.name_of(self.expected[at]));
            if before {
                verdict.blame(|v| &mut v.duplicated, || format!("twice: {evidence}"));
            } else {
                verdict.blame(|v| &mut v.reordered, || format!("late: {evidence}"));
            }
            return;
        }
        for missed in &self.expected[from..at] {
            if self.sight(missed) == Sight::Owed {
                let evidence =
                    || format!("missed: {} at {}, before {place:?}", self.name_of(missed), missed.lsn);
                verdict.blame(|v| &mut v.missed, evidence);
            }
        }
        self.next = Some(at + 1);
    }

    /// The first event after a place that a stream was told to go on from. Which events of that very commit lie before
    /// it only the stream's later words tell.
    fn after(&self, place: Place, step: usize) -> usize {
        let first = self.expected.partition_point(|committed| committed.lsn < place.0);
        if place.1 == 0 {
            return first;
        }
        let of_commit =
            self.expected[first..].iter().take_while(|committed| committed.lsn == place.0).count();
        let still_to_come = self.reader.log[step..].iter().skip(1).filter(
            |seen| matches!(seen, Seen::Event { place: at, .. } if at.0 == place.0 && at.1 > place.1),
        );
        first + of_commit.saturating_sub(still_to_come.count())
    }

    fn end(&self, verdict: &mut Verdict) {
        for missed in &self.expected[self.next.unwrap_or(self.expected.len())..] {
            if self.sight(missed) == Sight::Owed {
                verdict.blame(
                    |v| &mut v.missed,
                    || format!("never came: {} at {}", self.name_of(missed), missed.lsn),
                );
            }
        }
    }
}

/// Organization, data, and that the id names this event alone, with the same bytes whenever it is sent.
fn check(committed: &Committed, spec: &Spec, seen: &Seen, ids: &mut Ids, verdict: &mut Verdict) {
    let Seen::Event { id, place, organization, frame, data, .. } = seen else { return };
    let event = &committed.event;
    if organization != event.organization {
        verdict.blame(
            |v| &mut v.foreign,
            || format!("{} of {} says {organization}", event.key, spec.organization),
        );
    }
    if place.0 != committed.lsn {
        verdict.blame(
            |v| &mut v.wrong,
            || format!("{} committed at {} has the id {id}", event.key, committed.lsn),
        );
    }
    let fits = |(name, wanted): (&String, &serde_json::Value)| data.get(name) == Some(wanted);
    if !event.data.as_object().into_iter().flatten().all(fits) {
        verdict.blame(|v| &mut v.wrong, || format!("{}: {data} is not {}", event.key, event.data));
    }
    // A gate event alone shows its lot as the mirror has it, which on replay may be newer.
    let first = *ids.frames.entry(id.clone()).or_insert(*frame);
    if first != *frame && event.event_type != "capacity_update" {
        verdict.blame(|v| &mut v.wrong, || format!("{id} ({}) had other bytes before", event.key));
    }
}
