//! Expressions: what each may read, and what the log must have for it.

use crate::catalog::declaration::JoinKind;
use crate::catalog::error::{MissingColumn, Place};
use crate::catalog::expression::{Changed, Expression, Scope};
use crate::catalog::rule::{Computed, Operations};
use crate::postgres::schema::Column;

use super::Compiler;
use super::table::{Draft, FIRST_JOIN};

impl<'a> Compiler<'a> {
    pub(super) fn expression(
        &mut self,
        draft: &mut Draft<'a>,
        source: &str,
        place: &Place,
        operations: Operations,
        condition: bool,
    ) -> Option<Box<Computed>> {
        let expression = match Expression::compile(source, &draft.scope) {
            Ok(expression) => expression,
            Err(error) => {
                let missing = error.missing.as_ref().and_then(|(row, column)| {
                    let table = match row.checked_sub(FIRST_JOIN) {
                        None => draft.table,
                        Some(join) => draft.joins.get(join)?.target,
                    };
                    Some(MissingColumn { table: table.name.clone(), column: column.clone() })
                });
                self.findings.add_about(place, format!("in {source:?}: {error}"), missing);
                return None;
            }
        };
        if condition && expression.is_never_bool() {
            let message = format!("in {source:?}: a condition is true or false; compare with something");
            self.findings.add(place, message);
        }
        let references = expression.references();
        let columns: Vec<&'a Column> =
            draft.table.columns.iter().filter(|column| !column.generated).collect();
        let named = |row: usize| references.columns(row).filter_map(|place| columns.get(place).copied());
        for column in named(Scope::NEW).chain(named(Scope::OLD)) {
            draft.slot(&column.name);
        }
        if operations.update || operations.delete {
            named(Scope::OLD).for_each(|column| draft.need(&column.name));
        }
        if operations.delete {
            named(Scope::NEW).for_each(|column| draft.need(&column.name));
        }
        match references.changed() {
            Changed::Nothing => {}
            Changed::Columns(places) => {
                for column in places.iter().filter_map(|place| columns.get(*place)) {
                    draft.slot(&column.name);
                    if operations.update {
                        draft.need(&column.name);
                    }
                }
            }
            Changed::All => {
                for column in &columns {
                    draft.slot(&column.name);
                }
                draft.need.every |= operations.update;
            }
        }
        for (index, join) in draft.joins.iter_mut().enumerate() {
            let row = FIRST_JOIN + index;
            if condition && join.kind == JoinKind::Lookup && references.uses_row(row) {
                let message = format!(
                    "when.expr reads lookup.{}, which may be newer when the change is read again; \
                     use the row's own columns, or a related row",
                    join.join.name
                );
                self.findings.add(place, message);
            }
            let target: Vec<&'a Column> =
                join.target.columns.iter().filter(|column| !column.generated).collect();
            for column in references.columns(row).filter_map(|place| target.get(place)) {
                self.join_column(join, column);
            }
        }
        Some(Box::new(Computed { expression, source: source.to_owned() }))
    }
}
