//! The one task in commit order: source to mirror to catalog to journal.
//!
//! ```text
//! SourceItem::Transaction ─► begin ─► for each change: mirror.apply, map, append ─► publish ─► retain
//! SourceItem::Position    ─────────────────────────────────────────────────────────► publish ─► retain
//! SourceItem::Reset       ─► a new epoch, an empty journal, the mirror read again
//! ```
//!
//! Nothing here waits for a stream. A transaction is seen by streams whole or not at all: its events are appended
//! first and published at its end, and a transaction that breaks off is discarded and read again from the source.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::epoch::epoch;
use crate::catalog::{Compiled, Mapper};
use crate::config::Config;
use crate::journal::Journals;
use crate::mirror::Mirror;
use crate::postgres::client;
use crate::postgres::dsn::Dsn;
use crate::postgres::schema::Types;
use crate::postgres::{Lsn, PgTimestamp};
use crate::source::visibility::Recorder;
use crate::source::{Change, SourceItem, Transaction, WalSource};
use crate::telemetry::{Metrics, Phase, Readiness, Reason};

/// How often the window is trimmed and the gauges are set, when nothing else does it.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Changes between two looks at whether the server wants a sign of life, and between two yields to other tasks.
const CHANGES_A_PULSE: u32 = 512;
