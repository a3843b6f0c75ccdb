//! Transactions of every shape: their events come whole, in order, once, or not at all.

use serde_json::json;

use crate::bench::app::TestApp;
use crate::bench::sse::Frame;

const TABLES: &str = "
    create table parents (id int primary key, organization_id text, name text);
    create table children (id int primary key, parent_id int references parents on delete cascade, organization_id text);
    create table notes (id serial primary key, parent_id int, organization_id text, note text);
";

const CATALOG: &str = r#"
[tables.parents]
organization = "organization_id"
channel = "parents"
related.note = { table = "notes", key = "parent_id", of = "id" }
[[tables.parents.events]]
type = "parent"
on = ["insert", "update", "delete"]
data = { id = "id", name = "name", note = { from = "note", column = "note" } }

[tables.children]
organization = "organization_id"
channel = "children"
lookup.parent = { table = "parents", key = "id", of = "parent_id" }
[[tables.children.events]]
type = "child"
on = ["insert", "delete"]
data = { id = "id", parent = { from = "parent", column = "name" } }
"#;

async fn start() -> (TestApp, crate::bench::sse::Stream) {
    let app = TestApp::builder().before(TABLES).catalog(CATALOG).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let stream = app.open(&member, "").await;
    (app, stream)
}

fn ids(events: &[Frame]) -> Vec<(String, i64)> {
    let of = |event: &Frame| {
        let json = event.json();
        Some((json["type"].as_str()?.to_owned(), json["data"]["id"].as_i64().unwrap_or(-1)))
    };
    events.iter().filter_map(of).collect()
}

fn last(event: &Frame) -> bool {
    event.event_type().as_deref() == Some("last")
}

fn pairs(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect()
}

#[tokio::test]
pub async fn what_a_savepoint_took_back_never_happened() {
    let (app, mut stream) = start().await;
    app.transaction(
        "insert into parents values (1, 'o1', 'kept');
         savepoint a; insert into parents values (2, 'o1', 'gone'); select walcast.emit('o1', 'gone', '1');
         savepoint b; insert into parents values (3, 'o1', 'gone'); release b; rollback to a;
         savepoint c; insert into parents values (4, 'o1', 'kept'); select walcast.emit('o1', 'kept', '{\"id\":4}'); release c;
         do $$ begin
           for n in 10..400 loop
             begin
               insert into parents values (n, 'o1', 'x');
               if n % 2 = 1 then raise division_by_zero; end if;
             exception when division_by_zero then null;
             end;
           end loop;
         end $$;
         select walcast.emit('o1', 'last', '1')",
    )
    .await;
    let mut expected = pairs(&[("parent", 1), ("parent", 4), ("kept", 4)]);
    expected.extend((10..=400).step_by(2).map(|n| ("parent".to_owned(), n)));
    expected.push(("last".to_owned(), -1));
    assert_eq!(ids(&stream.events_until(last).await), expected);
}

#[tokio::test]
pub async fn a_prepared_transaction_comes_when_it_is_committed_and_never_when_it_is_not() {
    let (app, mut stream) = start().await;
    if app.text("current_setting('max_prepared_transactions')").await == "0" {
        // Only on a server of somebody else's: the suite's own allows them.
        assert!(std::env::var_os("TEST_DATABASE_URL").is_some());
        return;
    }
    let name = &app.dsn.database;
    app.sql(&format!(
        "begin; insert into parents values (1, 'o1', 'one'); select walcast.emit('o1', 'emitted', '{{\"id\":7}}');
         prepare transaction '{name}_kept'"
    ))
    .await;
    app.sql(&format!("begin; insert into parents values (2, 'o1', 'no'); prepare transaction '{name}_gone'"))
        .await;
    app.sql("insert into parents values (3, 'o1', 'between')").await;
    assert_eq!(ids(&[stream.event().await]), pairs(&[("parent", 3)]));
    app.sql(&format!("rollback prepared '{name}_gone'")).await;
    app.sql(&format!("commit prepared '{name}_kept'")).await;
    app.sql("select walcast.emit('o1', 'last', '1')").await;
    assert_eq!(
        ids(&stream.events_until(last).await),
        pairs(&[("parent", 1), ("emitted", 7), ("last", -1)]),
        "signed for the transaction that it is in"
    );
}

#[tokio::test]
pub async fn truncating_many_tables_is_told_once_for_each_that_makes_events() {
    let (app, mut stream) = start().await;
    app.sql("insert into parents values (1, 'o1', 'a'); insert into children values (1, 1, 'o1')").await;
    app.sql("truncate parents, notes cascade").await;
    app.sql("insert into children values (2, null, 'o1'); select walcast.emit('o1', 'last', '1')").await;
    let events = stream.events_until(last).await;
    let told: Vec<_> = events.iter().map(|event| event.event_type().unwrap()).collect();
    assert_eq!(told, ["parent", "child", "data.sync", "data.sync", "child", "last"]);
    let mut ids: Vec<_> = events.iter().map(|event| event.id.clone().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "each has an id of its own");
    assert_eq!(events[2].json()["data"]["reason"], "truncated");
}

#[tokio::test]
pub async fn lookups_show_the_mirror_as_of_each_change_of_their_own_transaction() {
    let (app, mut stream) = start().await;
    app.transaction(
        "insert into children values (1, null, 'o1');
         insert into parents values (1, 'o1', 'first');
         insert into children values (2, 1, 'o1');
         update parents set name = 'second' where id = 1;
         insert into children values (3, 1, 'o1');
         update parents set id = 5 where id = 1 and not exists (select from children where parent_id = 1);
         delete from children where id = 2;
         insert into notes (parent_id, organization_id, note) values (1, 'o1', 'a'), (1, 'o1', 'b');
         delete from parents where id = 1;
         insert into children values (4, null, 'o1')",
    )
    .await;
    app.sql("select walcast.emit('o1', 'last', '1')").await;
    let events = stream.events_until(last).await;
    let told: Vec<_> = events.iter().map(|event| event.json()["data"].clone()).collect();
    assert_eq!(
        told,
        [
            json!({ "id": 1, "parent": null }),
            json!({ "id": 1, "name": "first", "note": "b" }),
            json!({ "id": 2, "parent": "first" }),
            json!({ "id": 1, "name": "second", "note": "b" }),
            json!({ "id": 3, "parent": "second" }),
            json!({ "id": 2, "parent": "second" }),
            json!({ "id": 1, "name": "second", "note": "b" }),
            // The cascade's: the parent is gone when its children go.
            json!({ "id": 3, "parent": null }),
            json!({ "id": 4, "parent": null }),
            json!(1),
        ]
    );
}

#[tokio::test]
pub async fn a_hundred_thousand_rows_with_related_ones_come_whole_and_in_order() {
    const ROWS: i64 = 100_000;
    let app = TestApp::builder()
        .before(TABLES)
        .catalog(CATALOG)
        .config(|config| {
            config.source.max_transaction = walcast::config::ByteSize(1 << 20);
            // Reading and checking so many takes this thread its time, which is the worker's too.
            config.http.write_timeout = std::time::Duration::from_secs(600);
        })
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.transaction(&format!(
        "insert into parents select n, 'o1', 'p' || n from generate_series(1, {ROWS}) n;
         insert into notes (parent_id, organization_id, note)
           select n, 'o1', 'note ' || n from generate_series(1, {ROWS}, 2) n"
    ))
    .await;
    for n in 1..=ROWS {
        let note = if n % 2 == 1 { json!(format!("note {n}")) } else { json!(null) };
        let data = stream.event().await.json()["data"].clone();
        assert_eq!(data, json!({ "id": n, "name": format!("p{n}"), "note": note }));
    }
    app.sql("copy parents from program 'printf \"200000\\to1\\tcopied\\n200001\\to2\\tother\\n200002\\to1\\t\\\\\\\\N\\n\"'").await;
    assert_eq!(stream.event().await.json()["data"]["id"], 200_000);
    assert_eq!(stream.event().await.json()["data"], json!({ "id": 200_002, "name": null, "note": null }));
}
