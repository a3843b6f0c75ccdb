//! pgoutput, protocol version 1, text format: bytes of an XLogData payload to a [`LogicalMessage`].
//!
//! Source: PostgreSQL documentation, "Logical Replication Message Formats"
//! (<https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>). No IO, no panic on any
//! input; values stay the bytes that came in, shared and not copied.

mod condense;
mod decode;
mod encode;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod tuple;

use bytes::Bytes;

pub use condense::{Condenser, LongMessages};
pub use decode::{DecodeError, Problem, decode};
pub use tuple::{Cell, CellSpan, Row, Tuple, TupleTooLarge};

use super::{Lsn, PgTimestamp};

/// The schema whose name the stream leaves empty.
const CATALOG_NAMESPACE: &str = "pg_catalog";

/// One message of the stream.
#[derive(Clone, Debug, PartialEq)]
pub enum LogicalMessage {
    Begin(Begin),
    Commit(Commit),
    Origin(Origin),
    Relation(Relation),
    Type(Type),
    Insert { relation: RelationId, new: Tuple },
    Update { relation: RelationId, old: Option<OldTuple>, new: Tuple },
    Delete { relation: RelationId, old: OldTuple },
    Truncate { relations: Vec<RelationId>, cascade: bool, restart_identity: bool },
    Message(EmittedMessage),
}

/// Opens a transaction; it already names the commit's position, by which transactions are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    pub final_lsn: Lsn,
    pub commit_time: PgTimestamp,
    pub xid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where the commit record starts; equals [`Begin::final_lsn`].
    pub commit_lsn: Lsn,
    /// Where it ends: the only position of a transaction that may be confirmed.
    pub end_lsn: Lsn,
    pub commit_time: PgTimestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub commit_lsn: Lsn,
    pub name: String,
}

/// A type that is not built in, named before the first relation that uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    pub oid: u32,
    pub namespace: String,
    pub name: String,
}

/// A logical decoding message, written by `pg_logical_emit_message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmittedMessage {
    pub transactional: bool,
    pub lsn: Lsn,
    pub prefix: String,
    pub content: Bytes,
}

/// A table's oid, as relation messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationId(pub u32);

/// A table as it was when the changes that follow were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub id: RelationId,
    pub namespace: String,
    pub name: String,
    pub identity: ReplicaIdentity,
    pub columns: Vec<RelationColumn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    pub name: String,
    pub type_oid: u32,
    pub type_modifier: i32,
    /// Part of the replica identity.
    pub is_key: bool,
}

/// What the old tuple of an update or delete holds (`pg_class.relreplident`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    Default,
    Nothing,
    Full,
    Index,
}

/// The row before an update or delete, as far as the replica identity tells.
#[derive(Clone, Debug, PartialEq)]
pub enum OldTuple {
    /// Only the columns of the replica identity are set; the others read as null and say nothing.
    Key(Tuple),
    /// Every column (replica identity full).
    Full(Tuple),
}

impl OldTuple {
    #[must_use]
    pub const fn tuple(&self) -> &Tuple {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }
}

#[cfg(test)]
mod tests;
