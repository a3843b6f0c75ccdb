//! Questions that wait for a run: each once, however many streams ask it, organizations in turn.
//!
//! ```text
//! add ─► turns (by organization) ─► next ─► a run ─► finished
//!            ▲      │ commits not visible yet: unseen ─► seen ─┐
//!            ├──────┘                                          │
//!            └────────────── later (after a failure) ─► due ◄──┘
//! ```
//!
//! Whoever comes before the run of their question begins shares it. What nobody waits for any more is swept out before it
//! is much. Organizations whose queries take long never have every session: who asks for little does not wait for them.
//! It does no IO and reads no clock.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::{Question, Waiter};
use crate::postgres::Lsn;

/// Runs of one organization at a time: fewer than there are sessions, so that a slow one does not take all.
pub(super) const EACH: usize = 2;

/// Runs at a time of organizations whose last one took long, all together: a session stays for the others.
pub(super) const SLOW: usize = 3;

/// Organizations known to be slow, at most; then they are learnt anew.
const MOST_SLOW: usize = 1 << 16;

/// Questions from which on those that nobody waits for are looked for: again at twice what is left.
const SWEEP: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Every question that waits, wherever it stands.
    waiting: HashMap<Arc<Question>, Vec<Waiter>>,
    /// Organizations whose turn comes: each with questions, and with fewer runs than [`EACH`].
    turns: VecDeque<Arc<str>>,
    in_turn: HashSet<Arc<str>>,
    by_organization: HashMap<Arc<str>, VecDeque<Arc<Question>>>,
    running: HashMap<Arc<str>, usize>,
    /// Whose last run took long.
    slow: HashSet<Arc<str>>,
    /// What asks for commits that were not visible when its turn came.
    unseen: Vec<Arc<Question>>,
    later: BTreeMap<Instant, Vec<Arc<Question>>>,
    /// How many questions may wait before the next sweep, beyond [`SWEEP`].
    swept: usize,
}

impl Queue {
    pub(super) fn add(&mut self, question: Question, waiter: Waiter) {
        if let Some(waiters) = self.waiting.get_mut(&question) {
            // Streams that left while their question waits for long are not kept.
            waiters.retain(|waiter| !waiter.answer.is_closed());
            waiters.push(waiter);
            return;
        }
        let question = Arc::new(question);
        self.waiting.insert(Arc::clone(&question), vec![waiter]);
        self.line_up(question);
        if self.waiting.len() > SWEEP.max(2 * self.swept) {
            self.sweep();
        }
    }

    /// What is to be run now, with who waits for it, where a new snapshot sees every commit below `visible`.
    pub(super) fn next(&mut self, visible: Lsn) -> Option<(Arc<Question>, Vec<Waiter>)> {
        let slow_runs = self.running.iter().filter(|(organization, _)| self.slow.contains(*organization));
        let full = slow_runs.map(|(_, runs)| runs).sum::<usize>() >= SLOW;
        let mut passed_over = Vec::new();
        let mut next = None;
        while next.is_none()
            && let Some(organization) = self.turns.pop_front()
        {
            if full && self.slow.contains(&organization) {
                passed_over.push(organization);
            } else {
                self.in_turn.remove(&organization);
                next = self.next_of(&organization, visible);
                self.give_turn(&organization);
            }
        }
        // Their turn is still the first.
        passed_over.into_iter().rev().for_each(|organization| self.turns.push_front(organization));
        next
    }

    /// The organization's first question, if it can be run.
    fn next_of(&mut self, organization: &Arc<str>, visible: Lsn) -> Option<(Arc<Question>, Vec<Waiter>)> {
        let question = self.by_organization.get_mut(organization)?.pop_front()?;
        let waiters = self.waiting.get_mut(&question)?;
        waiters.retain(|waiter| !waiter.answer.is_closed());
        if waiters.is_empty() {
            self.waiting.remove(&question);
            return None;
        }
        if waiters.iter().any(|waiter| waiter.position > visible) {
            self.unseen.push(question);
            return None;
        }
        let waiters = self.waiting.remove(&question)?;
        *self.running.entry(Arc::clone(organization)).or_default() += 1;
        Some((question, waiters))
    }

    /// A run that [`next`](Self::next) gave has ended; `slow`: it took long.
    pub(super) fn finished(&mut self, organization: &Arc<str>, slow: bool) {
        if let Some(running) = self.running.get_mut(organization) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(organization);
            }
        }
        if !slow {
            self.slow.remove(organization);
        } else if self.slow.insert(Arc::clone(organization)) && self.slow.len() > MOST_SLOW {
            self.slow.clear();
        }
        self.give_turn(organization);
    }

    /// It is to be run again, at `at` or later, for whoever still waits.
    pub(super) fn defer(&mut self, question: Arc<Question>, waiters: Vec<Waiter>, at: Instant) {
        if let Some(others) = self.waiting.get_mut(&question) {
            // Asked again meanwhile; it fails the same way, or not.
            others.extend(waiters);
            return;
        }
        self.waiting.insert(Arc::clone(&question), waiters);
        self.later.entry(at).or_default().push(question);
    }

    /// Commits may have become visible.
    pub(super) fn seen(&mut self) {
        std::mem::take(&mut self.unseen).into_iter().for_each(|question| self.line_up(question));
    }

    /// Whether something asks for commits above `visible`, of what was not visible before.
    pub(super) fn is_unseen_at(&self, visible: Lsn) -> bool {
        let waiters = self.unseen.iter().filter_map(|question| self.waiting.get(question)).flatten();
        waiters.into_iter().any(|waiter| waiter.position > visible)
    }

    pub(super) const fn has_unseen(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// When something is to be run again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.later.keys().next().copied()
    }

    pub(super) fn due(&mut self, now: Instant) {
        while let Some(entry) = self.later.first_entry().filter(|entry| *entry.key() <= now) {
            entry.remove().into_iter().for_each(|question| self.line_up(question));
        }
    }

    /// Lets go of what nobody waits for: streams that left, or were told to ask something else.
    fn sweep(&mut self) {
        self.waiting.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.answer.is_closed());
            !waiters.is_empty()
        });
        let waits = |question: &Arc<Question>| self.waiting.contains_key(question);
        self.by_organization.values_mut().for_each(|questions| questions.retain(waits));
        self.later.values_mut().for_each(|questions| questions.retain(waits));
        self.unseen.retain(waits);
        self.swept = self.waiting.len();
    }

    fn line_up(&mut self, question: Arc<Question>) {
        let organization = Arc::clone(&question.organization);
        self.by_organization.entry(Arc::clone(&organization)).or_default().push_back(question);
        self.give_turn(&organization);
    }

    fn give_turn(&mut self, organization: &Arc<str>) {
        let waits = self.by_organization.get(organization).is_some_and(|questions| !questions.is_empty());
        let busy = self.running.get(organization).is_some_and(|running| *running >= EACH);
        if !waits {
            self.by_organization.remove(organization);
        } else if !busy && self.in_turn.insert(Arc::clone(organization)) {
            self.turns.push_back(Arc::clone(organization));
        }
    }
}

#[cfg(test)]
mod tests;
