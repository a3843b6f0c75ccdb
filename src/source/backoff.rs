//! How long to wait before the next attempt.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::policy::ErrorKind;

const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// What waits for somebody is not tried often; often enough that they see at once whether it helped.
const OPERATOR_DELAY: Duration = Duration::from_secs(10);

/// Exponential, with full jitter: uniform from nothing to the delay, so that many workers do not come back at once.
#[derive(Debug)]
pub struct Backoff(ExponentialBackoff);

impl Default for Backoff {
    fn default() -> Self {
        let delays = ExponentialBuilder::default().with_min_delay(MIN_DELAY).with_max_delay(MAX_DELAY);
        Self(delays.with_factor(2.0).without_max_times().build())
    }
}

impl Backoff {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only once data flowed: a connection that is accepted and lost again is no success.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Each is about twice the one before; for what waits for somebody they stay the same.
    pub fn delay(&mut self, kind: ErrorKind) -> Duration {
        match kind {
            ErrorKind::Operator => OPERATOR_DELAY / 2 + (OPERATOR_DELAY / 2).mul_f64(fastrand::f64()),
            ErrorKind::Transient | ErrorKind::Fatal => {
                self.0.next().unwrap_or(MAX_DELAY).mul_f64(fastrand::f64())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_spread_from_nothing_to_a_bound_that_doubles() {
        let mut longest = [Duration::ZERO; 12];
        let mut shortest = [Duration::MAX; 12];
        for _ in 0..400 {
            let mut backoff = Backoff::new();
            for attempt in 0..12 {
                let delay = backoff.delay(ErrorKind::Transient);
                longest[attempt] = longest[attempt].max(delay);
                shortest[attempt] = shortest[attempt].min(delay);
            }
        }
        for attempt in 0..12u32 {
            let bound = (MIN_DELAY * (1 << attempt)).min(MAX_DELAY);
            let place = attempt as usize;
            assert!(longest[place] <= bound && longest[place] > bound.mul_f64(0.9), "{attempt}: {longest:?}");
            assert!(shortest[place] < bound.mul_f64(0.1), "{attempt}: {shortest:?}");
        }
    }

    #[test]
    fn what_waits_for_somebody_is_tried_every_few_seconds() {
        let mut backoff = Backoff::new();
        assert!((0..100).all(|_| {
            let delay = backoff.delay(ErrorKind::Operator);
            delay >= OPERATOR_DELAY / 2 && delay <= OPERATOR_DELAY
        }));
    }
}
