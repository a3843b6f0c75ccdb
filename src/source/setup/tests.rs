use std::collections::{BTreeMap, HashMap};

use super::plan::compute;
use super::state::{Grantee, Publication, Role, Server, Slot, State};
use super::*;
use crate::postgres::schema::{Column, ReplicaIdentity, Table, TableKind, Types};

fn table(name: &str, primary_key: &[&str], replica_identity: ReplicaIdentity) -> Table {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        type_oid: 25,
        type_modifier: -1,
        not_null: true,
        generated: false,
    };
    Table {
        oid: 1,
        name: TableName::parse(name),
        kind: TableKind::Ordinary,
        logged: true,
        columns: primary_key.iter().map(column).collect(),
        primary_key: primary_key.iter().map(|name| (*name).to_owned()).collect(),
        replica_identity,
        identity_indexes: Vec::new(),
        root: None,
    }
}

fn schema(tables: Vec<Table>) -> Schema {
    let tables: HashMap<_, _> = tables.into_iter().map(|table| (table.name.clone(), table)).collect();
    Schema { tables, types: Types::default() }
}

fn requirements(tables: &[(&str, IdentityNeed)]) -> Requirements {
    Requirements {
        source: Kind::Wal,
        publication: "walcast".to_owned(),
        slot: "walcast_app".to_owned(),
        max_outbox: None,
        tables: tables.iter().map(|(name, need)| (TableName::parse(name), *need)).collect(),
        grant_to: None,
    }
}

fn bare() -> State {
    State {
        server: Server {
            version: 150_018,
            wal_level: "logical".to_owned(),
            max_slots: 10,
            keep_size_mib: Some(1024),
            ..Server::default()
        },
        role: Role { name: "owner".to_owned(), may_replicate: true },
        ..State::default()
    }
}

fn done(tables: &[&str]) -> State {
    let tables: BTreeMap<_, _> = tables.iter().map(|table| (TableName::parse(table), false)).collect();
    State {
        publication: Some(Publication { complete: true, tables, ..Publication::default() }),
        slot: Some(Slot { ours: true, ..Slot::default() }),
        ..bare()
    }
}

fn sql(state: &State, schema: &Schema, requirements: &Requirements) -> Vec<String> {
    let plan = compute(state, schema, requirements).unwrap();
    plan.statements.into_iter().map(|statement| statement.sql).collect()
}

fn problems(state: &State, schema: &Schema, requirements: &Requirements) -> String {
    let problems = compute(state, schema, requirements).unwrap_err();
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_bare_database_gets_identities_then_the_publication_then_the_slot() {
    let schema = schema(vec![
        table("bays", &["id"], ReplicaIdentity::Default),
        table("billing.Invoice", &["id"], ReplicaIdentity::Default),
        table("quiet", &["id"], ReplicaIdentity::Nothing),
    ]);
    let needs = [
        ("bays", IdentityNeed::Default),
        ("billing.Invoice", IdentityNeed::Full),
        ("quiet", IdentityNeed::Default),
    ];
    assert_eq!(
        sql(&bare(), &schema, &requirements(&needs)),
        [
            r#"alter table "billing"."Invoice" replica identity full"#,
            r#"alter table "public"."quiet" replica identity default"#,
            r#"create publication "walcast" for table only "public"."bays", only "billing"."Invoice", only "public"."quiet" with (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"#,
            "select pg_catalog.pg_create_logical_replication_slot('walcast_app', 'pgoutput')",
        ]
    );
}

#[test]
fn a_database_that_is_up_to_date_gives_an_empty_plan() {
    let schema = schema(vec![table("bays", &["id"], ReplicaIdentity::Full)]);
    for need in [IdentityNeed::Default, IdentityNeed::Full] {
        assert_eq!(compute(&done(&["bays"]), &schema, &requirements(&[("bays", need)])), Ok(Plan::default()));
    }
}

#[test]
fn every_partition_logs_as_its_root_is_published() {
    let mut root = table("readings", &["id"], ReplicaIdentity::Default);
    root.kind = TableKind::Partitioned;
    let mut middle = table("readings_2026", &["id"], ReplicaIdentity::Default);
    middle.kind = TableKind::Partitioned;
    middle.root = Some(root.name.clone());
    let mut leaf = table("readings_2026_11", &["id"], ReplicaIdentity::Default);
    leaf.root = Some(root.name.clone());
    let schema = schema(vec![root, middle, leaf]);
    assert_eq!(
        sql(&done(&["readings"]), &schema, &requirements(&[("readings", IdentityNeed::Full)])),
        [
            r#"alter table "public"."readings" replica identity full"#,
            r#"alter table "public"."readings_2026_11" replica identity full"#,
        ]
    );
}

#[test]
fn a_publication_is_brought_to_exactly_the_tables_of_the_catalog() {
    let tables = ["a", "b"].map(|name| table(name, &["id"], ReplicaIdentity::Default));
    let schema = schema(tables.to_vec());
    let wanted = requirements(&[("a", IdentityNeed::Default), ("b", IdentityNeed::Default)]);
    let mut state = done(&["b", "other"]);
    assert_eq!(
        sql(&state, &schema, &wanted),
        [
            r#"alter publication "walcast" drop table only "public"."other""#,
            r#"alter publication "walcast" add table only "public"."a""#,
        ]
    );
    let publication = state.publication.as_mut().unwrap();
    publication.tables.insert(TableName::parse("a"), true);
    publication.complete = false;
    assert_eq!(
        sql(&state, &schema, &wanted),
        [
            r#"alter publication "walcast" set table only "public"."a", only "public"."b""#,
            r#"alter publication "walcast" set (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"#,
        ]
    );
}

#[test]
fn a_slot_is_a_failover_slot_where_the_server_knows_them_and_a_lost_one_is_made_again() {
    let (schema, wanted) = (schema(Vec::new()), requirements(&[]));
    let mut state = done(&[]);
    state.server.version = 170_000;
    state.slot = Some(Slot { ours: true, lost: true, ..Slot::default() });
    assert_eq!(
        sql(&state, &schema, &wanted),
        [
            "select pg_catalog.pg_drop_replication_slot('walcast_app')",
            "select pg_catalog.pg_create_logical_replication_slot('walcast_app', 'pgoutput', failover => true)",
        ]
    );
}

#[test]
fn generated_columns_are_published_where_the_server_would_refuse_updates_without_them() {
    let (schema, wanted) = (schema(Vec::new()), requirements(&[]));
    let mut state = done(&[]);
    state.server.version = 180_000;
    state.publication.as_mut().unwrap().complete = false;
    assert_eq!(
        sql(&state, &schema, &wanted),
        [
            r#"alter publication "walcast" set (publish = 'insert, update, delete, truncate', publish_via_partition_root = true, publish_generated_columns = stored)"#
        ]
    );
}

#[test]
fn a_table_whose_updates_the_server_would_refuse_is_not_published() {
    let schema = schema(vec![
        table("a", &["id"], ReplicaIdentity::Default),
        table("b", &["id"], ReplicaIdentity::Full),
        table("c", &["id"], ReplicaIdentity::Default),
    ]);
    let wanted = requirements(&[
        ("a", IdentityNeed::Full),
        ("b", IdentityNeed::Default),
        ("c", IdentityNeed::Default),
    ]);
    let mut state = done(&["c"]);
    for name in ["a", "b", "c"] {
        state.virtual_columns.insert(TableName::parse(name), "v".to_owned());
    }
    let problems = compute(&state, &schema, &wanted).unwrap_err();
    let texts: Vec<_> = problems.iter().map(|problem| problem.text.as_str()).collect();
    assert_eq!(texts.len(), 2, "by its key alone one can be published: {texts:?}");
    for (text, name) in texts.iter().zip(["a", "b"]) {
        assert!(
            text.starts_with(&format!("table {name} has the virtual generated column \"v\": ")),
            "{text}"
        );
    }
}

#[test]
fn a_slot_older_than_its_publication_is_moved_past_what_can_not_be_decoded() {
    let state = State { publication: None, ..done(&[]) };
    assert_eq!(
        sql(&state, &schema(Vec::new()), &requirements(&[])).pop().unwrap(),
        "select pg_catalog.pg_replication_slot_advance('walcast_app', pg_catalog.pg_current_wal_insert_lsn())"
    );
}

#[test]
fn a_role_is_granted_what_it_lacks_and_replication_is_only_stated() {
    let bays = TableName::parse("bays");
    let schema = schema(vec![table("bays", &["id"], ReplicaIdentity::Default)]);
    let mut wanted = requirements(&[("bays", IdentityNeed::Default)]);
    wanted.grant_to = Some("Worker".to_owned());
    let mut state = done(&["bays"]);
    assert!(problems(&state, &schema, &wanted).contains(r#"create role "Worker" login replication"#));
    state.grantee = Some(Grantee {
        may_replicate: false,
        schemas_without_usage: vec!["public".to_owned()],
        tables_without_select: vec![bays],
    });
    let plan = compute(&state, &schema, &wanted).unwrap();
    let sql: Vec<_> = plan.statements.iter().map(|statement| statement.sql.as_str()).collect();
    assert_eq!(
        sql,
        [
            r#"grant usage on schema "public" to "Worker""#,
            r#"grant select on table "public"."bays" to "Worker""#
        ]
    );
    assert_eq!(plan.notes[0].sql, r#"alter role "Worker" replication"#);
}

#[test]
fn everything_that_stands_in_the_way_is_told_at_once() {
    let schema = schema(vec![table("keyless", &[], ReplicaIdentity::Default)]);
    let mut state = bare();
    state.server.wal_level = "replica".to_owned();
    state.server.used_slots = 10;
    state.role.may_replicate = false;
    let told = problems(
        &state,
        &schema,
        &requirements(&[("keyless", IdentityNeed::Default), ("missing", IdentityNeed::Default)]),
    );
    for part in [
        "alter system set wal_level = 'logical'",
        "restarted",
        "table keyless has no primary key",
        "table missing does not exist",
        "alter system set max_replication_slots = 15",
        r#"alter role "owner" replication"#,
    ] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
    state.publication = Some(Publication { all_tables: true, ..Publication::default() });
    assert!(problems(&state, &schema, &requirements(&[])).contains(r#"drop publication "walcast""#));
    state.slot = Some(Slot::default());
    assert!(problems(&state, &schema, &requirements(&[])).contains("set source.slot to another name"));
}

#[test]
fn a_name_can_neither_leave_its_quotes_nor_its_comment() {
    let name = "a\"; drop table b; --\nselect 1";
    let schema = schema(vec![table(name, &["id"], ReplicaIdentity::Default)]);
    let mut wanted = requirements(&[(name, IdentityNeed::Full)]);
    wanted.slot = "it's".to_owned();
    let mut state = bare();
    state.slot = Some(Slot { ours: true, ..Slot::default() });
    let plan = compute(&state, &schema, &wanted).unwrap();
    let quoted = "\"public\".\"a\"\"; drop table b; --\nselect 1\"";
    let mut expected = String::from(
        "-- The catalog needs old values of a\"; drop table b; -- select 1 beyond its key. The cost: every update \
         and delete of it logs the whole old row.\n",
    );
    write!(
        expected,
        "set lock_timeout = '2s';\nalter table {quoted} replica identity full;\nreset lock_timeout;\n"
    )
    .unwrap();
    assert!(plan.to_string().starts_with(&expected), "{plan}");
    assert!(plan.to_string().contains("pg_replication_slot_advance('it''s',"), "{plan}");
}
