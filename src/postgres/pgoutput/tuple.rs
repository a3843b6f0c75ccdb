//! A row as the stream carries it: a column count and, per column, null, unchanged or text.
//!
//! ```text
//! 'n' │ 'u' │ 't' length bytes │ 'o' length digest │ …
//! ```
//!
//! `'o'` is our own: no server sends it. It stands for a value that was too long to be kept when its message was read.
//!
//! Checked once, when decoded. Whoever needs a column by its number reads the spans into a scratch vector that it
//! keeps ([`Tuple::read`]), and then pays neither a search nor an allocation for each.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::decode::{Problem, Reader};

/// A row's raw bytes: every cell lies inside, and the count is right.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// It was too long to be kept: so many bytes, and a digest by which equal ones are told from changed ones.
    Oversize {
        length: u32,
        digest: u64,
    },
}

impl Cell<'_> {
    /// What stands for this value where it is not kept.
    #[must_use]
    pub fn oversize(value: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, value);
        let digest = digest.as_ref().first_chunk().copied().unwrap_or_default();
        Self::Oversize {
            length: u32::try_from(value.len()).unwrap_or(u32::MAX),
            digest: u64::from_be_bytes(digest),
        }
    }
}

/// The kind of [`Cell::Oversize`]: four bytes of length and eight of digest follow.
pub(super) const OVERSIZE: u8 = b'o';

/// Where a cell lies in the tuple that it was read from; in another one it reads as something else, or as nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellSpan {
    Null,
    Unchanged,
    Text { start: u32, length: u32 },
    Oversize { start: u32 },
}

/// A tuple with its cells found: columns by number.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    bytes: &'a [u8],
    spans: &'a [CellSpan],
}

/// More columns or longer values than the format can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tuple holds at most 32767 columns and 2 GiB")]
pub struct TupleTooLarge;

impl Tuple {
    /// A tuple of these cells.
    pub fn new<'a>(cells: impl IntoIterator<Item = Cell<'a>>) -> Result<Self, TupleTooLarge> {
        let mut bytes = BytesMut::new();
        let mut columns: u16 = 0;
        for cell in cells {
            columns = columns.checked_add(1).filter(|n| i16::try_from(*n).is_ok()).ok_or(TupleTooLarge)?;
            match cell {
                Cell::Null => bytes.put_u8(b'n'),
                Cell::Unchanged => bytes.put_u8(b'u'),
                Cell::Text(text) => {
                    bytes.put_u8(b't');
                    bytes.put_i32(i32::try_from(text.len()).map_err(|_| TupleTooLarge)?);
                    bytes.put_slice(text);
                }
                Cell::Oversize { length, digest } => {
                    bytes.put_u8(OVERSIZE);
                    bytes.put_u32(length);
                    bytes.put_u64(digest);
                }
            }
        }
        if i32::try_from(bytes.len()).is_err() {
            return Err(TupleTooLarge);
        }
        Ok(Self { bytes: bytes.freeze(), columns })
    }

    /// How many columns.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.columns as usize
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// How many bytes it takes in the stream, its column count aside.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The columns in order.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        self.spans().map(|span| cell(&self.bytes, span))
    }

    /// Finds every cell; `scratch` is emptied first.
    pub fn read<'a>(&'a self, scratch: &'a mut Vec<CellSpan>) -> Row<'a> {
        scratch.clear();
        scratch.extend(self.spans());
        Row { bytes: &self.bytes, spans: scratch }
    }

    /// This tuple with spans that [`Tuple::read`] put into a scratch vector earlier.
    #[must_use]
    pub fn row<'a>(&'a self, spans: &'a [CellSpan]) -> Row<'a> {
        Row { bytes: &self.bytes, spans }
    }

    /// One tuple in the stream's format, column count first.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Problem> {
        let columns = reader.count()?;
        let start = reader.offset();
        for _ in 0..columns {
            reader.cell()?;
        }
        Ok(Self { bytes: reader.slice_from(start), columns })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.columns);
        out.put_slice(&self.bytes);
    }

    fn spans(&self) -> impl Iterator<Item = CellSpan> + use<'_> {
        let mut reader = Reader::new(&self.bytes);
        std::iter::from_fn(move || reader.cell().ok())
    }
}

impl<'a> Row<'a> {
    /// `None` beyond the last column.
    #[must_use]
    pub fn cell(&self, column: usize) -> Option<Cell<'a>> {
        self.spans.get(column).map(|span| cell(self.bytes, *span))
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

fn cell(bytes: &[u8], span: CellSpan) -> Cell<'_> {
    match span {
        CellSpan::Null => Cell::Null,
        CellSpan::Unchanged => Cell::Unchanged,
        CellSpan::Text { start, length } => {
            let text = bytes.get(start as usize..).and_then(|rest| rest.get(..length as usize));
            text.map_or(Cell::Null, Cell::Text)
        }
        CellSpan::Oversize { start } => {
            let value = bytes.get(start as usize..).and_then(|mut rest| {
                Some(Cell::Oversize { length: rest.try_get_u32().ok()?, digest: rest.try_get_u64().ok()? })
            });
            value.unwrap_or(Cell::Null)
        }
    }
}
