//! Tables of every kind: partitioned, inherited, with generated columns, without a key.

use serde_json::{Value, json};
use walcast::config::ByteSize;
use walcast::postgres::dsn::Dsn;

use crate::bench::app::{TestApp, configuration};
use crate::bench::eventually;
use crate::bench::server::{database, is_since, session};
use crate::bench::sse::Stream;

async fn data(stream: &mut Stream) -> Value {
    let event = stream.event().await;
    assert_eq!(event.event_type().as_deref(), Some("row"), "{}", event.raw);
    event.json()["data"].clone()
}

fn catalog(table: &str, data: &str) -> String {
    format!(
        "[tables.{table}]\norganization = \"organization_id\"\nchannel = \"rows\"\n[[tables.{table}.events]]\n\
         type = \"row\"\non = [\"insert\", \"update\", \"delete\"]\ndata = {data}\n"
    )
}

#[tokio::test]
async fn partitions_are_their_root_whatever_is_attached_and_detached() {
    let before = "
        create table readings (id int, day date, organization_id text, value int, primary key (id, day))
          partition by range (day);
        create table readings_1 partition of readings for values from ('2026-01-01') to ('2026-07-01');
        create table readings_2 partition of readings for values from ('2026-07-01') to ('2027-01-01')
          partition by list (id);
        create table readings_2_1 partition of readings_2 for values in (1, 2);
        create table loose (value int, id int not null, organization_id text, day date not null, primary key (id, day));
    ";
    let catalog = catalog("readings", "{ id = \"id\", value = \"value\", previous = { previous = true } }");
    let app = TestApp::builder().before(before).catalog(&catalog).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("insert into readings values (1, '2026-02-01', 'o1', 5)").await;
    app.sql("update readings set value = 6").await;
    // To another partition: a delete and an insert, in one transaction.
    app.sql("update readings set day = '2026-08-01'").await;
    app.sql("delete from readings_2_1").await;
    let row = |value: i64, previous: Value| json!({ "id": 1, "value": value, "previous": previous });
    assert_eq!(data(&mut stream).await["value"], 5);
    assert_eq!(data(&mut stream).await, row(6, json!({ "value": 5 })));
    assert_eq!(data(&mut stream).await["value"], 6);
    assert_eq!(data(&mut stream).await["value"], 6);
    assert_eq!(data(&mut stream).await["value"], 6);

    // Attached with other places for its columns, and a replica identity of its own.
    app.sql(
        "alter table loose replica identity full;
         alter table readings attach partition loose for values from ('2027-01-01') to ('2028-01-01');
         insert into readings values (9, '2027-02-01', 'o1', 1);
         delete from loose",
    )
    .await;
    assert_eq!(data(&mut stream).await["id"], 9);
    assert_eq!(data(&mut stream).await["id"], 9);
    // One that does not log old values is told as soon as it is there.
    app.sql("create table readings_4 partition of readings for values from ('2028-01-01') to ('2029-01-01')")
        .await;
    app.degraded("readings_4").await;
    walcast::cli::setup::apply(&app.config, &app.dsn).await.unwrap();
    app.undegraded().await;
    // Detached, it is a table of its own, of which nobody asked anything.
    app.sql(
        "alter table readings detach partition loose;
         insert into loose values (1, 10, 'o1', '2027-01-01');
         insert into readings values (11, '2028-01-01', 'o1', 1)",
    )
    .await;
    let mut next = data(&mut stream).await["id"].clone();
    let version = app.text("current_setting('server_version_num')::int / 10000").await;
    if version == "14" && next == 10 {
        // That one publishes it for as long as it sends on the connection on which it was a partition.
        next = data(&mut stream).await["id"].clone();
    }
    assert_eq!(next, 11);
}

#[tokio::test]
pub async fn a_child_by_inheritance_is_a_table_of_its_own() {
    let before = "
        create table parent (id int primary key, organization_id text);
        create table child (extra int) inherits (parent);
    ";
    let app = TestApp::builder().before(before).catalog(&catalog("parent", "{ id = \"id\" }")).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    // The child has no key: were it published beside its parent, its rows could not be changed any more.
    app.sql(
        "insert into parent values (1, 'o1'); insert into child values (2, 'o1', 3);
         update child set extra = 4; update parent set id = id + 10; delete from only child;
         insert into parent values (3, 'o1')",
    )
    .await;
    for id in [1, 11, 3] {
        assert_eq!(data(&mut stream).await["id"], id);
    }
    let published = app.text("select count(*) from pg_publication_tables where tablename = 'child'").await;
    assert_eq!(published, "0");
}

#[tokio::test]
async fn a_change_in_a_partition_that_logs_less_than_its_root_is_told_or_said_to_be_missing() {
    let before = "
        create table readings (id int primary key, organization_id text, value int, note text)
          partition by range (id);
        create table readings_1 partition of readings for values from (0) to (10);
    ";
    let catalog = "[tables.readings]\norganization = \"organization_id\"\nchannel = \"rows\"\n\
                   [[tables.readings.events]]\ntype = \"row\"\non = [\"insert\", \"update\", \"delete\"]\n\
                   data = { id = \"id\" }\n\
                   [[tables.readings.events]]\ntype = \"valued\"\non = [\"update\"]\n\
                   when.changed = [\"value\"]\ndata = { id = \"id\" }\n";
    let app = TestApp::builder().before(before).catalog(catalog).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    // As an application's own migration would add it: with the key as its replica identity.
    app.sql(
        "create table readings_2 partition of readings for values from (10) to (20);
         insert into readings values (11, 'o1', 1, 'a'); update readings set value = 2 where id = 11;
         update readings set id = 12 where id = 11; delete from readings where id = 12; insert into readings values (1, 'o1')",
    )
    .await;
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "row 1") {
        let event = stream.event().await.json();
        told.push(match &event["data"]["reason"] {
            Value::Null => format!("{} {}", event["type"].as_str().unwrap_or_default(), event["data"]["id"]),
            reason => reason.to_string(),
        });
    }
    // Whether `value` changed is not logged, nor whose the deleted row was.
    let gap = "\"unroutable\"";
    assert_eq!(told, ["row 11", "row 11", gap, "row 12", gap, gap, "row 1"]);
    app.degraded("readings_2").await;
}

#[tokio::test]
async fn generated_columns_are_left_out_and_a_table_without_a_key_logs_its_rows() {
    let before =
        "create table heap (a int, organization_id text, twice int generated always as (a * 2) stored)";
    let catalog = catalog(
        "heap",
        "{ row = { row = \"new\" }, changed = { changed = true }, twice = { expr = \"new.a * 2\" } }",
    );
    let app = TestApp::builder().before(before).catalog(&catalog).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("insert into heap values (1, 'o1'); update heap set a = 2; delete from heap").await;
    let row = |a: i64| json!({ "a": a, "organizationId": "o1" });
    assert_eq!(data(&mut stream).await["row"], row(1));
    assert_eq!(data(&mut stream).await, json!({ "row": row(2), "changed": ["a"], "twice": 4 }));
    assert_eq!(data(&mut stream).await["row"], row(2));
}

/// The organization is in the key: no old row is needed beyond it.
const VIRTUAL: &str = "
    create table heap (organization_id text, id int, a int, twice int generated always as (a * 2) virtual, z text,
        primary key (organization_id, id))";

#[tokio::test]
pub async fn virtual_generated_columns_are_left_out_where_the_server_lets_their_table_be_published() {
    if !is_since(18, "virtual generated columns").await {
        return;
    }
    // A delete would tell the old row.
    let catalog = catalog("heap", "{ row = { row = \"new\" } }").replace(", \"delete\"", "");
    let app = TestApp::builder().before(VIRTUAL).catalog(&catalog).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("insert into heap values ('o1', 1, 2, default, 'z'); update heap set a = 3").await;
    let row = |a: i64| json!({ "row": { "organizationId": "o1", "id": 1, "a": a, "z": "z" } });
    assert_eq!(data(&mut stream).await, row(2));
    assert_eq!(data(&mut stream).await, row(3));
}

#[tokio::test]
async fn a_table_with_a_virtual_generated_column_that_would_need_its_old_rows_is_refused_by_setup() {
    if !is_since(18, "virtual generated columns whose old rows are needed").await {
        return;
    }
    let url = database().await;
    let dsn = Dsn::parse(&url).expect("its URL");
    session(&dsn).await.batch_execute(VIRTUAL).await.expect("the table");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("catalog.toml");
    std::fs::write(&path, catalog("heap", "{ changed = { changed = true } }")).expect("a catalog");
    let mut config = configuration();
    config.catalog.path = Some(path);
    config.presets.clear();
    let refused = walcast::cli::setup::apply(&config, &dsn).await.expect_err("the column is told");
    assert!(format!("{refused:#}").contains("virtual generated column \"twice\""), "{refused:#}");
    // Nothing was done: the application's writes go on.
    session(&dsn)
        .await
        .batch_execute("insert into heap values ('o1', 1, 2); update heap set a = 3; delete from heap")
        .await
        .expect("writes");
}

#[tokio::test]
pub async fn a_large_value_of_a_mirrored_row_that_is_not_touched_is_still_there() {
    let before = "
        create table docs (id int primary key, organization_id text, title text, body text);
        alter table docs alter column body set storage external;
        create table reads (id int primary key, organization_id text, doc_id int);
    ";
    let catalog = format!(
        "[tables.docs]\norganization = \"organization_id\"\n{}",
        catalog(
            "reads",
            "{ title = { from = \"doc\", column = \"title\" }, body = { from = \"doc\", column = \"body\" } }"
        )
        .replace(
            "channel = \"rows\"\n",
            "channel = \"rows\"\nlookup.doc = { table = \"docs\", key = \"id\", of = \"doc_id\" }\n"
        )
    );
    let mut app = TestApp::builder().before(before).catalog(&catalog).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let body = "0123456789abcdef".repeat(2000);
    app.sql(&format!("insert into docs values (1, 'o1', 'a', '{body}'); update docs set title = 'b'; insert into reads values (1, 'o1', 1)"))
        .await;
    assert_eq!(data(&mut stream).await, json!({ "title": "b", "body": body }));
    app.restart().await;
    let mut stream = app.open(&member, "").await;
    app.sql("update docs set title = 'c'; update docs set id = 2; insert into reads values (2, 'o1', 2)")
        .await;
    assert_eq!(data(&mut stream).await, json!({ "title": "c", "body": body }));
    app.sql("delete from docs; insert into reads values (3, 'o1', 2)").await;
    assert_eq!(data(&mut stream).await, json!({ "title": null, "body": null }));
}

#[tokio::test]
async fn a_small_budget_of_log_moves_the_slot_while_it_is_written() {
    let before = "create table rows_ (id int primary key, organization_id text, pad text)";
    let app = TestApp::builder()
        .before(before)
        .catalog(&catalog("rows_", "{ id = \"id\" }"))
        .config(|config| config.replay.max_wal = ByteSize(2 << 20))
        .start()
        .await;
    let pinned = "pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) from pg_replication_slots
                  where database = current_database()";
    let confirmed = "confirmed_flush_lsn from pg_replication_slots where database = current_database()";
    let begin = app.text(&format!("select {confirmed}")).await;
    let mut moved = false;
    let mut rows = 0;
    // More is written as long as it takes: the slot does not wait for an end of it.
    while !moved {
        app.sql(&format!(
            "insert into rows_ select {rows} + n, 'o1', repeat('x', 1000) from generate_series(1, 1000) n"
        ))
        .await;
        rows += 1000;
        moved = app
            .text(&format!(
                "select confirmed_flush_lsn > '{begin}'::pg_lsn + 4000000 from pg_replication_slots
                                   where database = current_database()"
            ))
            .await
            == "true";
        assert!(rows < 1_000_000, "a gigabyte was written, and nothing of it confirmed");
    }
    eventually("no more is pinned than the budget", || async {
        let pinned: f64 = app.text(&format!("select {pinned}")).await.parse().unwrap();
        (pinned < 3_000_000.0).then_some(())
    })
    .await;
}
