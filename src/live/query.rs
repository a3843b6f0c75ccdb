//! A query of a live preset: its file, the statement that is made of it, and what may be wrong with it.
//!
//! The file's text becomes part of one statement, once, when it is read; what streams ask with are parameters.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use tokio_postgres::error::{DbError, ErrorPosition};
use tokio_postgres::types::{ToSql, Type};

use crate::config::Preset;
use crate::postgres::client::Client;
use crate::source::{ErrorKind, sqlstate};
use crate::telemetry::Reason;

/// Bytes of the longest file.
const MAX_FILE: usize = 64 << 10;

/// Bytes of a row that could not be shorter: `{},`.
const SHORTEST_ROW: u64 = 3;

/// What depends on the schema and on rights, which may change while the worker runs: what is missing now is waited for.
/// The rest of class 42 is wrong with any schema. (PostgreSQL manual, appendix A: insufficient_privilege,
/// undefined_table, undefined_column, undefined_function, undefined_object, invalid_schema_name)
const OF_THE_SCHEMA: [&str; 6] = ["42501", "42P01", "42703", "42883", "42704", "3F000"];

/// Data exceptions: they come of values, and their messages hold some.
const OF_VALUES: &str = "22";

/// The session ends with these, whatever it asked. (operator_intervention but for query_canceled, connection_exception)
const OF_THE_SESSION: [&str; 2] = ["57P", "08"];

#[derive(Debug)]
pub struct Query {
    /// Of the preset.
    pub path: String,
    /// As configured, for messages.
    file: String,
    text: String,
    statement: String,
    /// Characters of the statement before the text.
    begins: usize,
    arguments: usize,
}

/// The preset's file can't be used, whatever the database is.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("the preset {path}: live.sql {}: can't be read: {source}", .file.display())]
    Unreadable { path: String, file: PathBuf, source: std::io::Error },
    #[error("the preset {path}: live.sql {}: {problem}", .file.display())]
    Text { path: String, file: PathBuf, problem: &'static str },
}

/// Why a query does not work in this database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the live query of {path} fails: {text}")]
pub struct Flaw {
    pub path: String,
    pub kind: ErrorKind,
    /// With the file, and the line where it is one's.
    pub text: String,
    /// What mends it.
    pub sql: Option<String>,
    /// It failed for what it was asked: others may be answered.
    pub of_question: bool,
}

impl Query {
    /// Reads the file of a live preset. An answer of more than `max_bytes` is none.
    ///
    /// # Errors
    /// It can't be read, or is no query.
    pub fn load(preset: &Preset, max_bytes: u64) -> Option<Result<Self, QueryError>> {
        let live = preset.live.as_ref()?;
        let text = match live.text {
            Some(text) => Ok(text.to_owned()),
            None => std::fs::read_to_string(&live.sql),
        };
        let (path, file) = (preset.path.clone(), live.sql.clone());
        Some(match text {
            Ok(text) => Self::new(&path, &file.display().to_string(), &text, live.arguments.len(), max_bytes)
                .map_err(|problem| QueryError::Text { path, file, problem }),
            Err(source) => Err(QueryError::Unreadable { path, file, source }),
        })
    }

    pub(super) fn new(
        path: &str,
        file: &str,
        text: &str,
        arguments: usize,
        max_bytes: u64,
    ) -> Result<Self, &'static str> {
        // What stands before stays, so that lines are the file's.
        let text = text.trim_end().trim_end_matches(';').trim_end();
        if text.trim_start().is_empty() {
            return Err("it holds no query; write one, with $1 for the organization");
        }
        if text.len() > MAX_FILE || text.contains('\0') {
            return Err("it must be text of at most 64 KiB, without NUL");
        }
        // Asked once for both uses (materialized); its order is the array's. More rows than the limit can't be few
        // enough bytes. The text's last line may be a comment.
        let before = "with answer as materialized (select pg_catalog.array_to_json(array(\
                      select pg_catalog.to_json(\"a row\") from (";
        let statement = format!(
            "{before}{text}\n) as \"a row\" limit {}))::pg_catalog.text as body) \
             select case when pg_catalog.octet_length(body) <= {max_bytes} then body end, \
             pg_catalog.octet_length(body)::pg_catalog.int8 from answer",
            max_bytes / SHORTEST_ROW + 1
        );
        Ok(Self {
            path: path.to_owned(),
            file: file.to_owned(),
            text: text.to_owned(),
            statement,
            begins: before.len(),
            arguments,
        })
    }

    /// Gives one row: the answer as text, null where it is too large, and its bytes.
    pub(super) fn statement(&self) -> &str {
        &self.statement
    }

    /// The key of readiness's reason.
    #[must_use]
    pub fn reason_key(&self) -> String {
        format!("live {}", self.path)
    }

    /// Whether it works in this database: its grammar and types, its parameters, its columns, and what it may read.
    ///
    /// # Errors
    /// What is wrong with it; or, without a flaw, that the database could not be asked.
    pub async fn check(&self, client: &Client) -> Result<(), Result<Flaw, tokio_postgres::Error>> {
        // Alone, so that a mistake is at its line, and without types, so that a parameter that is not used is noticed.
        let alone = client.prepare(&self.text).await.map_err(|error| self.judge(error, 0))?;
        let (used, given) = (alone.params().len(), 1 + self.arguments);
        if used == 0 {
            return Err(Ok(self.wrong(
                "it does not use $1, the organization, and would show all of them the same: compare a column with it",
            )));
        }
        if used != given {
            return Err(Ok(self.wrong(&format!(
                "it uses ${used}, and live.arguments names {} tags: $1 is the organization, $2 the first tag",
                self.arguments
            ))));
        }
        let mut names: Vec<&str> = alone.columns().iter().map(tokio_postgres::Column::name).collect();
        names.sort_unstable();
        if names.contains(&"?column?") {
            return Err(Ok(self.wrong("a column has no name: write expression as \"name\"")));
        }
        if let Some(name) = names.windows(2).find(|pair| pair.first() == pair.last()).and_then(<[_]>::first) {
            return Err(Ok(self.wrong(&format!("two columns are called {name:?}: name each otherwise"))));
        }
        let whole = client.prepare_typed(&self.statement, &self.types()).await;
        whole.map_err(|error| self.judge(error, self.begins))?;
        // Rights are judged when it runs. For no organization there is nothing to read.
        let (nobody, anything): (Option<&str>, Option<Vec<&str>>) = (None, None);
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&nobody, Type::TEXT)];
        parameters.extend(
            (0..self.arguments).map(|_| -> (&(dyn ToSql + Sync), Type) { (&anything, Type::TEXT_ARRAY) }),
        );
        match client.query_typed(&self.statement, &parameters).await {
            Ok(_) => Ok(()),
            Err(error) => match self.flaw(&error, self.begins) {
                Some(flaw) if flaw.of_question => Ok(()),
                Some(flaw) => Err(Ok(self.with_grants(flaw, &error, client).await)),
                None => Err(Err(error)),
            },
        }
    }

    fn judge(&self, error: tokio_postgres::Error, begins: usize) -> Result<Flaw, tokio_postgres::Error> {
        self.flaw(&error, begins).ok_or(error)
    }

    /// Of the organization, then of each argument.
    pub(super) fn types(&self) -> Vec<Type> {
        std::iter::once(Type::TEXT).chain(std::iter::repeat_n(Type::TEXT_ARRAY, self.arguments)).collect()
    }

    /// What an error says of the query, when its statement was run. None: it is about the session, and says nothing of
    /// what was asked. What passes by itself (a lock, memory, a disk that is full) is the question's alone: it must
    /// hold up no other.
    pub(super) fn flaw_of_run(&self, error: &tokio_postgres::Error) -> Option<Flaw> {
        self.flaw(error, self.begins).or_else(|| {
            let code = error.as_db_error()?.code().code();
            let ends = OF_THE_SESSION.iter().any(|prefix| code.starts_with(prefix));
            // Without its message: that of a function that raises holds what it likes.
            (!ends).then(|| Flaw {
                of_question: true,
                kind: ErrorKind::Transient,
                ..self.wrong(&format!("it fails for what it was asked (SQLSTATE {code})"))
            })
        })
    }

    /// `begins`: where the file's text begins in what was sent.
    fn flaw(&self, error: &tokio_postgres::Error, begins: usize) -> Option<Flaw> {
        let told = error.as_db_error()?;
        let code = told.code().code();
        let flaw = |kind, text| Flaw { path: self.path.clone(), kind, text, sql: None, of_question: false };
        // What it met there is nobody else's to see.
        if code.starts_with(OF_VALUES) {
            let text = format!("{}: a value it can't work with (SQLSTATE {code})", self.file);
            return Some(Flaw { of_question: true, ..flaw(ErrorKind::Operator, text) });
        }
        if code == "57014" {
            let text = format!("{}: it takes too long; an index may help (SQLSTATE {code})", self.file);
            return Some(Flaw { of_question: true, ..flaw(ErrorKind::Operator, text) });
        }
        if code == "25006" {
            return Some(flaw(ErrorKind::Operator, format!("{}: it writes; it may only read", self.file)));
        }
        let class = code.get(..2)?;
        let kind = match class {
            _ if OF_THE_SCHEMA.contains(&code) => ErrorKind::Operator,
            "42" => ErrorKind::Fatal,
            _ => sqlstate(code),
        };
        if kind == ErrorKind::Transient {
            return None;
        }
        let place = self.line(told, begins).map_or_else(String::new, |line| format!(":{line}"));
        let mut text = format!("{}{place}: {} (SQLSTATE {code})", self.file, told.message());
        if code == "42P18" {
            text.push_str("; every parameter must be used, and as a type: write $2::text[]");
        }
        if let Some(hint) = told.hint() {
            text.push_str("; ");
            text.push_str(hint);
        }
        // A limit that one answer goes over (temp_file_limit), or a page of one's rows, says nothing of the others.
        Some(Flaw { of_question: matches!(class, "53" | "58"), ..flaw(kind, text) })
    }

    /// The file's line that an error points at.
    fn line(&self, error: &DbError, begins: usize) -> Option<usize> {
        let Some(ErrorPosition::Original(position)) = error.position() else {
            return None;
        };
        // In characters, from 1.
        let before = usize::try_from(*position).ok()?.checked_sub(begins + 1)?;
        Some(self.text.chars().take(before).filter(|c| *c == '\n').count() + 1)
    }

    fn wrong(&self, problem: &str) -> Flaw {
        let text = format!("{}: {problem}", self.file);
        Flaw { path: self.path.clone(), kind: ErrorKind::Fatal, text, sql: None, of_question: false }
    }

    /// Adds the grant that is missing. Of a table the server names the last part alone, at the message's end.
    pub(super) async fn with_grants(
        &self,
        flaw: Flaw,
        error: &tokio_postgres::Error,
        client: &Client,
    ) -> Flaw {
        const MISSING: &str = "select pg_catalog.format('GRANT SELECT ON %I.%I TO %I;', n.nspname, c.relname, current_user)
            from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('r', 'p', 'v', 'm', 'f') and not pg_catalog.has_table_privilege(c.oid, 'select')
              and pg_catalog.right($1, pg_catalog.length(c.relname) + 1) = ' ' || c.relname
            limit 5";
        let Some(told) = error.as_db_error().filter(|told| told.code().code() == "42501") else {
            return flaw;
        };
        let rows = client.query_typed(MISSING, &[(&told.message(), Type::TEXT)]).await.unwrap_or_default();
        let grants: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
        Flaw { sql: (!grants.is_empty()).then(|| grants.join(" ")), ..flaw }
    }
}

impl Flaw {
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason { text: self.to_string(), sql: self.sql.clone() }
    }
}

/// A preset has one.
impl PartialEq for Query {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for Query {}

impl PartialOrd for Query {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Query {
    fn cmp(&self, other: &Self) -> Ordering {
        self.path.cmp(&other.path)
    }
}

impl Hash for Query {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.path.hash(state);
    }
}
