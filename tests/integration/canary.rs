//! The heartbeat through the slot: who is behind is told so, by readiness, by a metric and on every stream.

use std::time::Duration;

use serde_json::{Value, json};
use walcast::config::{Config, Secret};
use walcast::postgres::dsn::Dsn;

use crate::bench::app::TestApp;
use crate::bench::eventually;
use crate::bench::proxy::{Proxy, proxied};
use crate::bench::server;
use crate::bench::sse::{Frame, Stream};

const METRIC: &str = "walcast_canary_age_seconds ";

fn quick(config: &mut Config) {
    config.canary.interval = Duration::from_millis(100);
    config.canary.stale_after = Duration::from_secs(1);
}

async fn behind_a_proxy() -> (TestApp, Proxy) {
    let url = server::database().await;
    let (proxy, through) = proxied(&url).await;
    (TestApp::builder().config(quick).on(url).through(through).start().await, proxy)
}

/// The reason `canary` behind readiness.
async fn reason(app: &TestApp) -> Option<Value> {
    let reasons = app.get("/readyz/reasons").await.json()["reasons"].clone();
    reasons.as_array()?.iter().find(|reason| reason["reason"] == "canary").cloned()
}

async fn reason_says(app: &TestApp, start: &str) -> Value {
    eventually(start, || async {
        reason(app)
            .await
            .filter(|reason| reason["message"].as_str().is_some_and(|text| text.starts_with(start)))
    })
    .await
}

/// The metric, in seconds.
async fn age(app: &TestApp) -> Option<f64> {
    let text = app.get("/metrics").await.body;
    text.lines().find_map(|line| line.strip_prefix(METRIC)?.parse().ok())
}

/// The next frame with data, its clock taken out.
async fn told(stream: &mut Stream) -> (Frame, Value) {
    let frame = stream.data().await;
    let mut json = frame.json();
    assert!(json["timestamp"].take().is_u64(), "{}", frame.raw);
    (frame, json)
}

async fn expect_age(stream: &mut Stream, name: &str) -> u64 {
    let (frame, json) = told(stream).await;
    assert_eq!(frame.id, None, "it is no position: {}", frame.raw);
    let seconds = json["data"]["seconds"].as_u64().expect("a number");
    assert_eq!(json, json!({ "type": name, "timestamp": null, "data": { "seconds": seconds } }));
    seconds
}

#[tokio::test]
pub async fn streams_readiness_and_metric_tell_a_network_that_swallows_everything_and_that_it_is_back() {
    let (app, proxy) = behind_a_proxy().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&channel=lots").await;
    eventually("a canary has come through", || async { age(&app).await.filter(|age| *age < 1.0) }).await;
    assert_eq!(reason(&app).await, None);

    proxy.black_hole();
    assert!(expect_age(&mut stream, "stale").await >= 1);
    let reason_of_it = reason_says(&app, "stopped: ").await;
    assert!(reason_of_it.get("sql").is_none(), "{reason_of_it}");
    assert!(age(&app).await.is_some_and(|age| age >= 1.0));
    // Who opens meanwhile is told at once.
    let mut late = app.open(&member, "&channel=lots").await;
    expect_age(&mut late, "stale").await;

    // What was swallowed is never sent again on those connections: they have to end first.
    proxy.cut();
    eventually("the worker sees them end", || async {
        (app.get("/readyz").await.body.trim() == "source_down").then_some(())
    })
    .await;
    proxy.restore();
    assert!(expect_age(&mut stream, "fresh").await >= 1, "it says how old it had become");
    expect_age(&mut late, "fresh").await;
    eventually("readiness is mended", || async { reason(&app).await.is_none().then_some(()) }).await;
    assert!(age(&app).await.is_some_and(|age| age < 1.0));
    let mut current = app.open(&member, "&channel=custom").await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    assert_eq!(current.data().await.event_type().as_deref(), Some("done"), "and is told nothing of it");
}

#[tokio::test]
pub async fn a_pipeline_that_is_behind_and_moves_is_slow_and_not_stopped() {
    let app = TestApp::builder().config(quick).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&channel=custom").await;
    // One transaction that takes longer to deal with than a canary may take: it waits behind.
    app.sql(
        "insert into issues (organization_id, category, priority, status, title, description, reporter_id)
         select 'o1', 'c', 'low', 'open', 't', repeat('d', 200), 'u1' from generate_series(1, 60000)",
    )
    .await;
    reason_says(&app, "slow: ").await;
    expect_age(&mut stream, "stale").await;
    expect_age(&mut stream, "fresh").await;
    eventually("readiness is mended", || async { reason(&app).await.is_none().then_some(()) }).await;
}

#[tokio::test]
async fn a_role_that_may_not_write_messages_is_told_what_to_grant_and_streams_are_not_called_stale() {
    let url = server::database().await;
    let dsn = Dsn::parse(&url).expect("its URL");
    // Roles are the server's, not the database's.
    let role = format!("mute_{}", dsn.database);
    let as_role = |dsn: &Dsn, role: &str| Dsn {
        user: role.to_owned(),
        password: Some(Secret::new("mute".to_owned())),
        ..dsn.clone()
    };
    let app = TestApp::builder()
        .config(quick)
        .on(url)
        .before(&format!(
            "create role {role} login replication password 'mute';
             grant pg_read_all_data to {role};"
        ))
        .through({
            let role = role.clone();
            move |dsn| as_role(dsn, &role)
        })
        .start()
        .await;
    eventually("a canary has come through", || async { age(&app).await }).await;
    // With PostgreSQL 17 it got another argument.
    let function = app
        .text(
            "select replace(oid::regprocedure::text, ',', ', ') from pg_proc
             where proname = 'pg_logical_emit_message' and 'text'::regtype = proargtypes[2]",
        )
        .await;
    app.sql(&format!("revoke execute on function {function} from public")).await;
    let told = reason_says(&app, "the canary can't be written").await;
    assert_eq!(told["sql"], format!("GRANT EXECUTE ON FUNCTION {function} TO \"{role}\";"));
    eventually("its age is no age any more", || async { age(&app).await.is_none().then_some(()) }).await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&channel=custom").await;
    app.sql(told["sql"].as_str().expect("SQL")).await;
    eventually("the grant mends it", || async { reason(&app).await.is_none().then_some(()) }).await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    assert_eq!(stream.data().await.event_type().as_deref(), Some("done"), "and nothing before it");
    app.sql(&format!("drop owned by {role}; alter role {role} nologin noreplication")).await;
}

#[tokio::test]
async fn without_an_interval_there_is_no_canary_and_no_metric() {
    let app = TestApp::builder().config(|config| config.canary.interval = Duration::ZERO).start().await;
    let head = app.text("pg_current_wal_insert_lsn()").await;
    let member = app.member("o1", "u1", "admin").await;
    app.open(&member, "").await;
    assert_eq!(age(&app).await, None);
    assert_eq!(reason(&app).await, None);
    assert_ne!(app.text("pg_current_wal_insert_lsn()").await, head, "rows were written all the same");
}
