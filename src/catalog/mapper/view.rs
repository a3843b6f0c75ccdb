//! One half of a change as its organization may see it: its row, and the rows that lookups and related rows find.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use crate::catalog::compile::FIRST_JOIN;
use crate::catalog::expression::{self, EvalError, Rows, Scope, Value};
use crate::catalog::rule::{Computed, Condition, JoinSource, Rule, TableRules};
use crate::mirror::{Mirror, MirrorRow};
use crate::source::Operation;

use super::bound::Bound;
use super::related::{Collected, Found, Related};
use super::row::{Known, Row};

/// An expression came by an unchanged TOAST value.
const MET_UNCHANGED: u8 = 1;
/// An expression came by something that the log does not tell.
const MET_UNLOGGED: u8 = 2;

#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) rules: &'a TableRules,
    pub(super) bound: &'a Bound,
    pub(super) row: Row<'a>,
    pub(super) organization: &'a str,
    mirror: &'a Mirror,
    related: &'a Related,
    joins: Vec<OnceLock<JoinRow<'a>>>,
    met: AtomicU8,
}

/// What a join has found.
#[derive(Debug)]
pub(super) enum JoinRow<'a> {
    None,
    Mirrored(Arc<MirrorRow>),
    Collected(&'a Collected),
    /// It can't be told.
    Unknown,
}

/// Whether a rule applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Holds,
    Fails,
    /// The log does not tell.
    Unlogged,
    /// An expression failed.
    Error(EvalError),
}

/// What came of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Value(Value),
    Unchanged,
    Unlogged,
    Error(EvalError),
}

impl<'a> View<'a> {
    pub(super) fn new(
        rules: &'a TableRules,
        bound: &'a Bound,
        row: Row<'a>,
        organization: &'a str,
        mirror: &'a Mirror,
        related: &'a Related,
    ) -> Self {
        let joins = rules.joins.iter().map(|_| OnceLock::new()).collect();
        Self { rules, bound, row, organization, mirror, related, joins, met: AtomicU8::new(0) }
    }

    /// A column of the new row (of the old one on delete); null when it is gone from the table.
    pub(super) fn current(&self, slot: usize) -> Known<'a> {
        self.bound.position(slot).map_or(Known::Null, |column| self.row.current(column))
    }

    pub(super) fn old(&self, slot: usize) -> Known<'a> {
        self.bound.position(slot).map_or(Known::Null, |column| self.row.old(column))
    }

    /// A column that is gone does not change.
    fn changed(&self, slot: usize) -> Option<bool> {
        self.bound.position(slot).map_or(Some(false), |column| self.row.changed(column))
    }

    /// The row of a join, found when first asked for.
    pub(super) fn join(&self, index: usize) -> &JoinRow<'a> {
        let (Some(join), Some(place)) = (self.rules.joins.get(index), self.joins.get(index)) else {
            return &JoinRow::Unknown;
        };
        place.get_or_init(|| {
            let of = match self.current(join.of) {
                Known::Text(text) => text,
                Known::Null => return JoinRow::None,
                Known::Unchanged | Known::Unlogged | Known::Oversize { .. } => return JoinRow::Unknown,
            };
            let organization = join.scoped.then_some(self.organization.as_bytes());
            match &join.source {
                JoinSource::Gone => JoinRow::None,
                JoinSource::Mirror { table, index } => {
                    let Some(table) = self.mirror.find(table) else {
                        return JoinRow::Unknown;
                    };
                    let found = match organization {
                        Some(organization) => self.mirror.lookup(table, *index, &[of, organization]),
                        None => self.mirror.lookup(table, *index, &[of]),
                    };
                    found.map_or(JoinRow::None, JoinRow::Mirrored)
                }
                JoinSource::Transaction { target } => match self.related.find(*target, organization, of) {
                    Found::None => JoinRow::None,
                    Found::Row(row) => JoinRow::Collected(row),
                    Found::Unknown => JoinRow::Unknown,
                },
            }
        })
    }

    /// A column of a join's row; null where there is no row.
    pub(super) fn join_column(&self, join: usize, column: usize) -> Known<'_> {
        let Some(taken) = self.rules.joins.get(join).and_then(|join| join.columns.get(column)) else {
            return Known::Unlogged;
        };
        match self.join(join) {
            JoinRow::None => Known::Null,
            JoinRow::Mirrored(row) => {
                taken.position.and_then(|position| row.cell(position)).map_or(Known::Null, Known::Text)
            }
            JoinRow::Collected(row) => taken.position.map_or(Known::Null, |position| row.get(position)),
            JoinRow::Unknown => Known::Unlogged,
        }
    }

    /// A related row is unknown because there were too many.
    pub(super) const fn related_overflowed(&self) -> bool {
        self.related.too_many()
    }

    /// Whether all conditions hold. One that certainly fails decides, whatever else is unknown.
    pub(super) fn judge(&self, rule: &Rule) -> Verdict {
        let mut verdict = Verdict::Holds;
        for condition in &rule.conditions {
            match self.holds(condition) {
                Verdict::Holds => {}
                Verdict::Fails => return Verdict::Fails,
                unknown => verdict = unknown,
            }
        }
        verdict
    }

    fn holds(&self, condition: &Condition) -> Verdict {
        match condition {
            Condition::Changed(slots) => {
                let mut verdict = Verdict::Fails;
                for slot in slots {
                    match self.changed(*slot) {
                        Some(true) => return Verdict::Holds,
                        Some(false) => {}
                        None => verdict = Verdict::Unlogged,
                    }
                }
                verdict
            }
            Condition::Became(slot, wanted) => match self.current(*slot) {
                Known::Text(text) if text == &**wanted => match self.changed(*slot) {
                    Some(true) => Verdict::Holds,
                    Some(false) => Verdict::Fails,
                    None => Verdict::Unlogged,
                },
                // What is unchanged did not become anything.
                Known::Text(_) | Known::Null | Known::Unchanged | Known::Oversize { .. } => Verdict::Fails,
                Known::Unlogged => Verdict::Unlogged,
            },
            Condition::Expression(computed) => match self.evaluate(computed) {
                Outcome::Value(Value::Bool(true)) => Verdict::Holds,
                Outcome::Value(Value::Bool(false) | Value::Null) => Verdict::Fails,
                Outcome::Value(_) => {
                    Verdict::Error(EvalError::Types("a condition is true or false".to_owned()))
                }
                Outcome::Unchanged | Outcome::Unlogged => Verdict::Unlogged,
                Outcome::Error(error) => Verdict::Error(error),
            },
        }
    }

    pub(super) fn evaluate(&self, computed: &Computed) -> Outcome {
        self.met.store(0, Ordering::Relaxed);
        let result = computed.expression.evaluate(self);
        let met = self.met.load(Ordering::Relaxed);
        match result {
            _ if met & MET_UNLOGGED != 0 => Outcome::Unlogged,
            Err(EvalError::Unavailable(_)) if met & MET_UNCHANGED != 0 => Outcome::Unchanged,
            Ok(value) => Outcome::Value(value),
            Err(error) => Outcome::Error(error),
        }
    }

    fn meet(&self, met: u8) {
        self.met.fetch_or(met, Ordering::Relaxed);
    }

    fn slot_in_scope(&self, column: usize) -> Option<usize> {
        self.rules.scope.get(column).copied().flatten()
    }
}

/// `new` is the row as it is after the change, for a delete as it last was: what plain columns read too.
impl Rows for View<'_> {
    fn has_row(&self, row: usize) -> bool {
        match row {
            Scope::NEW => true,
            Scope::OLD => self.row.has_old(),
            _ => match self.join(row - FIRST_JOIN) {
                JoinRow::None => false,
                JoinRow::Mirrored(_) | JoinRow::Collected(_) => true,
                JoinRow::Unknown => {
                    self.meet(MET_UNLOGGED);
                    false
                }
            },
        }
    }

    fn cell(&self, row: usize, column: usize) -> expression::Cell<'_> {
        let known = match row {
            Scope::NEW => self.slot_in_scope(column).map_or(Known::Null, |slot| self.current(slot)),
            Scope::OLD => self.slot_in_scope(column).map_or(Known::Null, |slot| self.old(slot)),
            _ => {
                let join = row - FIRST_JOIN;
                let taken =
                    self.rules.joins.get(join).and_then(|join| join.scope.get(column).copied().flatten());
                taken.map_or(Known::Null, |taken| self.join_column(join, taken))
            }
        };
        match known {
            Known::Null => expression::Cell::Null,
            Known::Text(text) => expression::Cell::Text(text),
            Known::Oversize { .. } => expression::Cell::TooLarge,
            Known::Unchanged => {
                self.meet(MET_UNCHANGED);
                expression::Cell::Unavailable
            }
            Known::Unlogged => {
                self.meet(MET_UNLOGGED);
                expression::Cell::Unavailable
            }
        }
    }

    fn changed(&self, column: usize) -> bool {
        match self.slot_in_scope(column).map_or(Some(false), |slot| View::changed(self, slot)) {
            Some(changed) => changed,
            None => {
                self.meet(MET_UNLOGGED);
                false
            }
        }
    }

    fn operation(&self) -> Operation {
        self.row.operation()
    }
}
