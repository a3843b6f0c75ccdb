//! Sessions that are rows: the cookie's value is asked for with a query of the operator's.
//!
//! ```text
//! cookie ─► permit (one of CONNECTIONS) ─► connection, kept between requests ─► query ─► row ─► Principal
//! ```
//!
//! Nothing is cached: a session that was deleted opens nothing more from then on. Who is let in by one carries it
//! ([`Session`]), so that it can be asked about again while their stream is open: many at once, on one connection. While
//! the database can't be asked nobody knows whether a session is good, and whoever bears one is asked to come back.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Row, Statement};

use super::authenticator::TokenError;
use super::principal::Principal;
use crate::postgres::client::{self, Client};
use crate::postgres::dsn::Dsn;
use crate::telemetry::{Readiness, Reason};

/// Connections at most: a lookup by a key takes well below a millisecond.
const CONNECTIONS: usize = 4;

/// How long to wait: for all of it (a connection, the queries), and for the queries on a connection that was kept, whose
/// other end may be gone without a word.
#[derive(Clone, Copy)]
struct Patience {
    all: Duration,
    kept: Duration,
}

/// Somebody waits for the answer.
const SHORT: Patience = Patience { all: Duration::from_secs(2), kept: Duration::from_millis(700) };

/// Nobody does, and there are many.
const LONG: Patience = Patience { all: Duration::from_secs(15), kept: Duration::from_secs(5) };

/// What the session is set to. The query reads; it ends on the server when nobody waits for it any more.
const SETTINGS: &str = "SET default_transaction_read_only = on; SET statement_timeout = '2s'";

/// The reason under which readiness tells that the query does not work.
const REASON: &str = "access.session_query";

/// Asks the database about sessions.
pub(super) struct Sessions {
    query: String,
    leeway: Duration,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
    database: OnceLock<(Dsn, Readiness)>,
}

struct Connection {
    client: Client,
    statement: Statement,
}

/// A session's value, kept to ask about it again. It does not print.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Session(Arc<str>);

/// What is found out about a session that was good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Review {
    /// It is, and of whom it is by now.
    Good(Principal),
    Over,
    /// The database can't be asked.
    Unknown,
}

#[derive(Clone, Debug, thiserror::Error)]
enum SessionError {
    #[error("the database can't be reached")]
    Away,
    /// It will fail again the same way.
    #[error("{0}")]
    Query(String),
    /// The value is of no form that the query takes.
    #[error("not a session")]
    Value,
}

impl Sessions {
    pub(super) fn new(query: &str, leeway: Duration) -> Self {
        Self {
            query: query.trim().trim_end_matches(';').to_owned(),
            leeway,
            permits: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
            database: OnceLock::new(),
        }
    }

    /// Tells where the database is. Before that, there is nobody to ask.
    pub(super) fn connect_to(&self, dsn: &Dsn, readiness: &Readiness) {
        let _ = self.database.set((dsn.clone(), readiness.clone()));
    }

    /// Whose session it is.
    pub(super) async fn find(&self, value: &str, now: SystemTime) -> Result<Principal, TokenError> {
        let found = self.find_all(&[value], SHORT, now).await.pop();
        found.unwrap_or(Err(TokenError::Unavailable("sessions")))
    }

    /// What became of sessions, each in its place.
    pub(super) async fn review(&self, sessions: &[&Session], now: SystemTime) -> Vec<Review> {
        let values: Vec<&str> = sessions.iter().map(|session| &*session.0).collect();
        let found = self.find_all(&values, LONG, now).await.into_iter();
        let reviews = found.map(|found| match found {
            Ok(principal) => Review::Good(principal),
            Err(TokenError::Unavailable(_)) => Review::Unknown,
            Err(_) => Review::Over,
        });
        reviews.collect()
    }

    async fn find_all(
        &self,
        values: &[&str],
        patience: Patience,
        now: SystemTime,
    ) -> Vec<Result<Principal, TokenError>> {
        let Some((dsn, readiness)) = self.database.get() else {
            return vec![Err(TokenError::Unavailable("sessions")); values.len()];
        };
        let asked = timeout(patience.all, self.ask(dsn, values, patience)).await;
        let found = asked.unwrap_or(Err(SessionError::Away));
        let found = found.unwrap_or_else(|error| vec![Err(error); values.len()]);
        found.into_iter().map(|found| judge(found, readiness, now)).collect()
    }

    async fn ask(
        &self,
        dsn: &Dsn,
        values: &[&str],
        patience: Patience,
    ) -> Result<Vec<Result<Option<Principal>, SessionError>>, SessionError> {
        let _permit = self.permits.acquire().await.map_err(|_| SessionError::Away)?;
        if let Some(kept) = self.take() {
            // What was lost on the way, or a table that was changed, met the others too: a new one decides.
            match timeout(patience.kept, kept.query_all(values)).await {
                Ok(answers) if answers.iter().all(works) => {
                    self.give_back(kept);
                    return Ok(self.read_all(values, answers));
                }
                Err(_) | Ok(_) => self.idle().clear(),
            }
        }
        let new = Connection::open(dsn, &self.query).await?;
        let answers = new.query_all(values).await;
        if answers.iter().all(works) {
            self.give_back(new);
        }
        Ok(self.read_all(values, answers))
    }

    fn read_all(
        &self,
        values: &[&str],
        answers: Vec<Result<Vec<Row>, SessionError>>,
    ) -> Vec<Result<Option<Principal>, SessionError>> {
        let read = |(value, rows): (&&str, Result<Vec<Row>, SessionError>)| self.read(value, &rows?);
        values.iter().zip(answers).map(read).collect()
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|kept| !kept.client.is_closed());
        idle.pop()
    }

    fn give_back(&self, connection: Connection) {
        self.idle().push(connection);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, value: &str, rows: &[Row]) -> Result<Option<Principal>, SessionError> {
        let row = match rows {
            [] => return Ok(None),
            [row] => row,
            [..] => return Err(SessionError::Query("it gives more than one row for a value".to_owned())),
        };
        let form = |_| SessionError::Query("its columns are not what they have to be".to_owned());
        let user: Option<String> = row.try_get(0).map_err(form)?;
        let expires: Option<f64> = row.try_get(1).map_err(form)?;
        let organization: Option<String> = row.try_get(2).map_err(form)?;
        let (Some(user), Some(expires)) = (user, expires) else {
            return Err(SessionError::Query("it gives a row without a user or without an end".to_owned()));
        };
        // Infinity is the end of time, what is before 1970 its beginning.
        let expires = Duration::try_from_secs_f64(expires.max(0.0)).unwrap_or(Duration::MAX);
        let expires_at = expires.saturating_add(self.leeway).as_secs();
        Ok((!user.is_empty()).then(|| Principal {
            subject: user.into(),
            expires_at,
            scopes: Vec::new(),
            default_organization: organization.filter(|id| !id.is_empty()).map(Arc::from),
            organizations: std::collections::BTreeMap::new(),
            bound_to: None,
            session: Some(Session::new(value)),
        }))
    }
}

/// The connection is good, whatever is said of the value.
const fn works(answer: &Result<Vec<Row>, SessionError>) -> bool {
    matches!(answer, Ok(_) | Err(SessionError::Value))
}

fn judge(
    found: Result<Option<Principal>, SessionError>,
    readiness: &Readiness,
    now: SystemTime,
) -> Result<Principal, TokenError> {
    match found {
        Ok(found) => {
            readiness.mend(REASON);
            let principal = found.ok_or(TokenError::Unknown)?;
            if principal.remaining(now).is_zero() { Err(TokenError::Expired) } else { Ok(principal) }
        }
        Err(SessionError::Value) => Err(TokenError::Malformed),
        Err(SessionError::Query(text)) => {
            let text =
                format!("nobody can be known by a session: the query of access.session_query fails: {text}");
            readiness.degrade(REASON, Reason::new(text));
            Err(TokenError::Unavailable("sessions"))
        }
        Err(SessionError::Away) => Err(TokenError::Unavailable("sessions")),
    }
}

impl Session {
    pub(super) fn new(value: &str) -> Self {
        Self(value.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Connection {
    async fn open(dsn: &Dsn, query: &str) -> Result<Self, SessionError> {
        let client = client::connect(dsn).await.map_err(|error| {
            tracing::debug!(%error, "no connection to ask for sessions on");
            SessionError::Away
        })?;
        client.batch_execute(SETTINGS).await.map_err(|error| classify(&error))?;
        // As a text, so that the value's form is the query's to judge and not the protocol's.
        let plain = client.prepare_typed(query, &[Type::TEXT]).await.map_err(|error| classify(&error))?;
        let third = match plain.columns().len() {
            2 => "null::text",
            3 => "s.c::text",
            count => return Err(SessionError::Query(format!("it has {count} columns, and not 2 or 3"))),
        };
        if plain.params().len() != 1 {
            return Err(SessionError::Query("it does not use $1".to_owned()));
        }
        let names = if plain.columns().len() == 2 { "a, b" } else { "a, b, c" };
        // The line ends before the parenthesis: the query may end in a comment.
        let wrapped = format!(
            "select s.a::text, extract(epoch from s.b::timestamptz)::float8, {third} from ({query}\n) as s({names}) limit 2"
        );
        let statement =
            client.prepare_typed(&wrapped, &[Type::TEXT]).await.map_err(|error| classify(&error))?;
        Ok(Self { client, statement })
    }

    /// All are sent before the first is answered.
    async fn query_all(&self, values: &[&str]) -> Vec<Result<Vec<Row>, SessionError>> {
        join_all(values.iter().map(|value| self.query(value))).await
    }

    async fn query(&self, value: &str) -> Result<Vec<Row>, SessionError> {
        self.client.query(&self.statement, &[&Hidden(value)]).await.map_err(|error| classify(&error))
    }
}

/// A parameter that does not print: tokio-postgres logs those of every query at debug.
struct Hidden<'a>(&'a str);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl ToSql for Hidden<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.to_sql(kind, out)
    }

    fn accepts(kind: &Type) -> bool {
        <&str as ToSql>::accepts(kind)
    }

    to_sql_checked!();
}

/// What the server's message says of a value may be the value: only what is wrong with the query itself is repeated.
fn classify(error: &tokio_postgres::Error) -> SessionError {
    let Some(state) = error.code() else {
        return SessionError::Away;
    };
    match (state.code().get(..2), error.as_db_error()) {
        // Data exceptions: a value that can't be cast, such as a text that is no uuid.
        (Some("22"), _) => SessionError::Value,
        // Syntax, missing tables and columns, privileges.
        (Some("42"), Some(told)) => SessionError::Query(told.message().to_owned()),
        (Some("0A" | "25" | "3D" | "3F"), _) => SessionError::Query(format!("SQLSTATE {}", state.code())),
        _ => SessionError::Away,
    }
}
