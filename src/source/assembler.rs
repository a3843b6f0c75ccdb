//! Messages to whole transactions.
//!
//! ```text
//! Begin ─► Open { changes in memory ─ above the limit ─► head in memory, rest in a file } ─ Commit ─► Transaction
//!                  └ taken out as a Part, now and then, as long as none needs the rest
//! ```
//!
//! A state machine without a clock and without a network; its only IO is the spool's file. What a server must not
//! send is an error, never a panic. Memory is bounded by the limit and one message. A kept change keeps the read buffer
//! alive that it lies in, its neighbours' bytes included: so everything counts that comes while a transaction is open,
//! kept or not.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::parts::Parts;
use super::relations::Relations;
use super::spool::SpoolWriter;
use super::{Change, Changes, Part, Transaction};
use crate::postgres::Lsn;
use crate::postgres::pgoutput::{Begin, Commit, LogicalMessage, RelationId};

/// What a change takes in memory besides its message's bytes, which its tuples share.
const CHANGE_OVERHEAD_BYTES: u64 = size_of::<Change>() as u64;

/// Collects the messages of the open transaction.
#[derive(Debug)]
pub(super) struct Assembler {
    relations: Relations,
    open: Option<Open>,
    limit_bytes: u64,
    /// None: transactions are handed out whole.
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Open {
    begin: Begin,
    buffer: Buffer,
    /// A part of it was taken.
    begun: bool,
    /// No part, or no further one, may be taken.
    whole: bool,
}

#[derive(Debug)]
enum Buffer {
    Memory { changes: Vec<Change>, bytes: u64 },
    Spool(SpoolWriter),
}

/// A message that no server sends in this place: the connection can't be trusted any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a transaction began inside another")]
    NestedBegin,
    #[error("a {0} outside of a transaction")]
    Outside(&'static str),
    #[error("a transaction announced its commit at {announced} and committed at {committed}")]
    CommitMismatch { announced: Lsn, committed: Lsn },
    #[error("a change of relation {}, which was not described", .0.0)]
    UnknownRelation(RelationId),
}

#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("a large transaction could not be spooled to a temporary file")]
    Spool(#[from] io::Error),
}

impl Assembler {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self { relations: Relations::default(), open: None, limit_bytes, parts: None }
    }

    /// Lets [`take_part`](Self::take_part) have what does not need the rest of its transaction.
    pub(super) fn in_parts(self, parts: Option<Parts>) -> Self {
        Self { parts, ..self }
    }

    /// Between `Begin` and `Commit`.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What has come of the open transaction, where it is enough to be worth it.
    pub(super) fn take_part(&mut self) -> Option<Part> {
        let open = self.open.as_mut().filter(|open| !open.whole)?;
        let Buffer::Memory { changes, bytes } = &mut open.buffer else { return None };
        if changes.is_empty() || !self.parts.as_ref()?.are_worth(*bytes) {
            return None;
        }
        *bytes = 0;
        let Begin { final_lsn: commit_lsn, commit_time, xid } = open.begin;
        let first = !std::mem::replace(&mut open.begun, true);
        let changes = Changes::Memory(std::mem::take(changes));
        Some(Part { commit_lsn, xid, commit_time, first, changes })
    }

    /// `raw` is what `message` was decoded from. The transaction, once its commit has come.
    pub(super) fn push(
        &mut self,
        raw: &Bytes,
        message: LogicalMessage,
    ) -> Result<Option<Transaction>, AssembleError> {
        self.take(raw, raw.len() as u64, message)
    }

    /// As [`Assembler::push`], of a message that came in another form and takes about `size` bytes: only where it goes
    /// to a file is it written in this one, which a long row would be a copy more of.
    pub(super) fn push_unwritten(
        &mut self,
        size: u64,
        message: LogicalMessage,
    ) -> Result<Option<Transaction>, AssembleError> {
        let mut raw = BytesMut::new();
        if self.spools(size) {
            message.encode(&mut raw);
        }
        self.take(&raw.freeze(), size, message)
    }

    /// Whether a change of this size goes to a file.
    fn spools(&self, size: u64) -> bool {
        match &self.open {
            Some(Open { buffer: Buffer::Memory { bytes, .. }, .. }) => {
                bytes.saturating_add(size).saturating_add(CHANGE_OVERHEAD_BYTES) > self.limit_bytes
            }
            Some(_) => true,
            None => false,
        }
    }

    fn take(
        &mut self,
        raw: &Bytes,
        size: u64,
        message: LogicalMessage,
    ) -> Result<Option<Transaction>, AssembleError> {
        match message {
            LogicalMessage::Begin(begin) => self.begin(begin)?,
            LogicalMessage::Commit(commit) => return self.commit(commit).map(Some),
            LogicalMessage::Relation(relation) => {
                let relation = Arc::new(relation);
                if let Some(Open { buffer: Buffer::Spool(spool), .. }) = &mut self.open {
                    spool.define(&relation)?;
                }
                self.count(size);
                if let Some(parts) = &mut self.parts {
                    parts.define(&relation);
                }
                self.relations.define(relation);
            }
            LogicalMessage::Origin(_) | LogicalMessage::Type(_) => self.count(size),
            LogicalMessage::Message(message) if !message.transactional => self.count(size),
            change => self.change(raw, size, change)?,
        }
        Ok(None)
    }

    fn begin(&mut self, begin: Begin) -> Result<(), Violation> {
        if self.open.is_some() {
            return Err(Violation::NestedBegin);
        }
        let buffer = Buffer::Memory { changes: Vec::new(), bytes: 0 };
        self.open = Some(Open { begin, buffer, begun: false, whole: self.parts.is_none() });
        Ok(())
    }

    /// A message that is not kept, and may lie beside one that is.
    fn count(&mut self, size: u64) {
        if let Some(Open { buffer: Buffer::Memory { changes, bytes }, .. }) = &mut self.open
            && !changes.is_empty()
        {
            *bytes = bytes.saturating_add(size);
        }
    }

    fn change(&mut self, raw: &Bytes, size: u64, message: LogicalMessage) -> Result<(), AssembleError> {
        if self.open.is_none() {
            return Err(Violation::Outside("change").into());
        }
        // Bound in any case: a spooled change of an unknown relation is an error now, not when it is read.
        let Some(change) = self.relations.bind(message)? else {
            self.count(size);
            return Ok(());
        };
        let spools = self.spools(size);
        let Some(open) = &mut self.open else { return Ok(()) };
        open.whole = open.whole || self.parts.as_ref().is_some_and(|parts| parts.needs_all(&change));
        match &mut open.buffer {
            Buffer::Spool(spool) => spool.push(&change, raw)?,
            Buffer::Memory { changes, bytes } => {
                if spools {
                    let mut spool = SpoolWriter::new(std::mem::take(changes), self.relations.clone())?;
                    spool.push(&change, raw)?;
                    open.buffer = Buffer::Spool(spool);
                } else {
                    *bytes = bytes.saturating_add(size).saturating_add(CHANGE_OVERHEAD_BYTES);
                    changes.push(change);
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, commit: Commit) -> Result<Transaction, AssembleError> {
        let Open { begin, buffer, begun, .. } = self.open.take().ok_or(Violation::Outside("commit"))?;
        if begin.final_lsn != commit.commit_lsn {
            let (announced, committed) = (begin.final_lsn, commit.commit_lsn);
            return Err(Violation::CommitMismatch { announced, committed }.into());
        }
        Ok(Transaction {
            commit_lsn: commit.commit_lsn,
            end_lsn: commit.end_lsn,
            xid: begin.xid,
            commit_time: commit.commit_time,
            begun,
            changes: match buffer {
                Buffer::Memory { changes, .. } => Changes::Memory(changes),
                Buffer::Spool(spool) => Changes::Spooled(spool.finish()?),
            },
        })
    }
}
