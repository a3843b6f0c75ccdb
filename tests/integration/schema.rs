//! The live schema as it is read from a database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use walcast::postgres::Client;
use walcast::postgres::schema::{
    Column, Field, IdentityIndex, ReplicaIdentity, Schema, Table, TableKind, TableName, TypeKind,
};

use crate::bench::server;

async fn client() -> Client {
    let dsn = server::empty_database().await.parse().unwrap();
    server::session(&dsn).await
}

fn column(name: &str, type_oid: u32) -> Column {
    Column { name: name.to_owned(), type_oid, type_modifier: -1, not_null: false, generated: false }
}

fn index(name: &str, columns: &[&str]) -> IdentityIndex {
    IdentityIndex {
        name: name.to_owned(),
        columns: columns.iter().map(|&column| column.to_owned()).collect(),
    }
}

fn table<'a>(schema: &'a Schema, name: &str) -> &'a Table {
    &schema.tables[&TableName::new("walcast_schema", name)]
}

fn type_oid(schema: &Schema, of: &str, name: &str) -> u32 {
    let found = schema.types.iter().find(|this| this.name == name && this.schema == of);
    found.unwrap_or_else(|| panic!("no type {name}")).oid
}

#[tokio::test]
async fn tables_are_read_as_they_are() {
    let client = client().await;
    client
        .batch_execute(
            r#"drop schema if exists walcast_schema cascade; create schema walcast_schema;
               set search_path = walcast_schema;
               create type mood as enum ('a'); create domain short as varchar(5);
               create table "Lots" (
                   b int not null, gone int, a text not null, "Odd ""name" numeric(14, 2), code short not null,
                   doubled int generated always as (b * 2) stored, feeling mood[],
                   primary key (a, b) include (code));
               alter table "Lots" drop column gone;
               create unique index lots_code on "Lots" (code);
               create unique index lots_covering on "Lots" (b) include (feeling);
               create unique index lots_nullable on "Lots" ("Odd ""name");
               create unique index lots_partial on "Lots" (code) where b > 0;
               create unique index lots_expression on "Lots" (lower(a));
               alter table "Lots" add constraint lots_deferred unique (code) deferrable;
               create index lots_plain on "Lots" (code);
               alter table "Lots" replica identity using index lots_code;
               create table parts (day date, note text) partition by list (day);
               create table parts_2024 partition of parts default partition by list (note);
               create table parts_2024_a partition of parts_2024 default;
               alter table parts_2024_a replica identity full;
               create unlogged table quick (id int);
               create table bare ();
               create table silent (id int primary key); alter table silent replica identity nothing;
               create table dropped (id int not null); create unique index dropped_id on dropped (id);
               alter table dropped replica identity using index dropped_id; drop index dropped_id;
               create view seen as select 1; create materialized view kept as select 1;
               create temporary table passing (id int);"#,
        )
        .await
        .unwrap();
    let schema = Schema::fetch(&client).await.unwrap();

    let lots = table(&schema, "Lots");
    let oid = |name: &str| type_oid(&schema, "walcast_schema", name);
    assert_eq!(
        *lots,
        Table {
            oid: lots.oid,
            name: TableName::new("walcast_schema", "Lots"),
            kind: TableKind::Ordinary,
            logged: true,
            columns: vec![
                Column { not_null: true, ..column("b", 23) },
                Column { not_null: true, ..column("a", 25) },
                Column { type_modifier: (14 << 16) + 2 + 4, ..column("Odd \"name", 1700) },
                Column { not_null: true, type_modifier: -1, ..column("code", oid("short")) },
                Column { generated: true, ..column("doubled", 23) },
                column("feeling", oid("_mood")),
            ],
            primary_key: vec!["a".to_owned(), "b".to_owned()],
            replica_identity: ReplicaIdentity::Index("lots_code".to_owned()),
            identity_indexes: vec![
                index("Lots_pkey", &["a", "b"]),
                index("lots_code", &["code"]),
                index("lots_covering", &["b"]),
            ],
            root: None,
        }
    );

    let parts = TableName::new("walcast_schema", "parts");
    assert_eq!(table(&schema, "parts").kind, TableKind::Partitioned);
    assert_eq!(table(&schema, "parts").root, None);
    assert_eq!(table(&schema, "parts_2024_a").root.as_ref(), Some(&parts));
    assert_eq!(table(&schema, "parts_2024_a").replica_identity, ReplicaIdentity::Full);
    let mut partitions: Vec<_> = schema.partitions(&parts).map(|table| table.name.name.as_str()).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, ["parts_2024", "parts_2024_a"]);

    assert!(!table(&schema, "quick").logged);
    assert_eq!(table(&schema, "quick").replica_identity, ReplicaIdentity::Default);
    assert!(table(&schema, "bare").columns.is_empty());
    assert_eq!(table(&schema, "silent").replica_identity, ReplicaIdentity::Nothing);
    assert_eq!(table(&schema, "dropped").replica_identity, ReplicaIdentity::Nothing);

    let others = ["seen", "kept", "passing"];
    assert!(schema.tables.keys().all(|name| !others.contains(&name.name.as_str())));
    assert!(
        schema.tables.keys().all(|name| name.schema != "pg_catalog" && name.schema != "information_schema")
    );
}

#[tokio::test]
async fn types_are_read_as_they_are() {
    let client = client().await;
    client
        .batch_execute(
            r#"drop schema if exists walcast_types cascade; create schema walcast_types;
               set search_path = walcast_types;
               create type feeling as enum ('a'); create domain tiny as int2; create domain tinier as tiny;
               create type reading as range (subtype = float8, multirange_type_name = readings);
               create type spot as ("X y" int4, gone text, marks tiny[]);
               alter type spot drop attribute gone;"#,
        )
        .await
        .unwrap();
    let schema = Schema::fetch(&client).await.unwrap();
    let oid = |name: &str| type_oid(&schema, "walcast_types", name);
    let kind = |name: &str| schema.types.kind(oid(name)).unwrap().clone();
    assert_eq!(kind("feeling"), TypeKind::Enum);
    assert_eq!(kind("tinier"), TypeKind::Domain { base: oid("tiny") });
    assert_eq!(schema.types.base(oid("tinier")), 21);
    assert_eq!(kind("reading"), TypeKind::Range);
    assert_eq!(kind("readings"), TypeKind::Multirange);
    let field = |name: &str, type_oid| Field { name: name.to_owned(), type_oid };
    assert_eq!(
        kind("spot"),
        TypeKind::Composite { fields: vec![field("X y", 23), field("marks", oid("_tiny"))] }
    );
    assert_eq!(kind("_spot"), TypeKind::Array { element: oid("spot"), delimiter: b',' });
}
