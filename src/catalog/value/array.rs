//! Arrays: `array_out`'s text, as `array_to_json` prints it.
//!
//! ```text
//! [0:1][1:2]={{a,"b c"},{NULL,"\"q\""}}
//! └ bounds ┘  └ quoted: a backslash stands before any byte
//! ```

use std::borrow::Cow;

use bytes::BytesMut;
use memchr::{memchr, memchr2};

use super::Shape;

/// Dimensions of an array (PostgreSQL's `MAXDIM`).
const MAX_DIMENSIONS: usize = 6;

/// None when `text` is not an array.
pub(super) fn encode(text: &[u8], element: &Shape, delimiter: u8, out: &mut BytesMut) -> Option<()> {
    let mut rest = without_bounds(text)?;
    let mut depth = 0;
    loop {
        // A value, or the bracket that opens some, or closes an empty array.
        match rest {
            [b'{', tail @ ..] if depth < MAX_DIMENSIONS => {
                depth += 1;
                out.extend_from_slice(b"[");
                rest = tail;
                if !rest.starts_with(b"}") {
                    continue;
                }
            }
            _ if depth == 0 => return None,
            [b'"', tail @ ..] => {
                let (value, tail) = unquote(tail)?;
                element.encode(&value, out);
                rest = tail;
            }
            _ => {
                let end = rest.iter().position(|&byte| byte == delimiter || byte == b'}')?;
                let (value, tail) = rest.split_at_checked(end)?;
                match value {
                    b"" => return None,
                    b"NULL" => out.extend_from_slice(b"null"),
                    value => element.encode(value, out),
                }
                rest = tail;
            }
        }
        while let [b'}', tail @ ..] = rest {
            out.extend_from_slice(b"]");
            rest = tail;
            depth -= 1;
            if depth == 0 {
                return rest.is_empty().then_some(());
            }
        }
        match rest {
            [byte, tail @ ..] if *byte == delimiter => {
                out.extend_from_slice(b",");
                rest = tail;
            }
            _ => return None,
        }
    }
}

/// Bounds are written only where one is not 1. JSON has no place for them.
fn without_bounds(text: &[u8]) -> Option<&[u8]> {
    if text.starts_with(b"[") { text.get(memchr(b'=', text)? + 1..) } else { Some(text) }
}

/// The value in front of the closing quote, and what follows that.
fn unquote(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let first = memchr2(b'"', b'\\', text)?;
    let (plain, mut rest) = text.split_at_checked(first)?;
    if let [b'"', tail @ ..] = rest {
        return Some((Cow::Borrowed(plain), tail));
    }
    let mut value = plain.to_vec();
    loop {
        match rest {
            [b'"', tail @ ..] => return Some((Cow::Owned(value), tail)),
            [b'\\', byte, tail @ ..] => {
                value.push(*byte);
                let (plain, next) = tail.split_at_checked(memchr2(b'"', b'\\', tail)?)?;
                value.extend_from_slice(plain);
                rest = next;
            }
            _ => return None,
        }
    }
}

/// `1 2 3`: values that hold no space, one space between.
pub(super) fn encode_vector(text: &[u8], element: &Shape, out: &mut BytesMut) -> Option<()> {
    out.extend_from_slice(b"[");
    if !text.is_empty() {
        for (index, value) in text.split(|&byte| byte == b' ').enumerate() {
            if index > 0 {
                out.extend_from_slice(b",");
            }
            element.encode(value, out);
        }
    }
    out.extend_from_slice(b"]");
    Some(())
}
