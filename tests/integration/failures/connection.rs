//! The way to the server, and who may go it.

use walcast::config::Secret;
use walcast::postgres::ReplicationConnection;
use walcast::postgres::dsn::Dsn;

use super::*;

/// A role for the worker alone, which reads everything. Roles are the cluster's: named for the database.
pub(super) fn worker_role(role: &str) -> String {
    format!(
        "create role {role} login replication password 'right'; grant pg_read_all_data, pg_monitor to {role};"
    )
}

pub(super) fn as_role(role: &str) -> impl Fn(&Dsn) -> Dsn + 'static {
    let role = role.to_owned();
    move |dsn| Dsn { user: role.clone(), password: Some(Secret::new("right".to_owned())), ..dsn.clone() }
}

#[tokio::test]
async fn a_terminated_walsender_costs_no_event_and_repeats_none() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    for _ in 0..3 {
        app.sql("select walcast.emit('o1', 'before', '1')").await;
        terminate_walsender(&app).await;
        assert_eq!(until_done(&app, &mut stream).await, ["before", "done"]);
    }
}

#[tokio::test]
pub async fn a_changed_password_is_told_and_the_right_one_heals_it() {
    let options = ClusterOptions {
        settings: shared::settings(),
        password: Some(Secret::new("of the superuser".to_owned())),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options).await.expect("a cluster");
    let url = cluster.dsn("postgres").replace("of the superuser", "of%20the%20superuser");
    walcast::cli::migrate::run(&Dsn::parse(&url).expect("its URL"), true).await.expect("migrations");
    // Of every right, so that it may read an outbox as well as the log.
    let role = "create role worker login superuser password 'right'";
    let app = TestApp::builder().on(url).before(role).through(as_role("worker")).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    // What made the member may come yet, where the worker is held up.
    app.sql("select walcast.emit('o1', 'first', '1')").await;
    stream.events_until(|event| event.event_type().as_deref() == Some("first")).await;
    app.sql("alter role worker password 'another'").await;
    assert_eq!(until_done(&app, &mut stream).await, ["done"], "a connection that stands asks for none");
    app.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'worker'").await;
    says(&app, "reasons", "password authentication failed").await;
    word(&app, "source_down").await;
    app.sql("select walcast.emit('o1', 'meanwhile', '1'); alter role worker password 'right'").await;
    word(&app, "ready").await;
    assert_eq!(until_done(&app, &mut stream).await, ["meanwhile", "done"]);
}

#[tokio::test]
async fn revoked_rights_are_told_and_given_back_they_heal_it() {
    let url = shared::database().await;
    let role = format!("r_{}", Dsn::parse(&url).expect("its URL").database);
    let app = TestApp::builder().on(url).before(&worker_role(&role)).through(as_role(&role)).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql(&format!("alter role {role} noreplication; revoke pg_read_all_data from {role}")).await;
    terminate_walsender(&app).await;
    says(&app, "reasons", "42501").await;
    word(&app, "source_down").await;
    app.sql("select walcast.emit('o1', 'meanwhile', '1')").await;
    app.sql(&format!("alter role {role} replication; grant pg_read_all_data to {role}")).await;
    word(&app, "ready").await;
    assert_eq!(until_done(&app, &mut stream).await, ["meanwhile", "done"]);
}

#[tokio::test]
async fn walsenders_that_are_used_up_are_told_and_one_that_is_free_heals_it() {
    let (_cluster, url) = own_cluster(&[("max_wal_senders", "1")]).await;
    let app = TestApp::builder().on(url).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let taken = eventually("another takes the only one", || async {
        terminate_walsender(&app).await;
        ReplicationConnection::connect(&app.dsn).await.ok()
    })
    .await;
    says(&app, "warnings", "max_wal_senders").await;
    word(&app, "source_down").await;
    app.sql("select walcast.emit('o1', 'meanwhile', '1')").await;
    drop(taken);
    word(&app, "ready").await;
    assert_eq!(until_done(&app, &mut stream).await, ["meanwhile", "done"]);
}

#[tokio::test]
async fn a_transaction_that_takes_longer_to_read_than_transactions_may_take_is_read_once() {
    if !shared::is_since(17, "a limit to how long transactions take").await {
        return;
    }
    let (proxy, through) = proxied(&shared::database().await).await;
    let app = TestApp::builder().through(through).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let limit = format!("alter database {} set transaction_timeout = '500ms'", app.dsn.database);
    app.sql(&limit).await;
    terminate_walsender(&app).await;
    assert_eq!(until_done(&app, &mut stream).await, ["done"]);
    let sender = "select pid from pg_stat_activity
                  where backend_type = 'walsender' and datname = current_database()";
    let reader = app.text(sender).await;
    proxy.hold_after(1 << 20);
    // Far more than the buffers on the way take.
    app.transaction(
        "select walcast.emit('o1', 'thing', to_jsonb(repeat('x', 10000))) from generate_series(1, 6000)",
    )
    .await;
    proxy.holds().await;
    let held = app.text("clock_timestamp()").await;
    eventually("it has been read for longer", || async {
        let longer = format!("clock_timestamp() - '{held}'::timestamptz > '1500ms'");
        (app.text(&longer).await == "true").then_some(())
    })
    .await;
    proxy.restore();
    assert_eq!(until_done(&app, &mut stream).await.len(), 6001);
    assert_eq!(app.text(sender).await, reader, "the connection that began to read it ended it");
}
