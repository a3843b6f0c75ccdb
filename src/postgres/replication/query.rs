//! Simple queries on a walsender.

use std::sync::Arc;

use postgres_protocol::message::frontend;

use super::super::error::{ProtocolError, StreamError};
use super::super::wire::{Frame, Wire, cstr};

/// A row of texts by column name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextRow {
    columns: Arc<[String]>,
    values: Vec<Option<String>>,
}

impl TextRow {
    /// `None` for null, and for a column that is not there.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&str> {
        let index = self.columns.iter().position(|name| name == column)?;
        self.values.get(index)?.as_deref()
    }

    #[must_use]
    pub fn values(&self) -> &[Option<String>] {
        &self.values
    }
}

/// Reads the answer to its end, also after an error, so that the next command can follow.
pub(super) async fn simple_query(wire: &mut Wire, sql: &str) -> Result<Vec<TextRow>, StreamError> {
    frontend::query(sql, wire.output())?;
    let mut columns: Arc<[String]> = Arc::from([]);
    let mut rows = Vec::new();
    let mut error = None;
    loop {
        let frame = wire.frame().await?;
        match frame.tag {
            b'T' => columns = description(frame.body()).ok_or_else(|| frame.malformed())?,
            b'D' => {
                let values = values(frame.body(), columns.len()).ok_or_else(|| frame.malformed())?;
                rows.push(TextRow { columns: Arc::clone(&columns), values });
            }
            b'E' => error = error.or(Some(frame.server_error())),
            b'Z' => return error.map_or(Ok(rows), Err),
            b'C' | b'I' => {}
            _ => passing(&frame)?,
        }
    }
}

/// Sends a command whose answer is CopyBothResponse.
pub(super) async fn start_copy(wire: &mut Wire, command: &str) -> Result<(), StreamError> {
    frontend::query(command, wire.output())?;
    loop {
        let frame = wire.frame().await?;
        match frame.tag {
            b'W' => return Ok(()),
            b'E' => return Err(frame.server_error()),
            b'C' | b'Z' => return Err(frame.unexpected("CopyBothResponse").into()),
            _ => passing(&frame)?,
        }
    }
}

/// Messages that may come at any time.
pub(super) fn passing(frame: &Frame) -> Result<(), ProtocolError> {
    match frame.tag {
        b'N' => frame.log_notice(),
        b'S' | b'A' => {}
        _ => return Err(frame.unexpected("an answer")),
    }
    Ok(())
}

fn description(body: &[u8]) -> Option<Arc<[String]>> {
    /// Table, column, type, size, modifier, format.
    const AFTER_NAME: usize = 18;
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut names = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (name, after) = cstr(rest)?;
        names.push(String::from_utf8(name.to_vec()).ok()?);
        rest = after.get(AFTER_NAME..)?;
    }
    rest.is_empty().then(|| names.into())
}

fn values(body: &[u8], columns: usize) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    if usize::from(u16::from_be_bytes(*count)) != columns {
        return None;
    }
    let mut values = Vec::with_capacity(columns);
    for _ in 0..columns {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            values.push(None);
            rest = after;
            continue;
        }
        let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        values.push(Some(String::from_utf8(value.to_vec()).ok()?));
        rest = after;
    }
    rest.is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_columns() -> Vec<u8> {
        let mut body = vec![0, 2];
        for name in ["a", "b"] {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(&[0; 18]);
        }
        body
    }

    #[test]
    fn rows_read_by_column_name() {
        let columns = description(&two_columns()).unwrap();
        let values = values(b"\0\x02\0\0\0\x02hi\xFF\xFF\xFF\xFF", columns.len()).unwrap();
        let row = TextRow { columns, values };
        assert_eq!((row.get("a"), row.get("b"), row.get("c")), (Some("hi"), None, None));
    }

    #[test]
    fn truncated_answers_are_refused() {
        let whole = two_columns();
        assert!((0..whole.len()).all(|end| description(&whole[..end]).is_none()));
        let whole = b"\0\x02\0\0\0\x02hi\xFF\xFF\xFF\xFF";
        assert!((0..whole.len()).all(|end| values(&whole[..end], 2).is_none()));
        assert!(values(whole, 1).is_none());
    }
}
