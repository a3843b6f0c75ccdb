//! A row as the stream carries it: a column count and, per column, null, unchanged or text.

use bytes::Bytes;

/// A row's raw bytes, checked once when decoded: every cell lies inside, and the count is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuple {
    /// From the first column's kind byte to the end of the last column.
    bytes: Bytes,
    columns: u16,
}

/// One column's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    Null,
    /// An out-of-line (TOAST) value that the update did not touch: it is not in the log.
    Unchanged,
    /// The type's text output.
    Text(&'a [u8]),
}
