//! JSON strings.

use std::borrow::Cow;

use bytes::BytesMut;

/// A word of eight bytes, each `byte`.
const fn splat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Appends `text` as a JSON string, escaped as PostgreSQL's `escape_json` does: the short forms it knows, `\u00xx`
/// for the other control characters, and nothing else. What is not UTF-8 is replaced: a UTF-8 database hands out what it
/// holds unseen, damaged text too.
pub fn encode_string(text: &[u8], out: &mut BytesMut) {
    let text = match std::str::from_utf8(text) {
        Ok(_) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(String::from_utf8_lossy(text).into_owned().into_bytes()),
    };
    out.reserve(text.len() + 2);
    out.extend_from_slice(b"\"");
    let mut rest = &*text;
    while let Some(at) = first_escaped(rest) {
        let Some((plain, [byte, tail @ ..])) = rest.split_at_checked(at) else {
            break;
        };
        out.extend_from_slice(plain);
        encode_escape(*byte, out);
        rest = tail;
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\"");
}

/// Where the first byte is that a JSON string can't carry as it is.
fn first_escaped(text: &[u8]) -> Option<usize> {
    let (words, tail) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = escaped_bytes(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = tail.iter().position(|&byte| is_escaped(byte))?;
    Some(words.len() * 8 + at)
}

/// The high bit of bytes below 0x20, `"` and `\`. A borrow makes the bytes above a true hit unreliable: only the
/// lowest is read.
const fn escaped_bytes(word: u64) -> u64 {
    let control = word.wrapping_sub(splat(0x20));
    let quote = (word ^ splat(b'"')).wrapping_sub(splat(1));
    let backslash = (word ^ splat(b'\\')).wrapping_sub(splat(1));
    // A byte of 0x80 and more is never escaped, and would show as a hit.
    (control | quote | backslash) & !word & splat(0x80)
}

const fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn encode_escape(byte: u8, out: &mut BytesMut) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let digit = |nibble: u8| {
                if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
            };
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 0xf)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        encode_string(text, &mut out);
        out.to_vec()
    }

    #[test]
    fn control_characters_are_escaped_as_postgres_does() {
        assert_eq!(
            string(b"\x00\x01\x07\x08\t\n\x0b\x0c\r\x1f \"\\/\x7f"),
            br#""\u0000\u0001\u0007\b\t\n\u000b\f\r\u001f \"\\/"#
                .iter()
                .copied()
                .chain(*b"\x7f\"")
                .collect::<Vec<_>>()
        );
        assert_eq!(string("\u{2028}é😀".as_bytes()), "\"\u{2028}é😀\"".as_bytes());
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        assert_eq!(string(b"a\xff\"\xc3"), "\"a\u{fffd}\\\"\u{fffd}\"".as_bytes());
    }

    #[test]
    fn every_byte_is_found_at_every_place_of_a_word() {
        for byte in 0..=u8::MAX {
            for at in 0..20 {
                let mut text = vec![b'~'; 20];
                text[at] = byte;
                assert_eq!(first_escaped(&text), is_escaped(byte).then_some(at), "{byte:#x} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_string_reads_back_as_it_was(text in any::<String>()) {
            let read: String = serde_json::from_slice(&string(text.as_bytes())).unwrap();
            prop_assert_eq!(read, text);
        }

        #[test]
        fn scanning_words_finds_what_scanning_bytes_finds(text in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(first_escaped(&text), text.iter().position(|&byte| is_escaped(byte)));
        }
    }
}
