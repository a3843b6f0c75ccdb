//! The live schema: what tables there are, what their columns are, and what a type's text output means.
//!
//! ```text
//! pg_class, pg_attribute, pg_index ─► Schema ─► tables by name ─► Column { name, type_oid, … }
//! pg_type, pg_range ────────────────────────└─► Types ◄─ type_oid ┘
//! ```
//!
//! Two queries, each consistent in itself. A schema is a photograph: the stream's own relation messages say what has
//! changed since. It is of this database only, and knows nothing of the catalog.

mod fetch;
mod types;

use std::collections::HashMap;
use std::fmt;

pub use fetch::SchemaError;
pub(crate) use types::MAX_DEPTH;
pub use types::{Field, Type, TypeKind, Types};

/// Every user table of a database, and every type.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    pub tables: HashMap<TableName, Table>,
    pub types: Types,
}

impl Schema {
    /// The partitions, at any depth, whose changes are published as `root`'s.
    pub fn partitions<'a>(&'a self, root: &'a TableName) -> impl Iterator<Item = &'a Table> {
        self.tables.values().filter(move |table| table.root.as_ref() == Some(root))
    }
}

/// A table's name, as the database spells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

impl TableName {
    /// The schema that a bare name is in, and that `Display` leaves out.
    pub const DEFAULT_SCHEMA: &'static str = "public";

    #[must_use]
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// From `name` or `schema.name`, both exact; everything after the first dot is the name.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.split_once('.') {
            Some((schema, name)) => Self::new(schema, name),
            None => Self::new(Self::DEFAULT_SCHEMA, text),
        }
    }
}

impl fmt::Display for TableName {
    /// `name`, or `schema.name` outside `public`. For people, not for SQL: nothing is quoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schema == Self::DEFAULT_SCHEMA {
            f.write_str(&self.name)
        } else {
            write!(f, "{}.{}", self.schema, self.name)
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub oid: u32,
    pub name: TableName,
    pub kind: TableKind,
    /// Its changes are in the WAL. An unlogged table's are not.
    pub logged: bool,
    /// In attribute order, without dropped ones.
    pub columns: Vec<Column>,
    /// Column names in key order; empty without a primary key.
    pub primary_key: Vec<String>,
    pub replica_identity: ReplicaIdentity,
    /// The indexes that `REPLICA IDENTITY USING INDEX` accepts, the primary key's among them, by name.
    pub identity_indexes: Vec<IdentityIndex>,
    /// Of a partition: the topmost partitioned table, under whose name its changes are published.
    pub root: Option<TableName>,
}

impl Table {
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether the old row of an update or delete always carries `column`, as the table is set now.
    #[must_use]
    pub fn identity_covers(&self, column: &str) -> bool {
        match &self.replica_identity {
            ReplicaIdentity::Nothing => false,
            ReplicaIdentity::Full => self.column(column).is_some_and(|column| !column.generated),
            ReplicaIdentity::Default => self.primary_key.iter().any(|key| key == column),
            ReplicaIdentity::Index(name) => self
                .identity_indexes
                .iter()
                .any(|index| index.name == *name && index.columns.iter().any(|key| key == column)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    Ordinary,
    Partitioned,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub type_oid: u32,
    /// As in `pg_attribute.atttypmod`; -1 is none.
    pub type_modifier: i32,
    pub not_null: bool,
    /// Generated columns are not in the WAL.
    pub generated: bool,
}

/// What an update or delete logs of the old row (`pg_class.relreplident`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default,
    Nothing,
    Full,
    /// The columns of the named index. One that was dropped since logs nothing.
    Index(String),
}

/// A unique index that can tell rows apart: immediate, whole, over plain columns that are never null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityIndex {
    pub name: String,
    pub columns: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_name_reads_as_it_is_shown() {
        for (text, name) in [
            ("bays", TableName::new("public", "bays")),
            ("billing.Invoice", TableName::new("billing", "Invoice")),
            ("billing.a.b", TableName::new("billing", "a.b")),
        ] {
            assert_eq!(TableName::parse(text), name);
            assert_eq!(name.to_string(), text);
        }
        assert_eq!(TableName::parse("public.bays").to_string(), "bays");
    }

    #[test]
    fn replica_identity_decides_which_old_columns_are_logged() {
        let column = |name: &str, generated| Column {
            name: name.to_owned(),
            type_oid: 25,
            type_modifier: -1,
            not_null: true,
            generated,
        };
        let mut table = Table {
            oid: 1,
            name: TableName::parse("bays"),
            kind: TableKind::Ordinary,
            logged: true,
            columns: vec![column("id", false), column("code", false), column("shout", true)],
            primary_key: vec!["id".to_owned()],
            replica_identity: ReplicaIdentity::Default,
            identity_indexes: vec![IdentityIndex {
                name: "bays_code".to_owned(),
                columns: vec!["code".to_owned()],
            }],
            root: None,
        };
        let covered = |table: &Table| ["id", "code", "shout"].map(|name| table.identity_covers(name));
        assert_eq!(covered(&table), [true, false, false]);
        table.replica_identity = ReplicaIdentity::Nothing;
        assert_eq!(covered(&table), [false, false, false]);
        table.replica_identity = ReplicaIdentity::Full;
        assert_eq!(covered(&table), [true, true, false]);
        table.replica_identity = ReplicaIdentity::Index("bays_code".to_owned());
        assert_eq!(covered(&table), [false, true, false]);
        table.replica_identity = ReplicaIdentity::Index("dropped".to_owned());
        assert_eq!(covered(&table), [false, false, false]);
    }
}
