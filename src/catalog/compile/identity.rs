//! Which old values a table's rules need, and therefore which replica identity.
//!
//! The primary key is enough when everything needed is part of it: an update that leaves the key alone then carries
//! no old row, and its key is the new row's. Everything else needs FULL.

use std::collections::BTreeSet;

use crate::postgres::schema::{ReplicaIdentity, Table, TableName};

/// The least replica identity that a published table needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The primary key suffices.
    Default,
    /// `REPLICA IDENTITY FULL`.
    Full,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityNeed {
    pub table: TableName,
    pub identity: Identity,
    /// The columns whose old values are needed, in the table's order.
    pub columns: Vec<String>,
    /// Lookups read it: without this identity the mirror would be wrong.
    pub mirrored: bool,
}

impl IdentityNeed {
    /// Whether the table, as it is set now, gives what is needed.
    #[must_use]
    pub fn is_met_by(&self, table: &Table) -> bool {
        if self.identity == Identity::Full && table.primary_key.is_empty() {
            return match &table.replica_identity {
                ReplicaIdentity::Full => true,
                // An update of a published table without any identity is refused by the server.
                ReplicaIdentity::Index(_) => self.columns.iter().all(|column| table.identity_covers(column)),
                ReplicaIdentity::Default | ReplicaIdentity::Nothing => false,
            };
        }
        table.replica_identity != ReplicaIdentity::Nothing
            && self.columns.iter().all(|column| table.identity_covers(column))
    }
}

/// What has been found to be needed so far.
#[derive(Debug, Default)]
pub(super) struct Need {
    pub(super) columns: BTreeSet<String>,
    /// The whole old row.
    pub(super) every: bool,
    pub(super) mirrored: bool,
}

impl Need {
    pub(super) fn decide(mut self, table: &Table) -> IdentityNeed {
        if self.mirrored {
            self.columns.extend(table.primary_key.iter().cloned());
        }
        let columns: Vec<String> = super::streamed(table)
            .filter(|name| self.every || self.columns.contains(*name))
            .map(str::to_owned)
            .collect();
        let in_key = columns.iter().all(|name| table.primary_key.contains(name));
        let identity = if in_key && !table.primary_key.is_empty() {
            Identity::Default
        } else {
            Identity::Full
        };
        IdentityNeed {
            table: table.name.clone(),
            identity,
            columns,
            mirrored: self.mirrored,
        }
    }
}
