//! The wiring: every task that lives long is spawned here, and only here everything is known.
//!
//! ```text
//! worker ── bring-up ──► pipeline: source ─► mirror ─► catalog ─► journal        (one task, in commit order)
//!                                                                  │ watermark
//! http ── accept ─► request ─► access ─► hub ─► stream ◄───────────┘             (a task a connection)
//! ```
//!
//! A client that blocks holds its own task and nothing else; the pipeline waits for nobody but Postgres. Stopping
//! goes the other way round: no more connections, the transaction in hand, the streams, the confirmation.

mod epoch;
mod pipeline;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::postgres::dsn::Dsn;
