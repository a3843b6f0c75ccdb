//! Durations and sizes as a person writes them: `30s`, `10m`, `256MiB`.

use std::time::Duration;

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

/// `5m`, `30s`, `250ms`, `2h`, `1d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    read(text, &units).map(Duration::from_millis)
}

/// For `#[serde(deserialize_with = "…")]`.
pub(super) fn deserialize_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        de::Error::custom(format_args!("{text:?} is not a duration such as \"30s\" or \"10m\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_unless_it_is_nothing() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("10 m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("1d"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for text in ["", "5", "m", "-1s", "1.5s", "1S", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_size_counts_in_powers_of_two() {
        let read = |text: &str| ByteSize::deserialize(toml::Value::from(text)).ok();
        assert_eq!(read("256MiB"), Some(ByteSize(256 << 20)));
        assert_eq!(read("64 KiB"), Some(ByteSize(64 << 10)));
        assert_eq!(read("1B"), Some(ByteSize(1)));
        assert_eq!(read("256MB"), None);
    }
}
