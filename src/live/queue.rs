//! Questions that wait for a run: each once, however many streams ask it, organizations in turn.
//!
//! ```text
//! add ─► turns (by organization) ─► next ─► a run ─► finished
//!            ▲      │ commits not visible yet: unseen ─► seen ─┐
//!            ├──────┘                                          │
//!            └────────────── later (after a failure) ─► due ◄──┘
//! ```
//!
//! Whoever comes before the run of their question begins shares it. It does no IO and reads no clock.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::{Question, Waiter};
use crate::postgres::Lsn;

/// Runs of one organization at a time: fewer than there are sessions, so that a slow one does not take all.
pub(super) const EACH: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Every question that waits, wherever it stands.
    waiting: HashMap<Arc<Question>, Vec<Waiter>>,
    /// Organizations whose turn comes: each with questions, and with fewer runs than [`EACH`].
    turns: VecDeque<Arc<str>>,
    in_turn: HashSet<Arc<str>>,
    by_organization: HashMap<Arc<str>, VecDeque<Arc<Question>>>,
    running: HashMap<Arc<str>, usize>,
    /// What asks for commits that were not visible when its turn came.
    unseen: Vec<Arc<Question>>,
    later: BTreeMap<Instant, Vec<Arc<Question>>>,
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
    }

    /// What is to be run now, with who waits for it, where a new snapshot sees every commit below `visible`.
    pub(super) fn next(&mut self, visible: Lsn) -> Option<(Arc<Question>, Vec<Waiter>)> {
        while let Some(organization) = self.turns.pop_front() {
            self.in_turn.remove(&organization);
            let question = self.by_organization.get_mut(&organization).and_then(VecDeque::pop_front);
            let waiters = question.as_ref().and_then(|question| self.waiting.get_mut(question));
            let (Some(question), Some(waiters)) = (question, waiters) else {
                self.by_organization.remove(&organization);
                continue;
            };
            waiters.retain(|waiter| !waiter.answer.is_closed());
            if waiters.is_empty() {
                self.waiting.remove(&question);
            } else if waiters.iter().any(|waiter| waiter.position > visible) {
                self.unseen.push(question);
            } else if let Some(waiters) = self.waiting.remove(&question) {
                *self.running.entry(Arc::clone(&organization)).or_default() += 1;
                self.give_turn(&organization);
                return Some((question, waiters));
            }
            self.give_turn(&organization);
        }
        None
    }

    /// A run that [`next`](Self::next) gave has ended.
    pub(super) fn finished(&mut self, organization: &Arc<str>) {
        if let Some(running) = self.running.get_mut(organization) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(organization);
            }
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
