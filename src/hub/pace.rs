//! How fast a stream is sent events: no more than so many a minute, and in batches no more often than an interval.
//!
//! A paced stream is a cursor that stands still for a while: nothing is queued for it, and what it may fall behind is
//! the journal's window. Only frames of events are paced; what ends a stream or tells it of a gap is not.

use std::time::Duration;

use tokio::time::Instant;

use crate::journal::Place;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Pace {
    rate: Option<Rate>,
    /// Zero: batches go out as they come.
    interval: Duration,
    release: Option<Release>,
    closed_until: Option<Instant>,
}

/// What goes out together: everything that was there when it began, in as many batches as that takes.
#[derive(Clone, Copy, Debug)]
struct Release {
    began: Instant,
    until: Place,
}

impl Pace {
    /// None when there is nothing to pace; 0 events a minute is no limit.
    #[must_use]
    pub fn new(events_per_minute: u32, interval: Duration) -> Option<Box<Self>> {
        let rate = (events_per_minute > 0).then(|| Rate::new(events_per_minute, interval, Instant::now()));
        (rate.is_some() || !interval.is_zero())
            .then(|| Box::new(Self { rate, interval, release: None, closed_until: None }))
    }

    /// One that lets everything through, until it is held.
    pub(super) fn open() -> Box<Self> {
        Box::new(Self { rate: None, interval: Duration::ZERO, release: None, closed_until: None })
    }

    /// Nothing goes before `until`.
    pub(super) const fn hold(&mut self, until: Instant) {
        self.closed_until = Some(until);
    }

    /// How many frames may be sent now, or when to ask again.
    pub(super) fn allows(&mut self, now: Instant) -> Result<usize, Instant> {
        if let Some(opens) = self.closed_until.filter(|opens| now < *opens) {
            return Err(opens);
        }
        self.closed_until = None;
        self.rate.as_ref().map_or(Ok(usize::MAX), |rate| match rate.available(now) {
            0 => Err(rate.next(now)),
            some => Ok(some as usize),
        })
    }

    /// So many frames were sent, up to `reached`, of all that there is up to `head`.
    pub(super) fn sent(&mut self, now: Instant, frames: usize, reached: Place, head: Place) {
        if let Some(rate) = &mut self.rate {
            rate.take(now, frames);
        }
        if self.interval.is_zero() {
            return;
        }
        let current = self.release.filter(|release| now < release.began + self.interval);
        let release = current.unwrap_or(Release { began: now, until: head });
        let used_up = self.rate.as_ref().is_some_and(|rate| rate.available(now) == 0);
        self.release = Some(release);
        if used_up || reached >= release.until {
            self.closed_until = Some(release.began + self.interval);
            self.release = None;
        }
    }
}

/// A bucket that fills by one each `spacing` and holds `depth`.
#[derive(Clone, Copy, Debug)]
struct Rate {
    spacing: Duration,
    depth: u32,
    /// When the bucket was, or would have been, empty.
    empty_at: Instant,
}

impl Rate {
    /// The bucket holds a second's worth, or an interval's where that is more, and fills so much more slowly than
    /// its rate that no minute gets more than `per_minute`, whatever was saved up before.
    fn new(per_minute: u32, interval: Duration, now: Instant) -> Self {
        let second = (per_minute / 60).max(1);
        let spacing = MINUTE / (per_minute - second + 1);
        let spacing = spacing.max(Duration::from_nanos(1));
        let of_interval = u32::try_from(interval.as_nanos() / spacing.as_nanos()).unwrap_or(per_minute);
        let depth = second.max(of_interval.min(per_minute));
        Self { spacing, depth, empty_at: now.checked_sub(spacing * depth).unwrap_or(now) }
    }

    fn available(&self, now: Instant) -> u32 {
        let filled = now.saturating_duration_since(self.base(now)).as_nanos() / self.spacing.as_nanos();
        u32::try_from(filled).unwrap_or(self.depth).min(self.depth)
    }

    /// When there is one more than nothing.
    fn next(&self, now: Instant) -> Instant {
        self.base(now) + self.spacing
    }

    fn take(&mut self, now: Instant, frames: usize) {
        let frames = u32::try_from(frames).unwrap_or(self.depth).min(self.depth);
        self.empty_at = self.base(now) + self.spacing * frames;
    }

    /// What would be more than the bucket holds is gone.
    fn base(&self, now: Instant) -> Instant {
        now.checked_sub(self.spacing * self.depth).map_or(self.empty_at, |full| self.empty_at.max(full))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::postgres::Lsn;

    fn place(lsn: u64) -> Place {
        (Lsn::new(lsn), 0)
    }

    /// When each of the frames goes that a stream with a full journal is allowed, within `during`.
    fn sent_times(mut rate: Rate, start: Instant, during: Duration) -> Vec<Duration> {
        let mut times = Vec::new();
        let mut now = start;
        while now < start + during {
            let available = rate.available(now);
            times.extend((0..available).map(|_| now - start));
            rate.take(now, available as usize);
            now = rate.next(now);
        }
        times
    }

    proptest! {
        #[test]
        fn no_minute_gets_more_than_its_events_and_a_lasting_backlog_gets_nearly_all(per_minute in 1..5000u32) {
            let start = Instant::now() + Duration::from_secs(600);
            let rate = Rate::new(per_minute, Duration::ZERO, start);
            let times = sent_times(rate, start, 3 * MINUTE);
            for (first, last) in times.iter().zip(times.iter().skip(per_minute as usize)) {
                prop_assert!(*last - *first >= MINUTE - Duration::from_micros(10), "{first:?} {last:?}");
            }
            let least = 3 * u64::from(per_minute - per_minute / 60);
            prop_assert!(times.len() as u64 + 3 >= least, "{} of {least}", times.len());
        }
    }

    #[test]
    fn no_more_is_saved_up_than_a_second_holds() {
        let start = Instant::now();
        let mut rate = Rate::new(600, Duration::ZERO, start);
        let later = start + Duration::from_secs(3600);
        assert_eq!(rate.available(later), 10);
        rate.take(later, 10);
        assert_eq!(rate.available(later), 0);
        assert!(rate.next(later) - later < Duration::from_millis(102));
    }

    #[test]
    fn an_interval_opens_at_once_then_lets_through_all_that_there_was_and_closes() {
        let mut pace = Pace::new(0, Duration::from_secs(1)).expect("an interval");
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(pace.allows(at(0)), Ok(usize::MAX));
        // The first of two batches that were there: the second belongs to it.
        pace.sent(at(0), 100, place(50), place(90));
        assert_eq!(pace.allows(at(10)), Ok(usize::MAX));
        // By now the head is further: that waits.
        pace.sent(at(10), 100, place(90), place(200));
        assert_eq!(pace.allows(at(20)), Err(at(1000)));
        assert_eq!(pace.allows(at(1000)), Ok(usize::MAX));
        pace.sent(at(1700), 1, place(200), place(200));
        assert_eq!(pace.allows(at(1800)), Err(at(2700)));
    }

    #[test]
    fn a_release_that_ended_without_a_last_batch_does_not_open_the_next_early() {
        let mut pace = Pace::new(0, Duration::from_secs(1)).expect("an interval");
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        pace.sent(at(0), 1, place(50), place(90));
        // Nothing between 50 and 90 was for this stream.
        pace.sent(at(5000), 1, place(300), place(300));
        assert_eq!(pace.allows(at(5001)), Err(at(6000)));
    }

    #[test]
    fn with_both_an_interval_gets_what_its_rate_gives_in_it() {
        let mut pace = Pace::new(600, Duration::from_secs(5)).expect("a pace");
        let now = Instant::now() + Duration::from_secs(600);
        let allowed = pace.allows(now).expect("open");
        assert!((45..=50).contains(&allowed), "{allowed}");
        pace.sent(now, allowed, place(10), place(1000));
        assert_eq!(pace.allows(now), Err(now + Duration::from_secs(5)));
        let again = pace.allows(now + Duration::from_secs(5)).expect("open again");
        assert!((45..=50).contains(&again), "{again}");
    }

    #[test]
    fn nothing_to_pace_is_no_pace() {
        assert!(Pace::new(0, Duration::ZERO).is_none());
    }
}
