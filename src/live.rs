//! Live queries: the answer of a query, given to streams, and asked for again when what it counts has changed.
//!
//! ```text
//! stream ─► Live::ask ─► Queue: one entry a question, organizations in turn ─► a session ─► rows as JSON ─┐
//!    ▲                                                                                                    │
//!    └───────────── every stream that asked the same ◄─ the pipeline has dealt with all that it shows ◄───┘
//! ```
//!
//! A question is a query with its arguments, of which the first is always the organization. Invariants:
//! - An answer shows every commit below the position that a stream asks for it at: it is run once those are visible.
//! - An answer is handed out when everything that it can show has gone through the pipeline, so that whoever lost their
//!   membership before is gone.
//! - What can't be answered now is asked again until it can be or nobody waits: a stream is told nothing false.
//! - Sessions, runs and bytes of an answer are bounded; of an organization only so many run at once.
//!
//! It knows neither HTTP nor who may ask, and no text of a question becomes part of a query.

mod health;
mod query;
mod queue;
mod runner;
mod session;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::postgres::Lsn;

pub use query::{Flaw, Query, QueryError};
pub use runner::{Runner, check_all};

/// Questions on their way to the runner; who asks meanwhile waits.
const ON_THE_WAY: usize = 1024;

/// Times within an interval at which one question is asked, at most.
const TURNS: u32 = 20;

/// Turns after which the streams of an organization that have found together are next.
const ROUND: u128 = TURNS as u128 + 1;

/// A query and what it is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    pub query: Arc<Query>,
    pub organization: Arc<str>,
    /// Of each argument its values in order, or none where it is not filtered on.
    pub arguments: Vec<Option<Vec<String>>>,
}

/// What a query says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A JSON array of objects, on one line.
    Rows(Bytes),
    /// Its bytes, too many to be sent.
    Oversize(u64),
}

/// Who waits for an answer, and what it must show.
#[derive(Debug)]
pub struct Waiter {
    /// Every commit below it.
    pub position: Lsn,
    pub answer: oneshot::Sender<Answer>,
}

/// What comes in to be answered.
pub type Questions = mpsc::Receiver<(Question, Waiter)>;

/// Where streams ask. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Live {
    queries: Arc<BTreeMap<String, Arc<Query>>>,
    sender: mpsc::Sender<(Question, Waiter)>,
    /// What times to ask are counted from.
    began: Instant,
}

impl Live {
    /// Of these queries, each known by its preset's path; the questions are for who answers them.
    #[must_use]
    pub fn new(queries: impl IntoIterator<Item = Query>) -> (Self, Questions) {
        let (sender, questions) = mpsc::channel(ON_THE_WAY);
        let queries = queries.into_iter().map(|query| (query.path.clone(), Arc::new(query))).collect();
        (Self { queries: Arc::new(queries), sender, began: Instant::now() }, questions)
    }

    #[must_use]
    pub fn query(&self, path: &str) -> Option<&Arc<Query>> {
        self.queries.get(path)
    }

    pub fn queries(&self) -> impl Iterator<Item = &Arc<Query>> {
        self.queries.values()
    }

    /// When a stream of `organization` that was answered at `at` is to ask again: after the interval, and up to a tenth
    /// of it later. Those of an organization find together: one that is not at its turn goes on a twentieth of the
    /// interval later each time, until it is. So what never stops changing comes to be asked once an interval, however
    /// many show it and whenever they came; and the turns of organizations are spread.
    #[must_use]
    pub fn next_turn(&self, organization: &str, at: Instant, interval: Duration) -> Instant {
        let grain = (interval / TURNS).as_nanos().max(1);
        let earliest = (at + interval).saturating_duration_since(self.began).as_nanos().div_ceil(grain);
        let mut hasher = DefaultHasher::new();
        organization.hash(&mut hasher);
        let until_theirs = (u128::from(hasher.finish()) + ROUND - earliest % ROUND) % ROUND;
        let turn = earliest + until_theirs.min(1);
        let since = Duration::from_nanos(u64::try_from(turn * grain).unwrap_or(u64::MAX));
        self.began + since
    }

    /// The answer, once there is one that shows every commit below `position`. None: nobody answers any more.
    pub async fn ask(self, question: Question, position: Lsn) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        self.sender.send((question, Waiter { position, answer })).await.ok()?;
        answered.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    #[test]
    fn a_turn_is_never_early_and_at_most_a_tenth_of_the_interval_late() {
        let (live, _) = Live::new([]);
        let mut turns = BTreeSet::new();
        for millis in 0..5000 {
            let at = live.began + Duration::from_secs(1000) + Duration::from_millis(millis);
            let turn = live.next_turn("o", at, INTERVAL);
            assert!(turn >= at + INTERVAL && turn <= at + INTERVAL + INTERVAL / 10);
            turns.insert(turn);
        }
        assert!(turns.len() <= 21, "{}", turns.len());
        let year = Duration::from_secs(365 * 86_400);
        assert!(live.next_turn("o", live.began, year) >= live.began + year);
    }

    #[test]
    fn streams_of_an_organization_come_to_ask_together_and_stay_so() {
        let (live, _) = Live::new([]);
        let answered = Duration::from_millis(30);
        let mut together = BTreeSet::new();
        for organization in ["o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8"] {
            let came = |n: u64| live.began + Duration::from_secs(77) + Duration::from_millis(173 * n);
            let mut turns: Vec<_> =
                (0..29).map(|n| live.next_turn(organization, came(n), INTERVAL)).collect();
            for _ in 0..25 {
                turns
                    .iter_mut()
                    .for_each(|turn| *turn = live.next_turn(organization, *turn + answered, INTERVAL));
            }
            // Who has been through fewer turns is at the same, a round before or after.
            let round = INTERVAL + INTERVAL / TURNS;
            let phases: BTreeSet<_> =
                turns.iter().map(|turn| (*turn - live.began).as_nanos() % round.as_nanos()).collect();
            assert_eq!(phases.len(), 1, "{phases:?}");
            together.extend(phases);
        }
        assert!(together.len() > 1, "organizations are spread");
    }
}
