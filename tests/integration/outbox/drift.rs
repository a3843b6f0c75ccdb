//! What the outbox needs is taken away, switched off, or put back.

use serde_json::{Value, json};

use super::*;
use crate::failures::looked;

const BAYS: &str = "
    create table bays (id int primary key, organization_id text not null, spots int);
    create table readings (id int, day int, organization_id text not null, primary key (id, day)) partition by list (day);
    create table readings_1 partition of readings for values in (1);
    create table readings_2 partition of readings for values in (2);";

const CATALOG: &str = r#"
[tables.bays]
organization = "organization_id"
channel = "bays"
[[tables.bays.events]]
type = "bay"
on = ["insert", "update", "delete"]
data = { id = "id", spots = "spots" }

[tables.readings]
organization = "organization_id"
channel = "readings"
[[tables.readings.events]]
type = "reading"
on = ["insert"]
data = { id = "id" }
"#;

async fn start() -> (TestApp, Stream) {
    let app = over(SourceKind::Outbox).before(BAYS).catalog(CATALOG).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("insert into bays values (1, 'o1', 1)").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("bay"));
    looked(&app).await;
    (app, stream)
}

async fn told_reset(stream: &mut Stream) {
    let told = stream.event().await.json();
    assert_eq!(
        (&told["type"], &told["data"]["reason"]),
        (&json!("data.sync"), &json!("history_reset")),
        "{told}"
    );
}

/// The SQL behind a reason with this text.
async fn remedy(app: &TestApp, text: &str) -> String {
    let told: Value = serde_json::from_str(&app.degraded(text).await).unwrap();
    let reasons = told["reasons"].as_array().unwrap();
    let says = |reason: &&Value| reason["message"].as_str().is_some_and(|message| message.contains(text));
    reasons.iter().find(says).and_then(|reason| reason["sql"].as_str()).expect(text).to_owned()
}

#[tokio::test]
async fn triggers_switched_off_are_told_with_the_sql_that_mends_it_and_streams_read_again() {
    let (app, mut stream) = start().await;
    app.sql("alter table bays disable trigger all; update bays set spots = 2").await;
    let sql = remedy(&app, "the outbox's triggers are not as the catalog needs them").await;
    told_reset(&mut stream).await;
    assert!(sql.contains("enable always trigger"), "{sql}");
    walcast::cli::setup::apply(&app.config, &app.dsn).await.unwrap();
    told_reset(&mut stream).await;
    app.undegraded().await;
    app.sql("update bays set spots = 3").await;
    assert_eq!(stream.event().await.json()["data"]["spots"], json!(3));
}

#[tokio::test]
async fn triggers_switched_off_and_on_in_one_transaction_are_told_too() {
    let (app, mut stream) = start().await;
    app.sql(
        "begin; alter table bays disable trigger all; update bays set spots = 2;
         alter table bays enable always trigger \"00_walcast_change\";
         alter table bays enable always trigger \"00_walcast_truncate\"; commit",
    )
    .await;
    told_reset(&mut stream).await;
    app.sql("update bays set spots = 3").await;
    assert_eq!(stream.event().await.json()["data"]["spots"], json!(3));
}

#[tokio::test]
async fn a_partition_that_is_truncated_or_stops_writing_is_told() {
    let (app, mut stream) = start().await;
    app.sql("insert into readings values (1, 1, 'o1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("reading"));
    app.sql("truncate readings_1").await;
    told_reset(&mut stream).await;
    app.sql("alter table readings_2 disable trigger all").await;
    let sql = remedy(&app, "Changes of the partition").await;
    told_reset(&mut stream).await;
    app.sql(&sql).await;
    told_reset(&mut stream).await;
    app.undegraded().await;
    app.sql("create table readings_3 partition of readings for values in (3); insert into readings values (7, 3, 'o1')").await;
    assert_eq!(stream.event().await.json()["data"]["id"], json!(7));
}

#[tokio::test]
async fn a_dropped_table_is_told_and_the_others_go_on() {
    let (app, mut stream) = start().await;
    app.sql("drop table bays").await;
    app.degraded("table bays does not exist").await;
    told_reset(&mut stream).await;
    app.sql("insert into readings values (1, 1, 'o1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("reading"));
}

#[tokio::test]
async fn an_older_state_of_the_outbox_is_another_history() {
    let (app, mut stream) = start().await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let before = stream.events_until(done).await.pop().and_then(|event| event.id).unwrap();
    // As a restored dump of this database would be; whoever reads is thrown out.
    app.sql(
        "begin; select pg_advisory_xact_lock(2002874371, 2);
         truncate walcast.outbox, walcast.outbox_transactions;
         update walcast.outbox_state set head = 2, floor = 1, seen = null; commit;
         select pg_terminate_backend(pid) from pg_locks
          where locktype = 'advisory' and classid = 2002874371 and objid = 1
            and database = (select oid from pg_database where datname = current_database())",
    )
    .await;
    told_reset(&mut stream).await;
    app.sql("select walcast.emit('o1', 'done', '2')").await;
    let after = stream.events_until(done).await.pop().and_then(|event| event.id).unwrap();
    let epoch = |id: &str| id.split_once('.').map(|(epoch, _)| epoch.to_owned());
    assert_ne!(epoch(&before), epoch(&after));
}

#[tokio::test]
async fn another_source_set_up_under_a_worker_is_told() {
    let (app, _stream) = start().await;
    let mut config = app.config.clone();
    config.source.kind = SourceKind::Wal;
    setup::apply(&config, &app.dsn).await.unwrap();
    app.degraded("the database was set up for wal since this worker, which reads outbox, was started").await;
    assert_eq!(app.text("select exists (select from walcast.outbox where operation <> 'C')").await, "false");
    setup::apply(&app.config, &app.dsn).await.unwrap();
    app.undegraded().await;
}

#[tokio::test]
async fn closing_the_outbox_leaves_nothing_that_grows() {
    let mut app = over(SourceKind::Outbox).before(BAYS).catalog(CATALOG).start().await;
    app.stop().await;
    app.sql("select walcast.close_outbox(); insert into bays values (1, 'o1', 1)").await;
    assert_eq!(app.text("select count(*) from walcast.outbox").await, "0");
    assert_eq!(app.text("select coalesce(source, 'none') from walcast.meta").await, "none");
}
