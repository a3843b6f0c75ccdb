//! What the fuzzers assert of a spool's file that is not as it was written.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use std::sync::Arc;

use super::{Relations, Spool};
use crate::postgres::pgoutput::{Relation, RelationColumn, RelationId, ReplicaIdentity};
use crate::source::fuzzing::file_of;

/// Any bytes as a spool's file: changes, then its end or an error, in memory of the file's size.
pub fn spools(data: &[u8]) {
    let column =
        |name: &str| RelationColumn { name: name.to_owned(), type_oid: 25, type_modifier: -1, is_key: true };
    let relation = Relation {
        id: RelationId(1),
        namespace: "public".to_owned(),
        name: "bays".to_owned(),
        identity: ReplicaIdentity::Full,
        columns: vec![column("id"), column("name")],
    };
    let spool = Spool {
        head: Vec::new(),
        relations: Relations::default(),
        redefined: vec![Arc::new(relation)],
        touched: Vec::new(),
        file: file_of(data),
        bytes: data.len() as u64,
        len: 0,
    };
    let mut reader = spool.reader();
    let mut changes = 0;
    while let Ok(Some(_)) = reader.next() {
        changes += 1;
        assert!(changes <= data.len(), "more changes than bytes");
    }
    assert!(reader.read_to <= data.len() as u64);
}
