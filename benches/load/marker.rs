//! What every event of the bench carries, whoever sends it: `#<sequence>#<nanoseconds>#`, somewhere in its text.
//!
//! Sequences count up from 1 within what a stream follows, so that a stream's reader proves order, loss and
//! duplicates by comparing with its last number. Nanoseconds since 1970 say when the event was born.

use std::time::{SystemTime, UNIX_EPOCH};

use memchr::memchr;

/// The longest marker: two numbers of at most 20 digits, three signs.
pub const LONGEST: usize = 43;

/// Bytes of an event's frame on the wire, about what a row of eight columns makes.
pub const FRAME: usize = 300;

pub fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A frame like walcast's own, for servers that have no catalog to make it.
pub fn frame(sequence: u64, nanos: u64) -> String {
    format!("id: {}\ndata: {}\n\n", id(sequence), payload(sequence, nanos))
}

/// Its `data:` line's JSON.
pub fn payload(sequence: u64, nanos: u64) -> String {
    format!(
        "{{\"id\":\"{}\",\"type\":\"tick\",\"timestamp\":{},\"organizationId\":\"o1\",\"channel\":\"custom\",\
         \"data\":\"{}\"}}",
        id(sequence),
        nanos / 1_000_000,
        text(sequence, nanos)
    )
}

/// Its `data`, as long as makes a frame of [`FRAME`] bytes.
pub fn text(sequence: u64, nanos: u64) -> String {
    text_beside(0, sequence, nanos)
}

/// As [`text`], the `event_type` of a row of `device_telemetry`, whose event says more than a tick.
pub fn text_of_row(sequence: u64, nanos: u64) -> String {
    const NAMES: usize = "new_telemetry".len() + "telemetry".len() - "tick".len() - "custom".len();
    const FIELDS: &str = r#"{"deviceId":"d1","deviceName":null,"eventType":,"temperature":null,"humidity":null,"battery":null}"#;
    text_beside(NAMES + FIELDS.len(), sequence, nanos)
}

fn text_beside(more: usize, sequence: u64, nanos: u64) -> String {
    let marker = format!("#{sequence}#{nanos}#");
    let envelope = 127 + 2 * id(sequence).len() + more;
    let padding = FRAME.saturating_sub(envelope + marker.len());
    format!("{marker}{}", ".".repeat(padding))
}

fn id(sequence: u64) -> String {
    format!("{:016x}.{}.1", 7, 20_000_000 + sequence)
}

/// Reads every whole marker of `bytes`, which may be of a binary protocol; returns how many bytes at the end may belong
/// to one that is not whole yet.
pub fn scan(bytes: &[u8], mut found: impl FnMut(u64, u64)) -> usize {
    let mut at = 0;
    while let Some(sign) = memchr(b'#', &bytes[at..]) {
        let start = at + sign;
        at = match marker(&bytes[start..]) {
            Read::Whole(sequence, nanos, length) => {
                found(sequence, nanos);
                start + length
            }
            Read::No => start + 1,
            Read::More => return bytes.len() - start,
        };
    }
    0
}

enum Read {
    Whole(u64, u64, usize),
    No,
    More,
}

fn marker(bytes: &[u8]) -> Read {
    let (mut numbers, mut at) = ([0u64; 2], 1);
    for number in &mut numbers {
        let first = at;
        loop {
            match bytes.get(at) {
                Some(digit @ b'0'..=b'9') => {
                    *number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
                }
                Some(b'#') if at > first => break,
                Some(_) => return Read::No,
                None => return Read::More,
            }
            at += 1;
        }
        at += 1;
    }
    Read::Whole(numbers[0], numbers[1], at)
}
