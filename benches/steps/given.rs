//! A table of eight columns, a row of it as the stream carries it, and a catalog that tells of it.

use std::sync::Arc;

use divan::black_box;
use walcast::catalog::{Catalog, Epoch, Mapper};
use walcast::mirror::Mirror;
use walcast::postgres::pgoutput::{
    Cell, OldTuple, Relation, RelationColumn, RelationId, ReplicaIdentity, Tuple,
};
use walcast::postgres::schema::{self, Column, Schema, Table, TableKind, TableName, Types};
use walcast::postgres::{Lsn, PgTimestamp};
use walcast::source::{Change, Changes, Operation, RowChange, Transaction};

pub(crate) const EPOCH: Epoch = Epoch::new(7);

/// Name, type's oid, value.
const COLUMNS: [(&str, u32, &str); 8] = [
    ("id", 20, "1234567"),
    ("organization_id", 25, "o1"),
    ("device_id", 25, "d7"),
    ("kind", 25, "reading"),
    ("temperature", 701, "20.5"),
    ("battery", 23, "90"),
    ("note", 25, "a note of some words, with a \"quoted\" one"),
    ("received_at", 1184, "2026-11-21 14:00:00.123456+00"),
];

const DATA: &str = "[tables.readings.events.data]\nid = \"id\"\ndeviceId = \"device_id\"\nkind = \"kind\"\n\
                    temperature = \"temperature\"\nbattery = \"battery\"\nnote = \"note\"\nat = \"received_at\"\n";

/// An insert as bytes: kind, relation, `N`, columns, each with its length.
pub(crate) fn insert_message() -> Vec<u8> {
    let mut message = b"I\0\0\0\x01N\0\x08".to_vec();
    for (_, _, value) in COLUMNS {
        message.push(b't');
        message.extend(u32::try_from(value.len()).expect("short").to_be_bytes());
        message.extend(value.as_bytes());
    }
    message
}

fn relation() -> Arc<Relation> {
    let column = |(name, type_oid, _): (&str, u32, &str)| RelationColumn {
        name: name.to_owned(),
        type_oid,
        type_modifier: -1,
        is_key: true,
    };
    Arc::new(Relation {
        id: RelationId(1),
        namespace: "public".to_owned(),
        name: "readings".to_owned(),
        identity: ReplicaIdentity::Full,
        columns: COLUMNS.into_iter().map(column).collect(),
    })
}

fn tuple() -> Tuple {
    Tuple::new(COLUMNS.map(|(_, _, value)| Cell::Text(value.as_bytes()))).expect("a small tuple")
}

pub(crate) fn insert() -> Change {
    Change::Row(RowChange {
        relation: relation(),
        operation: Operation::Insert,
        old: None,
        new: Some(tuple()),
    })
}

/// That changes nothing.
pub(crate) fn update() -> Change {
    let old = Some(OldTuple::Full(tuple()));
    Change::Row(RowChange { relation: relation(), operation: Operation::Update, old, new: Some(tuple()) })
}

/// A mapper of one rule.
pub(crate) struct Rules {
    mapper: Mapper,
    mirror: Mirror,
}

impl Rules {
    /// `when`: the rule's operations and conditions.
    pub(crate) fn new(when: &str) -> Self {
        let toml = format!(
            "[tables.readings]\norganization = \"organization_id\"\nchannel = \"readings\"\n\
             tags = {{ deviceId = \"device_id\" }}\n[[tables.readings.events]]\ntype = \"reading\"\n{when}{DATA}"
        );
        let column = |(name, type_oid, _): (&str, u32, &str)| Column {
            name: name.to_owned(),
            type_oid,
            type_modifier: -1,
            not_null: false,
            generated: false,
        };
        let name = TableName::parse("readings");
        let table = Table {
            oid: 1,
            name: name.clone(),
            kind: TableKind::Ordinary,
            logged: true,
            columns: COLUMNS.into_iter().map(column).collect(),
            primary_key: vec!["id".to_owned()],
            replica_identity: schema::ReplicaIdentity::Full,
            identity_indexes: Vec::new(),
            root: None,
        };
        let types = Types::builtin();
        let schema = Schema { tables: [(name, table)].into(), types: types.clone() };
        let catalog = Catalog::from_files(&[("bench.toml".into(), toml)]).expect("a catalog");
        let compiled = Arc::new(catalog.compile(&schema).expect("a catalog that fits"));
        let mut mapper = Mapper::new(compiled, Arc::new(types), EPOCH, 1 << 20, None);
        let transaction = Transaction {
            commit_lsn: Lsn::new(1000),
            end_lsn: Lsn::new(1001),
            xid: 1,
            commit_time: PgTimestamp::from_micros(0),
            begun: false,
            changes: Changes::Memory(Vec::new()),
        };
        mapper.begin(&transaction).expect("nothing to read");
        Self { mapper, mirror: Mirror::new(Vec::new(), 0) }
    }

    pub(crate) fn map(&mut self, times: u32, change: &Change) {
        for _ in 0..times {
            self.mapper.map_change(change, &self.mirror, &mut |event| {
                black_box(event);
            });
        }
    }
}
