//! The configuration: flags over `WALCAST_*` variables over `walcast.toml` over defaults.
//!
//! One struct a section, each handed to the module that it is for. Unknown keys are errors; secrets never print.
//! All mistakes are found at once, and each names its place: `walcast.toml:12: …`.
//!
//! ```text
//! walcast.reference.toml ─► walcast.toml ─► DATABASE_URL ─► WALCAST_* ─► --set   each layer over the one before
//! ```

mod access;
mod check;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keys;
mod layer;
mod live;
mod load;
mod nearest;
mod preset;
mod secret;
mod units;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

pub use access::{Access, Algorithm, AuthJs, Memberships, Organizations};
pub use error::{ConfigError, ConfigErrors, Origin};
pub use keys::{KEYS, Key, Shape};
pub use live::Live;
pub use load::Layers;
pub use nearest::nearest;
pub use preset::{Keepalive, Preset};
pub use secret::Secret;
pub use units::{ByteSize, parse_duration};

/// Everything that can be configured.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub database: Database,
    pub source: Source,
    pub replay: Replay,
    pub journal: Journal,
    pub mirror: Mirror,
    pub catalog: Catalog,
    pub channels: Channels,
    pub http: Http,
    pub access: Access,
    pub limits: Limits,
    pub canary: Canary,
    pub presence: Presence,
    pub presets: Vec<Preset>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `postgres://user:password@host:port/database?sslmode=…`; also `DATABASE_URL`.
    pub url: Option<Secret>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    pub kind: SourceKind,
    /// The slot's name; `walcast_<database>` when not given. Slot names are cluster-wide.
    pub slot: Option<String>,
    pub publication: String,
    /// Bytes of one transaction kept in memory; what is larger is spooled to a temporary file.
    pub max_transaction: ByteSize,
    /// Bytes of one row's message kept in memory. Of a larger one, values that do not fit are read and dropped, and
    /// events that need them go out as `oversize`.
    pub max_row: ByteSize,
    /// Bytes of the outbox on disk, above which nothing more is written to it; four times `replay.max_wal` when not
    /// given, 0 for no end. `setup` stores it.
    pub max_outbox: Option<ByteSize>,
}

impl Config {
    /// Where an outbox ends that nobody reads, in bytes; none: nowhere.
    #[must_use]
    pub fn max_outbox(&self) -> Option<u64> {
        let bytes = self.source.max_outbox.map_or(self.replay.max_wal.0.saturating_mul(4), |size| size.0);
        (bytes > 0).then_some(bytes)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    #[default]
    Auto,
    Wal,
    Outbox,
}

/// How far back a stream can resume. Whichever bound is met first ends the window.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replay {
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub max_age: Duration,
    pub max_memory: ByteSize,
    /// Write-ahead log from the confirmed position to the head.
    pub max_wal: ByteSize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// An event above this goes out without its data, as `oversize`.
    pub max_event: ByteSize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mirror {
    /// All mirrored rows together; more is an operator error.
    pub max_memory: ByteSize,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Catalog {
    /// A TOML file, or a folder whose `*.toml` files are read in the order of their names.
    pub path: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Channels {
    /// Channels that only `walcast.emit` uses.
    pub extra: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    pub listen: SocketAddr,
    /// A second listener for /metrics and the reasons behind readiness, without authentication.
    pub admin_listen: Option<SocketAddr>,
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub keepalive: Duration,
    /// A socket that takes nothing for so long is closed.
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub write_timeout: Duration,
    /// Over how long a stopping worker closes its streams.
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub drain: Duration,
    /// Origins such as `https://app.example.com` that may read with credentials.
    pub allowed_origins: Vec<String>,
    /// Addresses or networks (`10.0.0.0/8`) whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<String>,
}

/// 0 is no limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Of one user in one organization.
    pub streams_per_user: u32,
    pub streams_per_address: u32,
    pub streams: u32,
    pub opens_per_second: u32,
    pub events_per_minute: u32,
    pub when_full: WhenFull,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    #[default]
    Refuse,
    EvictOldest,
}

/// The heartbeat through the source, by which the worker knows how old what streams show is.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Canary {
    /// How often it is written; 0: never.
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub interval: Duration,
    /// From this age on, readiness and streams say so.
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub stale_after: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Presence {
    /// How long a user's last stream may be gone before they are.
    #[serde(deserialize_with = "units::deserialize_duration")]
    pub grace: Duration,
}

const MIB: u64 = 1 << 20;

impl Default for Source {
    fn default() -> Self {
        Self {
            kind: SourceKind::Auto,
            slot: None,
            publication: "walcast".to_owned(),
            max_transaction: ByteSize(64 * MIB),
            max_row: ByteSize(32 * MIB),
            max_outbox: None,
        }
    }
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(600),
            max_memory: ByteSize(256 * MIB),
            max_wal: ByteSize(256 * MIB),
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self { max_event: ByteSize(MIB) }
    }
}

impl Default for Mirror {
    fn default() -> Self {
        Self { max_memory: ByteSize(256 * MIB) }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: None,
            keepalive: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(5),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams_per_user: 10,
            streams_per_address: 100,
            streams: 100_000,
            opens_per_second: 1000,
            events_per_minute: 0,
            when_full: WhenFull::Refuse,
        }
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), stale_after: Duration::from_secs(30) }
    }
}

impl Default for Presence {
    fn default() -> Self {
        Self { grace: Duration::from_secs(3) }
    }
}
