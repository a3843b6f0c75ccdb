//! From what is there to what is missing. No IO.

use std::collections::BTreeSet;

use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::state::{Publication, State};
use super::{IdentityNeed, Note, Plan, Problem, Requirements, Shortcoming, Statement};
use crate::postgres::schema::{ReplicaIdentity, Schema, Table, TableKind, TableName};
use crate::source::Kind;

/// `failover` of `pg_create_logical_replication_slot`.
const FAILOVER_SINCE: i32 = 170_000;

/// Said by `setup` and by readiness.
pub const UNLIMITED: &str =
    "max_slot_wal_keep_size is unlimited: should the worker be gone for long, its slot fills the disk";
pub const LIMIT: &str =
    "alter system set max_slot_wal_keep_size = '16GB'; select pg_catalog.pg_reload_conf()";

const OPTIONS: &str = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";

/// From here on the server refuses every update and delete of a published table with REPLICA IDENTITY FULL and a
/// generated column that is not published, and a virtual one can't be. (`CheckCmdReplicaIdentity`)
const GENERATED_COLUMNS_SINCE: i32 = 180_000;

pub(super) fn compute(
    state: &State,
    schema: &Schema,
    requirements: &Requirements,
) -> Result<Plan, Vec<Problem>> {
    let mut planner = Planner { state, schema, requirements, plan: Plan::default(), problems: Vec::new() };
    match requirements.source {
        Kind::Wal => {
            planner.server();
            planner.identities();
            planner.publication();
            planner.slot();
            planner.keep_size();
            planner.remove_triggers(&|_| true);
        }
        Kind::Outbox => planner.outbox(),
    }
    planner.chosen();
    planner.grants();
    if planner.problems.is_empty() { Ok(planner.plan) } else { Err(planner.problems) }
}

pub(super) fn shortcomings(state: &State, schema: &Schema, requirements: &Requirements) -> Vec<Shortcoming> {
    let mut planner = Planner { state, schema, requirements, plan: Plan::default(), problems: Vec::new() };
    let mut found = Vec::new();
    planner.still_chosen();
    planner.told("source", &mut found);
    match requirements.source {
        Kind::Wal => {
            planner.server();
            planner.told("server", &mut found);
            planner.identities();
            planner.told("table", &mut found);
            planner.publication();
            planner.told("publication", &mut found);
        }
        Kind::Outbox => {
            planner.triggers();
            planner.told("trigger", &mut found);
        }
    }
    found
}

pub(super) struct Planner<'a> {
    pub(super) state: &'a State,
    pub(super) schema: &'a Schema,
    pub(super) requirements: &'a Requirements,
    pub(super) plan: Plan,
    problems: Vec<Problem>,
}

impl Planner<'_> {
    fn server(&mut self) {
        let server = &self.state.server;
        if server.in_recovery {
            self.problem("this server is a standby: set up on the primary", None);
        }
        if server.wal_level != "logical" {
            self.problem(
                format!(
                    "wal_level is {}, and must be logical; the server must be restarted after this",
                    server.wal_level
                ),
                Some("alter system set wal_level = 'logical'".to_owned()),
            );
        }
    }

    fn identities(&mut self) {
        for (name, need) in &self.requirements.tables {
            let Some(table) = self.schema.tables.get(name) else {
                self.problem(format!("table {name} does not exist"), None);
                continue;
            };
            if !table.logged {
                let sql = format!("alter table {} set logged", quote_table(name));
                self.problem(format!("table {name} is unlogged: its changes are not in the WAL"), Some(sql));
                continue;
            }
            if *need == IdentityNeed::Default && table.primary_key.is_empty() {
                let sql = format!("alter table {} add primary key (…)", quote_table(name));
                let text =
                    format!("table {name} has no primary key: nothing would tell which row was changed");
                self.problem(text, Some(sql));
                continue;
            }
            // A partition logs by its own replica identity, and is published by its root's.
            let partitions = self.schema.partitions(name).filter(|table| table.kind == TableKind::Ordinary);
            let mut tables: Vec<&Table> = partitions.collect();
            tables.sort_by(|a, b| a.name.cmp(&b.name));
            for table in std::iter::once(table).chain(tables) {
                self.identity(table, *need);
            }
        }
    }

    fn identity(&mut self, table: &Table, need: IdentityNeed) {
        let name = &table.name;
        let full = need == IdentityNeed::Full || table.replica_identity == ReplicaIdentity::Full;
        if let Some(column) = self.state.virtual_columns.get(name)
            && full
        {
            let text = format!(
                "table {name} has the virtual generated column {column:?}: were the table published with the old values \
                 that the catalog needs, PostgreSQL would refuse every update and delete of it; make the column \
                 STORED, or set source.kind to outbox"
            );
            self.problem(text, None);
            return;
        }
        let (form, why) = match (need, &table.replica_identity) {
            // What logs more than is needed may be needed by somebody else.
            (_, ReplicaIdentity::Full) | (IdentityNeed::Default, ReplicaIdentity::Default) => return,
            (IdentityNeed::Full, _) => (
                "full",
                format!(
                    "The catalog needs old values of {name} beyond its key. The cost: every update and delete of it \
                     logs the whole old row."
                ),
            ),
            (IdentityNeed::Default, _) => {
                ("default", format!("Updates and deletes of {name} must log the primary key of the row."))
            }
        };
        self.lock(format!("alter table {} replica identity {form}", quote_table(name)), why);
    }

    fn publication(&mut self) {
        let name = quote(&self.requirements.publication);
        let Some(publication) = &self.state.publication else {
            let tables = published(self.requirements.tables.iter().map(|(table, _)| table));
            let tables = if tables.is_empty() { String::new() } else { format!(" for table {tables}") };
            let sql = format!("create publication {name}{tables} with ({})", self.options());
            self.lock(sql, "The changes that the worker is sent.".to_owned());
            return;
        };
        if publication.all_tables {
            let text = format!(
                "publication {} is for all tables: the worker would be sent every change of the database, and no \
                 table could be updated that has no key; drop it, or set source.publication to another name",
                self.requirements.publication
            );
            self.problem(text, Some(format!("drop publication {name}")));
            return;
        }
        self.alter_publication(publication, &name);
    }

    fn alter_publication(&mut self, publication: &Publication, name: &str) {
        let wanted: BTreeSet<&TableName> = self.requirements.tables.iter().map(|(table, _)| table).collect();
        let in_part = publication.tables.iter().any(|(table, in_part)| *in_part && wanted.contains(table));
        if (in_part || !publication.schemas.is_empty()) && !wanted.is_empty() {
            let tables = published(wanted.into_iter());
            let why =
                "Exactly the tables of the catalog, each whole: no schemas, row filters or column lists.";
            self.lock(format!("alter publication {name} set table {tables}"), why.to_owned());
        } else {
            let gone: Vec<_> = publication.tables.keys().filter(|table| !wanted.contains(table)).collect();
            if !gone.is_empty() {
                let sql = format!("alter publication {name} drop table {}", published(gone.into_iter()));
                self.lock(sql, "Not in the catalog.".to_owned());
            }
            let new: Vec<_> =
                wanted.into_iter().filter(|table| !publication.tables.contains_key(*table)).collect();
            if !new.is_empty() {
                let sql = format!("alter publication {name} add table {}", published(new.into_iter()));
                self.lock(sql, "In the catalog, and not yet published.".to_owned());
            }
        }
        if !publication.complete {
            let sql = format!("alter publication {name} set ({})", self.options());
            self.step(sql, "Every operation, and partitions as the table that they are of.");
        }
    }

    fn options(&self) -> String {
        let generated = self.state.server.version >= GENERATED_COLUMNS_SINCE;
        format!("{OPTIONS}{}", if generated { ", publish_generated_columns = stored" } else { "" })
    }

    fn slot(&mut self) {
        let name = escape(&self.requirements.slot);
        match &self.state.slot {
            None => self.create_slot(&name),
            Some(slot) if !slot.ours => {
                let text = format!(
                    "slot {} is not a permanent pgoutput slot of this database: set source.slot to another name, or \
                     drop it",
                    self.requirements.slot
                );
                self.problem(text, Some(format!("select pg_catalog.pg_drop_replication_slot({name})")));
            }
            Some(slot) if slot.two_phase => {
                let text = format!(
                    "slot {} was made with two_phase: it would send transactions before they are committed; drop it, \
                     and one without is made",
                    self.requirements.slot
                );
                self.problem(text, Some(format!("select pg_catalog.pg_drop_replication_slot({name})")));
            }
            Some(slot) if slot.lost => {
                let sql = format!("select pg_catalog.pg_drop_replication_slot({name})");
                self.step(sql, "The server invalidated it: it can't be read any more.");
                self.create_slot(&name);
            }
            Some(slot) if self.state.publication.is_none() && slot.active => {
                let text = format!(
                    "slot {} is being read without its publication; stop the worker while the publication is made",
                    self.requirements.slot
                );
                self.problem(text, None);
            }
            Some(_) if self.state.publication.is_none() => {
                let sql = format!(
                    "select pg_catalog.pg_replication_slot_advance({name}, pg_catalog.pg_current_wal_insert_lsn())"
                );
                self.step(sql, "What was logged before the publication was there can't be decoded.");
            }
            Some(_) => {}
        }
    }

    /// A slot that nobody reads fills the disk, where nothing bounds it.
    fn keep_size(&mut self) {
        if self.state.server.keep_size_mib.is_some() {
            return;
        }
        self.plan.notes.push(Note { text: UNLIMITED.to_owned(), sql: LIMIT.to_owned() });
    }

    /// Moves what was planned and found wrong to `found`.
    fn told(&mut self, of: &'static str, found: &mut Vec<Shortcoming>) {
        for Problem { text, sql } in self.problems.drain(..) {
            found.push(Shortcoming { of, text, sql: sql.map(|sql| format!("{sql};")) });
        }
        for Statement { sql, why, .. } in self.plan.statements.drain(..) {
            let text = match of {
                "publication" => {
                    format!(
                        "publication {} is not as the catalog needs it. {why}",
                        self.requirements.publication
                    )
                }
                "trigger" => format!("the outbox's triggers are not as the catalog needs them. {why}"),
                _ => why,
            };
            found.push(Shortcoming { of, text, sql: Some(format!("{sql};")) });
        }
    }

    fn create_slot(&mut self, name: &str) {
        let State { server, role, slot, .. } = self.state;
        if slot.is_none() && server.used_slots >= server.max_slots {
            let text = format!(
                "all {} replication slots are in use (max_replication_slots); drop one that nobody reads, or allow \
                 more, with a restart of the server after this",
                server.max_slots
            );
            let sql = format!("alter system set max_replication_slots = {}", server.max_slots + 5);
            self.problem(text, Some(sql));
        }
        if !role.may_replicate {
            let text = format!("role {} may not create replication slots; as a superuser", role.name);
            self.problem(text, Some(format!("alter role {} replication", quote(&role.name))));
        }
        let failover = if server.version >= FAILOVER_SINCE { ", failover => true" } else { "" };
        self.step(
            format!("select pg_catalog.pg_create_logical_replication_slot({name}, 'pgoutput'{failover})"),
            "From here on the server keeps WAL until the worker has read it. Drop the slot when the worker is no more.",
        );
    }

    fn grants(&mut self) {
        let Some(role) = &self.requirements.grant_to else {
            return;
        };
        let quoted = quote(role);
        let Some(grantee) = &self.state.grantee else {
            let sql = format!("create role {quoted} login replication");
            self.problem(format!("role {role} does not exist"), Some(sql));
            return;
        };
        for schema in &grantee.schemas_without_usage {
            let sql = format!("grant usage on schema {} to {quoted}", quote(schema));
            self.step(sql, "The worker reads tables in it.");
        }
        if !grantee.tables_without_select.is_empty() {
            let tables = list_tables(grantee.tables_without_select.iter());
            self.step(
                format!("grant select on table {tables} to {quoted}"),
                "The worker reads the mirrored ones whole.",
            );
        }
        if !grantee.may_replicate && self.requirements.source == Kind::Wal {
            let text = format!("The worker's role {role} must be able to replicate. As a superuser:");
            self.plan.notes.push(Note { text, sql: format!("alter role {quoted} replication") });
        }
    }

    pub(super) fn step(&mut self, sql: String, why: &str) {
        self.plan.statements.push(Statement { sql, why: why.to_owned(), locks: false });
    }

    pub(super) fn lock(&mut self, sql: String, why: String) {
        self.plan.statements.push(Statement { sql, why, locks: true });
    }

    pub(super) fn problem(&mut self, text: impl Into<String>, sql: Option<String>) {
        self.problems.push(Problem { text: text.into(), sql });
    }
}

pub(super) fn quote(identifier: &str) -> String {
    escape_identifier(identifier)
}

/// Without the space that comes before a literal with backslashes.
fn escape(literal: &str) -> String {
    escape_literal(literal).trim_start().to_owned()
}

pub(super) fn quote_table(table: &TableName) -> String {
    format!("{}.{}", quote(&table.schema), quote(&table.name))
}

/// Without ONLY the server takes a table's children with it: their updates would be refused where they have no key.
/// Partitions are published in any case.
fn published<'a>(tables: impl Iterator<Item = &'a TableName>) -> String {
    let tables: Vec<String> = tables.map(|table| format!("only {}", quote_table(table))).collect();
    tables.join(", ")
}

fn list_tables<'a>(tables: impl Iterator<Item = &'a TableName>) -> String {
    let tables: Vec<String> = tables.map(quote_table).collect();
    tables.join(", ")
}
