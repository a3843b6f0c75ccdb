//! A catalog as it was written: every table, event and form, each with its place, nothing resolved yet.

use crate::postgres::schema::TableName;
use crate::source::Operation;

use super::error::Place;

/// Something, and the line that says it.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Which organization a table's rows belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    Column(String),
    /// `"*"`: every organization.
    Every,
}

#[derive(Clone, Debug)]
pub(super) struct TableDeclaration {
    pub(super) name: TableName,
    pub(super) place: Place,
    /// None only where there are no events: the table is declared for others' lookups and related rows.
    pub(super) organization: Option<Located<Ownership>>,
    pub(super) joins: Vec<JoinDeclaration>,
    pub(super) events: Vec<EventDeclaration>,
}

/// `related.<name>` or `lookup.<name>`: a row of another table, found by one of this table's columns.
#[derive(Clone, Debug)]
pub(super) struct JoinDeclaration {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) kind: JoinKind,
    pub(super) table: Located<TableName>,
    pub(super) key: Located<String>,
    pub(super) of: Located<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinKind {
    /// From the mirror, as of the change.
    Lookup,
    /// The first or last row that the same transaction inserted or updated.
    RelatedFirst,
    RelatedLast,
}

#[derive(Clone, Debug)]
pub(super) struct EventDeclaration {
    pub(super) event_type: String,
    pub(super) place: Place,
    pub(super) on: Vec<Operation>,
    pub(super) channel: String,
    pub(super) tags: Vec<TagDeclaration>,
    pub(super) changed: Vec<Located<String>>,
    pub(super) became: Vec<(Located<String>, Literal)>,
    pub(super) expression: Option<Located<String>>,
    pub(super) only: Option<OnlyDeclaration>,
    pub(super) data: Vec<FieldDeclaration>,
}

#[derive(Clone, Debug)]
pub(super) struct TagDeclaration {
    pub(super) name: String,
    pub(super) column: Located<String>,
}

/// What a column became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Text(String),
    Integer(i64),
    Boolean(bool),
}

#[derive(Clone, Debug)]
pub(super) struct OnlyDeclaration {
    pub(super) roles: Vec<String>,
    pub(super) user: Option<Located<String>>,
}

#[derive(Clone, Debug)]
pub(super) struct FieldDeclaration {
    pub(super) name: String,
    pub(super) place: Place,
    /// `omit = "null"`: left out when it is null.
    pub(super) omit_null: bool,
    pub(super) form: Form,
}

#[derive(Clone, Debug)]
pub(super) enum Form {
    Column(String),
    Expression(String),
    JoinColumn {
        join: String,
        column: String,
    },
    JoinObject {
        join: String,
        fields: Vec<FieldDeclaration>,
    },
    Row(Image),
    Changed,
    Previous,
    /// Its JSON.
    Value(String),
    Object(Vec<FieldDeclaration>),
}

/// Which row of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// The new row; on delete the old one.
    New,
    /// The row before; there is none on insert.
    Old,
}
