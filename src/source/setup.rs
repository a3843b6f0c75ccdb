//! What the database needs before it can be read: for the log publication, replica identities, slot; for the outbox
//! triggers; and grants.
//!
//! ```text
//! live state + requirements ─► plan() ─► Plan ─► Display: SQL that psql runs as it is
//!                                │         └───► run(): each statement by itself
//!                                └─► problems: what has to be mended first, with its SQL
//! ```
//!
//! A plan is only what is missing: of a database that is up to date it is empty. Its order matters: a table gets its
//! replica identity before its changes are published, since a published table without one refuses updates, and the
//! slot is made after the publication, since what was logged before a publication was there can't be decoded with it.

mod outbox;
mod plan;
mod state;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write};
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::Kind;
use crate::postgres::schema::{Schema, SchemaError, TableName};
use state::State;

pub use plan::{LIMIT, UNLIMITED};

/// Readers and writers queue up behind who waits for a table's lock: no longer than this.
const LOCK_TIMEOUT: &str = "2s";
const LOCK_ATTEMPTS: u32 = 10;
/// Between two attempts, so that those who queued get through.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// What the worker is to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements {
    pub source: Kind,
    pub publication: String,
    pub slot: String,
    /// Where an outbox ends, in bytes; none: nowhere.
    pub max_outbox: Option<u64>,
    /// Every table to be published, and what must be known of its old rows.
    pub tables: Vec<(TableName, IdentityNeed)>,
    /// The role that the worker runs as, when it is not the one that sets up.
    pub grant_to: Option<String>,
}

/// Which old values updates and deletes must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityNeed {
    /// The primary key.
    Default,
    /// Every column.
    Full,
}

/// Statements that make a database as it is required, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub statements: Vec<Statement>,
    /// What somebody with other rights has to do.
    pub notes: Vec<Note>,
}

/// One statement without its semicolon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub sql: String,
    pub why: String,
    /// Waits for a lock on a table, so it is given up soon and tried again.
    locks: bool,
}

/// Something that is stated and not done, with the SQL that would do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub text: String,
    pub sql: String,
}

/// Something that stands in the way, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub text: String,
    /// None where no statement mends it.
    pub sql: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("{}", list(.0))]
    Problems(Vec<Problem>),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("the state of the database could not be read")]
    State(#[source] tokio_postgres::Error),
    #[error("{sql}")]
    Statement { sql: String, source: tokio_postgres::Error },
    #[error("{sql}: another session held the table's lock each of {LOCK_ATTEMPTS} times; run setup again")]
    Locked { sql: String },
}

/// What is missing for `requirements`.
///
/// # Errors
/// [`SetupError::Problems`] when something must be mended first: all of it is told at once.
pub async fn plan(client: &Client, requirements: &Requirements) -> Result<Plan, SetupError> {
    let schema = Schema::fetch(client).await?;
    let state = State::fetch(client, requirements).await.map_err(SetupError::State)?;
    plan::compute(&state, &schema, requirements).map_err(SetupError::Problems)
}

/// Something that a worker at work lacks, with the SQL that mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortcoming {
    /// `source`, `server`, `table`, `publication` or `trigger`.
    pub of: &'static str,
    pub text: String,
    pub sql: Option<String>,
}

/// What a worker at work lacks of `requirements`; the slot is its own.
///
/// # Errors
/// The state could not be read.
pub async fn shortcomings(
    client: &Client,
    requirements: &Requirements,
) -> Result<Vec<Shortcoming>, SetupError> {
    let schema = Schema::fetch(client).await?;
    let state = State::fetch(client, requirements).await.map_err(SetupError::State)?;
    Ok(plan::shortcomings(&state, &schema, requirements))
}

impl Plan {
    /// Nothing is to be done. Notes may be left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// Executes every statement by itself, in order. What was done stays done when one fails: setting up again goes
    /// on from there.
    ///
    /// # Errors
    /// The first statement that failed.
    pub async fn run(&self, client: &Client) -> Result<(), SetupError> {
        for statement in &self.statements {
            tracing::info!(sql = statement.sql, "setting up");
            statement.run(client).await?;
        }
        Ok(())
    }
}

impl Statement {
    async fn run(&self, client: &Client) -> Result<(), SetupError> {
        let Self { sql, locks, .. } = self;
        let failed = |source| SetupError::Statement { sql: sql.clone(), source };
        if !locks {
            return client.batch_execute(sql).await.map_err(failed);
        }
        // Several statements in one query are one transaction: the timeout is gone with it.
        let guarded = format!("set local lock_timeout = '{LOCK_TIMEOUT}'; {sql}");
        for _ in 0..LOCK_ATTEMPTS {
            match client.batch_execute(&guarded).await {
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    tracing::info!(sql, "waiting for a table's lock");
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                other => return other.map_err(failed),
            }
        }
        Err(SetupError::Locked { sql: sql.clone() })
    }
}

impl fmt::Display for Plan {
    /// SQL for psql, with each reason as a comment. Running it again after a lock timeout does no harm.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            f.write_str("-- Nothing to do: everything is as it should be.\n")?;
        }
        for statement in &self.statements {
            comment(&statement.why, f)?;
            if statement.locks {
                writeln!(f, "set lock_timeout = '{LOCK_TIMEOUT}';")?;
                writeln!(f, "{};", statement.sql)?;
                writeln!(f, "reset lock_timeout;\n")?;
            } else {
                writeln!(f, "{};\n", statement.sql)?;
            }
        }
        for note in &self.notes {
            comment(&note.text, f)?;
            comment(&format!("    {};", note.sql), f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.sql {
            Some(sql) => write!(f, "\n    {sql};"),
            None => Ok(()),
        }
    }
}

/// A line that stays a comment whatever names are in it: a table's may hold line breaks.
fn comment(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    writeln!(f, "-- {line}")
}

fn list(problems: &[Problem]) -> String {
    let mut text = String::from("the database is not ready to be set up:");
    for problem in problems {
        let _ = write!(text, "\n- {problem}");
    }
    text
}
