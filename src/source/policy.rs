//! Which errors pass by themselves, which wait for somebody, and which end the process. The one table.

use std::error::Error;
use std::io;

use super::ResetReason;
use super::assembler::AssembleError;
use crate::postgres::error::{AuthenticationError, ConnectError, ConnectFailure, StreamError, TlsError};
use crate::postgres::pgoutput::DecodeError;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Passes by itself: retry with backoff.
    Transient,
    /// Somebody has to do something: retry slowly, and readiness says what.
    Operator,
    /// Can't be right however often it is tried: exit with the reason.
    Fatal,
}

/// Why nothing flows.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the server sent a logical message that can't be read: {0}")]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error("another worker reads from slot {slot}; this one takes over when it stops")]
    SlotBusy { slot: String },
    #[error("publication {publication} does not exist: run `walcast setup`")]
    NoPublication { publication: String },
    #[error(
        "slot {slot} is not this database's pgoutput slot ({plugin} in database {database}): \
         set source.slot to another name, or drop it"
    )]
    ForeignSlot { slot: String, plugin: String, database: String },
    /// Whatever is asked of the server, the slot's own setting counts. (`CreateDecodingContext`)
    #[error(
        "slot {slot} was made with two_phase: it sends transactions before they are committed; drop it \
         (select pg_drop_replication_slot('{slot}')), and one without is made"
    )]
    TwoPhaseSlot { slot: String },
    #[error("the server did not answer for {seconds} s")]
    Silent { seconds: u64 },
    /// A server that shuts down waits until everything that it sent is confirmed; what is kept for replay is not.
    #[error("the server is shutting down")]
    ServerStops,
    #[error("the server's answer about {0} can't be read")]
    Answer(&'static str),
    /// The connection is given up to begin anew.
    #[error("history can't be continued: {0}")]
    Broken(ResetReason),
    #[error("another worker reads the outbox of this database; this one takes over when it stops")]
    OutboxBusy,
    /// Waits for others' transactions: each look costs writers a moment.
    #[error(
        "the outbox was full (source.max_outbox), and a transaction of then is still open: history begins anew when \
         it has ended (select pid, xact_start, query from pg_stat_activity order by xact_start)"
    )]
    OutboxGap,
    #[error("the outbox could not be read")]
    Outbox(#[source] tokio_postgres::Error),
}

/// The source can't work, however often it tries.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Fatal(#[from] SourceError);

/// By SQLSTATE, then by its class; the first match counts. What is not named passes by itself.
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>)
const SQLSTATES: &[(&str, ErrorKind)] = &[
    ("55006", ErrorKind::Transient), // object_in_use: the slot is another worker's
    ("55P03", ErrorKind::Transient), // lock_not_available
    ("57", ErrorKind::Transient),    // shutting down, starting up, cancelled
    ("08", ErrorKind::Transient),    // connection exceptions
    ("40", ErrorKind::Transient),    // rolled back
    ("53400", ErrorKind::Operator),  // configuration_limit_exceeded: no free slot
    ("53", ErrorKind::Transient),    // out of connections, memory, disk
    ("42602", ErrorKind::Fatal),     // invalid_name: a slot's name has a character that no slot may have
    ("28", ErrorKind::Operator),     // who we say we are is not accepted
    ("3D", ErrorKind::Operator),     // no such database
    ("42", ErrorKind::Operator),     // something is missing, or not allowed
    ("55", ErrorKind::Operator),     // wal_level, a standby, a slot that lost its log
    ("22", ErrorKind::Operator),     // a setting that the server does not take
    ("0A", ErrorKind::Operator),     // not supported
    ("58", ErrorKind::Operator),     // files of the server
    ("F0", ErrorKind::Operator),     // its configuration
];

impl SourceError {
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(error) => connect(&error.failure),
            Self::Stream(error) => stream(error),
            Self::SlotBusy { .. }
            | Self::OutboxBusy
            | Self::Silent { .. }
            | Self::ServerStops
            | Self::Broken(_) => ErrorKind::Transient,
            // A connection that broke has no SQLSTATE.
            Self::Outbox(error) => error.code().map_or(ErrorKind::Transient, |state| sqlstate(state.code())),
            // Reading it again most likely gives the same; a newer version of either side may not.
            Self::Decode(_) | Self::Assemble(AssembleError::Violation(_)) | Self::Answer(_) => {
                ErrorKind::Operator
            }
            // Disk full, or no temporary folder.
            Self::Assemble(AssembleError::Spool(_)) => ErrorKind::Operator,
            Self::NoPublication { .. }
            | Self::ForeignSlot { .. }
            | Self::TwoPhaseSlot { .. }
            | Self::OutboxGap => ErrorKind::Operator,
        }
    }

    /// The log was written while the publication was not there: reading it again gives the same. Told by the name,
    /// since a message's words are in the server's language. (`get_publication_oid`, undefined_object)
    pub(super) fn is_unpublished_log(&self, publication: &str) -> bool {
        matches!(self, Self::Stream(StreamError::Server(error))
            if error.sqlstate.code() == "42704" && error.message.contains(publication))
    }

    /// Another connection reads, maybe a second worker.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::OutboxBusy) || self.is_slot_busy()
    }

    pub(super) fn is_slot_busy(&self) -> bool {
        matches!(self, Self::SlotBusy { .. })
            || matches!(self, Self::Stream(error) if error.sqlstate().is_some_and(|state| state.code() == "55006"))
    }
}

/// An error with the causes that its own text leaves out.
pub(super) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// What to do about an SQLSTATE.
#[must_use]
pub fn sqlstate(code: &str) -> ErrorKind {
    let row = SQLSTATES.iter().find(|(prefix, _)| code.starts_with(prefix));
    row.map_or(ErrorKind::Transient, |(_, kind)| *kind)
}

fn stream(error: &StreamError) -> ErrorKind {
    match error {
        StreamError::Io(error) => io(error),
        StreamError::Closed | StreamError::Ended => ErrorKind::Transient,
        StreamError::Server(error) => sqlstate(error.sqlstate.code()),
        StreamError::Protocol(_) => ErrorKind::Operator,
        StreamError::TooOld { .. } => ErrorKind::Fatal,
    }
}

fn connect(failure: &ConnectFailure) -> ErrorKind {
    match failure {
        ConnectFailure::Unreachable(error) => io(error),
        ConnectFailure::Timeout(_) => ErrorKind::Transient,
        ConnectFailure::Tls(TlsError::Name { .. } | TlsError::Configuration(_)) => ErrorKind::Fatal,
        ConnectFailure::Tls(_) => ErrorKind::Operator,
        ConnectFailure::Authentication(AuthenticationError::UnknownMethod(_)) => ErrorKind::Fatal,
        ConnectFailure::Authentication(_) => ErrorKind::Operator,
        ConnectFailure::Stream(error) => stream(error),
        ConnectFailure::Session(error) => {
            error.code().map_or(ErrorKind::Transient, |state| sqlstate(state.code()))
        }
    }
}

fn io(error: &io::Error) -> ErrorKind {
    match error.kind() {
        // Of a unix socket's folder.
        io::ErrorKind::PermissionDenied => ErrorKind::Operator,
        _ => ErrorKind::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_its_own_counts_before_its_class() {
        assert_eq!(sqlstate("55006"), ErrorKind::Transient);
        assert_eq!(sqlstate("55000"), ErrorKind::Operator);
        assert_eq!(sqlstate("53400"), ErrorKind::Operator);
        assert_eq!(sqlstate("53300"), ErrorKind::Transient);
        assert_eq!(sqlstate("42602"), ErrorKind::Fatal);
        assert_eq!(sqlstate("42704"), ErrorKind::Operator);
        assert_eq!(sqlstate("XX000"), ErrorKind::Transient);
    }

    #[test]
    fn no_row_of_the_table_is_hidden_by_one_above_it() {
        for (place, (code, _)) in SQLSTATES.iter().enumerate() {
            let above = &SQLSTATES[..place];
            assert!(above.iter().all(|(other, _)| !code.starts_with(other)), "{code}");
        }
    }
}
