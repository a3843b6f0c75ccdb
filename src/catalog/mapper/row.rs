//! One change of one row, as far as the log tells: every question about its columns has an honest answer.

use crate::postgres::pgoutput::{Cell, OldTuple, Relation, ReplicaIdentity, Tuple};
use crate::source::{Operation, RowChange};

/// What is known of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known<'a> {
    Null,
    /// The type's text output.
    Text(&'a [u8]),
    /// An unchanged TOAST value that no old row fills in.
    Unchanged,
    /// An old value that the replica identity does not log.
    Unlogged,
    /// Too long to have been kept: its bytes, and what equal values share.
    Oversize {
        length: u32,
        digest: u64,
    },
}

impl<'a> Known<'a> {
    const fn of(cell: Cell<'a>) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Unchanged => Self::Unchanged,
            Cell::Text(text) => Self::Text(text),
            Cell::Oversize { length, digest } => Self::Oversize { length, digest },
        }
    }
}

/// The row before.
#[derive(Clone, Copy, Debug)]
enum Before<'a> {
    /// An insert.
    None,
    Full(&'a [Cell<'a>]),
    /// The columns of the replica identity; the others read as null. Which they are is not what the relation says where
    /// the row is of a partition, and the relation of its root.
    Key(&'a [Cell<'a>]),
    /// An update that left the replica identity alone: its columns are those of the new row.
    SameKey,
}

/// A change, or the half of one that an organization sees of a row that left for another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    relation: &'a Relation,
    operation: Operation,
    new: Option<&'a [Cell<'a>]>,
    before: Before<'a>,
    /// Fills unchanged values in; unlike `before` also of an insert half.
    full: Option<&'a [Cell<'a>]>,
}

/// A change's cells, side by side.
#[derive(Debug, Default)]
pub(super) struct Cells<'a> {
    new: Option<Vec<Cell<'a>>>,
    old: Option<Vec<Cell<'a>>>,
}

impl<'a> Cells<'a> {
    pub(super) fn of(change: &'a RowChange, scratch: &mut Scratch) -> Self {
        let mut read = |tuple: &'a Tuple| {
            let mut cells = reuse(scratch.0.pop().unwrap_or_default());
            cells.extend(tuple.cells());
            cells
        };
        Self {
            new: change.new.as_ref().map(&mut read),
            old: change.old.as_ref().map(|old| read(old.tuple())),
        }
    }

    pub(super) fn row<'s>(&'s self, change: &'s RowChange) -> Row<'s> {
        let old = self.old.as_deref();
        let (before, full) = match (&change.old, change.operation) {
            (Some(OldTuple::Full(_)), _) => (Before::Full(old.unwrap_or_default()), old),
            (Some(OldTuple::Key(_)), _) => (Before::Key(old.unwrap_or_default()), None),
            (None, Operation::Insert) => (Before::None, None),
            (None, Operation::Update) => (Before::SameKey, None),
            // Can't be: a delete always has an old row. Then nothing of it is known.
            (None, Operation::Delete) => (Before::Key(&[]), None),
        };
        Row {
            relation: &change.relation,
            operation: change.operation,
            new: self.new.as_deref(),
            before,
            full,
        }
    }

    pub(super) fn recycle(self, scratch: &mut Scratch) {
        scratch.0.extend([self.new, self.old].into_iter().flatten().map(reuse));
    }
}

/// Allocations for cells, kept from change to change.
#[derive(Debug, Default)]
pub(super) struct Scratch(Vec<Vec<Cell<'static>>>);

/// The allocation of `cells` for cells of another lifetime: collecting in place keeps it.
fn reuse<'b>(mut cells: Vec<Cell<'_>>) -> Vec<Cell<'b>> {
    cells.clear();
    cells.into_iter().map(|_| Cell::Null).collect()
}

impl<'a> Row<'a> {
    pub(super) const fn operation(&self) -> Operation {
        self.operation
    }

    /// The row of a partition that may log less than its root, whose relation describes it: the server then calls the
    /// key alone a whole row. A row that has nothing but its key is taken for one.
    pub(super) fn of_partition(self, key: &[bool]) -> Self {
        match self.before {
            Before::Full(old)
                if old.iter().zip(key).all(|(cell, in_key)| *in_key || matches!(cell, Cell::Null)) =>
            {
                Self { before: Before::Key(old), full: None, ..self }
            }
            _ => self,
        }
    }

    /// What the organization that the row has left sees.
    pub(super) const fn left(self) -> Self {
        Self { operation: Operation::Delete, new: None, ..self }
    }

    /// What the organization that it has come to sees.
    pub(super) const fn arrived(self) -> Self {
        Self { operation: Operation::Insert, before: Before::None, ..self }
    }

    pub(super) const fn has_old(&self) -> bool {
        !matches!(self.before, Before::None)
    }

    /// A column of the new row; on delete of the old one.
    pub(super) fn current(&self, column: usize) -> Known<'a> {
        let Some(new) = self.new else {
            return self.old(column);
        };
        match cell(new, column) {
            Cell::Unchanged => match (self.full, self.before) {
                (Some(full), _) => Known::of(cell(full, column)),
                (None, Before::Key(key)) => match cell(key, column) {
                    Cell::Null => Known::Unchanged,
                    logged => Known::of(logged),
                },
                _ => Known::Unchanged,
            },
            value => Known::of(value),
        }
    }

    /// A column of the old row; null where there is none.
    pub(super) fn old(&self, column: usize) -> Known<'a> {
        let logged = match self.before {
            Before::None => return Known::Null,
            Before::Full(old) => return Known::of(cell(old, column)),
            Before::Key(key) => cell(key, column),
            Before::SameKey if self.is_of_key(column) => return self.current(column),
            Before::SameKey => Cell::Null,
        };
        match (logged, self.new.map(|new| cell(new, column))) {
            // No column of a key is null: this one is not of it.
            (Cell::Null, Some(Cell::Unchanged)) => Known::Unchanged,
            (Cell::Null, _) => Known::Unlogged,
            (logged, _) => Known::of(logged),
        }
    }

    /// Whether the change changed the column. An insert changes every one; None when the log does not tell.
    pub(super) fn changed(&self, column: usize) -> Option<bool> {
        match self.operation {
            Operation::Insert => Some(true),
            Operation::Delete => Some(false),
            Operation::Update => match self.new.map(|new| cell(new, column)) {
                Some(Cell::Unchanged) => Some(false),
                _ => match self.old(column) {
                    Known::Unlogged | Known::Unchanged => None,
                    old => Some(old != self.current(column)),
                },
            },
        }
    }

    /// Whether an update that came without an old row left the column as it was. Under FULL each comes with one, unless
    /// it is of a partition that logs less than its root, which is the table that the relation describes.
    fn is_of_key(&self, column: usize) -> bool {
        self.relation.identity != ReplicaIdentity::Full
            && self.relation.columns.get(column).is_some_and(|column| column.is_key)
    }
}

fn cell<'a>(cells: &[Cell<'a>], column: usize) -> Cell<'a> {
    cells.get(column).copied().unwrap_or(Cell::Null)
}
