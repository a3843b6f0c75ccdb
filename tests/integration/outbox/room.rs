//! An outbox that nobody reads has an end, and what was not written, or taken away, is told: never a silent gap.

use serde_json::{Value, json};
use walcast::postgres::client::Client;

use super::*;
use crate::bench::proxy::{Proxy, proxied};

const BAYS: &str = "create table bays (id int primary key, organization_id text not null, spots int)";

const CATALOG: &str = r#"
[tables.bays]
organization = "organization_id"
channel = "bays"
[[tables.bays.events]]
type = "bay"
on = ["insert", "update", "delete"]
data = { id = "id", spots = "spots" }
"#;

/// Of the outbox, in bytes.
const LIMIT: u64 = 64 << 10;

async fn start() -> (TestApp, Proxy, Stream) {
    let url = server::database().await;
    let (proxy, through) = proxied(&url).await;
    let app = over(SourceKind::Outbox).on(url).before(BAYS).catalog(CATALOG).through(through).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("insert into bays values (1, 'o1', 1)").await;
    assert_eq!(stream.event().await.json()["data"]["id"], json!(1));
    app.sql(&format!("update walcast.meta set outbox_limit = {LIMIT}")).await;
    (app, proxy, stream)
}

/// Writes until there is no more room, while no worker reads.
async fn fill(app: &TestApp, proxy: &Proxy) {
    proxy.cut();
    eventually("nobody reads", || async { (reader(app).await == "0").then_some(()) }).await;
    for _ in 0..4 {
        app.sql(
            "insert into bays select max(id) + n, 'o1', 1 from bays, generate_series(1, 1000) n group by n",
        )
        .await;
    }
}

async fn reader(app: &TestApp) -> String {
    app.text(
        "select count(*)::text from pg_locks where locktype = 'advisory' and classid = 2002874371 and objid = 1
         and database = (select oid from pg_database where datname = current_database())",
    )
    .await
}

async fn size(app: &TestApp) -> u64 {
    app.text("select pg_table_size('walcast.outbox')::text").await.parse().unwrap()
}

/// The next event but the canary's notices.
async fn next(stream: &mut Stream) -> Value {
    loop {
        let event = stream.event().await.json();
        if !matches!(event["type"].as_str(), Some("stale" | "fresh")) {
            return event;
        }
    }
}

async fn told_reset(stream: &mut Stream) {
    let told = next(stream).await;
    assert_eq!(
        (&told["type"], &told["data"]["reason"]),
        (&json!("data.sync"), &json!("history_reset")),
        "{told}"
    );
}

#[tokio::test]
async fn an_outbox_that_nobody_reads_ends_at_its_limit_and_who_comes_back_is_told_and_goes_on() {
    let (app, proxy, mut stream) = start().await;
    fill(&app, &proxy).await;
    let full = size(&app).await;
    assert!((LIMIT..2 * LIMIT).contains(&full), "{full}");
    app.sql("insert into bays values (0, 'o1', 7); select walcast.emit('o1', 'done', '1')").await;
    assert_eq!(size(&app).await, full);
    let before = app.text("select max(id)::text from walcast.outbox").await;
    app.sql("update bays set spots = 8 where id = 0").await;
    assert_eq!(app.text("select max(id)::text from walcast.outbox").await, before, "nothing more is written");
    proxy.restore();
    told_reset(&mut stream).await;
    app.sql("update bays set spots = 9 where id = 0").await;
    assert_eq!(next(&mut stream).await["data"], json!({ "id": 0, "spots": 9 }));
    assert!(size(&app).await < full);
}

#[tokio::test]
async fn what_had_no_room_and_commits_late_is_waited_for_and_told_after_its_commit() {
    let (app, proxy, mut stream) = start().await;
    let late: Client = server::session(&app.dsn).await;
    // Reads the database as of now for as long as it lasts: what becomes of the gap it can't see.
    late.batch_execute("begin isolation level repeatable read; select from bays").await.unwrap();
    fill(&app, &proxy).await;
    late.batch_execute("update bays set spots = 5 where id = 1").await.unwrap();
    proxy.restore();
    eventually("it is told who is waited for", || async {
        app.get("/readyz/reasons").await.body.contains("the outbox was full").then_some(())
    })
    .await;
    app.sql("update bays set spots = 6 where id = 2").await;
    late.batch_execute("commit").await.unwrap();
    told_reset(&mut stream).await;
    assert_eq!(app.text("select spots::text from bays where id = 1").await, "5");
    app.sql("update bays set spots = 9 where id = 1").await;
    // Nothing of what lies before it.
    assert_eq!(next(&mut stream).await["data"], json!({ "id": 1, "spots": 9 }));
}

#[tokio::test]
async fn an_outbox_that_fills_up_under_a_worker_is_told_before_anything_that_came_later() {
    let (app, _proxy, mut stream) = start().await;
    app.sql("update walcast.meta set outbox_limit = 1").await;
    app.sql("update bays set spots = 2").await;
    app.sql("update walcast.meta set outbox_limit = null").await;
    app.sql("update bays set spots = 3").await;
    told_reset(&mut stream).await;
    app.sql("update bays set spots = 4").await;
    let spots = next(&mut stream).await["data"]["spots"].clone();
    // It came before or after the new beginning.
    if spots == json!(3) {
        assert_eq!(next(&mut stream).await["data"]["spots"], json!(4));
    } else {
        assert_eq!(spots, json!(4));
    }
}

#[tokio::test]
async fn rows_that_somebody_takes_out_of_the_outbox_are_told_at_once_and_pruning_is_not() {
    let (app, proxy, mut stream) = start().await;
    let takings = ["truncate walcast.outbox", "delete from walcast.outbox", "select walcast.clear_outbox()"];
    for (at, taking) in takings.into_iter().enumerate() {
        proxy.cut();
        eventually("nobody reads", || async { (reader(&app).await == "0").then_some(()) }).await;
        app.sql("update bays set spots = 0").await;
        app.sql(taking).await;
        proxy.restore();
        told_reset(&mut stream).await;
        app.sql(&format!("update bays set spots = {}", at + 1)).await;
        assert_eq!(next(&mut stream).await["data"]["spots"], json!(at + 1), "{taking}");
        // Under a worker that reads, too.
        app.sql(&format!("begin; update bays set spots = 0; {taking}; commit")).await;
        told_reset(&mut stream).await;
    }
    app.sql("update bays set spots = 8").await;
    assert_eq!(next(&mut stream).await["data"]["spots"], json!(8));
    let oldest = "select coalesce(min(position)::text, 'none') from walcast.outbox_transactions";
    let before = app.text(oldest).await;
    app.sql(&format!("select walcast.prune_outbox({before} + 1, 1)")).await;
    assert_ne!(app.text(oldest).await, before);
    app.sql("update bays set spots = 9").await;
    assert_eq!(next(&mut stream).await["data"]["spots"], json!(9));
}

#[tokio::test]
async fn setup_stores_where_the_outbox_ends() {
    let (app, ..) = start().await;
    let limit = || app.text("select coalesce(outbox_limit::text, 'none') from walcast.meta");
    setup::apply(&app.config, &app.dsn).await.unwrap();
    assert_eq!(limit().await, (4 * app.config.replay.max_wal.0).to_string());
    let mut config = app.config.clone();
    config.source.max_outbox = Some(walcast::config::ByteSize(0));
    setup::apply(&config, &app.dsn).await.unwrap();
    assert_eq!(limit().await, "none");
}
