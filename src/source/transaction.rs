//! A committed transaction and its changes.
//!
//! ```text
//! Transaction ─ reader() ─► ChangeReader ─ next() ─► &Change      as often as needed, from the first change on
//!                  ▲
//!     Changes::Memory | Changes::Spooled (the head in memory, the rest in an unlinked file)
//!
//! Part, Part, … Transaction { begun: true }      a long one, as it comes: each has the changes after those before it
//! ```
//!
//! Which of the two it is makes no difference to a reader: the same changes in the same order, each bound to the
//! relation as it was when the change was made.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::spool::{Spool, SpoolReader};
use crate::postgres::pgoutput::{EmittedMessage, OldTuple, Relation, Tuple};
use crate::postgres::{Lsn, PgTimestamp};

/// One committed transaction, whole.
#[derive(Debug)]
pub struct Transaction {
    /// Where its commit record starts: transactions are ordered by it, and event ids name it.
    pub commit_lsn: Lsn,
    /// Where its commit record ends: what may be confirmed once it is dealt with.
    pub end_lsn: Lsn,
    /// The low 32 bits of its transaction id.
    pub xid: u32,
    pub commit_time: PgTimestamp,
    /// Its first changes were handed out before, as [`Part`]s, and are not among these.
    pub begun: bool,
    pub changes: Changes,
}

/// Changes of a transaction that has committed and is still being received. More of it follows, or it comes again from
/// its first change on, when the connection has broken.
#[derive(Debug)]
pub struct Part {
    pub commit_lsn: Lsn,
    pub xid: u32,
    pub commit_time: PgTimestamp,
    /// Nothing of the transaction was handed out before.
    pub first: bool,
    /// Always in memory.
    pub changes: Changes,
}

impl Transaction {
    /// Reads the changes from the first one on. Readers are independent of each other.
    ///
    /// # Errors
    /// Never for changes in memory; a spool's file may fail.
    pub fn reader(&self) -> io::Result<ChangeReader<'_>> {
        self.changes.reader()
    }
}

/// The changes of one transaction, in the order they were made.
#[derive(Debug)]
pub enum Changes {
    Memory(Vec<Change>),
    /// More than `source.max_transaction`.
    Spooled(Spool),
}

impl Changes {
    /// Reads the changes from the first one on.
    ///
    /// # Errors
    /// Never for changes in memory; a spool's file may fail.
    pub fn reader(&self) -> io::Result<ChangeReader<'_>> {
        Ok(ChangeReader(match self {
            Self::Memory(changes) => From::Memory(changes.iter()),
            Self::Spooled(spool) => From::Spool(Box::new(spool.reader())),
        }))
    }

    /// Whether one may be of a row of such a table: what is known without reading a file.
    pub fn touch(&self, wanted: impl FnMut(&Arc<Relation>) -> bool) -> bool {
        match self {
            Self::Memory(changes) => changes.iter().filter_map(Change::relation).any(wanted),
            Self::Spooled(spool) => spool.touches(wanted),
        }
    }

    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(changes) => changes.len() as u64,
            Self::Spooled(spool) => spool.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Hands out a transaction's changes one by one, in bounded memory.
#[derive(Debug)]
pub struct ChangeReader<'a>(From<'a>);

#[derive(Debug)]
enum From<'a> {
    Memory(std::slice::Iter<'a, Change>),
    Spool(Box<SpoolReader<'a>>),
}

impl ChangeReader<'_> {
    /// The next change; none after the last.
    ///
    /// # Errors
    /// The spool's file could not be read, or does not hold what was written.
    #[expect(clippy::should_implement_trait, reason = "it lends what the next call replaces")]
    pub fn next(&mut self) -> io::Result<Option<&Change>> {
        match &mut self.0 {
            From::Memory(changes) => Ok(changes.next()),
            From::Spool(reader) => reader.next(),
        }
    }
}

/// One change of a transaction, in the order it was made.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Row(RowChange),
    Truncate(Vec<Arc<Relation>>),
    /// A transactional message with walcast's own prefix.
    Emit(EmittedMessage),
    /// A heartbeat that some worker wrote, or somebody in its name; no event.
    Canary(Bytes),
}

impl Change {
    /// The table, where it is a row's.
    pub(super) const fn relation(&self) -> Option<&Arc<Relation>> {
        match self {
            Self::Row(row) => Some(&row.relation),
            Self::Truncate(_) | Self::Emit(_) | Self::Canary(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct RowChange {
    /// The same `Arc` for as long as the table's definition stays: compare by pointer to notice a new one.
    pub relation: Arc<Relation>,
    pub operation: Operation,
    /// The row before, for updates and deletes, as far as the replica identity tells.
    pub old: Option<OldTuple>,
    /// The row after, for inserts and updates.
    pub new: Option<Tuple>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Insert,
    Update,
    Delete,
}
