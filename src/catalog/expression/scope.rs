//! What an expression can name, and where its values come from.

use crate::postgres::schema::Types;
use crate::source::Operation;

/// The rows that an expression can name, with their columns. Rows and columns are known by their place from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    name: String,
    columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    name: String,
    kind: Kind,
}

/// What a column's text is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Double,
    Bool,
    Timestamp,
    Json,
    String,
}

impl Kind {
    fn of(types: &Types, oid: u32) -> Self {
        match types.base(oid) {
            16 => Self::Bool,
            // int8, int2, int4
            20 | 21 | 23 => Self::Int,
            // float4, float8, numeric
            700 | 701 | 1700 => Self::Double,
            114 | 3802 => Self::Json,
            // timestamp, timestamptz
            1114 | 1184 => Self::Timestamp,
            _ => Self::String,
        }
    }
}

impl Scope {
    /// The place of `new`.
    pub const NEW: usize = 0;
    /// The place of `old`, whose columns are those of `new`.
    pub const OLD: usize = 1;
    /// Names that no lookup or related row can have.
    pub const RESERVED: [&'static str; 4] = ["new", "old", "changed", "op"];

    /// For changes of a table with these columns, names and type oids.
    pub fn new<'a>(types: &Types, columns: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let columns: Vec<Column> = read(types, columns);
        let row = |name: &str| Row { name: name.to_owned(), columns: columns.clone() };
        Self { rows: vec![row("new"), row("old")] }
    }

    /// Adds a lookup or related row; its place.
    pub fn add_row<'a>(
        &mut self,
        types: &Types,
        name: &str,
        columns: impl IntoIterator<Item = (&'a str, u32)>,
    ) -> usize {
        self.rows.push(Row { name: name.to_owned(), columns: read(types, columns) });
        self.rows.len() - 1
    }

    /// The place of a row.
    #[must_use]
    pub fn row(&self, name: &str) -> Option<usize> {
        self.rows.iter().position(|row| row.name == name)
    }

    /// The place of a column in a row.
    #[must_use]
    pub fn column(&self, row: usize, name: &str) -> Option<usize> {
        self.rows.get(row)?.columns.iter().position(|column| column.name == name)
    }

    pub(super) fn row_name(&self, row: usize) -> &str {
        self.rows.get(row).map_or("", |row| &row.name)
    }

    pub(super) fn row_names(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| row.name.as_str())
    }

    pub(super) fn column_names(&self, row: usize) -> impl Iterator<Item = &str> {
        self.rows.get(row).into_iter().flat_map(|row| &row.columns).map(|column| column.name.as_str())
    }

    pub(super) fn column_name(&self, row: usize, column: usize) -> &str {
        self.column_names(row).nth(column).unwrap_or_default()
    }

    pub(super) fn kind(&self, row: usize, column: usize) -> Option<Kind> {
        Some(self.rows.get(row)?.columns.get(column)?.kind)
    }
}

fn read<'a>(types: &Types, columns: impl IntoIterator<Item = (&'a str, u32)>) -> Vec<Column> {
    columns
        .into_iter()
        .map(|(name, oid)| Column { name: name.to_owned(), kind: Kind::of(types, oid) })
        .collect()
}

/// One change, as an expression sees it. Places are those of the [`Scope`] that it was compiled in.
pub trait Rows: Send + Sync {
    /// Whether there is such a row. What `new` is for a delete, the caller decides.
    fn has_row(&self, row: usize) -> bool;

    /// Asked only of rows that are there.
    fn cell(&self, row: usize, column: usize) -> Cell<'_>;

    /// Whether this change changed the column of `new`.
    fn changed(&self, column: usize) -> bool;

    fn operation(&self) -> Operation;
}

/// A column of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// The log does not have it: an unchanged TOAST value, an old column outside the replica identity.
    Unavailable,
    Null,
    /// It is there, and too long to have been kept.
    TooLarge,
    /// The type's text output.
    Text(&'a [u8]),
}
