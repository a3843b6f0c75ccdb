//! What the fuzzers assert of a server's bytes, of connection texts and of password files.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use std::sync::LazyLock;

use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

use super::dsn::Host;
use super::passfile::{self, Wanted};
use super::socket::Socket;
use super::wire::Wire;

pub use super::dsn::fuzzing::dsns;
pub use super::pgoutput::fuzzing::pgoutput;
pub use super::replication::fuzzing::{answers, frames};
pub use super::startup::fuzzing::authentication;

/// Drives the sockets of all runs.
pub(super) static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_io().build().expect("a runtime"));

/// Our end of a connection, and the server's. To be called inside of [`RUNTIME`].
pub(super) fn connection() -> (Wire, UnixStream) {
    let (ours, server) = UnixStream::pair().expect("a pair of sockets");
    (Wire::new(Socket::Unix(ours)), server)
}

/// Any text as a password file: a password that is found stands in it, on a line that names this host.
pub fn passfiles(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let host = Host::Tcp { host: "db".to_owned(), port: 5432 };
    let wanted = Wanted { host: &host, database: "app", user: "ada" };
    let Some(password) = passfile::find(text, &wanted) else { return };
    let escaped = password.expose().replace('\\', "\\\\").replace(':', "\\:");
    let named = |line: &str| line.contains("db") || line.contains('*') || line.contains('\\');
    let plain =
        |line: &str| line.contains(&escaped) || line.matches('\\').count() > escaped.matches('\\').count();
    assert!(
        text.lines().any(|line| !line.starts_with('#') && named(line) && plain(line)),
        "a password that is not in the file"
    );
    assert!(!password.expose().is_empty(), "an empty password is none");
}
