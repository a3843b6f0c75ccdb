//! What an evaluation gives, as JSON.

use std::fmt::Write as _;

use bytes::BytesMut;
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelTimestamp, CelUInt,
};
use cel::common::value::Val;
use chrono::{Datelike, Timelike, Utc};

use super::{EvalError, MAX_RESULT};
use crate::catalog::value::encode_string;

/// An expression's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Bool(bool),
    String(String),
    /// A number, a timestamp, a list, a map: encoded already.
    Json(Vec<u8>),
}

impl Value {
    /// None for what is not a bool.
    #[must_use]
    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Appends it as JSON: a double as `to_json(float8)` prints it (`1.0` is `1`), a timestamp as
    /// `to_json(timestamptz)` does in UTC, the keys of a map in byte order.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::String(text) => encode_string(text.as_bytes(), out),
            Self::Json(json) => out.extend_from_slice(json),
        }
    }

    pub(super) fn of(value: &dyn Val) -> Result<Self, EvalError> {
        if let Some(value) = value.downcast_ref::<CelBool>() {
            return Ok(Self::Bool(*value.inner()));
        }
        if value.downcast_ref::<CelNull>().is_some() {
            return Ok(Self::Null);
        }
        let mut out = BytesMut::new();
        if let Some(text) = value.downcast_ref::<CelString<'_>>() {
            if text.inner().len() > MAX_RESULT {
                return Err(EvalError::ResultTooLarge);
            }
            return Ok(Self::String(text.inner().to_owned()));
        }
        encode(value, &mut out)?;
        Ok(Self::Json(out.into()))
    }
}

fn encode(value: &dyn Val, out: &mut BytesMut) -> Result<(), EvalError> {
    if let Some(value) = value.downcast_ref::<CelInt>() {
        out.extend_from_slice(itoa::Buffer::new().format(*value.inner()).as_bytes());
    } else if let Some(value) = value.downcast_ref::<CelDouble>() {
        encode_double(*value.inner(), out);
    } else if let Some(value) = value.downcast_ref::<CelString<'_>>() {
        encode_string(value.inner().as_bytes(), out);
    } else if let Some(value) = value.downcast_ref::<CelBool>() {
        out.extend_from_slice(if *value.inner() { b"true" } else { b"false" });
    } else if value.downcast_ref::<CelNull>().is_some() {
        out.extend_from_slice(b"null");
    } else if let Some(value) = value.downcast_ref::<CelUInt>() {
        out.extend_from_slice(itoa::Buffer::new().format(*value.inner()).as_bytes());
    } else if let Some(value) = value.downcast_ref::<CelTimestamp>() {
        encode_timestamp(value, out);
    } else if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        out.extend_from_slice(b"[");
        for (index, item) in list.inner().iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b",");
            }
            encode(item.as_ref(), out)?;
        }
        out.extend_from_slice(b"]");
    } else if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        encode_map(map, out)?;
    } else {
        return Err(EvalError::NoJson(value.get_type().name().to_owned()));
    }
    if out.len() > MAX_RESULT {
        Err(EvalError::ResultTooLarge)
    } else {
        Ok(())
    }
}

/// In the order of the keys: the map itself has a different one in every process.
fn encode_map(map: &CelMap<'_>, out: &mut BytesMut) -> Result<(), EvalError> {
    let mut entries: Vec<(Vec<u8>, &dyn Val)> = Vec::with_capacity(map.inner().len());
    for (key, value) in map.inner() {
        entries.push((key_text(key)?, value.as_ref()));
    }
    entries.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
    out.extend_from_slice(b"{");
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        encode_string(key, out);
        out.extend_from_slice(b":");
        encode(*value, out)?;
    }
    out.extend_from_slice(b"}");
    Ok(())
}

fn key_text(key: &CelMapKey<'_>) -> Result<Vec<u8>, EvalError> {
    if let Some(text) = key.inner().downcast_ref::<CelString<'_>>() {
        return Ok(text.inner().as_bytes().to_vec());
    }
    let mut text = BytesMut::new();
    encode(key.inner(), &mut text)?;
    Ok(text.into())
}

/// As `float8out` does with extra_float_digits 1: the fewest digits that read back as the same double, an exponent of
/// two digits or more below 1e-4 and from 1e15.
fn encode_double(value: f64, out: &mut BytesMut) {
    if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
        return;
    }
    if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 {
            b"\"Infinity\""
        } else {
            b"\"-Infinity\""
        });
        return;
    }
    let magnitude = value.abs();
    // The shortest form only tells how many digits it takes. Two decimals can be as near, and Rust then takes the
    // upper one; formatting to a precision rounds to even, as PostgreSQL does. Writing into BytesMut never fails.
    if magnitude == 0.0 || (1e-4..1e15).contains(&magnitude) {
        let shortest = value.to_string();
        let places = shortest.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let _ = write!(out, "{value:.places$}");
        return;
    }
    let shortest = format!("{value:e}");
    let digits = shortest
        .bytes()
        .take_while(|&byte| byte != b'e')
        .filter(u8::is_ascii_digit)
        .count();
    let mut places = digits.saturating_sub(1);
    let mut text = format!("{value:.places$e}");
    while is_midpoint(value, &text) {
        places += 1;
        text = format!("{value:.places$e}");
    }
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent
        .strip_prefix('-')
        .map_or(('+', exponent), |exponent| ('-', exponent));
    let _ = write!(out, "{digits}e{sign}{exponent:0>2}");
}

/// Whether `text` (`1.25e17`) lies exactly between `value` and a neighbour. It reads back as the one whose mantissa is
/// even; PostgreSQL does not rely on that and prints more digits. So few digits can only be a midpoint where both are
/// whole.
fn is_midpoint(value: f64, text: &str) -> bool {
    const MANTISSA: u32 = f64::MANTISSA_DIGITS - 1;
    let bits = value.abs().to_bits();
    let mantissa = u128::from(bits & ((1 << MANTISSA) - 1) | (1 << MANTISSA));
    // value is mantissa << shift
    let Some(shift) = (bits >> MANTISSA).checked_sub(1023 + u64::from(MANTISSA)) else {
        return false;
    };
    let decimal = || {
        let (digits, exponent) = text.trim_start_matches('-').split_once('e')?;
        let places = digits.len().saturating_sub(2);
        let power = exponent
            .parse::<u32>()
            .ok()?
            .checked_sub(u32::try_from(places).ok()?)?;
        digits
            .replace('.', "")
            .parse::<u128>()
            .ok()?
            .checked_mul(10_u128.checked_pow(power)?)
    };
    // Twice the decimal, so that the midpoints of the smallest spacing are whole too.
    let Some(twice) = decimal().and_then(|decimal| decimal.checked_mul(2)) else {
        return false;
    };
    let midpoint = |mantissa: u128| {
        let bits_left = u64::from(mantissa.leading_zeros());
        (shift < bits_left).then(|| mantissa << shift)
    };
    [2 * mantissa - 1, 2 * mantissa + 1]
        .into_iter()
        .any(|mantissa| midpoint(mantissa) == Some(twice))
}

fn encode_timestamp(value: &CelTimestamp, out: &mut BytesMut) {
    let utc = value.inner().with_timezone(&Utc);
    let (year, month, day) = (utc.year(), utc.month(), utc.day());
    let (hour, minute, second) = (utc.hour(), utc.minute(), utc.second());
    let _ = write!(
        out,
        "\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    );
    let micros = utc.timestamp_subsec_micros();
    if micros > 0 {
        let fraction = format!("{micros:06}");
        let _ = write!(out, ".{}", fraction.trim_end_matches('0'));
    }
    out.extend_from_slice(b"+00:00\"");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_float8_does() {
        for (value, text) in [
            (0.5, "0.5"),
            (1.0, "1"),
            (-0.0, "-0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (123_456_789_012_345.6, "123456789012345.6"),
            (1_234_567_890_123_456.0, "1.234567890123456e+15"),
            (1e300, "1e+300"),
            (-2.5e-5, "-2.5e-05"),
            (0.0001, "0.0001"),
            (1e-7, "1e-07"),
            (5e-324, "5e-324"),
            (369_976_007_236_387_970.0, "3.6997600723638797e+17"),
            (1_947_788_824_618_972.25, "1.9477888246189722e+15"),
            (70_368_744_177_664.125, "70368744177664.12"),
            (-70_368_744_177_664.375, "-70368744177664.38"),
            (9_007_199_254_740_992.0, "9.007199254740992e+15"),
            (1e22, "1e+22"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::NAN, "\"NaN\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            let mut out = BytesMut::new();
            encode_double(value, &mut out);
            assert_eq!(out, text, "{value}");
        }
    }
}
