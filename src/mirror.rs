//! Small tables kept in memory by the stream itself: what lookups and access read.
//!
//! ```text
//! load():   one snapshot ─► rows, read as the stream's own text ─► barrier: a position after every read
//! apply():  each change of the stream, unless the snapshot had seen its transaction
//! advance(): the stream has passed the barrier ─► what is looked up is the database as of the stream
//! ```
//!
//! One writer, the pipeline; readers on any thread, which take a table's lock for the time of one lookup and keep
//! the rows they found. A row holds the values of the columns asked for, in the text that the WAL carries: a value
//! that was loaded and the same value that was streamed are the same bytes.
//!
//! Why a load joins the stream without a seam: a transaction that the snapshot saw is in what was read, and is
//! skipped. One that it did not see is applied, in order; where it only repeats what is there (the server does not
//! hide a TRUNCATE from older snapshots), applying it again changes nothing. The barrier is written after the last
//! table was read, so whatever can have been read committed below it.

mod apply;
mod key;
mod load;
mod row;
mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use apply::Applied;
pub use load::{LoadError, MirrorSnapshot};
pub use row::MirrorRow;

use crate::postgres::Lsn;
use crate::postgres::pgoutput::Relation;
use crate::postgres::schema::TableName;
use crate::source::Kind;
use apply::Binding;
use table::Rows;

/// A table to mirror, what of it, and how its rows are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSpec {
    pub table: TableName,
    /// What [`MirrorRow::cell`] gives, by place.
    pub columns: Vec<String>,
    /// Lists of columns, by whose values together rows are found; several rows may share them. A column need not be
    /// one of `columns`.
    pub indexes: Vec<Vec<String>>,
}

/// A mirrored table, by its place among the specs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MirrorTableId(pub usize);

/// Why the mirror can't follow the stream any more. Nothing of the change was applied.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    #[error(
        "the mirror does not fit into mirror.max_memory ({limit_bytes} bytes); {table} was being read when it filled up"
    )]
    TooLarge { table: TableName, limit_bytes: u64 },
    #[error("a change of {table} does not tell which row it is of: the columns of its key are not in it")]
    NoKey { table: TableName },
    #[error("table {table} was dropped and made again: the rows that were read are another table's")]
    Replaced { table: TableName },
    #[error("a row of {table} has a value too large to be mirrored (source.max_row)")]
    RowTooLarge { table: TableName },
    #[error("column {column} of {table} was made anew: what was read of it is not what it holds")]
    Redefined { table: TableName, column: String },
}

/// The mirrored tables. Shared as an `Arc`.
#[derive(Debug)]
pub struct Mirror {
    tables: Vec<Table>,
    max_bytes: u64,
    /// Whose positions the barrier is one of.
    source: Kind,
    memory: AtomicU64,
    /// What the stream has yet to pass; none before a load, and after the barrier.
    joining: Mutex<Joining>,
}

#[derive(Clone, Debug, Default)]
enum Joining {
    #[default]
    NotLoaded,
    Loaded(Arc<MirrorSnapshot>),
    Joined,
}

#[derive(Debug)]
struct Table {
    spec: MirrorSpec,
    /// The spec's columns, then those that only an index needs.
    columns: Vec<String>,
    /// The spec's indexes, by place in `columns`.
    indexes: Vec<Vec<usize>>,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    rows: Rows,
    /// The columns that tell one row from another, as the replica identity has them.
    key: Vec<String>,
    /// The table that the rows are of; none before they were read.
    oid: Option<u32>,
    /// How the newest relation's columns lie; none until the first change.
    binding: Option<Binding>,
    /// Which of the table's columns are not there, and read as null: when the rows were read, or by the binding.
    absent: Vec<bool>,
}

impl Mirror {
    #[must_use]
    pub fn new(specs: Vec<MirrorSpec>, max_bytes: u64) -> Self {
        Self {
            tables: specs.into_iter().map(Table::new).collect(),
            max_bytes,
            source: Kind::Wal,
            memory: AtomicU64::new(0),
            joining: Mutex::default(),
        }
    }

    /// To be kept by a source of this kind, which is the log unless said.
    #[must_use]
    pub fn following(self, source: Kind) -> Self {
        Self { source, ..self }
    }

    /// The mirrored tables.
    pub fn tables(&self) -> impl Iterator<Item = &TableName> {
        self.tables.iter().map(|table| &table.spec.table)
    }

    /// The mirrored table of that name.
    #[must_use]
    pub fn find(&self, table: &TableName) -> Option<MirrorTableId> {
        self.tables.iter().position(|known| known.spec.table == *table).map(MirrorTableId)
    }

    /// The mirrored table that a relation of the stream is.
    #[must_use]
    pub fn find_relation(&self, relation: &Relation) -> Option<MirrorTableId> {
        let same = |name: &TableName| name.name == relation.name && name.schema == relation.namespace;
        self.tables.iter().position(|known| same(&known.spec.table)).map(MirrorTableId)
    }

    /// The row whose columns of an index (by its place in the spec) have these values; of several, the one whose key
    /// is the least.
    #[must_use]
    pub fn lookup(&self, table: MirrorTableId, index: usize, key: &[&[u8]]) -> Option<Arc<MirrorRow>> {
        self.tables.get(table.0)?.read().rows.find(index, key).first().cloned()
    }

    /// Every such row, in the order of their keys.
    #[must_use]
    pub fn lookup_all(&self, table: MirrorTableId, index: usize, key: &[&[u8]]) -> Vec<Arc<MirrorRow>> {
        self.tables.get(table.0).map_or_else(Vec::new, |table| table.read().rows.find(index, key).to_vec())
    }

    /// Rows in a table.
    #[must_use]
    pub fn len(&self, table: MirrorTableId) -> usize {
        self.tables.get(table.0).map_or(0, |table| table.read().rows.len())
    }

    /// Rows in all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.read().rows.len() as u64).sum()
    }

    /// Nothing is mirrored: no load is needed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// What the rows and their indexes take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Every commit below `head` was applied. True when what is looked up is the database as of `head`: the stream
    /// has passed what was read. Until then nobody may be let in on what the mirror says.
    pub fn advance(&self, head: Lsn) -> bool {
        let mut joining = self.joining();
        if let Joining::Loaded(snapshot) = &*joining
            && head >= snapshot.barrier
        {
            // From here on no transaction of the stream can be one that the snapshot saw, and in 2^31 transactions
            // its ids would begin to mean others.
            *joining = Joining::Joined;
        }
        self.tables.is_empty() || matches!(*joining, Joining::Joined)
    }

    fn joining(&self) -> MutexGuard<'_, Joining> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn new(spec: MirrorSpec) -> Self {
        let mut columns = spec.columns.clone();
        let mut place = |name: &String| {
            columns.iter().position(|known| known == name).unwrap_or_else(|| {
                columns.push(name.clone());
                columns.len() - 1
            })
        };
        let indexes: Vec<Vec<usize>> =
            spec.indexes.iter().map(|index| index.iter().map(&mut place).collect()).collect();
        let rows = Rows::new(&indexes);
        let state = State { rows, key: Vec::new(), oid: None, binding: None, absent: Vec::new() };
        Self { spec, columns, indexes, state: RwLock::new(state) }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
