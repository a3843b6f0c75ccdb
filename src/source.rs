//! Where transactions come from: whole, committed, in commit order.
//!
//! A source yields [`SourceItem`]s. It knows no organization and gives rows no meaning.

mod item;
mod policy;
mod snapshot;
mod spool;
mod transaction;

pub use item::{Identity, ResetReason, SourceItem};
pub use policy::ErrorKind;
pub use snapshot::{InvalidSnapshot, Snapshot};
pub use spool::Spool;
pub use transaction::{Change, ChangeReader, Changes, Operation, RowChange, Transaction};
