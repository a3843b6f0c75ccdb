//! What of a transaction does not fit in memory: an unlinked temporary file.
//!
//! ```text
//! record = 'M' length u32 message bytes     a change, as it came
//!        | 'R' number u32                   from here on the relation of that number is the table's definition
//! ```
//!
//! What had come before the limit stays where it is, in memory; everything after it goes to the file. Relations are
//! remembered and only named in the file, so that a re-read binds each change to the very `Arc` that it had.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::Change;
use super::relations::Relations;
use crate::postgres::pgoutput::{self, Relation, RelationId};

/// Bytes in one write and in one read: large enough that their number does not matter.
const BLOCK_BYTES: usize = 256 << 10;

const MESSAGE: u8 = b'M';
const RELATION: u8 = b'R';

/// A record's kind and its number.
const HEADER_BYTES: usize = 5;

/// The changes of a transaction that is too large for memory.
#[derive(Debug)]
pub struct Spool {
    head: Vec<Change>,
    /// As it was when the file begins.
    relations: Relations,
    /// Defined since, by number.
    redefined: Vec<Arc<Relation>>,
    /// Those that rows in the file are of.
    touched: Vec<Arc<Relation>>,
    file: File,
    bytes: u64,
    len: u64,
}

impl Spool {
    /// Whether a row may be of such a table, without reading the file.
    pub(super) fn touches(&self, wanted: impl FnMut(&Arc<Relation>) -> bool) -> bool {
        self.head.iter().filter_map(Change::relation).chain(&self.touched).any(wanted)
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// What the file takes on disk.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.bytes
    }

    /// As if the disk had lost the end of the file.
    #[cfg(test)]
    pub(super) fn cut_off(&self, bytes: u64) {
        self.file.set_len(bytes).unwrap();
    }

    pub(super) fn reader(&self) -> SpoolReader<'_> {
        SpoolReader {
            spool: self,
            head: self.head.iter(),
            relations: self.relations.clone(),
            read_to: 0,
            buffer: BytesMut::new(),
            current: None,
        }
    }
}

/// A spool while its transaction is open.
#[derive(Debug)]
pub(super) struct SpoolWriter {
    head: Vec<Change>,
    relations: Relations,
    redefined: Vec<Arc<Relation>>,
    touched: Vec<Arc<Relation>>,
    /// Whose definition of now is among them.
    touched_ids: HashSet<RelationId>,
    file: BufWriter<File>,
    bytes: u64,
    len: u64,
}

impl SpoolWriter {
    pub(super) fn new(head: Vec<Change>, relations: Relations) -> io::Result<Self> {
        Ok(Self {
            len: head.len() as u64,
            head,
            relations,
            redefined: Vec::new(),
            touched: Vec::new(),
            touched_ids: HashSet::new(),
            file: BufWriter::with_capacity(BLOCK_BYTES, tempfile::tempfile()?),
            bytes: 0,
        })
    }

    pub(super) fn define(&mut self, relation: &Arc<Relation>) -> io::Result<()> {
        let number = self.redefined.len();
        self.redefined.push(Arc::clone(relation));
        self.touched_ids.remove(&relation.id);
        self.record(RELATION, number, &[])
    }

    /// A change, and the message that it came as.
    pub(super) fn push(&mut self, change: &Change, message: &[u8]) -> io::Result<()> {
        if let Some(relation) = change.relation()
            && self.touched.last().is_none_or(|last| !Arc::ptr_eq(last, relation))
            && self.touched_ids.insert(relation.id)
        {
            self.touched.push(Arc::clone(relation));
        }
        self.record(MESSAGE, message.len(), message)?;
        self.len += 1;
        Ok(())
    }

    fn record(&mut self, kind: u8, number: usize, content: &[u8]) -> io::Result<()> {
        let number = u32::try_from(number).map_err(io::Error::other)?;
        self.file.write_all(&[kind])?;
        self.file.write_all(&number.to_le_bytes())?;
        self.file.write_all(content)?;
        self.bytes += (HEADER_BYTES + content.len()) as u64;
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<Spool> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Spool {
            head: self.head,
            relations: self.relations,
            redefined: self.redefined,
            touched: self.touched,
            file,
            bytes: self.bytes,
            len: self.len,
        })
    }
}

/// Reads by position: several readers of one spool do not disturb each other.
#[derive(Debug)]
pub(super) struct SpoolReader<'a> {
    spool: &'a Spool,
    head: std::slice::Iter<'a, Change>,
    relations: Relations,
    read_to: u64,
    buffer: BytesMut,
    current: Option<Change>,
}

impl SpoolReader<'_> {
    pub(super) fn next(&mut self) -> io::Result<Option<&Change>> {
        if let Some(change) = self.head.next() {
            return Ok(Some(change));
        }
        self.current = self.read()?;
        Ok(self.current.as_ref())
    }

    fn read(&mut self) -> io::Result<Option<Change>> {
        loop {
            if self.buffer.is_empty() && self.read_to == self.spool.bytes {
                return Ok(None);
            }
            let mut header = self.take(HEADER_BYTES)?;
            let (kind, number) = (header.get_u8(), header.get_u32_le() as usize);
            match kind {
                RELATION => {
                    let relation = self.spool.redefined.get(number).ok_or_else(corrupt)?;
                    self.relations.define(Arc::clone(relation));
                }
                MESSAGE => {
                    let message = pgoutput::decode(self.take(number)?).map_err(io::Error::other)?;
                    let change = self.relations.bind(message).map_err(io::Error::other)?;
                    return change.ok_or_else(corrupt).map(Some);
                }
                _ => return Err(corrupt()),
            }
        }
    }

    fn take(&mut self, count: usize) -> io::Result<Bytes> {
        while self.buffer.len() < count {
            let filled = self.buffer.len();
            let left = usize::try_from(self.spool.bytes - self.read_to).unwrap_or(usize::MAX);
            let wanted = left.min(BLOCK_BYTES.max(count - filled));
            if wanted == 0 {
                return Err(corrupt());
            }
            self.buffer.resize(filled + wanted, 0);
            let space = self.buffer.get_mut(filled..).unwrap_or_default();
            self.spool.file.read_exact_at(space, self.read_to)?;
            self.read_to += wanted as u64;
        }
        Ok(self.buffer.split_to(count).freeze())
    }
}

fn corrupt() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the spool of a transaction does not hold what was written to it",
    )
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
