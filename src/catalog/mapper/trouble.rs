//! Tells problems as the mapper meets them, in the words of the catalog.

use crate::catalog::expression::EvalError;
use crate::catalog::rule::{Computed, JoinSource, TableRules};

use crate::postgres::pgoutput::Relation;

use super::Counters;
use super::problem::{ProblemKind, Problems};
use super::view::{JoinRow, View};

#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) problems: Problems,
    pub(super) counters: Counters,
}

impl Trouble {
    /// An old value was needed that the log does not have.
    pub(super) fn unlogged(&mut self, view: &View<'_>) {
        self.unlogged_of(view.rules, &view.bound.relation);
    }

    pub(super) fn unlogged_of(&mut self, rules: &TableRules, relation: &Relation) {
        self.counters.unlogged += 1;
        self.problems.add((ProblemKind::ReplicaIdentity, relation.id.0 as usize, 0), || {
            let text = format!(
                "events of {} need old values that its replica identity does not log; they carry null, or a data.sync \
                 goes out in their place",
                rules.name
            );
            let table = format!("{}.{}", quoted(&relation.namespace), quoted(&relation.name));
            (text, Some(format!("ALTER TABLE {table} REPLICA IDENTITY FULL;")))
        });
    }

    /// Nobody can say whether a rule applies.
    pub(super) fn undecided(&mut self, view: &View<'_>) {
        let unknown = view.rules.joins.iter().enumerate().find(|(index, join)| {
            matches!(join.source, JoinSource::Transaction { .. })
                && matches!(view.join(*index), JoinRow::Unknown)
        });
        match unknown {
            Some((join, _)) => self.join_unknown(view, join),
            None => self.unlogged(view),
        }
    }

    /// A join's row can't be told: its own column is not in the log, or there were too many related rows.
    pub(super) fn join_unknown(&mut self, view: &View<'_>, join: usize) {
        let related = view.rules.joins.get(join).map(|join| (&join.name, &join.source));
        match related {
            Some((name, JoinSource::Transaction { .. })) if view.related_overflowed() => {
                self.problems.add((ProblemKind::RelatedRows, view.bound.relation.id.0 as usize, join), || {
                    let text = format!(
                        "a transaction had more related rows than are kept ({} of {}); events carry null for them, or \
                         a data.sync goes out in their place",
                        name, view.rules.name
                    );
                    (text, None)
                });
            }
            _ => self.unlogged(view),
        }
    }

    pub(super) fn expression(
        &mut self,
        view: &View<'_>,
        rule: usize,
        computed: &Computed,
        error: &EvalError,
    ) {
        self.counters.failed_expressions += 1;
        self.problems.add(
            (ProblemKind::Expression, view.bound.relation.id.0 as usize, rule),
            || {
                let event = view.rules.rules.get(rule).map_or("", |rule| &rule.event_type);
                let name = &view.rules.name;
                (
                    format!(
                        "event {event:?} of {name}: expression {:?} failed: {error}",
                        computed.source
                    ),
                    None,
                )
            },
        );
    }

    /// A row whose organization is null, or is `*`, which no row may claim.
    pub(super) fn no_organization(&mut self, rules: &TableRules, relation: u32) {
        self.counters.no_organization += 1;
        self.problems
            .add((ProblemKind::NoOrganization, relation as usize, 0), || {
                let column = rules
                    .organization
                    .and_then(|slot| rules.columns.get(slot))
                    .map_or("", String::as_str);
                let text = format!(
                    "rows of {} have no organization in {column:?}; they make no events",
                    rules.name
                );
                (text, None)
            });
    }

    pub(super) fn emit(&mut self, reason: &super::emit::Refusal) {
        self.counters.refused_emits += 1;
        self.problems.add((ProblemKind::Emit, 0, reason.number()), || {
            (format!("an emitted event was dropped: {reason}"), None)
        });
    }
}

/// An identifier in SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
