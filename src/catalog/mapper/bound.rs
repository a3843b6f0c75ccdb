//! A table's rules joined to its relation message: columns by position, encoders by type.

use std::sync::Arc;

use crate::catalog::compile::{Compiled, key};
use crate::catalog::spelling::camel_case;
use crate::catalog::value::Encoder;
use crate::postgres::pgoutput::Relation;
use crate::postgres::schema::{TableName, Types};

use super::problem::{ProblemKind, Problems};

/// Rebuilt when the relation message changes, in the stream's own order.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) relation: Arc<Relation>,
    /// Of [`Compiled::tables`].
    pub(super) table: Option<usize>,
    /// Where each slot of its rules is; None for a column that is gone.
    slots: Vec<Option<usize>>,
    columns: Vec<BoundColumn>,
    /// Of a partitioned table: which of its columns are its primary key.
    partitioned_by_key: Option<Vec<bool>>,
    pub(super) targets: Vec<BoundTarget>,
    /// It has a column of a type that was made after the types were read.
    pub(super) unknown_types: bool,
}

#[derive(Debug)]
pub(super) struct BoundColumn {
    /// In camelCase.
    pub(super) name: String,
    /// `"name":`
    pub(super) key: Box<[u8]>,
    pub(super) encoder: Encoder,
    pub(super) generated: bool,
}

/// What to collect of a row that others are related to.
#[derive(Debug)]
pub(super) struct BoundTarget {
    /// Of [`Compiled::targets`].
    pub(super) target: usize,
    pub(super) first: bool,
    pub(super) key: Option<usize>,
    /// None: the target has no organization.
    pub(super) organization: Option<Option<usize>>,
    pub(super) columns: Vec<Option<usize>>,
}

impl Bound {
    pub(super) fn new(
        relation: &Arc<Relation>,
        compiled: &Compiled,
        types: &Types,
        problems: &mut Problems,
    ) -> Self {
        let name = TableName::new(&relation.namespace, &relation.name);
        let table = compiled.by_name.get(&name).copied();
        let mut missing = Vec::new();
        let mut find = |column: &str| {
            let found = relation.columns.iter().position(|known| known.name == column);
            if found.is_none() && !missing.iter().any(|known| known == column) {
                missing.push(column.to_owned());
            }
            found
        };
        let rules = table.and_then(|table| compiled.tables.get(table));
        let slots =
            rules.map(|rules| rules.columns.iter().map(|column| find(column)).collect()).unwrap_or_default();
        let targets: Vec<BoundTarget> = compiled
            .targets
            .iter()
            .enumerate()
            .filter(|(_, target)| target.table == name)
            .map(|(index, target)| BoundTarget {
                target: index,
                first: target.first,
                key: find(&target.key),
                organization: target.organization.as_deref().map(&mut find),
                columns: target.columns.iter().map(|column| find(column)).collect(),
            })
            .collect();
        for spec in compiled.mirror_specs().iter().filter(|spec| spec.table == name) {
            for column in spec.columns.iter().chain(spec.indexes.iter().flatten()) {
                find(column);
            }
        }
        let columns = match rules {
            None => Vec::new(),
            Some(rules) => relation
                .columns
                .iter()
                .map(|column| {
                    let name = camel_case(&column.name);
                    BoundColumn {
                        key: key(&name),
                        name,
                        encoder: Encoder::new(types, column.type_oid),
                        generated: rules.generated.contains(&column.name),
                    }
                })
                .collect(),
        };
        let id = relation.id.0 as usize;
        problems.forget_schema(id);
        for (index, column) in missing.iter().enumerate() {
            problems.add((ProblemKind::MissingColumn, id, index), || {
                (
                    format!("table {name} has no column {column:?} any more; events that need it carry null"),
                    None,
                )
            });
        }
        Self {
            table,
            slots,
            columns,
            partitioned_by_key: rules
                .and_then(|rules| rules.partitioned_by_key.as_ref())
                .map(|key| relation.columns.iter().map(|column| key.contains(&column.name)).collect()),
            targets,
            unknown_types: has_unknown_types(relation, types),
            relation: Arc::clone(relation),
        }
    }

    /// The position of a slot's column, unless it is gone.
    pub(super) fn position(&self, slot: usize) -> Option<usize> {
        self.slots.get(slot).copied().flatten()
    }

    pub(super) fn partitioned_by_key(&self) -> Option<&[bool]> {
        self.partitioned_by_key.as_deref()
    }

    pub(super) fn column(&self, position: usize) -> Option<&BoundColumn> {
        self.columns.get(position)
    }

    /// The columns that `row`, `changed` and `previous` are made of.
    pub(super) fn published(&self) -> impl Iterator<Item = (usize, &BoundColumn)> {
        self.columns.iter().enumerate().filter(|(_, column)| !column.generated)
    }
}

pub(super) fn has_unknown_types(relation: &Relation, types: &Types) -> bool {
    relation.columns.iter().any(|column| !types.knows(column.type_oid))
}

/// Encoders for the columns taken of other tables' rows, by table, join and column. Types are those of the schema
/// until a relation message of the other table comes.
#[derive(Debug)]
pub(super) struct JoinEncoders(Vec<Vec<Vec<Encoder>>>);

impl JoinEncoders {
    pub(super) fn new(compiled: &Compiled, types: &Types) -> Self {
        let of_join = |join: &crate::catalog::rule::Join| {
            join.columns.iter().map(|column| Encoder::new(types, column.type_oid)).collect()
        };
        Self(compiled.tables.iter().map(|table| table.joins.iter().map(of_join).collect()).collect())
    }

    pub(super) fn rebind(&mut self, relation: &Relation, compiled: &Compiled, types: &Types) {
        let same = |name: &TableName| name.name == relation.name && name.schema == relation.namespace;
        for (table, encoders) in compiled.tables.iter().zip(&mut self.0) {
            for (join, encoders) in table.joins.iter().zip(encoders) {
                if !compiled.join_table(join).is_some_and(same) {
                    continue;
                }
                for (column, encoder) in join.columns.iter().zip(encoders) {
                    if let Some(now) = relation.columns.iter().find(|now| now.name == column.name) {
                        *encoder = Encoder::new(types, now.type_oid);
                    }
                }
            }
        }
    }

    pub(super) fn get(&self, table: usize, join: usize, column: usize) -> Option<&Encoder> {
        self.0.get(table)?.get(join)?.get(column)
    }
}
