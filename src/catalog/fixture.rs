//! For tests and fuzzers: schemas, relations and rows in one line each.

#![allow(clippy::expect_used, clippy::panic, reason = "a test stops where it can't go on")]

pub(super) mod reference;

use std::collections::HashMap;
use std::sync::Arc;

use crate::postgres::pgoutput::{
    Cell, OldTuple, Relation, RelationColumn, RelationId, ReplicaIdentity, Tuple,
};
use crate::postgres::schema::{self, Column, IdentityIndex, Schema, Table, TableKind, TableName, Types};
use crate::source::{Change, Operation, RowChange};

use super::{Catalog, CatalogErrors, Compiled};

fn oid(type_name: &str) -> u32 {
    match type_name {
        "text" => 25,
        "bool" => 16,
        "int" => 23,
        "bigint" => 20,
        "float" => 701,
        "numeric" => 1700,
        "timestamptz" => 1184,
        "jsonb" => 3802,
        "uuid" => 2950,
        other => panic!("no such type here: {other}"),
    }
}

/// `name: column type, …`; a column that starts with `*` is of the primary key, one with `=` is generated.
pub(super) fn table(line: &str) -> Table {
    let (name, columns) = line.split_once(": ").expect("name: columns");
    let mut primary_key = Vec::new();
    let columns = columns
        .split(", ")
        .map(|column| {
            let (name, type_name) = column.split_once(' ').expect("column type");
            let bare = name.trim_start_matches(['*', '=']).to_owned();
            if name.starts_with('*') {
                primary_key.push(bare.clone());
            }
            Column {
                name: bare,
                type_oid: oid(type_name),
                type_modifier: -1,
                not_null: false,
                generated: name.starts_with('='),
            }
        })
        .collect();
    Table {
        oid: 1,
        name: TableName::parse(name),
        kind: TableKind::Ordinary,
        logged: true,
        columns,
        identity_indexes: vec![IdentityIndex { name: "primary".to_owned(), columns: primary_key.clone() }],
        primary_key,
        replica_identity: schema::ReplicaIdentity::Default,
        root: None,
    }
}

/// One table a line.
pub(super) fn schema(lines: &str) -> Schema {
    let tables = lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(table);
    Schema { tables: tables.map(|table| (table.name.clone(), table)).collect(), types: Types::builtin() }
}

pub(super) fn catalog(text: &str) -> Result<Catalog, CatalogErrors> {
    Catalog::from_files(&[("catalog.toml".into(), text.to_owned())])
}

pub(super) fn compile(text: &str, lines: &str) -> Result<Compiled, String> {
    let catalog = catalog(text).map_err(|errors| errors.to_string())?;
    catalog.compile(&schema(lines)).map_err(|errors| errors.to_string())
}

/// Relations as the stream describes the tables of a schema.
pub(super) fn relations(schema: &Schema, identity: ReplicaIdentity) -> HashMap<String, Arc<Relation>> {
    let mut tables: Vec<_> = schema.tables.values().collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    let relation = |(index, table): (usize, &&Table)| {
        let columns = table
            .columns
            .iter()
            .filter(|column| !column.generated)
            .map(|column| RelationColumn {
                name: column.name.clone(),
                type_oid: column.type_oid,
                type_modifier: -1,
                is_key: match identity {
                    ReplicaIdentity::Full => true,
                    ReplicaIdentity::Nothing => false,
                    _ => table.primary_key.contains(&column.name),
                },
            })
            .collect();
        let relation = Relation {
            id: RelationId(u32::try_from(index).expect("few tables") + 1),
            namespace: table.name.schema.clone(),
            name: table.name.name.clone(),
            identity,
            columns,
        };
        (table.name.to_string(), Arc::new(relation))
    };
    tables.iter().enumerate().map(relation).collect()
}

/// Values with `|` between; `∅` is null, `~` an unchanged TOAST value.
pub(super) fn tuple(row: &str) -> Tuple {
    let cell = |text| match text {
        "∅" => Cell::Null,
        "~" => Cell::Unchanged,
        text => Cell::Text(str::as_bytes(text)),
    };
    Tuple::new(row.split('|').map(cell)).expect("a small tuple")
}

fn change(
    relation: &Arc<Relation>,
    operation: Operation,
    old: Option<OldTuple>,
    new: Option<&str>,
) -> Change {
    Change::Row(RowChange { relation: Arc::clone(relation), operation, old, new: new.map(tuple) })
}

pub(super) fn insert(relation: &Arc<Relation>, new: &str) -> Change {
    change(relation, Operation::Insert, None, Some(new))
}

/// With the whole old row.
pub(super) fn update(relation: &Arc<Relation>, old: &str, new: &str) -> Change {
    change(relation, Operation::Update, Some(OldTuple::Full(tuple(old))), Some(new))
}

/// With what the primary key logs: nothing, or the old key.
pub(super) fn update_by_key(relation: &Arc<Relation>, old: Option<&str>, new: &str) -> Change {
    change(relation, Operation::Update, old.map(|old| OldTuple::Key(tuple(old))), Some(new))
}

pub(super) fn delete(relation: &Arc<Relation>, old: &str) -> Change {
    change(relation, Operation::Delete, Some(OldTuple::Full(tuple(old))), None)
}

pub(super) fn delete_by_key(relation: &Arc<Relation>, old: &str) -> Change {
    change(relation, Operation::Delete, Some(OldTuple::Key(tuple(old))), None)
}
