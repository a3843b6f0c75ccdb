//! Timestamps: DateStyle ISO in, ISO 8601 out, as PostgreSQL's `JsonEncodeDateTime` prints them.
//!
//! `2024-02-29 12:00:00.5+00` becomes `"2024-02-29T12:00:00.5+00:00"`. Years keep their digits and ` BC` its place at
//! the end; `infinity` stays. A date is printed as ISO already.

use bytes::BytesMut;
use memchr::memchr;

pub(super) fn encode_timestamp(text: &[u8], out: &mut BytesMut) -> Option<()> {
    let (date, time) = split(text)?;
    encode(date, time, b"", b"", out)
}

pub(super) fn encode_timestamp_tz(text: &[u8], out: &mut BytesMut) -> Option<()> {
    let (date, time) = split(text)?;
    let (time, era): (&[u8], &[u8]) = match time.strip_suffix(b" BC") {
        Some(time) => (time, b" BC"),
        None => (time, b""),
    };
    let minutes: &[u8] = match time {
        [.., b'+' | b'-', _, _] => b":00",
        _ => b"",
    };
    encode(date, time, minutes, era, out)
}

/// Date and time, around the first space. None without one: an infinity.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (date, time) = text.split_at_checked(memchr(b' ', text)?)?;
    Some((date, time.get(1..)?))
}

fn encode(date: &[u8], time: &[u8], minutes: &[u8], era: &[u8], out: &mut BytesMut) -> Option<()> {
    let plain = |text: &[u8]| text.iter().all(|byte| byte.is_ascii_digit() || b" :.+-BC".contains(byte));
    if !plain(date) || !plain(time) {
        return None;
    }
    for part in [b"\"", date, b"T", time, minutes, era, b"\""] {
        out.extend_from_slice(part);
    }
    Some(())
}
