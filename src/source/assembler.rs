//! Messages to whole transactions.
//!
//! ```text
//! Begin ─► Open { changes in memory ─ above the limit ─► head in memory, rest in a file } ─ Commit ─► Transaction
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

use bytes::Bytes;

use super::relations::Relations;
use super::spool::SpoolWriter;
use super::{Change, Changes, Transaction};
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
}

#[derive(Debug)]
struct Open {
    begin: Begin,
    buffer: Buffer,
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
        Self { relations: Relations::default(), open: None, limit_bytes }
    }

    /// Between `Begin` and `Commit`.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// `raw` is what `message` was decoded from. The transaction, once its commit has come.
    pub(super) fn push(
        &mut self,
        raw: &Bytes,
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
                self.count(raw);
                self.relations.define(relation);
            }
            LogicalMessage::Origin(_) | LogicalMessage::Type(_) => self.count(raw),
            LogicalMessage::Message(message) if !message.transactional => self.count(raw),
            change => self.change(raw, change)?,
        }
        Ok(None)
    }

    fn begin(&mut self, begin: Begin) -> Result<(), Violation> {
        if self.open.is_some() {
            return Err(Violation::NestedBegin);
        }
        self.open = Some(Open { begin, buffer: Buffer::Memory { changes: Vec::new(), bytes: 0 } });
        Ok(())
    }

    /// A message that is not kept, and may lie beside one that is.
    fn count(&mut self, raw: &Bytes) {
        if let Some(Open { buffer: Buffer::Memory { changes, bytes }, .. }) = &mut self.open
            && !changes.is_empty()
        {
            *bytes = bytes.saturating_add(raw.len() as u64);
        }
    }

    fn change(&mut self, raw: &Bytes, message: LogicalMessage) -> Result<(), AssembleError> {
        if self.open.is_none() {
            return Err(Violation::Outside("change").into());
        }
        // Bound in any case: a spooled change of an unknown relation is an error now, not when it is read.
        let Some(change) = self.relations.bind(message)? else {
            self.count(raw);
            return Ok(());
        };
        let Some(open) = &mut self.open else { return Ok(()) };
        match &mut open.buffer {
            Buffer::Spool(spool) => spool.push(raw)?,
            Buffer::Memory { changes, bytes } => {
                let size = raw.len() as u64 + CHANGE_OVERHEAD_BYTES;
                if bytes.saturating_add(size) <= self.limit_bytes {
                    *bytes += size;
                    changes.push(change);
                } else {
                    let mut spool = SpoolWriter::new(std::mem::take(changes), self.relations.clone())?;
                    spool.push(raw)?;
                    open.buffer = Buffer::Spool(spool);
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, commit: Commit) -> Result<Transaction, AssembleError> {
        let Open { begin, buffer } = self.open.take().ok_or(Violation::Outside("commit"))?;
        if begin.final_lsn != commit.commit_lsn {
            let (announced, committed) = (begin.final_lsn, commit.commit_lsn);
            return Err(Violation::CommitMismatch { announced, committed }.into());
        }
        Ok(Transaction {
            commit_lsn: commit.commit_lsn,
            end_lsn: commit.end_lsn,
            xid: begin.xid,
            commit_time: commit.commit_time,
            changes: match buffer {
                Buffer::Memory { changes, .. } => Changes::Memory(changes),
                Buffer::Spool(spool) => Changes::Spooled(spool.finish()?),
            },
        })
    }
}
