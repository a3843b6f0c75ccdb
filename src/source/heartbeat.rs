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

    /// The function that the role which writes it must be allowed to call.
    #[must_use]
    pub const fn heartbeat_function(self) -> &'static str {
        match self {
            Self::Wal => "pg_logical_emit_message(boolean, text, text)",
            Self::Outbox => "walcast.write_canary(text)",
        }
    }
}
