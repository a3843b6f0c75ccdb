//! What a source yields.

use std::fmt;
use std::time::Duration;

use super::policy::ErrorKind;
use super::{Part, Transaction};
use crate::postgres::{Lsn, PgTimestamp};

/// One step of a source, in the order in which it happened.
#[derive(Debug)]
pub enum SourceItem {
    /// Where the source was told that it may: more of a transaction follows, or it comes again after a `Disconnected`.
    Part(Part),
    Transaction(Transaction),
    /// Every commit below `lsn` has been yielded. Only between transactions, and always above the last one.
    Position {
        lsn: Lsn,
        server_time: PgTimestamp,
    },
    /// Data flows again, from `start` on. The first item of a process, unless it can't connect.
    Connected {
        identity: Identity,
        start: Lsn,
    },
    /// Nothing flows until the next `Connected`. Yielded again when the reason changes.
    Disconnected {
        kind: ErrorKind,
        /// What it is, and what to do about it.
        error: String,
        /// The slot, or the outbox, is being read by another connection: a second worker waits for its turn. Also shortly after our
        /// own connection broke, until the server has noticed.
        standby: bool,
        retry_in: Duration,
    },
    /// History can't be continued: what was yielded before is no prefix of what follows. Right before the
    /// `Connected` that it belongs to.
    Reset {
        reason: ResetReason,
        identity: Identity,
        start: Lsn,
    },
}

/// Whose history it is: what an epoch is made of, besides the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `IDENTIFY_SYSTEM`'s, decimal, unique to a cluster; of an outbox the id of its history.
    pub system_identifier: String,
    pub timeline: u32,
    pub database_oid: u32,
    pub database: String,
    /// A digest of what is published: another one when the publication was made again, or one of its tables was
    /// taken out, even if it was put back. What was written in between is in no stream.
    pub publication: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// There was no slot; one was made.
    SlotMissing,
    /// The server had removed WAL that the slot needed; it was dropped and made again.
    SlotLost,
    /// The slot was confirmed beyond what this process had seen: somebody else read from it.
    SlotAdvanced,
    /// The outbox was pruned beyond what this process had seen: another worker read it meanwhile.
    OutboxPruned,
    /// Another history of the outbox: some of what was written had no room in it, or was taken out of it, or an older
    /// state was restored.
    OutboxCut,
    /// A row of the outbox can't be read as a row of its table.
    OutboxUnreadable,
    /// Another cluster, timeline or database than the one before.
    ServerChanged,
    /// A standby was promoted that had all that this process had seen, and has the slot: ids are of a new epoch, and
    /// nothing is missing.
    Promoted,
    /// The server's log ends before the last position that this process saw.
    ServerBehind,
    /// The publication was made again, or a table was taken out of it or put back.
    PublicationChanged,
    /// A partition was truncated or detached: its rows went without a trace in the stream.
    PartitionCut,
}

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SlotMissing => "the replication slot was missing and has been created",
            Self::SlotLost => "the replication slot had lost its log and has been created again",
            Self::SlotAdvanced => "the replication slot was moved on by somebody else",
            Self::OutboxPruned => "another worker pruned the outbox beyond the last position seen",
            Self::OutboxCut => {
                "the outbox was full, emptied or restored: some of what was written may be missing"
            }
            Self::OutboxUnreadable => "a transaction of the outbox can't be read and is skipped",
            Self::ServerChanged => "the server is another cluster, timeline or database than before",
            Self::Promoted => "a standby was promoted; it has all that was seen, and events go on after that",
            Self::ServerBehind => "the server's log ends before the last position seen",
            Self::PublicationChanged => "what is published changed: some of what was written may be missing",
            Self::PartitionCut => "a partition was truncated or detached, which is not in the stream",
        })
    }
}
