//! Composites: `record_out`'s text, as `composite_to_json` prints it.
//!
//! `(1,"a ""quoted"" b",)` becomes `{"id":1,"name":"a \"quoted\" b","note":null}`.

use bytes::BytesMut;

use super::Field;
use crate::postgres::record::RecordReader;

/// None when `text` is not a row of `fields`: the type changed since they were read.
pub(super) fn encode(text: &[u8], fields: &[Field], out: &mut BytesMut) -> Option<()> {
    let mut reader = RecordReader::new(text).ok()?;
    out.extend_from_slice(b"{");
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(&field.key);
        match reader.value().ok()? {
            Some(value) => field.shape.encode(&value, out),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(b"}");
    reader.end().ok()
}
