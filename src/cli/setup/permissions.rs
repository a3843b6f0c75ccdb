//! What roles need in schema `walcast`: the worker's to verify emitted events and to emit those of HTTP, an
//! application's to emit its own. A role that reads the secret could sign by itself: that it may emit adds nothing.

use std::fmt;

use anyhow::Context;
use postgres_protocol::escape::escape_identifier;

use super::Roles;
use crate::cli::exit::Usage;
use crate::postgres::Client;
use crate::source::Kind;

const EMIT: &str = "walcast.emit(text, text, jsonb, text, jsonb, jsonb)";

/// What emitting over HTTP calls when it is given a key.
const EMIT_ONCE: &str = "walcast.emit_once(bytea, text, text, jsonb, text, jsonb, jsonb)";

const EXISTS: &str = "select exists (select from pg_catalog.pg_roles where rolname = $1)";
const MAY_ENTER: &str = "select pg_catalog.has_schema_privilege($1, 'walcast', 'usage')";
const MAY_READ: &str = "select pg_catalog.has_table_privilege($1, $2, 'select')";
const MAY_CALL: &str = "select pg_catalog.has_function_privilege($1, $2, 'execute')";

/// What the worker reads and calls where it reads the outbox.
const OUTBOX_TABLES: [&str; 4] =
    ["walcast.outbox", "walcast.outbox_relations", "walcast.outbox_transactions", "walcast.outbox_state"];
const OUTBOX_FUNCTIONS: [&str; 5] = [
    "walcast.open_outbox(bigint)",
    "walcast.number_outbox()",
    "walcast.prune_outbox(bigint, integer)",
    "walcast.write_canary(text)",
    "walcast.outbox_gap_count()",
];

/// Grants that are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Permissions {
    grants: Vec<String>,
}

impl Permissions {
    pub(super) async fn find(client: &Client, roles: &Roles, source: Kind) -> anyhow::Result<Self> {
        let mut found = Self::default();
        if roles.worker.is_none() && roles.emitters.is_empty() {
            return Ok(found);
        }
        let made = "select pg_catalog.to_regprocedure($1) is not null";
        if !client.query_one(made, &[&EMIT_ONCE]).await?.try_get::<_, bool>(0)? {
            return Err(Usage(
                "schema walcast is missing or not of this version: run walcast migrate first".to_owned(),
            )
            .into());
        }
        if let Some(role) = &roles.worker {
            found.enter(client, role).await?;
            found.read(client, role, "walcast.secret").await?;
            if source == Kind::Outbox {
                for table in OUTBOX_TABLES {
                    found.read(client, role, table).await?;
                }
                for function in OUTBOX_FUNCTIONS {
                    found.call(client, role, function).await?;
                }
            }
            found.call(client, role, EMIT).await?;
            found.call(client, role, EMIT_ONCE).await?;
        }
        for role in &roles.emitters {
            found.enter(client, role).await?;
            found.call(client, role, EMIT).await?;
        }
        Ok(found)
    }

    async fn enter(&mut self, client: &Client, role: &String) -> anyhow::Result<()> {
        if !client.query_one(EXISTS, &[role]).await?.try_get::<_, bool>(0)? {
            return Err(Usage(format!("role {role} does not exist")).into());
        }
        if !client.query_one(MAY_ENTER, &[role]).await?.try_get::<_, bool>(0)? {
            self.add(format!("grant usage on schema walcast to {}", escape_identifier(role)));
        }
        Ok(())
    }

    async fn read(&mut self, client: &Client, role: &String, table: &str) -> anyhow::Result<()> {
        if !client.query_one(MAY_READ, &[role, &table]).await?.try_get::<_, bool>(0)? {
            self.add(format!("grant select on {table} to {}", escape_identifier(role)));
        }
        Ok(())
    }

    async fn call(&mut self, client: &Client, role: &String, function: &str) -> anyhow::Result<()> {
        if !client.query_one(MAY_CALL, &[role, &function]).await?.try_get::<_, bool>(0)? {
            self.add(format!("grant execute on function {function} to {}", escape_identifier(role)));
        }
        Ok(())
    }

    fn add(&mut self, grant: String) {
        if !self.grants.contains(&grant) {
            self.grants.push(grant);
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    pub(super) async fn grant(&self, client: &Client) -> anyhow::Result<()> {
        for grant in &self.grants {
            client.batch_execute(grant).await.with_context(|| grant.clone())?;
        }
        Ok(())
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        writeln!(f, "-- The worker verifies what walcast.emit wrote; applications call it.")?;
        for grant in &self.grants {
            writeln!(f, "{grant};")?;
        }
        Ok(())
    }
}
