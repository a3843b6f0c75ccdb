//! The independent judge: what committed, in the order that Postgres itself tells, against what each stream saw.
//!
//! The order of commits comes from a second slot that only this reads, through the server's own SQL functions. So an
//! event's place is known without any code of the worker's.

pub mod proof;

use std::collections::HashMap;

use super::deed::Expected;
use super::reader::{Place, Reader, Seen, Spec};

/// A committed event and the position of its commit.
#[derive(Debug)]
pub struct Committed {
    pub lsn: u64,
    pub event: Expected,
}

/// What was counted; all but the last two must be 0.
#[derive(Debug, Default)]
pub struct Verdict {
    pub missed: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub foreign: u64,
    pub untold: u64,
    /// Data or an id that is not what it must be.
    pub wrong: u64,
    pub delivered: u64,
    pub told: HashMap<String, u64>,
    /// The first of each, in words.
    pub evidence: Vec<String>,
}

impl Verdict {
    pub const fn holds(&self) -> bool {
        self.missed + self.duplicated + self.reordered + self.foreign + self.untold + self.wrong == 0
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

/// Judges one stream. `history` is everything that committed, in order.
pub fn judge(reader: &Reader, history: &[Committed], ids: &mut Ids, verdict: &mut Verdict) {
    let spec = &reader.spec;
    let expected: Vec<&Committed> = history.iter().filter(|committed| spec.sees(&committed.event)).collect();
    let mut by_key: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, committed) in expected.iter().enumerate() {
        by_key.entry(&committed.event.key).or_default().push(at);
    }
    // Before the first position that it is told, a stream is owed nothing.
    let mut next: Option<usize> = None;
    let mut must_be_told = false;
    let name_of = |of: &Committed| format!("{} {:?}: {}", spec.path, spec.query, of.event.key);
    for (step, seen) in reader.log.iter().enumerate() {
        match seen {
            Seen::Refused(head) => {
                verdict.blame(|v| &mut v.wrong, || format!("{}: refused: {head}", spec.path));
            }
            Seen::Connected { asked: None, at, .. } => {
                next = Some(expected.partition_point(|committed| committed.lsn < at.0));
            }
            Seen::Connected { asked: Some(_), resumed, .. } => must_be_told = !resumed,
            Seen::Sync { reason, place } => {
                *verdict.told.entry(reason.clone()).or_default() += 1;
                must_be_told = false;
                next = Some(after(&expected, *place, reader, step));
            }
            Seen::Event { id, organization, key, data, .. } => {
                verdict.delivered += 1;
                if must_be_told {
                    must_be_told = false;
                    verdict.blame(
                        |v| &mut v.untold,
                        || format!("{}: not resumed, and not told, before {id}", spec.path),
                    );
                }
                let Some(from) = next else { continue };
                let key = key.as_deref().unwrap_or("?");
                let places = by_key.get(key).map_or(&[][..], Vec::as_slice);
                let Some(at) = places.iter().copied().find(|at| *at >= from).or(places.last().copied())
                else {
                    let evidence = || {
                        format!(
                            "{} of {} saw {key} of {organization} ({id}): {data}",
                            spec.path, spec.organization
                        )
                    };
                    verdict.blame(|v| &mut v.foreign, evidence);
                    continue;
                };
                check(expected[at], spec, seen, ids, verdict);
                if at < from {
                    // What was passed over before and comes late is an order that was broken, not a second copy.
                    let before = reader.log[..step]
                        .iter()
                        .any(|seen| matches!(seen, Seen::Event { id: other, .. } if other == id));
                    if before {
                        verdict.blame(
                            |v| &mut v.duplicated,
                            || format!("twice: {} ({id})", name_of(expected[at])),
                        );
                    } else {
                        verdict.blame(
                            |v| &mut v.reordered,
                            || format!("late: {} ({id})", name_of(expected[at])),
                        );
                    }
                    continue;
                }
                for missed in &expected[from..at] {
                    let evidence = || format!("missed: {} at {}, before {id}", name_of(missed), missed.lsn);
                    verdict.blame(|v| &mut v.missed, evidence);
                }
                next = Some(at + 1);
            }
        }
    }
    for missed in &expected[next.unwrap_or(expected.len())..] {
        verdict.blame(|v| &mut v.missed, || format!("never came: {} at {}", name_of(missed), missed.lsn));
    }
}

/// The first event after a place that a stream was told to go on from. Which events of that very commit lie before
/// it only the stream's later words tell.
fn after(expected: &[&Committed], place: Place, reader: &Reader, step: usize) -> usize {
    let first = expected.partition_point(|committed| committed.lsn < place.0);
    if place.1 == 0 {
        return first;
    }
    let of_commit = expected[first..].iter().take_while(|committed| committed.lsn == place.0).count();
    let still_to_come = reader.log[step..]
        .iter()
        .skip(1)
        .filter(|seen| matches!(seen, Seen::Event { place: at, .. } if at.0 == place.0 && at.1 > place.1));
    first + of_commit.saturating_sub(still_to_come.count())
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
