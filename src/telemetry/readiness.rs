//! Readiness: one word for load balancers, and the reasons behind it for people.
//!
//! ```text
//! starting ─► standby ─► ready ⇄ source_down          any ─► draining (for good)
//!                        ready + reasons = degraded
//! ```
//!
//! A phase is where the worker stands; a reason is something it can't do, under a key so that whoever found it can
//! mend it again. `degraded` is no phase: it is `ready` with a reason.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Where the worker stands; moved by `app` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The window or the mirror is not read yet: nobody is let in.
    Starting,
    /// Another worker holds the slot.
    Standby,
    Live,
    /// Streams go on with what the journal has.
    SourceDown,
    /// The process is about to end. Nothing leads out of it.
    Draining,
}

/// What `/readyz` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Starting,
    Standby,
    Draining,
    Ready,
    Degraded,
    SourceDown,
}

impl State {
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Standby, Self::Draining, Self::Ready, Self::Degraded, Self::SourceDown];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Draining => "draining",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::SourceDown => "source_down",
        }
    }

    /// Whether new streams are let in: exactly where `/readyz` is 200.
    #[must_use]
    pub const fn is_admitting(self) -> bool {
        matches!(self, Self::Ready | Self::Degraded | Self::SourceDown)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Something the worker can't do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// One sentence; no row's values, no organization, no secret.
    pub text: String,
    /// The SQL that mends it, where SQL does.
    pub sql: Option<String>,
}

impl Reason {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), sql: None }
    }

    #[must_use]
    pub fn mended_by(mut self, sql: impl Into<String>) -> Self {
        self.sql = Some(sql.into());
        self
    }
}

/// Readiness at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    phase: Phase,
    /// When the present phase began.
    since: Instant,
    reasons: BTreeMap<Cow<'static, str>, Reason>,
    /// What may become a reason.
    warnings: BTreeMap<Cow<'static, str>, Reason>,
}

impl Snapshot {
    #[must_use]
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Starting => State::Starting,
            Phase::Standby => State::Standby,
            Phase::Draining => State::Draining,
            Phase::SourceDown => State::SourceDown,
            Phase::Live if self.reasons.is_empty() => State::Ready,
            Phase::Live => State::Degraded,
        }
    }

    /// In the order of their keys.
    pub fn reasons(&self) -> impl Iterator<Item = (&str, &Reason)> {
        self.reasons.iter().map(|(key, reason)| (key.as_ref(), reason))
    }

    /// What degrades nothing yet, in the order of their keys.
    pub fn warnings(&self) -> impl Iterator<Item = (&str, &Reason)> {
        self.warnings.iter().map(|(key, reason)| (key.as_ref(), reason))
    }

    /// For how long the present phase has lasted.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.since.elapsed()
    }

    /// For how long the source has been away; none while it is there.
    #[must_use]
    pub fn source_away(&self) -> Option<Duration> {
        (self.phase == Phase::SourceDown).then(|| self.since.elapsed())
    }
}

/// The worker's readiness, shared by everything: clones are the same one.
#[derive(Clone, Debug)]
pub struct Readiness {
    sender: Arc<watch::Sender<Snapshot>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Starting, without reasons.
    #[must_use]
    pub fn new() -> Self {
        let first = Snapshot {
            phase: Phase::Starting,
            since: Instant::now(),
            reasons: BTreeMap::new(),
            warnings: BTreeMap::new(),
        };
        Self { sender: Arc::new(watch::Sender::new(first)) }
    }

    /// Moves on; true when that changed something. From [`Phase::Draining`] nothing moves.
    pub fn enter(&self, phase: Phase) -> bool {
        let moved = self.sender.send_if_modified(|snapshot| {
            let moves = snapshot.phase != phase && snapshot.phase != Phase::Draining;
            if moves {
                snapshot.phase = phase;
                snapshot.since = Instant::now();
            }
            moves
        });
        if moved {
            tracing::info!(state = self.word(), "readiness changed");
        }
        moved
    }

    /// States a reason, or replaces the one of this key. Logged when it is new or different.
    pub fn degrade(&self, key: impl Into<Cow<'static, str>>, reason: Reason) {
        let key = key.into();
        let (mut new, text) = (false, reason.text.clone());
        self.sender.send_if_modified(|snapshot| {
            new = snapshot.reasons.get(&key) != Some(&reason);
            if new {
                snapshot.reasons.insert(key.clone(), reason);
            }
            new
        });
        if new {
            tracing::warn!(reason = %key, "degraded: {text}");
        }
    }

    /// States what somebody should know and what degrades nothing, or replaces it. Logged when it is new.
    pub fn warn(&self, key: impl Into<Cow<'static, str>>, reason: Reason) {
        let key = key.into();
        let text = reason.text.clone();
        let new = self.sender.send_if_modified(|snapshot| {
            let new = snapshot.warnings.get(&key) != Some(&reason);
            if new {
                snapshot.warnings.insert(key.clone(), reason);
            }
            new
        });
        if new {
            tracing::warn!(warning = %key, "{text}");
        }
    }

    /// Takes a reason or a warning back; true when there was one.
    pub fn mend(&self, key: &str) -> bool {
        let mended = self.sender.send_if_modified(|snapshot| {
            let (reason, warning) = (snapshot.reasons.remove(key), snapshot.warnings.remove(key));
            reason.is_some() || warning.is_some()
        });
        if mended {
            tracing::info!(reason = key, "mended");
        }
        mended
    }

    #[must_use]
    pub fn state(&self) -> State {
        self.sender.borrow().state()
    }

    #[must_use]
    pub fn word(&self) -> &'static str {
        self.state().word()
    }

    #[must_use]
    pub fn is_admitting(&self) -> bool {
        self.state().is_admitting()
    }

    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.sender.borrow().clone()
    }

    /// Wakes at every change of phase or reasons.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.sender.subscribe()
    }

    /// Waits until the state is one that `wanted` accepts, and returns it.
    pub async fn wait_for(&self, wanted: impl Fn(State) -> bool) -> State {
        let mut receiver = self.subscribe();
        loop {
            let state = receiver.borrow_and_update().state();
            if wanted(state) {
                return state;
            }
            if receiver.changed().await.is_err() {
                // Impossible while `self`, which holds the sender, is borrowed.
                return state;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_worker_with_a_reason_is_degraded_until_it_is_mended() {
        let readiness = Readiness::new();
        assert_eq!(readiness.word(), "starting");
        assert!(!readiness.is_admitting());
        readiness.degrade("column", Reason::new("lots.name is gone").mended_by("alter table lots …"));
        assert_eq!(readiness.state(), State::Starting);
        readiness.enter(Phase::Live);
        assert_eq!(readiness.state(), State::Degraded);
        assert!(readiness.is_admitting());
        let snapshot = readiness.snapshot();
        let reasons: Vec<_> = snapshot.reasons().collect();
        assert_eq!(reasons.len(), 1);
        assert_eq!(reasons[0].0, "column");
        assert_eq!(reasons[0].1.sql.as_deref(), Some("alter table lots …"));
        assert!(readiness.mend("column"));
        assert!(!readiness.mend("column"));
        assert_eq!(readiness.state(), State::Ready);
    }

    #[test]
    fn a_warning_degrades_nothing() {
        let readiness = Readiness::new();
        readiness.enter(Phase::Live);
        readiness.warn("keep size", Reason::new("unlimited"));
        let snapshot = readiness.snapshot();
        assert_eq!((snapshot.state(), snapshot.warnings().count()), (State::Ready, 1));
        assert!(readiness.mend("keep size"));
        assert_eq!(readiness.snapshot().warnings().count(), 0);
    }

    #[test]
    fn nothing_leads_out_of_draining() {
        let readiness = Readiness::new();
        assert!(readiness.enter(Phase::Draining));
        assert!(!readiness.enter(Phase::Live));
        assert_eq!(readiness.state(), State::Draining);
    }

    #[test]
    fn only_a_source_that_is_down_is_away() {
        let readiness = Readiness::new();
        readiness.enter(Phase::Live);
        assert_eq!(readiness.snapshot().source_away(), None);
        readiness.enter(Phase::SourceDown);
        assert!(readiness.snapshot().source_away().is_some());
        assert!(readiness.is_admitting());
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_change() {
        let readiness = Readiness::new();
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait_for(State::is_admitting).await }
        });
        readiness.enter(Phase::Standby);
        readiness.enter(Phase::Live);
        assert_eq!(waiting.await.unwrap(), State::Ready);
    }

    #[test]
    fn the_words_are_those_of_the_contract() {
        let words: Vec<_> = State::ALL.iter().map(|state| state.word()).collect();
        assert_eq!(words, ["starting", "standby", "draining", "ready", "degraded", "source_down"]);
    }
}
