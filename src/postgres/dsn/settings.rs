//! The parameters as texts, and what they mean together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    ChannelBinding, ClientCertificate, DEFAULT_CONNECT_TIMEOUT, DEFAULT_PORT, Dsn, DsnError, Host, RootCert,
    Ssl, SslMode,
};
use crate::config::Secret;

/// Where Debian and Red Hat put the server's socket.
const SOCKET_DIR: &str = "/var/run/postgresql";
/// Where PostgreSQL itself puts it.
const UPSTREAM_SOCKET_DIR: &str = "/tmp";

/// A connection parameter by libpq's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    Host,
    Port,
    User,
    Password,
    Passfile,
    Database,
    SslMode,
    SslRootCert,
    SslCert,
    SslKey,
    ChannelBinding,
    ConnectTimeout,
    ApplicationName,
    Options,
}

impl Parameter {
    const ALL: [(&str, Self); 14] = [
        ("host", Self::Host),
        ("port", Self::Port),
        ("user", Self::User),
        ("password", Self::Password),
        ("passfile", Self::Passfile),
        ("dbname", Self::Database),
        ("sslmode", Self::SslMode),
        ("sslrootcert", Self::SslRootCert),
        ("sslcert", Self::SslCert),
        ("sslkey", Self::SslKey),
        ("channel_binding", Self::ChannelBinding),
        ("connect_timeout", Self::ConnectTimeout),
        ("application_name", Self::ApplicationName),
        ("options", Self::Options),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, parameter)| *parameter)
    }

    pub(super) fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }
}

/// The last value of each parameter; empty is absent, as in libpq.
#[derive(Default)]
pub(super) struct Settings(Vec<(Parameter, String)>);

impl Settings {
    pub(super) fn set(&mut self, parameter: Parameter, value: String) {
        self.0.push((parameter, value));
    }

    fn take(&mut self, parameter: Parameter) -> Option<String> {
        let last = self.0.iter().rposition(|(set, _)| *set == parameter)?;
        Some(self.0.remove(last).1).filter(|value| !value.is_empty())
    }

    pub(super) fn into_dsn(mut self) -> Result<Dsn, DsnError> {
        let user = match self.take(Parameter::User) {
            Some(user) => user,
            None => whoami::username().map_err(|_| DsnError::User)?,
        };
        Ok(Dsn {
            password: self.take(Parameter::Password).map(Secret::new),
            passfile: self.take(Parameter::Passfile).map(PathBuf::from).or_else(default_passfile),
            hosts: self.hosts()?,
            database: self.take(Parameter::Database).unwrap_or_else(|| user.clone()),
            ssl: self.ssl()?,
            connect_timeout: self.connect_timeout()?,
            application_name: self.take(Parameter::ApplicationName).unwrap_or_else(|| "walcast".to_owned()),
            options: self.take(Parameter::Options),
            user,
        })
    }

    fn hosts(&mut self) -> Result<Vec<Host>, DsnError> {
        let hosts = self.take(Parameter::Host).unwrap_or_default();
        let ports = self.take(Parameter::Port).unwrap_or_default();
        let hosts: Vec<&str> = hosts.split(',').collect();
        let ports: Vec<&str> = ports.split(',').collect();
        if ports.len() != 1 && ports.len() != hosts.len() {
            return Err(DsnError::PortCount { hosts: hosts.len(), ports: ports.len() });
        }
        let host = |(index, (host, port)): (usize, (&&str, &&str))| {
            let port = match *port {
                "" => DEFAULT_PORT,
                text => text
                    .parse()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or(DsnError::Port { position: index + 1 })?,
            };
            Ok(match *host {
                "" => Host::Unix { dir: default_socket_dir(), port },
                dir if dir.starts_with('/') => Host::Unix { dir: PathBuf::from(dir), port },
                name => Host::Tcp { host: name.to_owned(), port },
            })
        };
        hosts.iter().zip(ports.iter().cycle()).enumerate().map(host).collect()
    }

    fn ssl(&mut self) -> Result<Ssl, DsnError> {
        let root_cert = self.take(Parameter::SslRootCert).map(|value| match value.as_str() {
            "system" => RootCert::System,
            path => RootCert::File(PathBuf::from(path)),
        });
        let system = root_cert == Some(RootCert::System);
        let mode = match self.take(Parameter::SslMode) {
            Some(text) => {
                SslMode::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(DsnError::Value {
                    parameter: "sslmode",
                    value: text,
                    allowed: "disable, prefer, require, verify-ca or verify-full",
                })?
            }
            None if system => SslMode::VerifyFull,
            None => SslMode::default(),
        };
        if system && mode != SslMode::VerifyFull {
            return Err(DsnError::WeakMode { mode: mode.as_str() });
        }
        let client = match (self.take(Parameter::SslCert), self.take(Parameter::SslKey)) {
            (Some(certificate), Some(key)) => {
                Some(ClientCertificate { certificate: certificate.into(), key: key.into() })
            }
            (None, None) => None,
            _ => return Err(DsnError::ClientCertificate),
        };
        let channel_binding = match self.take(Parameter::ChannelBinding) {
            Some(text) => ChannelBinding::ALL.into_iter().find(|choice| choice.as_str() == text).ok_or(
                DsnError::Value {
                    parameter: "channel_binding",
                    value: text,
                    allowed: "disable, prefer or require",
                },
            )?,
            None => ChannelBinding::default(),
        };
        Ok(Ssl { mode, root_cert, client, channel_binding })
    }

    fn connect_timeout(&mut self) -> Result<Option<Duration>, DsnError> {
        let Some(text) = self.take(Parameter::ConnectTimeout) else {
            return Ok(Some(DEFAULT_CONNECT_TIMEOUT));
        };
        match text.trim().parse::<u32>() {
            Ok(0) => Ok(None),
            Ok(seconds) => Ok(Some(Duration::from_secs(seconds.into()))),
            Err(_) => Err(DsnError::Value {
                parameter: "connect_timeout",
                value: text,
                allowed: "a whole number of seconds (0 waits for ever)",
            }),
        }
    }
}

fn default_passfile() -> Option<PathBuf> {
    match std::env::var_os("PGPASSFILE") {
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
        _ => std::env::home_dir().map(|home| home.join(".pgpass")),
    }
}

fn default_socket_dir() -> PathBuf {
    let dir = Path::new(SOCKET_DIR);
    if dir.is_dir() { dir.to_owned() } else { PathBuf::from(UPSTREAM_SOCKET_DIR) }
}
