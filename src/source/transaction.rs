//! A committed transaction and its changes.

use std::sync::Arc;

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
    pub changes: Vec<Change>,
}

/// One change of a transaction, in the order it was made.
#[derive(Clone, Debug)]
pub enum Change {
    Row(RowChange),
    Truncate(Vec<Arc<Relation>>),
    /// A transactional message with walcast's own prefix.
    Emit(EmittedMessage),
}

#[derive(Clone, Debug)]
pub struct RowChange {
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
