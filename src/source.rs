//! Where transactions come from: whole, committed, in commit order.
//!
//! A source yields [`SourceItem`]s. It knows no organization and gives rows no meaning.

mod transaction;

pub use transaction::{Change, Operation, RowChange, Transaction};
