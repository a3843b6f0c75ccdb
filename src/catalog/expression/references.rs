//! What a checked expression reads.

use std::collections::BTreeSet;

/// What an identifier stands for, once checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Column {
        row: usize,
        column: usize,
    },
    /// `has(row.column)`
    HasColumn {
        row: usize,
        column: usize,
    },
    /// `row != null`
    HasRow {
        row: usize,
    },
    /// `row == null`
    NoRow {
        row: usize,
    },
    /// `'column' in changed`
    IsChanged {
        column: usize,
    },
    Changed,
    Operation,
}

/// What an expression may read, by place in its scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    columns: BTreeSet<(usize, usize)>,
    rows: BTreeSet<usize>,
    changed: Changed,
    operation: bool,
}

/// Which columns an expression wants to know the change of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Changed {
    #[default]
    Nothing,
    /// `'column' in changed`: columns of `new`.
    Columns(BTreeSet<usize>),
    /// `changed` itself.
    All,
}

impl References {
    /// Whether it reads a column of the row, or asks whether there is one.
    #[must_use]
    pub fn uses_row(&self, row: usize) -> bool {
        self.rows.contains(&row)
    }

    /// The columns that it names of a row, in their order.
    pub fn columns(&self, row: usize) -> impl Iterator<Item = usize> {
        self.columns.range((row, 0)..=(row, usize::MAX)).map(|&(_, column)| column)
    }

    #[must_use]
    pub const fn changed(&self) -> &Changed {
        &self.changed
    }

    #[must_use]
    pub const fn uses_operation(&self) -> bool {
        self.operation
    }

    pub(super) fn add(&mut self, slot: Slot) {
        match slot {
            Slot::Column { row, column } | Slot::HasColumn { row, column } => {
                self.columns.insert((row, column));
                self.rows.insert(row);
            }
            Slot::HasRow { row } | Slot::NoRow { row } => {
                self.rows.insert(row);
            }
            Slot::IsChanged { column } => match &mut self.changed {
                Changed::Nothing => self.changed = Changed::Columns(BTreeSet::from([column])),
                Changed::Columns(columns) => {
                    columns.insert(column);
                }
                Changed::All => {}
            },
            Slot::Changed => self.changed = Changed::All,
            Slot::Operation => self.operation = true,
        }
    }
}
