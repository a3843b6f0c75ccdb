//! A few sessions, made when they are needed, and used again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::error::{EmitError, judge};
use crate::postgres::Dsn;
use crate::postgres::client::{Client, connect};

/// Sessions at most. Each commits in a millisecond or so: more would only wait for the same disk.
const SESSIONS: usize = 4;

/// How long to wait for a session that others use.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);

/// How long the server may take for a statement, locks included. After it the server gives up; a second more, and
/// so do we.
const STATEMENT: Duration = Duration::from_secs(5);

const SETTINGS: &str = "set statement_timeout = '5s'; set default_transaction_isolation = 'read committed'; \
                        set default_transaction_read_only = off; set application_name = 'walcast emit'";

/// A session that nobody needed for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

pub(super) struct Pool {
    dsn: Dsn,
    places: Arc<Semaphore>,
    /// Not in use, since when; the one used last is at the end.
    idle: Mutex<Vec<(Client, Instant)>>,
}

/// A session in use. It goes back when its statement succeeded or was at fault; anything else closes it.
pub(super) struct Session {
    pool: Arc<Pool>,
    client: Client,
    reused: bool,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(dsn: Dsn) -> Arc<Self> {
        Arc::new(Self { dsn, places: Arc::new(Semaphore::new(SESSIONS)), idle: Mutex::default() })
    }

    /// One that was used before, or a new one.
    pub(super) async fn session(self: &Arc<Self>) -> Result<Session, EmitError> {
        let place = self.place().await?;
        match self.take_idle() {
            Some(client) => Ok(Session { pool: Arc::clone(self), client, reused: true, _place: place }),
            None => self.connect(place).await,
        }
    }

    pub(super) async fn new_session(self: &Arc<Self>) -> Result<Session, EmitError> {
        let place = self.place().await?;
        self.connect(place).await
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, EmitError> {
        let place = timeout(PATIENCE, Arc::clone(&self.places).acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or(EmitError::Busy)
    }

    async fn connect(self: &Arc<Self>, place: OwnedSemaphorePermit) -> Result<Session, EmitError> {
        let connecting = async {
            let client = connect(&self.dsn).await.map_err(|error| error.to_string())?;
            client.batch_execute(SETTINGS).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(client)
        };
        let client = match timeout(CONNECT, connecting).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                tracing::debug!(error, "no session to emit with");
                return Err(EmitError::Away);
            }
            Err(_) => return Err(EmitError::Away),
        };
        Ok(Session { pool: Arc::clone(self), client, reused: false, _place: place })
    }

    fn take_idle(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(client, _)| !client.is_closed());
        idle.pop().map(|(client, _)| client)
    }

    fn put_back(&self, client: Client) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(client, since)| !client.is_closed() && since.elapsed() < IDLE);
        if !client.is_closed() {
            idle.push((client, Instant::now()));
        }
    }
}

impl Session {
    /// It was used before, so the server may have closed it meanwhile.
    pub(super) const fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) async fn query(
        self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, EmitError> {
        let asked = self.client.query_typed(sql, parameters);
        let Ok(answer) = timeout(STATEMENT + Duration::from_secs(1), asked).await else {
            return Err(EmitError::Unknown);
        };
        let error = match answer {
            Ok(rows) => {
                self.pool.put_back(self.client);
                return Ok(rows);
            }
            Err(error) => error,
        };
        let Some(refusal) = error.as_db_error() else {
            return Err(EmitError::Unknown);
        };
        let judged = judge(refusal);
        // Never its message: it may hold a value.
        tracing::debug!(sqlstate = refusal.code().code(), "an event was not emitted");
        // A session that the server ends says so by an error too.
        if !matches!(judged, EmitError::Busy | EmitError::Away) {
            self.pool.put_back(self.client);
        }
        Err(judged)
    }
}
