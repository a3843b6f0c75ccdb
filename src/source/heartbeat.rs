//! How a canary is written, so that it comes back through the source.

use super::Kind;
use super::relations::CANARY_PREFIX;

impl Kind {
    /// Writes `content`, unless the server is in recovery; its first value says whether that is so.
    ///
    /// `content` is the worker's own: hexadecimal digits and dots.
    #[must_use]
    pub fn heartbeat_sql(self, content: &str) -> String {
        let write = match self {
            Self::Wal => {
                format!("pg_catalog.pg_logical_emit_message(true, '{CANARY_PREFIX}', '{content}')::text")
            }
            Self::Outbox => format!("walcast.write_canary('{content}')::text"),
        };
        format!(
            "select pg_catalog.pg_is_in_recovery(), case when not pg_catalog.pg_is_in_recovery() then {write} end"
        )
    }

    /// Asks for the function that the role which writes it must be allowed to call, as GRANT takes it: with
    /// PostgreSQL 17 the server's own got another argument.
    #[must_use]
    pub const fn heartbeat_function_sql(self) -> &'static str {
        match self {
            Self::Wal => {
                "select proname || '(' || pg_catalog.oidvectortypes(proargtypes) || ')' from pg_catalog.pg_proc
                 where proname = 'pg_logical_emit_message' and pronamespace = 'pg_catalog'::regnamespace
                   and proargtypes[2] = 'text'::regtype"
            }
            Self::Outbox => "select 'walcast.write_canary(text)'",
        }
    }
}
