//! The seam between the sources and everything downstream, which is the same for both.

use super::kind::Kind;
use super::policy::Fatal;
use super::{OutboxSource, ResetReason, SourceItem, WalSource};
use crate::config::Config;
use crate::postgres::dsn::Dsn;
use crate::postgres::schema::TableName;
use crate::postgres::{Lsn, PgTimestamp};

/// A source of either kind. What its methods promise is written at [`WalSource`]'s.
#[derive(Debug)]
pub enum Source {
    Wal(Box<WalSource>),
    Outbox(Box<OutboxSource>),
}

impl Source {
    /// Connects at the first call of [`Source::next`]. Of what the database gives, only `tables` matter.
    #[must_use]
    pub fn new(kind: Kind, config: &Config, dsn: Dsn, tables: Vec<TableName>) -> Self {
        let (source, replay) = (&config.source, &config.replay);
        match kind {
            Kind::Wal => Self::Wal(Box::new(WalSource::new(source, replay, dsn).of_tables(tables))),
            Kind::Outbox => Self::Outbox(Box::new(OutboxSource::new(source, replay, dsn).of_tables(tables))),
        }
    }

    /// Hands out long transactions in parts, as they come, as far as no row of these tables is among them. Those of an
    /// outbox are handed out whole.
    #[must_use]
    pub fn in_parts(self, whole: Vec<TableName>) -> Self {
        match self {
            Self::Wal(source) => Self::Wal(Box::new(source.in_parts(whole))),
            Self::Outbox(source) => Self::Outbox(source),
        }
    }

    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Wal(_) => Kind::Wal,
            Self::Outbox(_) => Kind::Outbox,
        }
    }

    /// The next step; by calling, what was yielded before has been dealt with. Cancel-safe.
    ///
    /// # Errors
    /// Only what can never work.
    pub async fn next(&mut self) -> Result<SourceItem, Fatal> {
        match self {
            Self::Wal(source) => source.next().await,
            Self::Outbox(source) => source.next().await,
        }
    }

    /// A transaction, or a part of one, that has already come, without waiting.
    pub fn try_next(&mut self) -> Option<SourceItem> {
        match self {
            Self::Wal(source) => source.try_next(),
            Self::Outbox(source) => source.try_next(),
        }
    }

    /// A sign of life during long work. An outbox's server asks for none.
    pub async fn pulse(&mut self) {
        match self {
            Self::Wal(source) => source.pulse().await,
            Self::Outbox(_) => {}
        }
    }

    /// The position of the oldest transaction that the journals keep.
    pub fn retain(&mut self, oldest_kept: Option<Lsn>) {
        match self {
            Self::Wal(source) => source.retain(oldest_kept),
            Self::Outbox(source) => source.retain(oldest_kept),
        }
    }

    /// The end of the server's log, or of the outbox.
    #[must_use]
    pub fn server_head(&self) -> Lsn {
        match self {
            Self::Wal(source) => source.server_head(),
            Self::Outbox(source) => source.server_head(),
        }
    }

    /// Where the replay window begins.
    #[must_use]
    pub fn window_start(&self) -> Option<(PgTimestamp, Lsn)> {
        match self {
            Self::Wal(source) => source.window_start(),
            Self::Outbox(source) => source.window_start(),
        }
    }

    /// What the database may forget.
    #[must_use]
    pub fn confirmed(&self) -> Lsn {
        match self {
            Self::Wal(source) => source.confirmed(),
            Self::Outbox(source) => source.confirmed(),
        }
    }

    /// Bytes of log from the confirmed position to the head, from now on. A slot gives way; nothing presses an outbox.
    pub fn limit_wal(&mut self, max_bytes: u64) {
        match self {
            Self::Wal(source) => source.limit_wal(max_bytes),
            Self::Outbox(_) => {}
        }
    }

    /// What is published, or written, by now, none being nothing at all: where it is not what this history began with,
    /// another begins.
    pub fn expect_publication(&mut self, digest: Option<&str>) {
        match self {
            Self::Wal(source) => source.expect_publication(digest),
            Self::Outbox(source) => source.expect_publication(digest),
        }
    }

    /// Something happened that neither log nor outbox tells: gives the history up, and begins another.
    pub fn begin_anew(&mut self, reason: ResetReason) {
        match self {
            Self::Wal(source) => source.begin_anew(reason),
            Self::Outbox(source) => source.begin_anew(reason),
        }
    }

    /// Confirms and leaves, so that another worker takes over at once.
    pub async fn shutdown(self) {
        match self {
            Self::Wal(source) => source.shutdown().await,
            Self::Outbox(source) => source.shutdown().await,
        }
    }
}
