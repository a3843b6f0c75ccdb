//! Values that are JSON already: numbers, and json itself.

use bytes::BytesMut;
use memchr::memchr2_iter;
use serde::de::IgnoredAny;

/// Appends a number as it is. None for what JSON has no number for: `NaN`, `Infinity`.
pub(super) fn encode_number(text: &[u8], out: &mut BytesMut) -> Option<()> {
    is_number(text).then(|| out.extend_from_slice(text))
}

/// RFC 8259, section 6.
fn is_number(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let rest = skip_digits(text);
    match text {
        [b'0', ..] if text.len() != rest.len() + 1 => return false,
        [b'0'..=b'9', ..] => {}
        _ => return false,
    }
    let rest = match rest {
        [b'.', fraction @ ..] => match (fraction, skip_digits(fraction)) {
            ([b'0'..=b'9', ..], rest) => rest,
            _ => return false,
        },
        _ => rest,
    };
    match rest {
        [] => true,
        [b'e' | b'E', exponent @ ..] => {
            let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
            !exponent.is_empty() && skip_digits(exponent).is_empty()
        }
        _ => false,
    }
}

fn skip_digits(text: &[u8]) -> &[u8] {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.get(count..).unwrap_or_default()
}

/// Appends json as it is, line breaks overwritten by spaces: outside strings they are white space, inside they
/// can't be. None for what is not JSON; a cast without a function can put anything into a json column.
pub(super) fn encode_json(text: &[u8], out: &mut BytesMut) -> Option<()> {
    serde_json::from_str::<IgnoredAny>(std::str::from_utf8(text).ok()?).ok()?;
    let start = out.len();
    out.extend_from_slice(text);
    let copy = out.get_mut(start..)?;
    for at in memchr2_iter(b'\n', b'\r', text) {
        *copy.get_mut(at)? = b' ';
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_what_json_calls_one() {
        for number in
            ["0", "-0", "10", "-1.50", "1e+300", "1e-07", "0.1", "1E5", "123456789012345678901234567890"]
        {
            assert!(is_number(number.as_bytes()), "{number}");
        }
        for other in [
            "",
            "-",
            "01",
            ".5",
            "1.",
            "1e",
            "1e+",
            "+1",
            "NaN",
            "Infinity",
            "-Infinity",
            "1 ",
            "0x1",
            "1.e5",
        ] {
            assert!(!is_number(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn json_stays_as_written_on_one_line() {
        let mut out = BytesMut::new();
        encode_json(b"{ \"a\" :\r\n\t[1.0, \"\\n\"],\n\"a\":\"\\ud800\" }", &mut out).unwrap();
        assert_eq!(&out[..], b"{ \"a\" :  \t[1.0, \"\\n\"], \"a\":\"\\ud800\" }");
    }

    #[test]
    fn broken_json_is_refused() {
        for broken in ["", "{", "[1,]", "nul", "\"a\nb\"", "1 2", "{\"a\":1}}"] {
            assert_eq!(encode_json(broken.as_bytes(), &mut BytesMut::new()), None, "{broken}");
        }
        assert_eq!(encode_json(b"\"\xff\"", &mut BytesMut::new()), None, "not UTF-8");
    }

    #[test]
    fn json_nests_deeper_than_a_stack() {
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert_eq!(encode_json(&deep, &mut BytesMut::new()), Some(()));
    }
}
