//! The same connection for sqlx, which the migrations use.

use ::sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{ChannelBinding, Dsn, Host, RootCert, SslMode};

/// sqlx has no SCRAM-SHA-256-PLUS; a connection that must have it is not made without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "channel_binding=require can't be kept by sqlx, which runs the migrations: give them a URL without it"
)]
pub struct NoChannelBinding;

impl Dsn {
    /// sqlx's options for one of the hosts; its own environment variables and password file decide nothing.
    pub fn sqlx_options(&self, host: &Host) -> Result<PgConnectOptions, NoChannelBinding> {
        if self.ssl.channel_binding == ChannelBinding::Require {
            return Err(NoChannelBinding);
        }
        let checked = matches!(self.ssl.root_cert, Some(RootCert::File(_)));
        let mut options = PgConnectOptions::new_without_pgpass()
            .username(&self.user)
            .database(&self.database)
            .application_name(&self.application_name)
            .ssl_mode(match self.ssl.mode {
                SslMode::Disable => PgSslMode::Disable,
                SslMode::Prefer => PgSslMode::Prefer,
                SslMode::Require if checked => PgSslMode::VerifyCa,
                SslMode::Require => PgSslMode::Require,
                SslMode::VerifyCa => PgSslMode::VerifyCa,
                SslMode::VerifyFull => PgSslMode::VerifyFull,
            });
        options = match host {
            Host::Tcp { host, port } => options.host(host).port(*port),
            Host::Unix { dir, port } => options.socket(dir).port(*port),
        };
        if let Some(password) = self.password_for(host) {
            options = options.password(password.expose());
        }
        if let Some(RootCert::File(path)) = &self.ssl.root_cert {
            options = options.ssl_root_cert(path);
        }
        if let Some(client) = &self.ssl.client {
            options = options.ssl_client_cert(&client.certificate).ssl_client_key(&client.key);
        }
        Ok(options)
    }
}
