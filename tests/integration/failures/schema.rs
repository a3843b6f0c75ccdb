//! What the worker reads is changed, taken away, or put back.

use super::*;

const BAYS: &str = "
    create table bays (id int primary key, organization_id text not null, site text, spots int);
    create table readings (id int, day date, organization_id text not null, primary key (id, day))
        partition by range (day);
    create table readings_1 partition of readings for values from ('2026-01-01') to ('2027-01-01');
    create table readings_2 partition of readings for values from ('2027-01-01') to ('2028-01-01');";

const CATALOG: &str = r#"
[tables.bays]
organization = "organization_id"
channel = "bays"
[[tables.bays.events]]
type = "bay"
on = ["insert", "update", "delete"]
data = { site = "site", spots = "spots", was = { row = "old" } }

[tables.readings]
organization = "organization_id"
channel = "readings"
[[tables.readings.events]]
type = "reading"
on = ["insert"]
data = { id = "id" }
"#;

async fn with_bays() -> (TestApp, Stream) {
    let app = TestApp::builder().before(BAYS).catalog(CATALOG).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let stream = app.open(&member, "").await;
    (app, stream)
}

#[tokio::test]
async fn a_publication_made_again_is_passed_by_whatever_was_written_without_it() {
    let mut app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'before', '1')").await;
    let before = stream.event().await.id.expect("an id");
    app.sql("drop publication walcast").await;
    app.sql("insert into organizations (id, name, plan) values ('o2', 'Poison', 'free')").await;
    says(&app, "reasons", "publication walcast does not exist").await;
    word(&app, "source_down").await;
    let sql = remedy(&app, "publication walcast is not as the catalog needs it").await;
    app.sql(&sql).await;
    told_reset(&mut stream).await;
    word(&app, "ready").await;
    assert_eq!(until_done(&app, &mut stream).await, ["done"], "told once");
    let mut resumed = app.open(&member, &format!("&lastEventId={before}")).await;
    told_reset(&mut resumed).await;
    // What was confirmed is beyond: another process reads on as well.
    app.restart().await;
    let mut stream = app.open(&member, "").await;
    assert_eq!(until_done(&app, &mut stream).await, ["done"]);
}

#[tokio::test]
async fn a_worker_that_starts_on_a_log_without_its_publication_passes_it_by() {
    let mut app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let create = "create publication walcast for table organizations, users, memberships
                  with (publish_via_partition_root = true)";
    app.stop().await;
    app.sql("drop publication walcast").await;
    app.sql("insert into organizations (id, name, plan) values ('o2', 'Poison', 'free')").await;
    app.sql(create).await;
    app.restart().await;
    let mut stream = app.open(&member, "").await;
    assert_eq!(until_done(&app, &mut stream).await, ["done"]);
}

#[tokio::test]
async fn a_table_taken_out_of_the_publication_is_told_with_the_sql_that_puts_it_back() {
    let (app, mut stream) = with_bays().await;
    app.sql("alter publication walcast drop table bays; insert into bays values (1, 'o1', 'unseen', 1)")
        .await;
    let sql = remedy(&app, "publication walcast is not as the catalog needs it").await;
    assert!(sql.contains("add table") && sql.contains("bays"), "{sql}");
    told_reset(&mut stream).await;
    app.sql(&sql).await;
    told_reset(&mut stream).await;
    word(&app, "ready").await;
    app.sql("insert into bays values (2, 'o1', 'seen', 1)").await;
    assert_eq!(stream.event().await.json()["data"]["site"], json!("seen"));
}

#[tokio::test]
async fn a_dropped_table_is_told_and_the_others_go_on() {
    let (app, mut stream) = with_bays().await;
    app.sql("drop table bays").await;
    says(&app, "reasons", "bays does not exist").await;
    told_reset(&mut stream).await;
    app.sql("insert into readings values (1, '2026-05-05', 'o1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("reading"));
    app.sql("create table bays (id int primary key, organization_id text not null, site text, spots int)")
        .await;
    for text in ["beyond its key", "publication walcast is not as the catalog needs it"] {
        let sql = remedy(&app, text).await;
        app.sql(&sql).await;
    }
    told_reset(&mut stream).await;
    word(&app, "ready").await;
    app.sql("insert into bays values (2, 'o1', 'again', 1)").await;
    assert_eq!(stream.event().await.json()["data"]["site"], json!("again"));
}

#[tokio::test]
pub async fn columns_come_go_and_change_and_the_stream_goes_on() {
    let (app, mut stream) = with_bays().await;
    app.sql("alter table bays add column note text; insert into bays values (1, 'o1', 'a', 1, 'n')").await;
    assert_eq!(stream.event().await.json()["data"]["spots"], json!(1));
    app.sql("alter table bays alter column spots type text using spots::text; update bays set site = 'b'")
        .await;
    assert_eq!(stream.event().await.json()["data"]["spots"], json!("1"), "as to_json prints it now");
    app.sql("alter table bays rename column site to place; update bays set spots = '2'").await;
    let renamed = stream.event().await.json();
    assert_eq!((&renamed["data"]["site"], &renamed["data"]["spots"]), (&json!(null), &json!("2")));
    says(&app, "reasons", "no column \"site\"").await;
    word(&app, "degraded").await;
    app.sql("alter table bays rename column place to site; alter table bays drop column spots").await;
    app.sql("update bays set site = 'c'").await;
    let dropped = stream.event().await.json();
    assert_eq!((&dropped["data"]["site"], &dropped["data"]["spots"]), (&json!("c"), &json!(null)));
    says(&app, "reasons", "no column \"spots\"").await;
    app.sql("alter table bays add column spots int; update bays set spots = 3").await;
    assert_eq!(stream.event().await.json()["data"]["spots"], json!(3));
    word(&app, "ready").await;
}

#[tokio::test]
async fn a_replica_identity_that_was_lowered_is_told_with_the_sql_that_raises_it() {
    let (app, mut stream) = with_bays().await;
    app.sql("insert into bays values (1, 'o1', 'a', 1)").await;
    stream.event().await;
    app.sql("alter table bays replica identity default").await;
    let sql = remedy(&app, "beyond its key").await;
    app.sql("delete from bays").await;
    let told = stream.event().await.json();
    assert_eq!(told["type"], json!("data.sync"), "whose row it was is not in the log: {told}");
    app.sql(&sql).await;
    app.sql("insert into bays values (2, 'o1', 'b', 1); delete from bays").await;
    let types = [stream.event().await, stream.event().await].map(|event| event.event_type());
    assert_eq!(types, [Some("bay".to_owned()), Some("bay".to_owned())]);
    word(&app, "ready").await;
}

#[tokio::test]
pub async fn a_truncated_or_detached_partition_is_told() {
    let (app, mut stream) = with_bays().await;
    looked(&app).await;
    app.sql("insert into readings values (1, '2026-05-05', 'o1'), (2, '2027-05-05', 'o1')").await;
    stream.event().await;
    stream.event().await;
    app.sql("truncate readings").await;
    let told = stream.event().await.json();
    assert_eq!(
        (&told["type"], &told["data"]["reason"]),
        (&json!("data.sync"), &json!("truncated")),
        "{told}"
    );
    // All partitions have other files now, and nothing says that this was all.
    told_reset(&mut stream).await;
    for harm in ["truncate readings_1", "alter table readings detach partition readings_2"] {
        app.sql(harm).await;
        told_reset(&mut stream).await;
        word(&app, "ready").await;
        assert_eq!(until_done(&app, &mut stream).await, ["done"]);
    }
}
