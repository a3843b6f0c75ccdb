//! The stream's changes, one by one.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::key::encode_key;
use super::{Joining, Mirror, MirrorError, MirrorRow, MirrorTableId, State, Table};
use crate::postgres::pgoutput::{Cell, OldTuple, Relation, Tuple};
use crate::postgres::schema::TableName;
use crate::source::{Operation, RowChange};

/// How the columns of one relation lie.
#[derive(Debug)]
pub(super) struct Binding {
    relation: Arc<Relation>,
    /// For each of the table's mirrored columns, its place in the relation; none when it is gone.
    columns: Vec<Option<usize>>,
    /// The places of the key's columns; none when one of them is gone.
    key: Option<Vec<usize>>,
}

/// What a change did to a mirrored row; both: it replaced one by the other.
#[derive(Clone, Debug)]
pub struct Applied {
    pub table: MirrorTableId,
    pub before: Option<Arc<MirrorRow>>,
    pub after: Option<Arc<MirrorRow>>,
}

impl Binding {
    fn new(relation: &Arc<Relation>, columns: &[String], key: &[String]) -> Self {
        let place = |name: &String| relation.columns.iter().position(|column| column.name == *name);
        Self {
            relation: Arc::clone(relation),
            columns: columns.iter().map(place).collect(),
            key: key.iter().map(place).collect(),
        }
    }

    fn key<'a>(&self, cells: &[Cell<'a>]) -> Option<Cow<'a, [u8]>> {
        let value = |place: &usize| match cells.get(*place) {
            Some(Cell::Text(text)) => Some(*text),
            _ => None,
        };
        encode_key(self.key.as_ref()?.iter().map(value))
    }

    /// Whether a value that the mirror needs was too long to be kept.
    fn lacks(&self, new: &[Cell<'_>]) -> bool {
        let mut places = self.columns.iter().flatten().chain(self.key.iter().flatten());
        places.any(|place| matches!(new.get(*place), Some(Cell::Oversize { .. })))
    }

    /// What a change makes of a row. A value out of line that was not touched is the whole old row's, or what was
    /// mirrored.
    fn row(
        &self,
        key: &[u8],
        new: &[Cell<'_>],
        full_old: Option<&[Cell<'_>]>,
        previous: Option<&MirrorRow>,
    ) -> Option<MirrorRow> {
        let values = self.columns.iter().enumerate().map(|(column, place)| match new.get((*place)?)? {
            Cell::Text(text) => Some(*text),
            Cell::Null | Cell::Oversize { .. } => None,
            Cell::Unchanged => match full_old.and_then(|old| old.get((*place)?)) {
                Some(Cell::Text(text)) => Some(*text),
                _ => previous.and_then(|row| row.cell(column)),
            },
        });
        MirrorRow::new(key, values)
    }
}

impl Mirror {
    /// Applies a change; one of a table that is not mirrored, or that the load has already seen, changes nothing and
    /// gives none.
    ///
    /// # Errors
    /// The change can't be applied: from here on the mirror is behind, until it is loaded again.
    pub fn apply(&self, xid: u32, change: &RowChange) -> Result<Option<Applied>, MirrorError> {
        let Some(id) = self.find_relation(&change.relation) else {
            return Ok(None);
        };
        let Some(table) = self.tables.get(id.0).filter(|_| !self.has_seen(xid)) else {
            return Ok(None);
        };
        let mut state = table.write();
        let before = state.rows.memory();
        let applied = table.apply(id, &mut state, change, self.bytes(), self.max_bytes)?;
        let after = state.rows.memory();
        if after >= before {
            self.memory.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.memory.fetch_sub(before - after, Ordering::Relaxed);
        }
        Ok(Some(applied))
    }

    /// Empties the mirrored ones among the truncated tables; true when there was one. What was derived from them has
    /// to be judged again.
    pub fn truncate(&self, xid: u32, relations: &[Arc<Relation>]) -> bool {
        if self.has_seen(xid) {
            return false;
        }
        let mut mirrored = false;
        for table in relations.iter().filter_map(|relation| self.tables.get(self.find_relation(relation)?.0))
        {
            let mut state = table.write();
            self.memory.fetch_sub(state.rows.memory(), Ordering::Relaxed);
            state.rows.clear();
            mirrored = true;
        }
        mirrored
    }

    /// Mirrored columns that the newest known definition of their table does not have: they read as null.
    #[must_use]
    pub fn missing(&self) -> Vec<(TableName, String)> {
        let mut missing = Vec::new();
        for table in &self.tables {
            let state = table.read();
            let gone = table.columns.iter().zip(&state.absent).filter(|(_, absent)| **absent);
            missing.extend(gone.map(|(column, _)| (table.spec.table.clone(), column.clone())));
        }
        missing
    }

    fn has_seen(&self, xid: u32) -> bool {
        matches!(&*self.joining(), Joining::Loaded(loaded) if loaded.snapshot.sees(xid))
    }
}

impl Table {
    fn apply(
        &self,
        table: MirrorTableId,
        state: &mut State,
        change: &RowChange,
        used_bytes: u64,
        limit_bytes: u64,
    ) -> Result<Applied, MirrorError> {
        if state.oid.is_some_and(|oid| oid != change.relation.id.0) {
            return Err(MirrorError::Replaced { table: self.spec.table.clone() });
        }
        let bound = |binding: &Binding| Arc::ptr_eq(&binding.relation, &change.relation);
        let rebound = !state.binding.as_ref().is_some_and(bound);
        if rebound {
            let binding = Binding::new(&change.relation, &self.columns, &state.key);
            if let Some(column) = self.redefined(state, &binding) {
                return Err(MirrorError::Redefined { table: self.spec.table.clone(), column });
            }
            state.binding = Some(binding);
        }
        let Some(binding) = &state.binding else {
            return Ok(Applied { table, before: None, after: None });
        };
        let no_key = || MirrorError::NoKey { table: self.spec.table.clone() };
        let old = change.old.as_ref().map(OldTuple::tuple).map(cells);
        let new = change.new.as_ref().map(cells);
        let too_large = || MirrorError::RowTooLarge { table: self.spec.table.clone() };
        if new.as_deref().is_some_and(|new| binding.lacks(new)) {
            return Err(too_large());
        }
        let old_key = old.as_deref().map(|old| binding.key(old).ok_or_else(no_key)).transpose()?;
        let absent = rebound.then(|| binding.columns.iter().map(Option::is_none).collect());
        let Some(new) = new else {
            let before = state.rows.remove(&old_key.ok_or_else(no_key)?);
            if let Some(absent) = absent {
                state.absent = absent;
            }
            return Ok(Applied { table, before, after: None });
        };
        // A key that was out of line and not touched is not in the new row; it is the old one's then.
        let new_key = binding.key(&new).or_else(|| old_key.clone()).ok_or_else(no_key)?;
        let previous = match change.operation {
            Operation::Update => state.rows.get(old_key.as_deref().unwrap_or(&new_key)),
            Operation::Insert | Operation::Delete => None,
        };
        let full = matches!(change.old, Some(OldTuple::Full(_))).then_some(old.as_deref()).flatten();
        let row = binding.row(&new_key, &new, full, previous.map(AsRef::as_ref)).ok_or_else(too_large)?;
        let replaced = state.rows.get(old_key.as_deref().unwrap_or(&new_key)).cloned();
        let freed_bytes = replaced.as_ref().map_or(0, |row| row.memory());
        if used_bytes.saturating_sub(freed_bytes).saturating_add(row.memory()) > limit_bytes {
            return Err(MirrorError::TooLarge { table: self.spec.table.clone(), limit_bytes });
        }
        if let Some(absent) = absent {
            state.absent = absent;
        }
        if let Some(old_key) = old_key {
            state.rows.remove(&old_key);
        }
        Ok(Applied { table, before: replaced, after: Some(state.rows.put(row)) })
    }
}

impl Table {
    /// A column that rows have values of which are not the table's: it was away, or had another type. The log does not
    /// carry what such a column holds in rows that nobody writes.
    fn redefined(&self, state: &State, next: &Binding) -> Option<String> {
        let type_of = |binding: &Binding, column: usize| {
            let place = (*binding.columns.get(column)?)?;
            binding.relation.columns.get(place).map(|column| column.type_oid)
        };
        let changed = |column: &usize| {
            let Some(now) = type_of(next, *column) else { return false };
            let before = state.binding.as_ref().and_then(|binding| type_of(binding, *column));
            state.absent.get(*column) == Some(&true) || before.is_some_and(|before| before != now)
        };
        (0..self.columns.len()).find(changed).and_then(|column| self.columns.get(column).cloned())
    }
}

fn cells(tuple: &Tuple) -> Vec<Cell<'_>> {
    tuple.cells().collect()
}
