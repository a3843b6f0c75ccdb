//! PostgreSQL as walcast speaks to it: connections, the replication wire, pgoutput, the live schema.
//!
//! ```text
//! Dsn ─► Socket (TCP, unix; TLS) ─► startup, authentication ─► ReplicationConnection ─► CopyData bytes
//!                                                                                          │
//!                                                        LogicalMessage ◄─ pgoutput::decode ┘
//! ```
//!
//! The decoders do no IO and never panic, whatever the bytes are. Nothing here knows what a change means.

mod lsn;
pub mod pgoutput;
pub mod schema;
mod timestamp;

pub use lsn::Lsn;
pub use timestamp::PgTimestamp;
