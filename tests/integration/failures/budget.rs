//! The log that the slot keeps: within its budget, told where somebody else breaks it, given up before the slot is.

use walcast::config::ByteSize;

use super::*;

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 16 * MIB;
/// A status is sent each sixteenth of the budget, and the window trimmed once a second.
const SLACK: u64 = 2 * MIB;

async fn bytes(app: &TestApp, from: &str) -> u64 {
    let slot = "(select * from pg_replication_slots where database = current_database())";
    let sql = format!("select pg_wal_lsn_diff(pg_current_wal_lsn(), {from})::bigint from {slot} s");
    app.text(&sql).await.parse().expect("a number")
}

/// Some log that is nobody's.
async fn flood(app: &TestApp, mib: u64) {
    app.sql(&format!(
        "insert into strangers select repeat('x', 8000) from generate_series(1, {})",
        mib * 128
    ))
    .await;
}

fn metric(text: &str, name: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in\n{text}"))
}

#[tokio::test]
async fn the_budget_is_kept_against_a_flood_and_who_holds_the_log_elsewhere_is_told() {
    let (_cluster, url) = own_cluster(&[("max_wal_size", "1GB")]).await;
    let app = TestApp::builder()
        .on(url)
        .before("create table strangers (what text); alter table strangers alter what set storage external")
        .config(|config| config.replay.max_wal = ByteSize(BUDGET))
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let within = async || {
        eventually("the budget is kept", || async {
            (bytes(&app, "confirmed_flush_lsn").await <= BUDGET + SLACK).then_some(())
        })
        .await;
    };
    for _ in 0..4 {
        flood(&app, 12).await;
        within().await;
    }
    let holding = shared::session(&app.dsn).await;
    let pid: i32 = holding.query_one("select pg_backend_pid()", &[]).await.expect("a pid").get(0);
    holding.batch_execute("begin; select pg_current_xact_id()").await.expect("an open transaction");
    for _ in 0..4 {
        flood(&app, 12).await;
        within().await;
    }
    let kept = bytes(&app, "restart_lsn").await;
    assert!(kept > 2 * BUDGET, "an open transaction holds what it began at: {kept}");
    let reason = says(&app, "reasons", &format!("session {pid}")).await;
    assert_eq!(reason["sql"], json!(format!("select pg_terminate_backend({pid});")));
    let metrics = app.get("/metrics").await.body;
    assert!(metric(&metrics, "walcast_source_restart_lsn_bytes") > i64::try_from(2 * BUDGET).expect("small"));
    assert_eq!(metric(&metrics, "walcast_source_wal_stage{stage=\"held\"}"), 1);
    // The window is not burned for what it can't help.
    assert_eq!(until_done(&app, &mut stream).await, ["done"]);
    let mut replayed = app.open(&member, "&since=earliest&channel=custom").await;
    assert!(done(&replayed.event().await));

    holding.batch_execute("rollback").await.expect("an end");
    eventually("restart_lsn moves on", || async {
        flood(&app, 1).await;
        app.sql("checkpoint").await;
        (bytes(&app, "restart_lsn").await < 2 * BUDGET).then_some(())
    })
    .await;
    word(&app, "ready").await;
}

#[tokio::test]
async fn nearing_max_slot_wal_keep_size_the_window_gives_way_before_the_slot() {
    let (_cluster, url) = own_cluster(&[("max_slot_wal_keep_size", "96MB"), ("max_wal_size", "64MB")]).await;
    let app = TestApp::builder().on(url).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'old', '1')").await;
    app.sql("select walcast.emit('o1', 'given_up', '1')").await;
    let old = stream.event().await.id.expect("an id");
    stream.event().await;
    eventually("the bound is known", || async {
        let metrics = app.get("/metrics").await.body;
        (metric(&metrics, "walcast_source_safe_wal_bytes") > 0).then_some(())
    })
    .await;
    for _ in 0..15 {
        app.sql(
            "select pg_logical_emit_message(false, 'x', repeat('x', 1000000)) from generate_series(1, 16)",
        )
        .await;
        app.sql("checkpoint").await;
        eventually("the window gives way", || async {
            (bytes(&app, "confirmed_flush_lsn").await < 44 * MIB).then_some(())
        })
        .await;
        let status = app.text("select wal_status from pg_replication_slots").await;
        assert!(status == "reserved" || status == "extended", "{status}");
    }
    assert_eq!(
        until_done(&app, &mut stream).await,
        ["done"],
        "nothing lost, nothing to be told to who is there"
    );
    let mut resumed = app.open(&member, &format!("&lastEventId={old}")).await;
    let told = resumed.event().await.json();
    assert_eq!(told["type"], json!("data.sync"), "what the window gave up is told: {told}");
}

#[tokio::test]
async fn readiness_warns_of_a_slot_without_a_bound_and_is_ready() {
    let (_cluster, url) = own_cluster(&[]).await;
    let app = TestApp::builder().on(url).start().await;
    let warning = says(&app, "warnings", "max_slot_wal_keep_size is unlimited").await;
    let sql = warning["sql"].as_str().expect("SQL").to_owned();
    assert_eq!(app.get("/readyz").await.body.trim(), "ready");
    for statement in sql.split_inclusive(';') {
        app.sql(statement).await;
    }
    eventually("the warning is taken back", || async {
        let said = app.get("/readyz/reasons").await.json();
        said.get("warnings").is_none().then_some(())
    })
    .await;
    word(&app, "ready").await;
}
