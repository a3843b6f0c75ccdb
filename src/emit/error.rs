//! Why an event was not written, and which SQLSTATE says so.

use tokio_postgres::error::DbError;

/// Its text is for whoever asked: it tells nothing of the database but what they can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The event itself can't be written.
    #[error("{0}")]
    Refused(String),
    #[error("the key was used for another event")]
    Conflict,
    /// The worker's role lacks a right, or the schema an update.
    #[error("the worker's role may not emit events; its operator is told what to do")]
    NotAllowed,
    /// Too many at once, or the database is slow. Nothing was written.
    #[error("the database has too much to do; nothing was emitted")]
    Busy,
    #[error("the database is away; nothing was emitted")]
    Away,
    #[error(
        "the database did not answer, and whether the event was emitted is not known: ask again under the same \
         Idempotency-Key"
    )]
    Unknown,
}

/// The PostgreSQL manual, appendix A.
pub(super) fn judge(error: &DbError) -> EmitError {
    let refused = |text: &str| EmitError::Refused(text.to_owned());
    let code = error.code().code();
    match code {
        // insufficient_privilege; undefined function, table, schema.
        "42501" | "42883" | "42P01" | "3F000" => return EmitError::NotAllowed,
        // The server stops, starts, or is a standby by now.
        "57P01" | "57P02" | "57P03" | "25006" => return EmitError::Away,
        _ => {}
    }
    // walcast.emit's own, in our words.
    if let Some(text) = error.message().strip_prefix("walcast.emit: ") {
        return refused(text);
    }
    match code {
        "22P05" => refused("data: a character that jsonb can't hold, such as \\u0000"),
        "22P02" => refused("data: half of a surrogate pair, or something else that jsonb can't hold"),
        "22003" => refused("data: a number that is out of range"),
        "54001" => refused("data: nested too deeply"),
        _ if code.starts_with("22") || code.starts_with("54") => refused("data: jsonb can't hold it"),
        _ => EmitError::Busy,
    }
}
