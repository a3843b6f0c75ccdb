//! What a SQL snapshot sees: `pg_current_snapshot()`.
//!
//! Source: <https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT>. Its ids have 64 bits,
//! those of the stream the low 32. A stream's transaction is less than 2^31 transactions away from any snapshot that
//! it is compared with (PostgreSQL itself allows no more), so the nearest id with those low bits is the one meant.

use std::str::FromStr;

/// `xmin:xmax:xip,…`; the transactions in progress are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    in_progress: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a snapshot such as 10:20:10,14")]
pub struct InvalidSnapshot(String);

impl Snapshot {
    /// Every transaction below has ended.
    #[must_use]
    pub const fn xmin(&self) -> u64 {
        self.xmin
    }

    /// None at or above had begun to end.
    #[must_use]
    pub const fn xmax(&self) -> u64 {
        self.xmax
    }

    /// Whether the transaction, which is known to have committed, is visible.
    #[must_use]
    pub fn sees(&self, xid: u32) -> bool {
        let xid = self.widen(xid);
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }

    /// Whether the transaction and every one before it have ended.
    #[must_use]
    pub fn is_past(&self, xid: u32) -> bool {
        self.widen(xid) < self.xmin
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "the low bits, as a distance"
    )]
    fn widen(&self, xid: u32) -> u64 {
        let distance = xid.wrapping_sub(self.xmax as u32) as i32;
        self.xmax.saturating_add_signed(i64::from(distance))
    }
}

impl FromStr for Snapshot {
    type Err = InvalidSnapshot;

    fn from_str(text: &str) -> Result<Self, InvalidSnapshot> {
        let read = || {
            let (xmin, rest) = text.split_once(':')?;
            let (xmax, list) = rest.split_once(':')?;
            let list = list.split(',').filter(|xid| !xid.is_empty());
            let mut in_progress = list.map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
            in_progress.sort_unstable();
            Some(Self { xmin: xmin.parse().ok()?, xmax: xmax.parse().ok()?, in_progress })
        };
        read().ok_or_else(|| InvalidSnapshot(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_what_ended_before_it_was_taken() {
        let snapshot: Snapshot = "10:20:10,14".parse().unwrap();
        let seen: Vec<u32> = (8..22).filter(|xid| snapshot.sees(*xid)).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]);
        assert!(snapshot.is_past(9) && !snapshot.is_past(10) && !snapshot.is_past(11));
    }

    #[test]
    fn low_bits_mean_the_nearest_transaction() {
        let era = 1u64 << 32;
        let snapshot: Snapshot = format!("{}:{}:", era + 5, era + 5).parse().unwrap();
        assert!(snapshot.sees(4) && snapshot.sees(u32::MAX) && snapshot.sees(u32::MAX - 1000));
        assert!(!snapshot.sees(5) && !snapshot.sees(1000));
        let before: Snapshot = format!("{}:{}:", era - 3, era - 3).parse().unwrap();
        assert!(!before.sees(4) && before.sees(u32::MAX - 3));
    }

    #[test]
    fn refuses_what_is_no_snapshot() {
        for text in ["", "1", "1:2", "a:2:", "1:2:x", "1:2:3;4"] {
            assert!(text.parse::<Snapshot>().is_err(), "{text:?}");
        }
    }
}
