//! PostgreSQL as walcast speaks to it: connections, the replication wire, pgoutput, the live schema.
//!
//! ```text
//! Dsn ─► Socket (TCP, unix; TLS) ─► startup, authentication ─► ReplicationConnection ─► CopyData bytes
//!                                                                                          │
//!                                                        LogicalMessage ◄─ pgoutput::decode ┘
//! ```
//!
//! The decoders do no IO and never panic, whatever the bytes are. Nothing here knows what a change means.

pub mod client;
pub mod dsn;
pub mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod lsn;
mod passfile;
pub mod pgoutput;
pub mod record;
pub mod replication;
pub mod schema;
mod socket;
mod startup;
mod timestamp;
mod tls;
mod wire;

pub use client::Client;
pub use dsn::{Dsn, DsnError};
pub use error::{ConnectError, ConnectFailure, ServerError, StreamError};
pub use lsn::Lsn;
pub use replication::{ReplicationConnection, ReplicationMessage, ReplicationStream};
pub use timestamp::PgTimestamp;
