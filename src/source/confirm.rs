//! What the slot is told: how far the server may forget.
//!
//! The WAL is the durable history. After a restart everything above the confirmed position is decoded again, so
//! confirming is deciding which ids a new process can still resume.

use std::collections::VecDeque;
use std::time::Duration;

use crate::postgres::{Lsn, PgTimestamp};

/// How finely the window is divided, by time and by log: the confirmed position lags by at most this part of each.
const DIVISIONS: u32 = 256;

/// More boundaries than a window has: something is kept for longer than the window, so every other one goes.
const MAX_BOUNDARIES: usize = 4 * DIVISIONS as usize;

/// The bounds of the replay window that are the source's own; memory is the journal's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// By the server's clock.
    pub(super) max_age: Duration,
    /// Bytes of log from the confirmed position to the head.
    pub(super) max_wal: u64,
}

/// Decides the position to confirm. No other code does.
///
/// The answer `c` is `previous`, or a boundary `b` of the timeline: the end of a transaction, or a position between
/// transactions that the server named.
///
/// 1. *Nothing kept is lost.* If a transaction is kept, `b ≤ oldest_kept`, the start of its commit record. A server
///    started at `c` decodes every transaction whose commit record starts at or after `c`
///    (`SnapBuildXactNeedsSkip`), so the oldest kept transaction and all after it come again.
/// 2. *Ids of an idle system stay valid.* `b` is at most the boundary that was the head `max_age` ago, whether or not
///    anything is kept: whoever was given a position since then holds one that is not below `c`.
/// 3. *The budget is kept.* Where more than `max_wal` lies between that boundary and the head, 2 gives way: `b` may
///    be as high as the lowest boundary at most `max_wal` below the head. 1 does not: the journal bounds what it
///    keeps by the same budget.
/// 4. *Nothing is skipped.* `b ≤ processed`: what has been handed out but not dealt with is not confirmed.
/// 5. *It never goes back.* `c ≥ previous`. By 1 to 4 at the time, `previous` was itself within all bounds; kept
///    transactions, the head of `max_age` ago and `processed` only move up, so it still is.
#[must_use]
pub(super) fn confirmable(
    previous: Lsn,
    timeline: &Timeline,
    processed: Lsn,
    oldest_kept: Option<Lsn>,
    now: PgTimestamp,
) -> Lsn {
    let limit =
        oldest_kept.map_or(processed, |kept| kept.min(processed)).min(timeline.forgettable(previous, now));
    let boundary = timeline.boundaries.iter().rev().find(|boundary| boundary.lsn <= limit);
    boundary.map_or(previous, |boundary| boundary.lsn.max(previous))
}

/// Where the head was when: boundaries of the stream with the server's time, coalesced.
///
/// Two neighbours become one, the later, when they lie in the same division of both age and log: that makes at most
/// about `2 * DIVISIONS` of them in a window. Dropping a boundary only ever makes the answer older.
#[derive(Debug)]
pub(super) struct Timeline {
    window: Window,
    /// What the window's log is bounded by at present: the configured bound, or less.
    max_wal: u64,
    /// Ascending in both.
    boundaries: VecDeque<Boundary>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Boundary {
    time: PgTimestamp,
    lsn: Lsn,
}

impl Timeline {
    #[must_use]
    pub(super) fn new(window: Window) -> Self {
        Self { window, max_wal: window.max_wal, boundaries: VecDeque::new() }
    }

    pub(super) fn limit_wal(&mut self, max_bytes: u64) {
        self.max_wal = max_bytes;
    }

    /// Forgets everything: history begins anew.
    pub(super) fn clear(&mut self) {
        self.boundaries.clear();
    }

    /// The head was at `lsn` at `time`. A position that is not above the last is ignored; a time before the last
    /// counts as the last, since commit times of concurrent transactions are not in the order of their commits.
    pub(super) fn push(&mut self, time: PgTimestamp, lsn: Lsn) {
        let mut boundary = Boundary { time, lsn };
        if let Some(last) = self.boundaries.back_mut() {
            if lsn <= last.lsn {
                return;
            }
            boundary.time = time.max(last.time);
            if self.window.division(boundary) == self.window.division(*last) {
                *last = boundary;
                return;
            }
        }
        if self.boundaries.len() >= MAX_BOUNDARIES {
            let mut place = 0;
            self.boundaries.retain(|_| {
                place += 1;
                place % 2 == 0
            });
        }
        self.boundaries.push_back(boundary);
    }

    pub(super) const fn max_wal(&self) -> u64 {
        self.max_wal
    }

    pub(super) const fn max_age(&self) -> Duration {
        self.window.max_age
    }

    /// The newest boundary.
    #[must_use]
    pub(super) fn head(&self) -> Option<Lsn> {
        self.boundaries.back().map(|boundary| boundary.lsn)
    }

    /// Drops what no later answer can be: all but the last of the boundaries up to `confirmed`.
    pub(super) fn forget_before(&mut self, confirmed: Lsn) {
        while self.boundaries.get(1).is_some_and(|second| second.lsn <= confirmed) {
            self.boundaries.pop_front();
        }
    }

    /// What bounds 2 and 3 of [`confirmable`] allow; zero for nothing.
    pub(super) fn forgettable(&self, previous: Lsn, now: PgTimestamp) -> Lsn {
        let aged = |boundary: &&Boundary| now.since(boundary.time) >= self.window.max_age;
        let by_age =
            self.boundaries.iter().take_while(aged).last().map_or(Lsn::ZERO, |boundary| boundary.lsn);
        let head = self.head().unwrap_or(Lsn::ZERO);
        if head.bytes_since(by_age.max(previous)) <= self.max_wal {
            return by_age;
        }
        let lowest = head.back(self.max_wal);
        self.boundaries.iter().find(|boundary| boundary.lsn >= lowest).map_or(by_age, |boundary| boundary.lsn)
    }
}

impl Window {
    /// Which part of the window a boundary lies in, by age and by log.
    fn division(self, boundary: Boundary) -> (i64, u64) {
        let micros =
            i64::try_from(self.max_age.as_micros() / u128::from(DIVISIONS)).unwrap_or(i64::MAX).max(1);
        let bytes = (self.max_wal / u64::from(DIVISIONS)).max(1);
        (boundary.time.as_micros().div_euclid(micros), boundary.lsn.as_u64() / bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Window = Window { max_age: Duration::from_secs(600), max_wal: 1 << 20 };

    fn at(seconds: i64) -> PgTimestamp {
        PgTimestamp::from_micros(seconds * 1_000_000)
    }

    fn timeline(boundaries: &[(i64, u64)]) -> Timeline {
        let mut timeline = Timeline::new(WINDOW);
        for (seconds, lsn) in boundaries {
            timeline.push(at(*seconds), Lsn::new(*lsn));
        }
        timeline
    }

    fn confirm(timeline: &Timeline, kept: Option<u64>, now: i64) -> u64 {
        confirmable(Lsn::ZERO, timeline, Lsn::MAX, kept.map(Lsn::new), at(now)).as_u64()
    }

    #[test]
    fn what_was_head_within_the_window_is_not_forgotten_though_nothing_is_kept() {
        let timeline = timeline(&[(0, 100), (300, 200), (600, 300)]);
        assert_eq!(confirm(&timeline, None, 599), 0);
        assert_eq!(confirm(&timeline, None, 600), 100);
        assert_eq!(confirm(&timeline, None, 899), 100);
        assert_eq!(confirm(&timeline, None, 900), 200);
        assert_eq!(confirm(&timeline, None, 9999), 300);
    }

    #[test]
    fn the_oldest_kept_transaction_is_decoded_again() {
        let timeline = timeline(&[(0, 100), (300, 200), (600, 300)]);
        assert_eq!(confirm(&timeline, Some(250), 9999), 200);
        assert_eq!(confirm(&timeline, Some(200), 9999), 200);
        assert_eq!(confirm(&timeline, Some(99), 9999), 0);
    }

    #[test]
    fn an_idle_server_is_confirmed_by_its_keepalives() {
        let mut timeline = Timeline::new(WINDOW);
        let mut confirmed = Lsn::ZERO;
        for tick in 0..1000 {
            let head = Lsn::new(1000 + u64::try_from(tick).unwrap());
            timeline.push(at(tick * 10), head);
            confirmed = confirmable(confirmed, &timeline, head, None, at(tick * 10));
            timeline.forget_before(confirmed);
        }
        assert_eq!(confirmed, Lsn::new(1999 - 60));
    }

    #[test]
    fn log_beyond_the_budget_is_given_up_before_its_age() {
        let mib = 1 << 20;
        let timeline = timeline(&[(0, mib), (1, mib + mib / 2), (2, 2 * mib + 1), (3, 2 * mib + mib / 2)]);
        assert_eq!(confirm(&timeline, None, 4), mib + mib / 2);
        assert_eq!(confirm(&timeline, Some(mib), 4), mib);
    }

    #[test]
    fn what_is_handed_out_and_not_dealt_with_is_not_confirmed() {
        let timeline = timeline(&[(0, 100), (300, 200)]);
        assert_eq!(confirmable(Lsn::ZERO, &timeline, Lsn::new(150), None, at(9999)), Lsn::new(100));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Advance {
            millis: i64,
            bytes: u64,
        },
        /// The commit time lags: transactions commit concurrently, and after a restart they are old.
        Commit {
            bytes: u64,
            ago_millis: i64,
            keep: bool,
        },
        Evict,
        Confirm,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..60_000i64, 0..200_000u64).prop_map(|(millis, bytes)| Step::Advance { millis, bytes }),
            (1..50_000u64, 0..5_000i64, any::<bool>()).prop_map(|(bytes, ago_millis, keep)| Step::Commit {
                bytes,
                ago_millis,
                keep
            }),
            Just(Step::Evict),
            Just(Step::Confirm),
        ]
    }

    proptest! {
        #[test]
        fn confirmed_is_monotonic_a_boundary_and_never_beyond_what_is_kept(
            steps in prop::collection::vec(step(), 1..400)
        ) {
            let (mut now, mut head, mut confirmed) = (0i64, 1000u64, Lsn::new(1000));
            let mut kept = VecDeque::new();
            let mut boundaries = vec![(0i64, Lsn::new(1000))];
            let mut timeline = Timeline::new(WINDOW);
            let time = |millis: i64| PgTimestamp::from_micros(millis * 1000);
            for step in steps {
                match step {
                    Step::Advance { millis, bytes } => {
                        now += millis;
                        head += bytes;
                        timeline.push(time(now), Lsn::new(head));
                        boundaries.push((now, Lsn::new(head)));
                    }
                    Step::Commit { bytes, ago_millis, keep } => {
                        let commit = Lsn::new(head);
                        head += bytes;
                        timeline.push(time(now - ago_millis), Lsn::new(head));
                        boundaries.push((now - ago_millis, Lsn::new(head)));
                        if keep {
                            kept.push_back(commit);
                        }
                    }
                    Step::Evict => { kept.pop_front(); }
                    Step::Confirm => {
                        let before = confirmed;
                        let oldest = kept.front().copied();
                        confirmed = confirmable(before, &timeline, Lsn::new(head), oldest, time(now));
                        timeline.forget_before(confirmed);
                        prop_assert!(confirmed >= before);
                        prop_assert!(boundaries.iter().any(|(_, lsn)| *lsn == confirmed));
                        prop_assert!(oldest.is_none_or(|oldest| confirmed <= oldest));
                        if confirmed > before && head - before.as_u64() <= WINDOW.max_wal {
                            let (since, _) = boundaries.iter().find(|(_, lsn)| *lsn == confirmed).unwrap();
                            prop_assert!(now - since >= 600_000, "confirmed at the age of {} ms", now - since);
                        }
                    }
                }
                prop_assert!(timeline.boundaries.len() <= MAX_BOUNDARIES);
            }
        }

        #[test]
        fn an_unpinned_window_keeps_its_budget(
            bytes in prop::collection::vec(1..300_000u64, 1..300)
        ) {
            let mut timeline = Timeline::new(WINDOW);
            let (mut head, mut confirmed) = (0, Lsn::ZERO);
            for bytes in bytes {
                head += bytes;
                timeline.push(at(0), Lsn::new(head));
                confirmed = confirmable(confirmed, &timeline, Lsn::new(head), None, at(1));
                timeline.forget_before(confirmed);
                prop_assert!(head - confirmed.as_u64() <= WINDOW.max_wal);
            }
        }
    }
}
