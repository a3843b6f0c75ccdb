//! SQL connections: tokio-postgres over our own sockets, TLS and authentication.

mod handover;

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Connection, NoTls};

use super::dsn::{Dsn, Host};
use super::error::{ConnectError, ConnectFailure};
use super::startup;
use handover::Handover;

/// The format in which every value is read; the same that the replication connection asks for.
const SESSION_FORMAT: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; \
                              SET extra_float_digits = 1; SET bytea_output = 'hex'";

/// How long a connection may take to say goodbye once its client is dropped.
const GOODBYE: Duration = Duration::from_secs(5);

/// A [`tokio_postgres::Client`] whose connection ends with it.
#[derive(Debug)]
pub struct Client {
    client: tokio_postgres::Client,
    host: Host,
    notified: Arc<Notify>,
    _dropped: oneshot::Sender<()>,
}

/// Connects to the first host that accepts and sets the session's format.
pub async fn connect(dsn: &Dsn) -> Result<Client, ConnectError> {
    let options = dsn.options.as_deref().map(|options| ("options", options));
    let session = startup::connect(dsn, options.as_slice()).await?;
    let host = session.host.clone();
    let failed = |error| ConnectError { host: host.clone(), failure: ConnectFailure::Session(error) };

    let mut config = tokio_postgres::Config::new();
    config.user(&dsn.user).ssl_mode(tokio_postgres::config::SslMode::Disable);
    let (client, connection) = config.connect_raw(Handover::new(session), NoTls).await.map_err(failed)?;
    let (dropped, on_drop) = oneshot::channel();
    let notified = Arc::new(Notify::new());
    tokio::spawn(drive(connection, Arc::clone(&notified), on_drop));

    let format = client.batch_execute(SESSION_FORMAT);
    match dsn.connect_timeout {
        Some(limit) => timeout(limit, format)
            .await
            .map_err(|_| ConnectError { host: host.clone(), failure: ConnectFailure::Timeout(limit) })?,
        None => format.await,
    }
    .map_err(failed)?;
    Ok(Client { client, host, notified, _dropped: dropped })
}

impl Client {
    /// The host that accepted.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Returns once a NOTIFY has come since this returned last, of any channel that the session listens to; also when
    /// the connection has ended. Cancel-safe.
    pub async fn notified(&self) {
        self.notified.notified().await;
    }
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.client
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut tokio_postgres::Client {
        &mut self.client
    }
}

/// Moves bytes until the client is dropped, then for at most [`GOODBYE`] more.
async fn drive(
    mut connection: Connection<Handover, NoTlsStream>,
    notified: Arc<Notify>,
    on_drop: oneshot::Receiver<()>,
) {
    let mut run = Box::pin(async move {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                Ok(AsyncMessage::Notice(notice)) => tracing::debug!(
                    severity = notice.severity(),
                    sqlstate = notice.code().code(),
                    "{}",
                    notice.message()
                ),
                Ok(AsyncMessage::Notification(_)) => notified.notify_one(),
                Ok(_) => {}
                // Whoever waits for an answer gets this as an error too, and handles it.
                Err(error) => {
                    tracing::debug!(%error, "an SQL connection broke");
                    break;
                }
            }
        }
        notified.notify_one();
    });
    tokio::select! {
        biased; // a connection that ended needs no goodbye
        () = &mut run => return,
        _ = on_drop => {}
    }
    if timeout(GOODBYE, run).await.is_err() {
        tracing::debug!("an SQL connection was cut off: its server did not answer");
    }
}
