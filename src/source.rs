//! Where transactions come from: whole, committed, in commit order.
//!
//! ```text
//! slot ─► ReplicationStream ─► Assembler ─► Transaction ─► SourceItem ─► whoever called next()
//!   ▲                                                          │
//!   └── status ◄── confirmable() ◄── Timeline ◄── processed ◄──┘ by calling next() again
//! ```
//!
//! A [`Source`] yields [`SourceItem`]s. It knows no organization and gives rows no meaning. [`WalSource`] reads a
//! replication slot, [`OutboxSource`] a table that triggers write, with positions of its own that serve as LSNs do:
//! bytes of one history. Whatever the server does they keep trying, and say so in the items they yield.

mod any;
mod assembler;
mod backoff;
mod confirm;
mod connect;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod heartbeat;
mod item;
mod kind;
mod lineage;
mod link;
mod news;
mod outbox;
mod parts;
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

pub use any::Source;
pub use assembler::{AssembleError, Violation};
pub use backoff::Backoff;
pub use item::{Identity, ResetReason, SourceItem};
pub use kind::{Kind, Prospects};
pub use outbox::OutboxSource;
pub use policy::{ErrorKind, Fatal, SourceError, sqlstate};
pub use relations::{CANARY_PREFIX, EMIT_PREFIX};
pub use snapshot::{InvalidSnapshot, Snapshot};
pub use spool::Spool;
pub use transaction::{Change, ChangeReader, Changes, Operation, Part, RowChange, Transaction};
pub use visibility::{Visibility, Visible};
pub use wal::{WalSource, slot_name};
