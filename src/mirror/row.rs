//! One mirrored row: its key and its values' text, in one allocation.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// What a row costs besides its bytes: the allocations' headers, the reference counts, its place in the table.
const OVERHEAD_BYTES: u64 = 96;

/// The end of a null: no value is that long, PostgreSQL's limit is 1 GB.
const NULL: u32 = u32::MAX;

/// A row of a mirrored table, as it was when it was looked up.
#[derive(Debug, PartialEq, Eq)]
pub struct MirrorRow {
    /// The key, then every value.
    bytes: Box<[u8]>,
    key_end: u32,
    /// Where each value ends; [`NULL`] for null.
    ends: Box<[u32]>,
}

impl MirrorRow {
    /// None when the row has 4 GiB or more.
    pub(super) fn new<'a>(
        key: &[u8],
        cells: impl ExactSizeIterator<Item = Option<&'a [u8]>>,
    ) -> Option<Self> {
        let position = |bytes: &Vec<u8>| u32::try_from(bytes.len()).ok().filter(|end| *end != NULL);
        let mut bytes = key.to_vec();
        let key_end = position(&bytes)?;
        let mut ends = Vec::with_capacity(cells.len());
        for cell in cells {
            ends.push(match cell {
                None => NULL,
                Some(value) => {
                    bytes.extend_from_slice(value);
                    position(&bytes)?
                }
            });
        }
        Some(Self { bytes: bytes.into(), key_end, ends: ends.into() })
    }

    /// The text of a column of [`super::MirrorSpec::columns`]; none for null.
    #[must_use]
    pub fn cell(&self, column: usize) -> Option<&[u8]> {
        let end = *self.ends.get(column).filter(|end| **end != NULL)?;
        let before = self.ends.get(..column)?.iter().rev().find(|end| **end != NULL);
        let start = before.copied().unwrap_or(self.key_end);
        self.bytes.get(start as usize..end as usize)
    }

    pub(super) fn key(&self) -> &[u8] {
        self.bytes.get(..self.key_end as usize).unwrap_or_default()
    }

    pub(super) fn memory(&self) -> u64 {
        self.bytes.len() as u64 + 4 * self.ends.len() as u64 + OVERHEAD_BYTES
    }
}

/// A row in its table's set, where it is found by its key.
#[derive(Debug)]
pub(super) struct ByKey(pub(super) Arc<MirrorRow>);

impl Borrow<[u8]> for ByKey {
    fn borrow(&self) -> &[u8] {
        self.0.key()
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for ByKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_out_as_they_went_in() {
        let cells: [Option<&[u8]>; 5] = [Some(b"a"), None, Some(b""), None, Some(b"bcd")];
        let row = MirrorRow::new(b"key", cells.into_iter()).unwrap();
        assert_eq!(row.key(), b"key");
        assert_eq!((0..6).map(|column| row.cell(column)).collect::<Vec<_>>(), [&cells[..], &[None]].concat());
    }
}
