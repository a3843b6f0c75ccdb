//! Where transactions come from: whole, committed, in commit order.
//!
//! ```text
//! slot ─► ReplicationStream ─► Assembler ─► Transaction ─► SourceItem ─► whoever called next()
//!   ▲                                                          │
//!   └── status ◄── confirmable() ◄── Timeline ◄── processed ◄──┘ by calling next() again
//! ```
//!
//! A source yields [`SourceItem`]s. It knows no organization and gives rows no meaning. [`WalSource`] reads a
//! replication slot; whatever the server does it keeps trying, and says so in the items it yields.

mod assembler;
mod backoff;
mod confirm;
mod connect;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod item;
mod link;
mod policy;
mod progress;
mod publication;
mod relations;
pub mod setup;
mod snapshot;
mod spool;
mod transaction;
mod visibility;
mod wal;
pub mod watch;

pub use assembler::{AssembleError, Violation};
pub use backoff::Backoff;
pub use item::{Identity, ResetReason, SourceItem};
pub use policy::{ErrorKind, SourceError, sqlstate};
pub use relations::{CANARY_PREFIX, EMIT_PREFIX};
pub use snapshot::{InvalidSnapshot, Snapshot};
pub use spool::Spool;
pub use transaction::{Change, ChangeReader, Changes, Operation, RowChange, Transaction};
pub use visibility::{Visibility, Visible};
pub use wal::{Fatal, WalSource, slot_name};
