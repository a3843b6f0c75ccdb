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
    assert_eq!(app.connect(&member, "").await.head.status, 403);
}
