//! Doubles as JSON.

use std::fmt::Write as _;

use bytes::BytesMut;

/// As `float8out` does with extra_float_digits 1: the fewest digits that read back as the same double, an exponent of
/// two digits or more below 1e-4 and from 1e15.
pub(super) fn encode_double(value: f64, out: &mut BytesMut) {
    if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
        return;
    }
    if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
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
    let digits = shortest.bytes().take_while(|&byte| byte != b'e').filter(u8::is_ascii_digit).count();
    let mut places = digits.saturating_sub(1);
    let mut text = format!("{value:.places$e}");
    while is_midpoint(value, &text) {
        places += 1;
        text = format!("{value:.places$e}");
    }
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
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
        let power = exponent.parse::<u32>().ok()?.checked_sub(u32::try_from(places).ok()?)?;
        digits.replace('.', "").parse::<u128>().ok()?.checked_mul(10_u128.checked_pow(power)?)
    };
    // Twice the decimal, so that the midpoints of the smallest spacing are whole too.
    let Some(twice) = decimal().and_then(|decimal| decimal.checked_mul(2)) else {
        return false;
    };
    let midpoint = |mantissa: u128| {
        let bits_left = u64::from(mantissa.leading_zeros());
        (shift < bits_left).then(|| mantissa << shift)
    };
    [2 * mantissa - 1, 2 * mantissa + 1].into_iter().any(|mantissa| midpoint(mantissa) == Some(twice))
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
            (1_947_788_824_618_972.0 + 0.25, "1.9477888246189722e+15"),
            (70_368_744_177_664.0 + 0.125, "70368744177664.12"),
            (-70_368_744_177_664.0 - 0.375, "-70368744177664.38"),
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
