//! The rows of one mirrored table and their indexes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::key::encode_key;
use super::row::{ByKey, MirrorRow};

/// What an entry of an index costs besides its key: the map's slot, the list, the pointer.
const ENTRY_OVERHEAD_BYTES: u64 = 80;

/// Rows by key, and by the values of each index.
#[derive(Debug, Default)]
pub(super) struct Rows {
    by_key: HashSet<ByKey>,
    indexes: Vec<Index>,
    memory: u64,
}

#[derive(Debug)]
struct Index {
    columns: Vec<usize>,
    /// Each list is ordered by row key, so that the first row is the same on every node.
    entries: HashMap<Box<[u8]>, Vec<Arc<MirrorRow>>>,
}

impl Rows {
    /// `indexes` name columns by their place in a row.
    pub(super) fn new(indexes: &[Vec<usize>]) -> Self {
        let index = |columns: &Vec<usize>| Index { columns: columns.clone(), entries: HashMap::new() };
        Self { indexes: indexes.iter().map(index).collect(), ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<MirrorRow>> {
        self.by_key.get(key).map(|row| &row.0)
    }

    /// In the order of row keys; empty when there is no such index.
    pub(super) fn find(&self, index: usize, values: &[&[u8]]) -> &[Arc<MirrorRow>] {
        let entry = || {
            let index = self.indexes.get(index).filter(|index| index.columns.len() == values.len())?;
            index.entries.get(&*encode_key(values.iter().map(|value| Some(*value)))?)
        };
        entry().map_or(&[], Vec::as_slice)
    }

    /// Puts a row in the place of the one with its key.
    pub(super) fn put(&mut self, row: MirrorRow) -> Arc<MirrorRow> {
        self.remove(row.key());
        let row = Arc::new(row);
        self.memory += row.memory();
        for index in &mut self.indexes {
            self.memory += index.add(&row);
        }
        self.by_key.insert(ByKey(Arc::clone(&row)));
        row
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Arc<MirrorRow>> {
        let ByKey(row) = self.by_key.take(key)?;
        self.memory -= row.memory();
        for index in &mut self.indexes {
            self.memory -= index.take(&row);
        }
        Some(row)
    }

    pub(super) fn clear(&mut self) {
        self.by_key.clear();
        for index in &mut self.indexes {
            index.entries.clear();
        }
        self.memory = 0;
    }
}

impl Index {
    /// Bytes added.
    fn add(&mut self, row: &Arc<MirrorRow>) -> u64 {
        let Some(key) = encode_key(self.columns.iter().map(|column| row.cell(*column))) else {
            return 0;
        };
        let cost = cost(&key);
        if let Some(rows) = self.entries.get_mut(&*key) {
            let place = rows.partition_point(|other| other.key() < row.key());
            rows.insert(place, Arc::clone(row));
        } else {
            self.entries.insert(key.into(), vec![Arc::clone(row)]);
        }
        cost
    }

    /// Bytes freed.
    fn take(&mut self, row: &MirrorRow) -> u64 {
        let Some(key) = encode_key(self.columns.iter().map(|column| row.cell(*column))) else {
            return 0;
        };
        let Some(rows) = self.entries.get_mut(&*key) else {
            return 0;
        };
        let Ok(place) = rows.binary_search_by(|other| other.key().cmp(row.key())) else {
            return 0;
        };
        rows.remove(place);
        if rows.is_empty() {
            self.entries.remove(&*key);
        }
        cost(&key)
    }
}

/// Counted per row, also where rows share an entry: what is added is then always what is freed.
fn cost(key: &[u8]) -> u64 {
    key.len() as u64 + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, cells: &[Option<&str>]) -> MirrorRow {
        MirrorRow::new(key.as_bytes(), cells.iter().map(|cell| cell.map(str::as_bytes))).unwrap()
    }

    fn keys(rows: &Rows, index: usize, values: &[&[u8]]) -> Vec<String> {
        let text = |row: &Arc<MirrorRow>| String::from_utf8(row.key().to_vec()).unwrap();
        rows.find(index, values).iter().map(text).collect()
    }

    #[test]
    fn an_index_finds_every_row_of_a_key_in_key_order() {
        let mut rows = Rows::new(&[vec![0], vec![0, 1]]);
        rows.put(row("3", &[Some("x"), Some("p")]));
        rows.put(row("1", &[Some("x"), None]));
        rows.put(row("2", &[Some("y"), Some("p")]));
        assert_eq!(keys(&rows, 0, &[b"x"]), ["1", "3"]);
        assert_eq!(keys(&rows, 1, &[b"x", b"p"]), ["3"]);
        assert!(keys(&rows, 0, &[b"x", b"p"]).is_empty() && keys(&rows, 2, &[b"x"]).is_empty());
        rows.put(row("3", &[Some("y"), Some("p")]));
        assert_eq!(keys(&rows, 0, &[b"x"]), ["1"]);
        assert_eq!(keys(&rows, 0, &[b"y"]), ["2", "3"]);
    }

    #[test]
    fn memory_returns_to_nothing_when_the_rows_go() {
        let mut rows = Rows::new(&[vec![0], vec![1]]);
        for key in ["1", "2", "3"] {
            rows.put(row(key, &[Some("same"), None]));
            rows.put(row(key, &[Some("same"), Some("other")]));
        }
        assert!(rows.memory() > 3 * OVERHEAD);
        for key in ["1", "2", "3", "4"] {
            rows.remove(key.as_bytes());
        }
        assert_eq!((rows.memory(), rows.len()), (0, 0));
        assert!(rows.indexes.iter().all(|index| index.entries.is_empty()));
    }

    const OVERHEAD: u64 = ENTRY_OVERHEAD_BYTES;
}
