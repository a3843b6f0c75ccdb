//! The slot: another's, lost, and what was changed while there was none.

use super::*;

#[tokio::test]
async fn a_slot_of_another_database_under_our_name_is_told_and_left_alone() {
    let other = shared::database().await;
    let other = shared::session(&Dsn::parse(&other).expect("its URL")).await;
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let slot =
        app.text("select slot_name from pg_replication_slots where database = current_database()").await;
    eventually("the name is taken", || async {
        terminate_walsender(&app).await;
        let take = format!(
            "select pg_drop_replication_slot('{slot}'); select pg_create_logical_replication_slot('{slot}', 'pgoutput')"
        );
        other.batch_execute(&take).await.ok()
    })
    .await;
    says(&app, "reasons", "is not this database's pgoutput slot").await;
    word(&app, "source_down").await;
    other
        .batch_execute(&format!("select pg_drop_replication_slot('{slot}')"))
        .await
        .expect("it was left alone");
    told_reset(&mut stream).await;
    word(&app, "ready").await;
    assert_eq!(until_done(&app, &mut stream).await, ["done"]);
}

#[tokio::test]
async fn who_lost_a_membership_while_the_slot_was_invalidated_gets_nothing_more() {
    let (_cluster, url) = own_cluster(&[("max_slot_wal_keep_size", "64MB"), ("max_wal_size", "64MB")]).await;
    let (proxy, through) = proxied(&url).await;
    let app = TestApp::builder().on(url).through(through).start().await;
    let (kept, revoked) = (app.member("o1", "u1", "admin").await, app.member("o1", "u2", "admin").await);
    let (mut stays, mut goes) = (app.open(&kept, "").await, app.open(&revoked, "").await);
    proxy.cut();
    app.sql("delete from memberships where user_id = 'u2'").await;
    eventually("the slot is lost", || async {
        terminate_walsender(&app).await;
        app.sql(
            "select pg_logical_emit_message(false, 'x', repeat('x', 1000000)) from generate_series(1, 40)",
        )
        .await;
        app.sql("select pg_switch_wal(); checkpoint").await;
        (app.text("select wal_status from pg_replication_slots").await == "lost").then_some(())
    })
    .await;
    app.sql("select walcast.emit('o1', 'unseen', '1')").await;
    proxy.restore();
    told_reset(&mut stays).await;
    word(&app, "ready").await;
    assert_eq!(until_done(&app, &mut stays).await, ["done"]);
    let types: Vec<_> = goes.rest().await.iter().filter_map(Frame::event_type).collect();
    assert!(types.ends_with(&["access.revoked".to_owned()]), "{types:?}");
    assert!(types.iter().all(|one| one == "data.sync" || one == "access.revoked"), "{types:?}");
    assert_eq!(app.text("select wal_status from pg_replication_slots").await, "reserved");
}

#[tokio::test]
async fn memberships_truncated_while_the_slot_was_lost_end_every_stream() {
    let url = shared::database().await;
    let (proxy, through) = proxied(&url).await;
    let app = TestApp::builder().on(url).through(through).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    proxy.cut();
    drop_slot(&app, "truncate memberships").await;
    proxy.restore();
    let types: Vec<_> = stream.rest().await.iter().filter_map(Frame::event_type).collect();
    assert!(types.ends_with(&["access.revoked".to_owned()]), "{types:?}");
    word(&app, "ready").await;
    app.refused(&member, "").await;
}

#[tokio::test]
async fn a_slot_that_no_standby_keeps_up_with_is_warned_of_and_the_worker_makes_one_that_it_does() {
    if !shared::is_since(17, "a slot that is no failover slot").await {
        return;
    }
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let slot =
        app.text("select slot_name from pg_replication_slots where database = current_database()").await;
    let plain = format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    drop_slot(&app, &plain).await;
    told_reset(&mut stream).await;
    let failover = "select failover from pg_replication_slots where database = current_database()";
    assert_eq!(app.text(failover).await, "false");
    says(&app, "warnings", "is no failover slot").await;
    word(&app, "ready").await;
    drop_slot(&app, "select 1").await;
    told_reset(&mut stream).await;
    assert_eq!(app.text(failover).await, "true");
    eventually("nothing is warned of any more", || async {
        let said = app.get("/readyz/reasons").await.body;
        (!said.contains("failover")).then_some(())
    })
    .await;
    assert_eq!(until_done(&app, &mut stream).await, ["done"]);
}

#[tokio::test]
async fn a_slot_that_was_idle_for_longer_than_the_server_allows_is_told_by_that_name_and_made_again() {
    if !shared::is_since(18, "a slot that was idle for too long").await {
        return;
    }
    let (_cluster, url) = own_cluster(&[("idle_replication_slot_timeout", "1s")]).await;
    let role = connection::worker_role("worker");
    let app = TestApp::builder().on(url).before(&role).through(connection::as_role("worker")).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("alter role worker noreplication").await;
    terminate_walsender(&app).await;
    eventually("the slot is lost", || async {
        app.sql("checkpoint").await;
        (app.text("select wal_status from pg_replication_slots").await == "lost").then_some(())
    })
    .await;
    assert_eq!(app.text("select invalidation_reason from pg_replication_slots").await, "idle_timeout");
    let sql = remedy(&app, "idle_replication_slot_timeout").await;
    app.sql("select walcast.emit('o1', 'unseen', '1')").await;
    app.sql("alter role worker replication").await;
    told_reset(&mut stream).await;
    // One at a time: a setting of the system can't be changed in a transaction with anything else.
    for statement in sql.split_inclusive(';') {
        app.sql(statement).await;
    }
    word(&app, "ready").await;
    assert_eq!(until_done(&app, &mut stream).await, ["done"]);
    assert_eq!(app.text("select wal_status from pg_replication_slots").await, "reserved");
}

#[tokio::test]
async fn a_slot_that_sends_what_is_not_committed_is_told_and_one_that_does_not_heals_it() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let slot =
        app.text("select slot_name from pg_replication_slots where database = current_database()").await;
    drop_slot(
        &app,
        &format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput', twophase => true)"),
    )
    .await;
    says(&app, "reasons", "was made with two_phase").await;
    word(&app, "source_down").await;
    let refused = walcast::cli::setup::apply(&app.config, &app.dsn).await.expect_err("setup tells it too");
    let drop = format!("select pg_catalog.pg_drop_replication_slot('{slot}')");
    assert!(format!("{refused:#}").contains(&drop), "{refused:#}");
    app.sql(&drop).await;
    told_reset(&mut stream).await;
    word(&app, "ready").await;
    assert_eq!(until_done(&app, &mut stream).await, ["done"]);
}
