//! A message that is too long to be kept whole, read as it arrives: what comes out is as long as it may be.
//!
//! ```text
//! kind ─┬─ I U D ─► relation, mark ─► cells ─► each kept, or only its length and digest ─► mark ─► cells
//!       ├─ M ─────► prefix ─► ours: as a cell; a stranger's: nothing is kept
//!       └─ other ─► as it is, up to the limit
//! ```
//!
//! Which values are kept depends on the message and the limit alone, never on how the bytes were cut: reading the same
//! log again gives the same rows. What is malformed comes out malformed, for the decoder to say so.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Problem;
use super::tuple::OVERSIZE;

/// A value up to this is always kept, so that keys and small columns never fall to a large neighbour. With 1,600
/// columns, PostgreSQL's limit, in two tuples that is at most 26 MB beyond the limit.
const SMALL_BYTES: usize = 8 << 10;

/// The fields around the one that the limit is for.
const SLACK_BYTES: usize = 64 << 10;

/// Of a logical message: its flags and its position.
const BEFORE_PREFIX: usize = 1 + 8;

/// What of long messages is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongMessages {
    /// Of the logical messages that are not a stranger's.
    pub prefix: &'static str,
    /// Of one message, in bytes.
    pub max_bytes: usize,
}

impl LongMessages {
    /// Whether a value of so many bytes is kept, where `kept` bytes of values before it were.
    #[must_use]
    pub const fn keeps(&self, bytes: usize, kept: &mut usize) -> bool {
        if bytes <= SMALL_BYTES {
            return true;
        }
        let fits = *kept + bytes <= self.max_bytes;
        if fits {
            *kept += bytes;
        }
        fits
    }
}

/// One message on its way.
#[derive(Debug)]
pub struct Condenser {
    keep: LongMessages,
    step: Step,
    /// Of the message, not yet read.
    remaining: usize,
    /// Tuples that follow the one being read.
    more_tuples: u8,
    /// Bytes of kept values that are not small.
    kept: usize,
    out: BytesMut,
}

#[derive(Debug)]
enum Step {
    Kind,
    /// Flags, position and as much of the prefix as ours has.
    Prefix,
    Content,
    /// A relation's id and the mark of the first tuple; the message's kind.
    Relation(u8),
    Mark,
    Columns,
    Cell {
        left: u16,
    },
    Keep {
        bytes: usize,
        cells_left: u16,
    },
    Skip(Box<Skipped>),
    /// To the end, as it is.
    Rest,
    /// To the end, and what has been read counts.
    Ignore,
    /// To the end, and nothing of the message counts.
    Discard,
}

/// A value that is not kept.
struct Skipped {
    bytes: usize,
    cells_left: u16,
    length: u32,
    digest: Context,
}

impl Condenser {
    /// Of a message of so many bytes.
    #[must_use]
    pub fn new(length: usize, keep: LongMessages) -> Self {
        Self { keep, step: Step::Kind, remaining: length, more_tuples: 0, kept: 0, out: BytesMut::new() }
    }

    /// Takes what it can of `input`; a few bytes may stay for the next call.
    ///
    /// # Errors
    /// A length that the message does not have, or a message too long of a kind that has no values to leave out.
    pub fn push(&mut self, input: &mut BytesMut) -> Result<(), Problem> {
        while self.remaining > 0 {
            let available = input.get(..input.len().min(self.remaining)).unwrap_or_default();
            let taken = self.step(available)?;
            if taken == 0 {
                break;
            }
            input.advance(taken);
            self.remaining -= taken;
        }
        Ok(())
    }

    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.remaining == 0
    }

    /// The message, for [`decode`](fn@super::decode); none for a stranger's.
    #[must_use]
    pub fn finish(self) -> Option<Bytes> {
        if matches!(self.step, Step::Discard) { None } else { Some(self.out.freeze()) }
    }

    /// How many of these bytes were dealt with; none when more have to come first.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Problem> {
        // Nothing can be told from fewer bytes than a field has: at the message's end they are its malformed rest.
        let needed = self.needed();
        let Some((field, _)) = bytes.split_at_checked(needed) else {
            if bytes.len() < self.remaining {
                return Ok(0);
            }
            self.step = Step::Rest;
            return self.step(bytes);
        };
        match &mut self.step {
            Step::Kind => {
                self.step = match field.first() {
                    Some(b'M') => Step::Prefix,
                    Some(kind @ (b'I' | b'U' | b'D')) => Step::Relation(*kind),
                    _ => Step::Rest,
                };
                self.copy(field)
            }
            Step::Prefix => {
                let prefix = field.get(BEFORE_PREFIX..).and_then(|prefix| prefix.strip_suffix(b"\0"));
                let ours = prefix == Some(self.keep.prefix.as_bytes());
                self.step = if ours { Step::Content } else { Step::Discard };
                self.copy(field)
            }
            // Too long to be verified, so it is not believed: it reads as empty.
            Step::Content if self.remaining - needed > self.keep.max_bytes => {
                self.step = Step::Ignore;
                self.copy(&[0; 4])
            }
            Step::Content => {
                self.step = Step::Rest;
                self.copy(field)
            }
            Step::Relation(kind) => {
                let mark = field.last().copied();
                self.more_tuples = u8::from(*kind == b'U' && matches!(mark, Some(b'K' | b'O')));
                self.step = Step::Columns;
                self.out.reserve(self.remaining.min(self.keep.max_bytes));
                self.copy(field)
            }
            Step::Mark => {
                self.more_tuples = 0;
                self.step = Step::Columns;
                self.copy(field)
            }
            Step::Columns => {
                let columns = field.first_chunk().map_or(0, |count| u16::from_be_bytes(*count));
                self.next_cell(columns);
                self.copy(field)
            }
            Step::Cell { left } => {
                let left = *left;
                match field.first() {
                    Some(b't') => return self.value(bytes, left),
                    Some(b'n' | b'u') => self.next_cell(left.saturating_sub(1)),
                    _ => self.step = Step::Rest,
                }
                self.copy(field)
            }
            Step::Keep { bytes: left, cells_left } => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                let (done, cells_left) = (*left == 0, *cells_left);
                if done {
                    self.next_cell(cells_left);
                }
                self.copy(bytes.get(..taken).unwrap_or_default())
            }
            Step::Skip(value) => {
                let taken = value.take(bytes);
                if value.bytes == 0 {
                    let cells_left = value.cells_left;
                    value.write(&mut self.out);
                    self.next_cell(cells_left);
                }
                Ok(taken)
            }
            Step::Rest => {
                if self.out.len() + bytes.len() > self.keep.max_bytes + SLACK_BYTES {
                    return Err(Problem::Trailing(self.remaining));
                }
                self.copy(bytes)
            }
            Step::Ignore | Step::Discard => Ok(bytes.len()),
        }
    }

    /// How long the next field is, or the least that there is of it.
    const fn needed(&self) -> usize {
        match self.step {
            Step::Prefix => BEFORE_PREFIX + self.keep.prefix.len() + 1,
            Step::Content => 4,
            Step::Relation(_) => 5,
            Step::Columns => 2,
            _ => 1,
        }
    }

    /// A value's kind and length, and whether it is kept.
    fn value(&mut self, bytes: &[u8], left: u16) -> Result<usize, Problem> {
        const HEADER: usize = 5;
        let Some(header) = bytes.get(..HEADER) else {
            if bytes.len() < self.remaining {
                return Ok(0);
            }
            self.step = Step::Rest;
            return self.step(bytes);
        };
        let length = header.last_chunk().map_or(0, |length| u32::from_be_bytes(*length));
        let size = length as usize;
        if size > self.remaining - HEADER {
            return Err(Problem::Truncated { needed: size - (self.remaining - HEADER) });
        }
        let cells_left = left.saturating_sub(1);
        if !self.keep.keeps(size, &mut self.kept) {
            let digest = Context::new(&SHA256);
            self.step = Step::Skip(Box::new(Skipped { bytes: size, cells_left, length, digest }));
            return Ok(HEADER);
        }
        if size == 0 {
            self.next_cell(cells_left);
        } else {
            self.step = Step::Keep { bytes: size, cells_left };
        }
        self.copy(header)
    }

    fn next_cell(&mut self, left: u16) {
        self.step = match left {
            0 if self.more_tuples > 0 => Step::Mark,
            0 => Step::Rest,
            left => Step::Cell { left },
        };
    }

    fn copy(&mut self, bytes: &[u8]) -> Result<usize, Problem> {
        self.out.put_slice(bytes);
        Ok(bytes.len())
    }
}

impl Skipped {
    fn take(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.get(..self.bytes).unwrap_or(bytes);
        self.bytes -= taken.len();
        self.digest.update(taken);
        taken.len()
    }

    /// What stands for it in the message.
    fn write(&self, out: &mut BytesMut) {
        let digest = self.digest.clone().finish();
        out.put_u8(OVERSIZE);
        out.put_u32(self.length);
        out.put_slice(digest.as_ref().get(..size_of::<u64>()).unwrap_or(&[0; 8]));
    }
}

impl fmt::Debug for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, cells_left, length, .. } = self;
        write!(f, "Skipped({bytes} of {length} bytes, {cells_left} cells left)")
    }
}

#[cfg(test)]
mod tests;
