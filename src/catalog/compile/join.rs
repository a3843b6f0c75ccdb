//! `related` and `lookup`: from which table, by which column, and of whose rows.

use crate::catalog::declaration::{JoinDeclaration, JoinKind, Ownership};
use crate::catalog::rule::{Join, JoinColumn, JoinSource, Target};
use crate::postgres::schema::{Column, Table};

use super::table::Draft;
use super::{Compiler, intern, streamed};

/// A join while its table is compiled.
pub(super) struct JoinDraft<'a> {
    pub(super) kind: JoinKind,
    pub(super) target: &'a Table,
    pub(super) join: Join,
}

impl<'a> Compiler<'a> {
    pub(super) fn join(
        &mut self,
        draft: &mut Draft<'a>,
        declared: &JoinDeclaration,
    ) -> Option<JoinDraft<'a>> {
        let of = self.find_column(draft.table, &declared.of.value, &declared.of.place);
        let target = self.find_table(&declared.table)?;
        let key = self.find_column(target, &declared.key.value, &declared.key.place);
        let (of, key) = (of?, key?);
        if !self.comparable(of, key) {
            let type_name = |column: &Column| {
                self.schema
                    .types
                    .get(column.type_oid)
                    .map_or_else(|| "unknown".to_owned(), |this| this.name.clone())
            };
            let message = format!(
                "{}.{} is {} and {}.{} is {}: they are compared as text; name columns of one type",
                draft.table.name,
                of.name,
                type_name(of),
                target.name,
                key.name,
                type_name(key)
            );
            self.findings.add(&declared.place, message);
            return None;
        }
        let organization = self.organization_of(draft, target);
        if let Some(column) = &organization
            && draft.every_organization
        {
            let message = format!(
                "rows of {} belong to an organization ({column}), and events of {} go to every organization; \
                 take nothing from there",
                target.name, draft.table.name
            );
            self.findings.add(&declared.place, message);
            return None;
        }
        let scoped = organization.is_some();
        let source = if declared.kind == JoinKind::Lookup {
            self.mirror(target, &key.name, organization)
        } else {
            self.targets.push(Target {
                table: target.name.clone(),
                key: key.name.clone(),
                organization,
                columns: Vec::new(),
                first: declared.kind == JoinKind::RelatedFirst,
            });
            JoinSource::Transaction {
                target: self.targets.len() - 1,
            }
        };
        let of = draft.slot(&of.name);
        let join = Join {
            name: declared.name.clone(),
            of,
            source,
            scoped,
            columns: Vec::new(),
            scope: Vec::new(),
        };
        Some(JoinDraft {
            kind: declared.kind,
            target,
            join,
        })
    }

    /// Values of both types have one text for one value, and the same one.
    fn comparable(&self, a: &Column, b: &Column) -> bool {
        // text and varchar; int2, int4 and int8.
        let class = |column: &Column| match self.schema.types.base(column.type_oid) {
            1043 => 25,
            21 | 23 => 20,
            oid => oid,
        };
        class(a) == class(b)
    }

    /// The target's column that holds an organization: its own declaration says so, or a column of the name that it
    /// has in the owner.
    fn organization_of(&self, draft: &Draft<'a>, target: &Table) -> Option<String> {
        match self.ownerships.get(&target.name) {
            Some(Some(Ownership::Column(column))) => Some(column.clone()),
            Some(_) => None,
            None => {
                let column = draft.organization_column.as_ref()?;
                streamed(target).find(|name| name == column).map(str::to_owned)
            }
        }
    }

    /// Rows are found by their key and organization together: another organization's row is never even seen.
    fn mirror(&mut self, target: &Table, key: &str, organization: Option<String>) -> JoinSource {
        let index: Vec<String> = std::iter::once(key.to_owned()).chain(organization).collect();
        let mirror = self.mirrors.entry(target.name.clone()).or_default();
        let position = mirror
            .indexes
            .iter()
            .position(|known| *known == index)
            .unwrap_or_else(|| {
                mirror.indexes.push(index);
                mirror.indexes.len() - 1
            });
        JoinSource::Mirror {
            table: target.name.clone(),
            index: position,
        }
    }

    /// Takes a column of a join's row.
    pub(super) fn join_column(&mut self, draft: &mut JoinDraft<'a>, column: &Column) -> usize {
        if let Some(known) = draft
            .join
            .columns
            .iter()
            .position(|known| known.name == column.name)
        {
            return known;
        }
        let position = match &draft.join.source {
            JoinSource::Mirror { table, .. } => intern(
                &mut self.mirrors.entry(table.clone()).or_default().columns,
                &column.name,
            ),
            JoinSource::Transaction { target } => match self.targets.get_mut(*target) {
                Some(target) => intern(&mut target.columns, &column.name),
                None => 0,
            },
        };
        draft.join.columns.push(JoinColumn {
            name: column.name.clone(),
            type_oid: column.type_oid,
            position,
        });
        draft.join.columns.len() - 1
    }
}
