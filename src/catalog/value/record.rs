//! Composites: `record_out`'s text, as `composite_to_json` prints it.
//!
//! `(1,"a ""quoted"" b",)` becomes `{"id":1,"name":"a \"quoted\" b","note":null}`: a quote and a backslash are
//! doubled inside quotes, nothing at all is null, `""` is the empty string.

use std::borrow::Cow;

use bytes::BytesMut;
use memchr::memchr2;

use super::Field;

/// None when `text` is not a row of `fields`: the type changed since they were read.
pub(super) fn encode(text: &[u8], fields: &[Field], out: &mut BytesMut) -> Option<()> {
    let mut rest = text.strip_prefix(b"(")?;
    out.extend_from_slice(b"{");
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix(b",")?;
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(&field.key);
        match rest {
            [b',' | b')', ..] => out.extend_from_slice(b"null"),
            [b'"', tail @ ..] => {
                let (value, tail) = unquote(tail)?;
                field.shape.encode(&value, out);
                rest = tail;
            }
            _ => {
                let (value, tail) = rest.split_at_checked(memchr2(b',', b')', rest)?)?;
                field.shape.encode(value, out);
                rest = tail;
            }
        }
    }
    out.extend_from_slice(b"}");
    (rest == b")").then_some(())
}

/// The value in front of the closing quote, and what follows that.
fn unquote(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut value = Cow::Borrowed(&[][..]);
    let mut rest = text;
    loop {
        let (plain, next) = rest.split_at_checked(memchr2(b'"', b'\\', rest)?)?;
        match &mut value {
            Cow::Borrowed(b"") => value = Cow::Borrowed(plain),
            value => value.to_mut().extend_from_slice(plain),
        }
        match next {
            [b'"', b'"', tail @ ..] => {
                value.to_mut().push(b'"');
                rest = tail;
            }
            [b'"', tail @ ..] => return Some((value, tail)),
            [b'\\', byte, tail @ ..] => {
                value.to_mut().push(*byte);
                rest = tail;
            }
            _ => return None,
        }
    }
}
