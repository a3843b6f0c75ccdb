//! Durations and sizes as a person writes them: `30s`, `10m`, `256MiB`.

use serde::{Deserialize, Deserializer, de};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A number, then one of `units`; `0` needs none.
fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split)?;
    let number: u64 = number.parse().ok()?;
    if number == 0 && unit.is_empty() {
        return Some(0);
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.checked_mul(*factor)
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let units = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        read(&text, &units)
            .map(Self)
            .ok_or_else(|| de::Error::custom(format_args!("{text:?} is not a size such as \"256MiB\"")))
    }
}

pub mod duration {
    //! `#[serde(with = "units::duration")]`.

    use std::time::Duration;

    use super::{Deserialize, Deserializer, de};

    /// `5m`, `30s`, `250ms`, `2h`, `1d`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Duration> {
        let units = [
            ("ms", 1),
            ("s", 1000),
            ("m", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
        ];
        super::read(text, &units).map(Duration::from_millis)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| {
            de::Error::custom(format_args!(
                "{text:?} is not a duration such as \"30s\" or \"10m\""
            ))
        })
    }
}
