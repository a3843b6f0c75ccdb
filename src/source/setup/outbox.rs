//! The outbox's part of a plan: triggers, and which source it is.

use std::collections::BTreeSet;

use super::Note;
use super::plan::{Planner, quote, quote_table};
use crate::postgres::schema::TableName;
use crate::source::Kind;

/// Triggers fire in the order of their names: these come before foreign keys' own (`RI_…`), so that a row is written
/// before those that are deleted or changed because of it, as in the log.
const CHANGE: &str = "00_walcast_change";
const TRUNCATE: &str = "00_walcast_truncate";

/// Drops the triggers, empties the outbox.
const CLOSE: &str = "select walcast.close_outbox()";

impl Planner<'_> {
    pub(super) fn outbox(&mut self) {
        self.triggers();
        self.remove_slot();
        self.limit();
        let end = match self.requirements.max_outbox {
            Some(bytes) => format!("up to {} MiB (source.max_outbox)", bytes >> 20),
            None => "without an end (source.max_outbox)".to_owned(),
        };
        let text = format!(
            "The outbox grows with every change while no worker reads it, {end}. Once there is to be none any more:"
        );
        self.plan.notes.push(Note { text, sql: CLOSE.to_owned() });
    }

    /// Such as the worker needs while it is at work.
    pub(super) fn triggers(&mut self) {
        if self.state.server.in_recovery {
            self.problem("this server is a standby: set up on the primary", None);
        }
        if self.state.outbox.is_none() {
            self.problem("schema walcast is missing, or old: run walcast migrate first", None);
        }
        let wanted: BTreeSet<&TableName> = self.requirements.tables.iter().map(|(table, _)| table).collect();
        for table in &wanted {
            if self.schema.tables.contains_key(*table) {
                self.trigger(table, CHANGE, "after insert or update or delete", "for each row");
                self.trigger(table, TRUNCATE, "after truncate", "for each statement");
            } else {
                self.problem(format!("table {table} does not exist"), None);
            }
        }
        for (partition, name) in self.state.outbox.iter().flat_map(|outbox| &outbox.silent) {
            let sql = format!("alter table {} enable always trigger {}", quote_table(partition), quote(name));
            self.lock(sql, format!("Changes of the partition {partition} are written to the outbox."));
        }
        self.remove_triggers(&|table| !wanted.contains(table));
    }

    fn limit(&mut self) {
        let wanted = self.requirements.max_outbox.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        match self.state.outbox.as_ref().map(|outbox| outbox.limit) {
            // Told by `triggers`.
            None => {}
            Some(None) => self.problem("schema walcast is old: run walcast migrate first", None),
            Some(Some(limit)) if limit == wanted => {}
            Some(Some(_)) => {
                let bytes = wanted.map_or_else(|| "null".to_owned(), |bytes| bytes.to_string());
                self.step(
                    format!("update walcast.meta set outbox_limit = {bytes}"),
                    "An outbox that nobody reads ends there; who comes back then reads its state again.",
                );
            }
        }
    }

    fn remove_slot(&mut self) {
        if self.state.slot.as_ref().is_some_and(|slot| slot.ours) {
            let slot = postgres_protocol::escape::escape_literal(&self.requirements.slot);
            let text = format!(
                "Slot {} keeps WAL that nobody reads any more. Once no worker reads it:",
                self.requirements.slot
            );
            let sql = format!("select pg_catalog.pg_drop_replication_slot({})", slot.trim_start());
            self.plan.notes.push(Note { text, sql });
        }
    }

    fn trigger(&mut self, table: &TableName, name: &str, events: &str, each: &str) {
        let installed = self.state.outbox.as_ref().map(|outbox| &outbox.triggers);
        let fires = installed.and_then(|triggers| triggers.get(&(table.clone(), name.to_owned())));
        let (table_sql, name_sql) = (quote_table(table), quote(name));
        if fires.is_none() {
            let sql = format!(
                "create trigger {name_sql} {events} on {table_sql} {each} execute function walcast.outbox_change()"
            );
            self.lock(
                sql,
                format!("Writes the changes of {table} to the outbox, in the transaction of each."),
            );
        }
        if fires != Some(&true) {
            let sql = format!("alter table {table_sql} enable always trigger {name_sql}");
            self.lock(sql, "Also for what a subscription of this server's applies.".to_owned());
        }
    }

    /// Triggers on tables that are not, or no more, to be followed through the outbox.
    pub(super) fn remove_triggers(&mut self, gone: &dyn Fn(&TableName) -> bool) {
        let Some(outbox) = &self.state.outbox else { return };
        for (table, name) in outbox.triggers.keys().filter(|(table, _)| gone(table)) {
            let sql = format!("drop trigger {} on {}", quote(name), quote_table(table));
            self.lock(sql, format!("{table} is not followed through the outbox."));
        }
    }

    /// Which source `run` and `walcast.emit` use, once everything that it needs is there.
    pub(super) fn chosen(&mut self) {
        let Some(outbox) = &self.state.outbox else { return };
        let source = self.requirements.source;
        if outbox.source.as_deref() != Some(source.as_str()) {
            let why = match source {
                Kind::Wal => "The worker reads the log, and walcast.emit writes to it.",
                Kind::Outbox => "The worker reads the outbox, and walcast.emit writes to it.",
            };
            self.step(format!("update walcast.meta set source = '{source}'"), why);
        }
        if source == Kind::Wal && outbox.filled {
            let why = "Nobody reads or prunes what is left in the outbox.";
            self.lock("select walcast.clear_outbox()".to_owned(), why.to_owned());
        }
    }

    /// Somebody has set up another source under a worker at work.
    pub(super) fn still_chosen(&mut self) {
        let source = self.requirements.source;
        let stored = self.state.outbox.as_ref().and_then(|outbox| outbox.source.as_deref());
        if let Some(stored) = stored.filter(|stored| *stored != source.as_str()) {
            let text = format!(
                "the database was set up for {stored} since this worker, which reads {source}, was started: start \
                 it again, or run `walcast setup` with source.kind = \"{source}\""
            );
            self.problem(text, None);
        }
    }
}
