//! From a [`Dsn`] to an authenticated session: hosts in order, TLS, the startup message, authentication.
//!
//! SQL and replication connections start here alike, so that every sslmode and every authentication method holds for
//! both and fails with the same errors.

mod auth;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::collections::HashMap;
use std::io;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::dsn::{Dsn, Host, SslMode};
use super::error::{ConnectError, ConnectFailure, StreamError, TlsError};
use super::socket::Socket;
use super::tls::{self, Offer};
use super::wire::{Frame, Wire, cstr};

/// A session that awaits its first query.
pub(super) struct Session {
    pub(super) wire: Wire,
    pub(super) host: Host,
    /// What the server reported: `server_version` and the like.
    pub(super) parameters: HashMap<String, String>,
    /// The messages from AuthenticationOk to ReadyForQuery, as they came.
    pub(super) prelude: BytesMut,
}

/// Opens a session on the first host that accepts. `extra` are startup parameters beside the DSN's.
///
/// As in libpq, a host that can't be reached, breaks off or is still starting leads to the next one; one that answers
/// with any other error, a wrong password say, ends the search.
pub(super) async fn connect(dsn: &Dsn, extra: &[(&str, &str)]) -> Result<Session, ConnectError> {
    let mut hosts = dsn.hosts.iter().peekable();
    loop {
        let Some(host) = hosts.next() else {
            return Err(ConnectError { host: no_host(), failure: no_host_failure() });
        };
        match connect_host(dsn, host, extra).await {
            Ok(session) => return Ok(session),
            Err(failure) if hosts.peek().is_some() && may_pass_elsewhere(&failure) => {
                tracing::debug!(%host, %failure, "trying the next host");
            }
            Err(failure) => {
                return Err(ConnectError { host: host.clone(), failure });
            }
        }
    }
}

/// Only a [`Dsn`] made by hand has no hosts.
fn no_host() -> Host {
    Host::Tcp { host: String::new(), port: 0 }
}

fn no_host_failure() -> ConnectFailure {
    ConnectFailure::Unreachable(io::Error::new(io::ErrorKind::InvalidInput, "no host is named"))
}

fn may_pass_elsewhere(failure: &ConnectFailure) -> bool {
    match failure {
        ConnectFailure::Stream(error) => {
            error.sqlstate().is_none_or(|code| *code == SqlState::CANNOT_CONNECT_NOW)
        }
        ConnectFailure::Authentication(_) | ConnectFailure::Session(_) => false,
        ConnectFailure::Unreachable(_) | ConnectFailure::Timeout(_) | ConnectFailure::Tls(_) => true,
    }
}

async fn connect_host(dsn: &Dsn, host: &Host, extra: &[(&str, &str)]) -> Result<Session, ConnectFailure> {
    match dsn.ssl.mode {
        SslMode::Prefer => match connect_once(dsn, host, extra, true).await {
            // Whoever only prefers TLS is content without, where it is TLS that fails, or a rule that forbids it.
            Err(failure) if is_tls_failure(&failure) => {
                tracing::debug!(%host, %failure, "going on without TLS");
                connect_once(dsn, host, extra, false).await
            }
            verdict => verdict,
        },
        mode => connect_once(dsn, host, extra, mode != SslMode::Disable).await,
    }
}

fn is_tls_failure(failure: &ConnectFailure) -> bool {
    match failure {
        ConnectFailure::Tls(error) => {
            matches!(error, TlsError::Handshake(_) | TlsError::NotOffered | TlsError::Name { .. })
        }
        ConnectFailure::Stream(error) => {
            error.sqlstate() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
        }
        _ => false,
    }
}

async fn connect_once(
    dsn: &Dsn,
    host: &Host,
    extra: &[(&str, &str)],
    try_tls: bool,
) -> Result<Session, ConnectFailure> {
    let connecting = async {
        let socket = Socket::open(host, dsn.connect_timeout).await.map_err(ConnectFailure::Unreachable)?;
        let (socket, binding) = secure(socket, dsn, host, try_tls).await?;
        start(Wire::new(socket), dsn, host, extra, binding).await
    };
    match dsn.connect_timeout {
        Some(limit) => timeout(limit, connecting).await.map_err(|_| ConnectFailure::Timeout(limit))?,
        None => connecting.await,
    }
}

/// TLS, where it is due, and the binding that it offers to SCRAM.
async fn secure(
    socket: Socket,
    dsn: &Dsn,
    host: &Host,
    try_tls: bool,
) -> Result<(Socket, Option<Vec<u8>>), ConnectFailure> {
    match (socket, host) {
        (Socket::Tcp(stream), Host::Tcp { host, .. }) if try_tls => {
            match tls::negotiate(stream, host, &dsn.ssl).await? {
                Offer::Tls(stream) => {
                    let binding = tls::server_end_point(&stream);
                    Ok((Socket::Tls(stream), binding))
                }
                Offer::Plain(stream) if dsn.ssl.mode == SslMode::Prefer => Ok((Socket::Tcp(stream), None)),
                Offer::Plain(_) => Err(TlsError::NotOffered.into()),
            }
        }
        (socket, _) => Ok((socket, None)),
    }
}

async fn start(
    mut wire: Wire,
    dsn: &Dsn,
    host: &Host,
    extra: &[(&str, &str)],
    binding: Option<Vec<u8>>,
) -> Result<Session, ConnectFailure> {
    let own = [
        ("user", dsn.user.as_str()),
        ("database", dsn.database.as_str()),
        ("client_encoding", "UTF8"),
        ("application_name", dsn.application_name.as_str()),
    ];
    frontend::startup_message(own.into_iter().chain(extra.iter().copied()), wire.output())?;
    let accepted = auth::authenticate(&mut wire, dsn, host, binding).await?;
    wire.set_authenticated();
    let mut prelude = BytesMut::from(&accepted.bytes[..]);
    let parameters = parameters(&mut wire, &mut prelude).await?;
    Ok(Session { wire, host: host.clone(), parameters, prelude })
}

/// Reads up to ReadyForQuery.
async fn parameters(wire: &mut Wire, prelude: &mut BytesMut) -> Result<HashMap<String, String>, StreamError> {
    let mut parameters = HashMap::new();
    loop {
        let frame = wire.frame().await?;
        prelude.extend_from_slice(&frame.bytes);
        match frame.tag {
            b'S' => {
                let (name, value) = parameter(&frame).ok_or_else(|| frame.malformed())?;
                parameters.insert(name, value);
            }
            b'K' | b'N' => {}
            b'Z' => return Ok(parameters),
            b'E' => return Err(frame.server_error()),
            _ => return Err(frame.unexpected("ReadyForQuery").into()),
        }
    }
}

fn parameter(frame: &Frame) -> Option<(String, String)> {
    let (name, rest) = cstr(frame.body())?;
    let (value, _) = cstr(rest)?;
    Some((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned()))
}
