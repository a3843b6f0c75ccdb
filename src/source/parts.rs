//! Which changes may be handed out before the rest of their transaction has come.
//!
//! The server sends a transaction once it has committed, so whatever comes of it will all come, now or on another
//! connection. Handing out its first changes meanwhile saves the file that it would be collected in, and the time. What has
//! become of them must then be undone where the connection breaks: so the first change of a table that leaves something
//! behind ends it, and the rest of that transaction is collected whole.

use std::collections::HashSet;

use super::Change;
use crate::postgres::pgoutput::{Relation, RelationId};
use crate::postgres::schema::TableName;

/// What a part holds at least, as its changes count against `source.max_transaction`.
const PART_BYTES: u64 = 256 << 10;

#[derive(Debug)]
pub(super) struct Parts {
    /// Tables whose changes are handed out only with the rest of their transaction.
    whole: Vec<TableName>,
    /// Those of them that the server has described.
    ids: HashSet<RelationId>,
    least_bytes: u64,
}

impl Parts {
    /// `limit_bytes` is what a transaction may take in memory.
    pub(super) fn new(whole: Vec<TableName>, limit_bytes: u64) -> Self {
        Self { whole, ids: HashSet::new(), least_bytes: PART_BYTES.min(limit_bytes / 2) }
    }

    /// Whether so much is worth a part.
    pub(super) const fn are_worth(&self, bytes: u64) -> bool {
        bytes >= self.least_bytes
    }

    /// A table's newest definition: it may have been renamed.
    pub(super) fn define(&mut self, relation: &Relation) {
        let same = |table: &TableName| table.name == relation.name && table.schema == relation.namespace;
        if self.whole.iter().any(same) {
            self.ids.insert(relation.id);
        } else {
            self.ids.remove(&relation.id);
        }
    }

    /// Whether a change needs the rest of its transaction.
    pub(super) fn needs_all(&self, change: &Change) -> bool {
        match change {
            Change::Row(row) => self.ids.contains(&row.relation.id),
            Change::Truncate(relations) => relations.iter().any(|relation| self.ids.contains(&relation.id)),
            Change::Emit(_) | Change::Canary(_) => false,
        }
    }
}
