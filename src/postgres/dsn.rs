//! Where the database is and how to reach it: one text, parsed once.
//!
//! ```text
//! postgres://user:password@host:port,host:port/database?sslmode=verify-full&…   dsn/url.rs ──┐
//! host=/run/postgresql dbname=app sslmode=…                                dsn/keywords.rs ──┴► Settings ─► Dsn
//! ```
//!
//! The parameters are libpq's (PostgreSQL documentation, 34.1.2 "Parameter Key Words"), and mean what they mean there,
//! except that nothing is read from `PG*` variables but `PGPASSFILE`, that an absent `connect_timeout` is ten seconds,
//! and that `sslmode=verify-*` without `sslrootcert` trusts `~/.postgresql/root.crt` where there is one and the
//! system's authorities where there is none. No text that this module makes holds a password or a part of one.

mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keywords;
mod settings;
mod sqlx;
mod url;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

pub use self::sqlx::NoChannelBinding;
pub use error::DsnError;

use super::passfile;
use crate::config::Secret;

pub const DEFAULT_PORT: u16 = 5432;

/// How long one host may take from the first packet to the end of authentication.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What needs no escape in any part of a URL that [`Dsn`] prints.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same of an address in brackets.
const IN_BRACKETS: &AsciiSet = &ESCAPED.remove(b':');

/// A database and how to connect to it. Every connection is made from one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dsn {
    pub user: String,
    /// The password that the text itself held; see [`Dsn::password_for`].
    pub password: Option<Secret>,
    /// Where a password is looked up that the text did not hold.
    pub passfile: Option<PathBuf>,
    /// Tried in this order; never empty.
    pub hosts: Vec<Host>,
    pub database: String,
    pub ssl: Ssl,
    /// For one host; `None` waits for ever.
    pub connect_timeout: Option<Duration>,
    pub application_name: String,
    /// Command-line options for the server, such as `-c search_path=app`.
    pub options: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Tcp { host: String, port: u16 },
    Unix { dir: PathBuf, port: u16 },
}

/// What is asked of TLS. A unix socket never uses it, whatever the mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ssl {
    pub mode: SslMode,
    /// Whom to trust; `None` is the default of the module documentation.
    pub root_cert: Option<RootCert>,
    pub client: Option<ClientCertificate>,
    pub channel_binding: ChannelBinding,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// Encrypted where the server offers it.
    #[default]
    Prefer,
    /// Encrypted; the server's certificate is checked (as in `VerifyCa`) only where `sslrootcert` was given.
    Require,
    /// The certificate's chain ends in a trusted authority.
    VerifyCa,
    /// And it was issued for the name connected to.
    VerifyFull,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCert {
    /// The operating system's authorities (`sslrootcert=system`).
    System,
    /// A PEM file of certificates.
    File(PathBuf),
}

/// PEM files of what the client shows the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Whether a SCRAM proof must name the server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    #[default]
    Prefer,
    Require,
}

impl Dsn {
    /// Reads a `postgres://` or `postgresql://` URL, or `keyword=value` pairs.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        let settings = if text.contains("://") { url::parse(text)? } else { keywords::parse(text)? };
        settings.into_dsn()
    }

    /// The same server and user, another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// The text's own password, or the password file's for this host. The file is read each time: it may be rotated.
    #[must_use]
    pub fn password_for(&self, host: &Host) -> Option<Secret> {
        if self.password.is_some() {
            return self.password.clone();
        }
        let wanted = passfile::Wanted { host, database: &self.database, user: &self.user };
        passfile::lookup(self.passfile.as_deref()?, &wanted)
    }
}

impl FromStr for Dsn {
    type Err = DsnError;

    fn from_str(text: &str) -> Result<Self, DsnError> {
        Self::parse(text)
    }
}

fn escaped(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, ESCAPED)
}

/// A URL without its password and without its client's files.
impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", escaped(&self.user))?;
        for (index, host) in self.hosts.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            match host {
                Host::Tcp { host, port } if host.contains(':') => {
                    write!(f, "{separator}[{}]:{port}", utf8_percent_encode(host, IN_BRACKETS))?;
                }
                Host::Tcp { host, port } => write!(f, "{separator}{}:{port}", escaped(host))?,
                Host::Unix { dir, port } => {
                    write!(f, "{separator}{}:{port}", escaped(&dir.to_string_lossy()))?;
                }
            }
        }
        write!(f, "/{}?sslmode={}", escaped(&self.database), self.ssl.mode.as_str())
    }
}

impl Host {
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Tcp { port, .. } | Self::Unix { port, .. } => *port,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { dir, port } => write!(f, "{}/.s.PGSQL.{port}", dir.display()),
        }
    }
}

impl SslMode {
    pub(super) const ALL: [Self; 5] =
        [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl ChannelBinding {
    pub(super) const ALL: [Self; 3] = [Self::Disable, Self::Prefer, Self::Require];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
        }
    }
}

#[cfg(test)]
mod tests;
