//! A catalog resolved against the live schema: what the mapper runs.
//!
//! Columns are numbers into [`TableRules::columns`], bound to a relation's positions when its relation message
//! comes. Everything of a frame that never changes is written out once, here.

use std::sync::Arc;

use crate::postgres::schema::TableName;
use crate::source::Operation;

use super::declaration::Image;
use super::event::Audience;
use super::expression::Expression;

/// Index into [`TableRules::columns`].
pub(super) type Slot = usize;

#[derive(Debug)]
pub(super) struct TableRules {
    pub(super) name: TableName,
    /// Every column that the rules name.
    pub(super) columns: Vec<String>,
    /// Of every column in the scope of expressions: its slot, if one of them reads it.
    pub(super) scope: Vec<Option<Slot>>,
    /// Left out of rows, where a server publishes them at all.
    pub(super) generated: Vec<String>,
    /// Of a partitioned table: its primary key.
    pub(super) partitioned_by_key: Option<Vec<String>>,
    /// None: every organization.
    pub(super) organization: Option<Slot>,
    pub(super) joins: Vec<Join>,
    pub(super) rules: Vec<Rule>,
    pub(super) channels: Arc<[Arc<str>]>,
}

impl TableRules {
    pub(super) fn fires_on(&self, operation: Operation) -> bool {
        self.rules.iter().any(|rule| rule.operations.contains(operation))
    }
}

/// A row of another table.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) name: String,
    pub(super) of: Slot,
    pub(super) source: JoinSource,
    /// The target has a column that holds an organization: only rows of the event's own count.
    pub(super) scoped: bool,
    /// What is taken of it.
    pub(super) columns: Vec<JoinColumn>,
    /// Of every column in the scope of expressions: which of `columns` it is.
    pub(super) scope: Vec<Option<usize>>,
}

#[derive(Debug)]
pub(super) enum JoinSource {
    /// Of [`super::Compiled::mirror_specs`]: the table, and which of its indexes.
    Mirror { table: TableName, index: usize },
    /// Of [`super::Compiled::targets`].
    Transaction { target: usize },
    /// A column that it is found by is gone from its table: there is no such row.
    Gone,
}

#[derive(Debug)]
pub(super) struct JoinColumn {
    pub(super) name: String,
    pub(super) type_oid: u32,
    /// Where it is in the mirrored or collected row; None when it is gone from its table.
    pub(super) position: Option<usize>,
}

/// A table whose new rows are collected before their transaction is mapped.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) table: TableName,
    pub(super) key: String,
    pub(super) organization: Option<String>,
    pub(super) columns: Vec<String>,
    pub(super) first: bool,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) operations: Operations,
    pub(super) event_type: Arc<str>,
    pub(super) channel: Arc<str>,
    /// The rule's channel alone, for a `data.sync` in place of its event.
    pub(super) channels: Arc<[Arc<str>]>,
    pub(super) envelope: Envelope,
    /// Name index and column.
    pub(super) tags: Vec<(u16, Slot)>,
    pub(super) conditions: Vec<Condition>,
    pub(super) only: Option<Only>,
    pub(super) data: Vec<Field>,
}

/// The fixed parts of a frame of one type and channel.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    /// `","type":"…","timestamp":`
    pub(super) event_type: Box<[u8]>,
    /// `,"channel":"…","data":`
    pub(super) channel: Box<[u8]>,
}

impl Envelope {
    /// Both are names, in which nothing needs escaping.
    pub(super) fn new(event_type: &str, channel: &str) -> Self {
        Self {
            event_type: format!("\",\"type\":\"{event_type}\",\"timestamp\":").into_bytes().into(),
            channel: format!(",\"channel\":\"{channel}\",\"data\":").into_bytes().into(),
        }
    }
}

impl Rule {
    /// `when.expr`, for a message about it.
    pub(super) fn condition_expression(&self) -> Option<&Computed> {
        self.conditions.iter().find_map(|condition| match condition {
            Condition::Expression(computed) => Some(&**computed),
            Condition::Changed(_) | Condition::Became(..) => None,
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Operations {
    pub(super) insert: bool,
    pub(super) update: bool,
    pub(super) delete: bool,
}

impl Operations {
    pub(super) fn of(operations: &[Operation]) -> Self {
        let has = |operation| operations.contains(&operation);
        Self {
            insert: has(Operation::Insert),
            update: has(Operation::Update),
            delete: has(Operation::Delete),
        }
    }

    pub(super) const fn contains(self, operation: Operation) -> bool {
        match operation {
            Operation::Insert => self.insert,
            Operation::Update => self.update,
            Operation::Delete => self.delete,
        }
    }
}

#[derive(Debug)]
pub(super) enum Condition {
    /// One of the columns changed.
    Changed(Vec<Slot>),
    /// The column changed, to this text.
    Became(Slot, Box<[u8]>),
    Expression(Box<Computed>),
}

/// An expression, and its source for whoever has to mend it.
#[derive(Debug)]
pub(super) struct Computed {
    pub(super) expression: Expression,
    pub(super) source: String,
}

#[derive(Debug)]
pub(super) struct Only {
    /// Holders of the roles alone.
    pub(super) roles: Arc<Audience>,
    pub(super) user: Option<Slot>,
}

#[derive(Debug)]
pub(super) struct Field {
    /// `"name":`
    pub(super) key: Box<[u8]>,
    /// As `unchanged` names it: `data`'s field, and the fields inside it after dots.
    pub(super) path: Box<str>,
    pub(super) omit_null: bool,
    pub(super) form: Form,
}

#[derive(Debug)]
pub(super) enum Form {
    Column(Slot),
    Expression(Box<Computed>),
    /// A join, and which of its columns.
    JoinColumn(usize, usize),
    JoinObject(usize, Vec<JoinField>),
    Row(Image),
    Changed,
    Previous,
    Value(Box<[u8]>),
    Object(Vec<Field>),
}

#[derive(Debug)]
pub(super) struct JoinField {
    pub(super) name: Box<str>,
    pub(super) key: Box<[u8]>,
    pub(super) column: usize,
    pub(super) omit_null: bool,
}
