//! What the mapper could not do as the catalog says: for readiness, with the SQL that mends it.

use std::collections::BTreeMap;
use std::fmt;

/// One kind of trouble in one place. It counts how often, and stays until what caused it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    /// For people; holds names, never values.
    pub text: String,
    /// What mends it, where SQL does.
    pub sql: Option<String>,
    pub count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// A column that events need is gone.
    MissingColumn,
    /// An old value was needed that the replica identity does not log.
    ReplicaIdentity,
    /// An expression failed.
    Expression,
    /// A row's organization is null, or is not one.
    NoOrganization,
    /// More related rows in one transaction than are kept.
    RelatedRows,
    /// An emitted event was dropped.
    Emit,
}

impl ProblemKind {
    /// A label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingColumn => "missing_column",
            Self::ReplicaIdentity => "replica_identity",
            Self::Expression => "expression",
            Self::NoOrganization => "no_organization",
            Self::RelatedRows => "related_rows",
            Self::Emit => "emit",
        }
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known by which problem it is: the kind, the table (or another number), and a number within.
pub(super) type Key = (ProblemKind, usize, usize);

#[derive(Debug, Default)]
pub(super) struct Problems {
    known: BTreeMap<Key, Problem>,
    revision: u64,
}

impl Problems {
    /// Counts one. What it says is only asked for the first time.
    pub(super) fn add(&mut self, key: Key, describe: impl FnOnce() -> (String, Option<String>)) {
        if let Some(problem) = self.known.get_mut(&key) {
            problem.count += 1;
            return;
        }
        let (text, sql) = describe();
        self.known.insert(
            key,
            Problem {
                kind: key.0,
                text,
                sql,
                count: 1,
            },
        );
        self.revision += 1;
    }

    /// Forgets what a table's new definition may have mended.
    pub(super) fn forget_schema(&mut self, table: usize) {
        let before = self.known.len();
        self.known.retain(|(kind, of, _), _| {
            *of != table || !matches!(kind, ProblemKind::MissingColumn | ProblemKind::ReplicaIdentity)
        });
        self.revision += u64::from(self.known.len() != before);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.known.values()
    }

    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }
}
