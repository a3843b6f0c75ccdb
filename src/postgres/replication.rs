//! The replication connection: `replication=database`, its commands, and how it becomes a stream.
//!
//! Source: PostgreSQL documentation, "Streaming Replication Protocol". Commands are simple queries; text format only.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod long;
mod message;
mod query;
mod stream;

use crate::postgres::dsn::Dsn;
use crate::postgres::error::{ConnectError, ProtocolError, StreamError};
use crate::postgres::pgoutput::LongMessages;
use crate::postgres::startup;
use crate::postgres::wire::Wire;

use super::Lsn;
pub use message::{Keepalive, ReplicationMessage, XLogData};
pub use query::TextRow;
pub use stream::ReplicationStream;

/// Values come as the stream prints them: fixed here, whatever the role's or database's defaults.
const SESSION_FORMAT: &str = "-c datestyle=ISO -c timezone=UTC -c intervalstyle=postgres \
                              -c extra_float_digits=1 -c bytea_output=hex";

/// `messages` of pgoutput, and so `walcast.emit`, came with PostgreSQL 14.
const OLDEST_SERVER: u32 = 140_000;
/// Options of CREATE_REPLICATION_SLOT in parentheses.
const SLOT_OPTIONS_SINCE: u32 = 150_000;
const FAILOVER_SINCE: u32 = 170_000;
/// A walsender decodes a transaction in one of its own: a limit to that, of the role's or the database's, would end
/// every attempt at a long one.
const TRANSACTION_TIMEOUT_SINCE: u32 = 170_000;

/// A walsender that takes commands.
#[derive(Debug)]
pub struct ReplicationConnection {
    wire: Wire,
    server_version: u32,
}

/// The answer to IDENTIFY_SYSTEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    pub system_id: String,
    pub timeline: u32,
    /// How far the log is flushed.
    pub position: Lsn,
    pub database: String,
}

impl ReplicationConnection {
    pub async fn connect(dsn: &Dsn) -> Result<Self, ConnectError> {
        let options = match &dsn.options {
            // Ours last: the last one of a setting counts.
            Some(own) => format!("{own} {SESSION_FORMAT}"),
            None => SESSION_FORMAT.to_owned(),
        };
        let session = startup::connect(dsn, &[("replication", "database"), ("options", &options)]).await?;
        let reported = session.parameters.get("server_version").map_or("", String::as_str);
        let failed = |error: StreamError| ConnectError { host: session.host.clone(), failure: error.into() };
        let server_version = version_number(reported).ok_or_else(|| {
            failed(ProtocolError::Answer { command: "the startup message", what: "server_version" }.into())
        })?;
        if server_version < OLDEST_SERVER {
            return Err(failed(StreamError::TooOld { version: reported.to_owned() }));
        }
        Ok(Self { wire: session.wire, server_version })
    }

    /// As `server_version_num`: 150018 is 15.18.
    #[must_use]
    pub const fn server_version(&self) -> u32 {
        self.server_version
    }

    pub async fn identify_system(&mut self) -> Result<SystemIdentity, StreamError> {
        const COMMAND: &str = "IDENTIFY_SYSTEM";
        let rows = self.simple_query(COMMAND).await?;
        let lacks = |what| ProtocolError::Answer { command: COMMAND, what };
        let row = rows.first().ok_or_else(|| lacks("its row"))?;
        Ok(SystemIdentity {
            system_id: row.get("systemid").ok_or_else(|| lacks("systemid"))?.to_owned(),
            timeline: row
                .get("timeline")
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| lacks("timeline"))?,
            position: row
                .get("xlogpos")
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| lacks("xlogpos"))?,
            database: row.get("dbname").ok_or_else(|| lacks("dbname"))?.to_owned(),
        })
    }

    /// A permanent slot for pgoutput, a failover slot where the server knows them. Gives its consistent point: what
    /// commits after it is streamed.
    ///
    /// The server first waits for every transaction in progress. SQLSTATE 42710: there is one of that name.
    pub async fn create_slot(&mut self, name: &str) -> Result<Lsn, StreamError> {
        const COMMAND: &str = "CREATE_REPLICATION_SLOT";
        let options = match self.server_version {
            FAILOVER_SINCE.. => "(SNAPSHOT 'nothing', FAILOVER true)",
            SLOT_OPTIONS_SINCE.. => "(SNAPSHOT 'nothing')",
            _ => "NOEXPORT_SNAPSHOT",
        };
        let rows =
            self.simple_query(&format!("{COMMAND} {} LOGICAL pgoutput {options}", identifier(name))).await?;
        let point =
            rows.first().and_then(|row| row.get("consistent_point")).and_then(|text| text.parse().ok());
        Ok(point.ok_or(ProtocolError::Answer { command: COMMAND, what: "consistent_point" })?)
    }

    /// Any command, or SQL: rows of text. The rows of several statements follow one another.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<TextRow>, StreamError> {
        query::simple_query(&mut self.wire, sql).await
    }

    /// Streams from the slot: what commits at or after `from`, or the slot's own confirmed position if that is later;
    /// of messages too long to be kept, what `long` says.
    ///
    /// SQLSTATE 55006: the slot is in use by another worker; 42704: there is none; 55000: it can't be read (lost, or
    /// for other reasons).
    pub async fn start(
        mut self,
        slot: &str,
        from: Lsn,
        publication: &str,
        long: LongMessages,
    ) -> Result<ReplicationStream, StreamError> {
        if self.server_version >= TRANSACTION_TIMEOUT_SINCE {
            self.simple_query("SET transaction_timeout = 0").await?;
        }
        let publications = literal(&identifier(publication));
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names {publications}, \
             messages 'true')",
            identifier(slot)
        );
        query::start_copy(&mut self.wire, &command).await?;
        Ok(ReplicationStream::new(self.wire, long))
    }
}

/// `"name"`. The grammar of replication commands does not know `""`: a name with a quote in it, which no slot can have,
/// is a syntax error there, but never more than a name.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `'text'` of a replication command, whose grammar has no backslash escapes.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `15.18 (Debian …)` to 150018, `18beta1` to 180000, `9.6.3` to 90603.
fn version_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let mut parts = text.get(..end)?.split('.').map(|part| part.parse::<u32>().ok().filter(|n| *n < 10_000));
    let major = parts.next()??;
    let second = parts.next().flatten().unwrap_or(0);
    let third = parts.next().flatten().unwrap_or(0);
    Some(if major >= 10 { major * 10_000 + second } else { major * 10_000 + second * 100 + third })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_server_version_num() {
        for (text, number) in [
            ("15.18 (Debian 15.18-0+deb12u1)", Some(150_018)),
            ("18beta1", Some(180_000)),
            ("17devel", Some(170_000)),
            ("14.0", Some(140_000)),
            ("9.6.3", Some(90_603)),
            ("", None),
            ("beta", None),
            ("99999999999", None),
        ] {
            assert_eq!(version_number(text), number, "{text:?}");
        }
    }

    #[test]
    fn names_can_not_leave_their_quotes() {
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(literal(&identifier("it's")), r#"'"it''s"'"#);
    }
}
