//! One session that answers questions: read-only, and never for long.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::query::Flaw;
use super::{Answer, Question};
use crate::postgres::Dsn;
use crate::postgres::client::{Client, connect};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);

/// How long the server may take for a query. After it the server gives up; a second more, and so do we.
const STATEMENT: Duration = Duration::from_secs(5);

/// Half of a table would be a false answer: where row-level security would hide rows, it is an error.
const SETTINGS: &str = "set default_transaction_read_only = on; set default_transaction_isolation = 'read committed'; \
                        set statement_timeout = '5s'; set lock_timeout = '5s'; set row_security = off; \
                        set application_name = 'walcast live'";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There is no session to ask on, and why.
    #[error("live queries can't be asked: {0}")]
    Away(String),
    #[error(transparent)]
    Flaw(Flaw),
}

pub(super) async fn open(dsn: &Dsn) -> Result<Client, Failure> {
    let connecting = async {
        let client = connect(dsn).await.map_err(|error| error.to_string())?;
        client.batch_execute(SETTINGS).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(client)
    };
    let opened = timeout(CONNECT, connecting).await;
    opened.unwrap_or_else(|_| Err("the server did not answer".to_owned())).map_err(Failure::Away)
}

/// Asks on `client`, which is good for more unless the failure is [`Failure::Away`].
pub(super) async fn ask(client: &Client, question: &Question) -> Result<Answer, Failure> {
    let away = |why: &str| Failure::Away(why.to_owned());
    let organization = &*question.organization;
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(1 + question.arguments.len());
    parameters.push((&organization, Type::TEXT));
    parameters.extend(
        question.arguments.iter().map(|values| -> (&(dyn ToSql + Sync), Type) { (values, Type::TEXT_ARRAY) }),
    );
    let asked = client.query_typed(question.query.statement(), &parameters);
    let Ok(asked) = timeout(STATEMENT + Duration::from_secs(1), asked).await else {
        return Err(away("the server did not answer"));
    };
    let rows = match asked {
        Ok(rows) => rows,
        Err(error) => {
            return Err(match question.query.flaw_of_run(&error) {
                Some(flaw) => Failure::Flaw(question.query.with_grants(flaw, &error, client).await),
                None => Failure::Away(error.code().map_or_else(
                    || "the connection broke".to_owned(),
                    |code| format!("SQLSTATE {}", code.code()),
                )),
            });
        }
    };
    rows.first().and_then(read).ok_or_else(|| away("an answer that is none"))
}

fn read(row: &Row) -> Option<Answer> {
    let (json, bytes): (Option<&str>, i64) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
    Some(match json {
        Some(json) => Answer::Rows(one_line(json)),
        None => Answer::Oversize(u64::try_from(bytes).ok()?),
    })
}

/// A column of type json keeps its newlines: between its tokens, where a space is the same.
fn one_line(json: &str) -> Bytes {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ").into() } else { json.to_owned().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_line() {
        assert_eq!(one_line("[{\"a\":{\r\n\"b\":1}}]"), "[{\"a\":{  \"b\":1}}]");
        assert_eq!(one_line("[]"), "[]");
    }
}
