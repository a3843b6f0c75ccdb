//! Which source a database is set up for: what `setup` chose and stored, and what `run` finds.

use std::fmt;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use crate::config::SourceKind;

/// A kind of source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The write-ahead log, through a replication slot.
    #[default]
    Wal,
    /// A table that triggers write.
    Outbox,
}

/// What is known of a database when a source has to be chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prospects {
    pub wal_level: String,
    /// Whether the role in question may read a slot.
    pub may_replicate: bool,
    /// What it was set up for; none before, or by a version that only knew the log.
    pub stored: Option<Kind>,
    /// The role may not read what it was set up for.
    pub hidden: bool,
}

const PROSPECTS: &str = "
select current_setting('wal_level'), coalesce(
       (select rolsuper or rolreplication from pg_catalog.pg_roles where rolname = coalesce($1, current_user::text)),
       false)";
const STORED: &str = "select source from walcast.meta";

impl Prospects {
    /// `role` is who will run the worker; none: whoever asks.
    ///
    /// # Errors
    /// A query failed.
    pub async fn fetch(client: &Client, role: Option<&str>) -> Result<Self, Error> {
        let row = client.query_one(PROSPECTS, &[&role]).await?;
        let (stored, hidden) = fetch_stored(client).await?;
        Ok(Self { wal_level: row.try_get(0)?, may_replicate: row.try_get(1)?, stored, hidden })
    }

    /// What to set up. `auto` keeps what is set up, so that ids stay; else the log, where it can be read.
    #[must_use]
    pub fn choose(&self, configured: SourceKind) -> Kind {
        match configured {
            SourceKind::Wal => Kind::Wal,
            SourceKind::Outbox => Kind::Outbox,
            SourceKind::Auto => self.stored.unwrap_or({
                if self.wal_level == "logical" && self.may_replicate { Kind::Wal } else { Kind::Outbox }
            }),
        }
    }

    /// Why that, as a clause.
    #[must_use]
    pub fn why(&self, configured: SourceKind) -> String {
        match (configured, self.stored) {
            (SourceKind::Wal | SourceKind::Outbox, _) => "source.kind says so".to_owned(),
            (SourceKind::Auto, Some(_)) => "the database is set up for it".to_owned(),
            (SourceKind::Auto, None) if self.wal_level != "logical" => {
                format!("wal_level is {}, and reading the log needs logical", self.wal_level)
            }
            (SourceKind::Auto, None) if !self.may_replicate => {
                "the worker's role may not replicate".to_owned()
            }
            (SourceKind::Auto, None) => {
                "wal_level is logical, and the worker's role may replicate".to_owned()
            }
        }
    }
}

/// None before `walcast migrate`, and, as is said beside it, for a role that `setup --role` was not run for.
async fn fetch_stored(client: &Client) -> Result<(Option<Kind>, bool), Error> {
    match client.query_one(STORED, &[]).await {
        Ok(row) => Ok((row.try_get::<_, Option<String>>(0)?.and_then(|stored| Kind::parse(&stored)), false)),
        Err(error) => match error.code() {
            Some(&(SqlState::UNDEFINED_TABLE | SqlState::INVALID_SCHEMA_NAME)) => Ok((None, false)),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok((None, true)),
            _ => Err(error),
        },
    }
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        [Self::Wal, Self::Outbox].into_iter().find(|kind| kind.as_str() == text)
    }

    /// As the configuration and `walcast.meta` spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wal => "wal",
            Self::Outbox => "outbox",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(wal_level: &str, may_replicate: bool, stored: Option<Kind>, configured: SourceKind) -> Kind {
        Prospects { wal_level: wal_level.to_owned(), may_replicate, stored, hidden: false }.choose(configured)
    }

    #[test]
    fn auto_is_the_log_where_it_can_be_read_and_what_was_set_up_stays() {
        let auto = SourceKind::Auto;
        assert_eq!(chosen("logical", true, None, auto), Kind::Wal);
        assert_eq!(chosen("replica", true, None, auto), Kind::Outbox);
        assert_eq!(chosen("logical", false, None, auto), Kind::Outbox);
        assert_eq!(chosen("logical", true, Some(Kind::Outbox), auto), Kind::Outbox);
        assert_eq!(chosen("logical", false, Some(Kind::Wal), auto), Kind::Wal);
        assert_eq!(chosen("logical", true, Some(Kind::Wal), SourceKind::Outbox), Kind::Outbox);
    }
}
