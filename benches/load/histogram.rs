//! Durations, counted in buckets of 1.6 % each.

use std::time::Duration;

/// Buckets of one power of two.
const STEPS: u64 = 64;

#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub fn record(&mut self, nanos: u64) {
        self.record_many(nanos, 1);
    }

    pub fn record_many(&mut self, nanos: u64, times: u64) {
        let at = bucket(nanos);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += times;
        self.total += times;
    }

    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.total += other.total;
    }

    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The duration that this share of all (0 to 1) does not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank"
        )]
        let mut rank = (self.total as f64 * share).ceil() as u64;
        for (at, count) in self.counts.iter().enumerate() {
            if rank <= *count {
                return Duration::from_nanos(value(at as u64));
            }
            rank -= count;
        }
        Duration::ZERO
    }

    /// Shares at doubling bounds, as a row of text: `<0.25 ms 3 %, <0.5 ms 61 %, …`.
    pub fn in_words(&self) -> String {
        let mut words = Vec::new();
        let mut below = 0;
        for power in 16..36 {
            let bound = 1u64 << power;
            let upto: u64 = self.counts.iter().take(bucket(bound)).sum();
            if upto > below {
                #[allow(clippy::cast_precision_loss, reason = "a share for people")]
                let (share, millis) = ((upto - below) as f64 * 100.0 / self.total as f64, bound as f64 / 1e6);
                words.push(format!("<{millis:.2} ms {share:.1} %"));
            }
            below = upto;
        }
        words.join(", ")
    }
}

fn bucket(nanos: u64) -> usize {
    let power = u64::from(nanos.max(1).ilog2());
    if power < 6 {
        return nanos as usize;
    }
    let step = (nanos >> (power - 6)) - STEPS;
    ((power - 5) * STEPS + step) as usize
}

/// The least of a bucket.
const fn value(bucket: u64) -> u64 {
    if bucket < STEPS {
        return bucket;
    }
    let (power, step) = (bucket / STEPS + 5, bucket % STEPS);
    (STEPS + step) << (power - 6)
}
