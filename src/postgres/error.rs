//! What goes wrong between here and the server. What to do about it is decided elsewhere, by the SQLSTATE and the
//! variant kept here.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::dsn::Host;

/// An ErrorResponse (PostgreSQL documentation, "Error and Notice Message Fields").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// ERROR, FATAL or PANIC.
    pub severity: String,
    pub sqlstate: SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (SQLSTATE {})", self.severity, self.message, self.sqlstate.code())?;
        for (name, text) in [("detail", &self.detail), ("hint", &self.hint)] {
            if let Some(text) = text {
                write!(f, "; {name}: {text}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

/// What ends, or is answered on, an open connection.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the server closed the connection")]
    Closed,
    /// The server ended the replication stream in order: it shuts down, or its timeline ended.
    #[error("the server ended the replication stream")]
    Ended,
    #[error(transparent)]
    Server(#[from] Box<ServerError>),
    #[error("the server broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    #[error("replication needs PostgreSQL 14 or newer; this server is {version}")]
    TooOld { version: String },
}

impl StreamError {
    #[must_use]
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Server(error) => Some(&error.sqlstate),
            _ => None,
        }
    }
}

/// Bytes that no server should send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("message {} has an impossible length, {length}", quoted(*.tag))]
    Length { tag: u8, length: u32 },
    #[error("message {} is malformed", quoted(*.tag))]
    Malformed { tag: u8 },
    #[error("message {} came where {expected} was due", quoted(*.tag))]
    Unexpected { tag: u8, expected: &'static str },
    #[error("a replication message of unknown kind {}", quoted(*.kind))]
    ReplicationKind { kind: u8 },
    #[error("the answer to {command} lacks {what}")]
    Answer { command: &'static str, what: &'static str },
}

fn quoted(byte: u8) -> String {
    if byte.is_ascii_graphic() { format!("'{}'", char::from(byte)) } else { format!("0x{byte:02X}") }
}

/// No connection, and to which host.
#[derive(Debug, thiserror::Error)]
#[error("{host}: {failure}")]
pub struct ConnectError {
    pub host: Host,
    pub failure: ConnectFailure,
}

impl ConnectError {
    #[must_use]
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match &self.failure {
            ConnectFailure::Stream(error) => error.sqlstate(),
            _ => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// No name, no route, nobody listening.
    #[error("can't connect: {0}")]
    Unreachable(io::Error),
    #[error("no connection within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Authentication(#[from] AuthenticationError),
    #[error(transparent)]
    Stream(StreamError),
    /// The connection stands, but its session could not be set up.
    #[error("the session could not be set up: {0}")]
    Session(#[source] tokio_postgres::Error),
}

impl From<StreamError> for ConnectFailure {
    /// A refused client certificate is only seen after the handshake, as an alert on the first read.
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Io(error) if TlsError::is_inside(&error) => Self::Tls(TlsError::Handshake(error)),
            other => Self::Stream(other),
        }
    }
}

impl From<io::Error> for ConnectFailure {
    fn from(error: io::Error) -> Self {
        Self::from(StreamError::Io(error))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the server does not offer TLS, and sslmode asks for it")]
    NotOffered,
    /// The certificate was not accepted, by one side or the other, or the handshake broke.
    #[error("TLS: {0}")]
    Handshake(io::Error),
    #[error("TLS: {host:?} is no name that a certificate could be issued for")]
    Name { host: String },
    #[error("TLS: {}: {problem}", .path.display())]
    File { path: PathBuf, problem: String },
    #[error("TLS: the system has no trusted authorities; name a file of them in sslrootcert ({problem})")]
    NoSystemRoots { problem: String },
    #[error("TLS: {0}")]
    Configuration(String),
}

impl TlsError {
    pub(super) fn is_inside(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    #[error("the server asks for a password, and neither the database URL nor a password file has one")]
    NoPassword,
    #[error("the server asks for the authentication method {0}, which walcast does not speak")]
    UnknownMethod(String),
    #[error("channel_binding=require: {0}")]
    ChannelBinding(&'static str),
    /// The server could not prove that it knows the password, or broke off.
    #[error("SCRAM: {0}")]
    Scram(String),
}
