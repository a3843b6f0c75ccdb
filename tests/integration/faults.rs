//! The database goes away and comes back: what streams see is in order, once, or told.

use serde_json::json;
use walcast::cli::cluster::{Cluster, ClusterOptions, StopMode};
use walcast::postgres::dsn::Dsn;

use crate::bench::app::TestApp;
use crate::bench::eventually;
use crate::bench::proxy::proxied;
use crate::bench::server;
use crate::bench::sse::Frame;

fn done(frame: &Frame) -> bool {
    frame.event_type().as_deref() == Some("done")
}

/// A cluster that a test may stop, with the domain in it.
async fn own_cluster() -> (Cluster, String) {
    let options = ClusterOptions { settings: server::settings(), ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await.expect("a cluster");
    let url = cluster.dsn("postgres");
    walcast::cli::migrate::run(&Dsn::parse(&url).expect("its URL"), true).await.expect("migrations");
    (cluster, url)
}

#[tokio::test]
pub async fn streams_outlive_a_restart_of_the_database_fast_and_immediate() {
    let (cluster, url) = own_cluster().await;
    let mut app = TestApp::builder().on(url).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    for mode in [StopMode::Fast, StopMode::Immediate] {
        app.sql("select walcast.emit('o1', 'before', '1')").await;
        assert_eq!(stream.event().await.event_type().as_deref(), Some("before"));
        cluster.restart(mode).await.expect("a restart");
        app.reconnect().await;
        app.sql("select walcast.emit('o1', 'done', '1')").await;
        let types: Vec<_> = stream.events_until(done).await.iter().filter_map(Frame::event_type).collect();
        assert_eq!(types, ["done"], "nothing lost, nothing twice, nothing to be told");
    }
}

#[tokio::test]
pub async fn while_the_database_is_away_readiness_says_so_and_streams_stay() {
    let (cluster, url) = own_cluster().await;
    let mut app = TestApp::builder().on(url).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    cluster.stop(StopMode::Fast).await.expect("a stop");
    eventually("readiness tells", || async {
        (app.get("/readyz").await.body.trim() == "source_down").then_some(())
    })
    .await;
    let mut replayed = app.open(&member, "&since=earliest").await;
    assert!(replayed.event().await.id.is_some(), "what the journal has is still served");
    cluster.resume().await.expect("a start");
    app.reconnect().await;
    app.ready().await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    assert_eq!(stream.events_until(done).await.len(), 1);
}

#[tokio::test]
pub async fn a_cut_network_is_mended_without_a_gap() {
    let url = server::database().await;
    let (proxy, through) = proxied(&url).await;
    let app = TestApp::builder().on(url).through(through).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    for round in 0..3 {
        proxy.cut();
        for n in 0..5 {
            app.sql(&format!("select walcast.emit('o1', 'meanwhile', '[{round}, {n}]')")).await;
        }
        proxy.restore();
        app.sql("select walcast.emit('o1', 'done', '1')").await;
        let events = stream.events_until(done).await;
        let data: Vec<_> = events.iter().map(|event| event.json()["data"].clone()).collect();
        let expected: Vec<_> = (0..5).map(|n| json!([round, n])).chain([json!(1)]).collect();
        assert_eq!(data, expected);
    }
}

#[tokio::test]
async fn a_dropped_slot_is_made_again_and_streams_are_told() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'before', '1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("before"));
    let slots = "pg_replication_slots where database = current_database()";
    eventually("the slot is dropped", || async {
        app.sql(&format!("select pg_terminate_backend(active_pid) from {slots} and active")).await;
        app.try_sql(&format!("select pg_drop_replication_slot(slot_name) from {slots}"))
            .await
            .is_ok()
            .then_some(())
    })
    .await;
    let told = stream.event().await.json();
    assert_eq!(
        (&told["type"], &told["data"]["reason"]),
        (&json!("data.sync"), &json!("history_reset")),
        "{told}"
    );
    app.ready().await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    assert_eq!(stream.events_until(done).await.len(), 1);
}

#[tokio::test]
pub async fn a_second_worker_waits_and_takes_over() {
    let mut app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let second =
        walcast::app::App::start(app.config.clone(), app.dsn.clone(), true).await.expect("a second worker");
    let word = async || crate::bench::http::Request::get("/readyz").fetch(second.address()).await.body;
    eventually("the second stands by", || async { (word().await.trim() == "standby").then_some(()) }).await;
    app.sql("select walcast.emit('o1', 'a', '1')").await;
    app.stop().await;
    eventually("the second serves", || async { (word().await.trim() == "ready").then_some(()) }).await;
    app.address = second.address();
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let mut stream = app.open(&member, "&since=earliest&channel=custom").await;
    assert_eq!(stream.events_until(done).await.len(), 2);
}

#[tokio::test]
async fn a_network_that_swallows_everything_is_noticed_and_left() {
    let url = server::database().await;
    let (proxy, through) = proxied(&url).await;
    // The server's own timeout is the measure of how long silence is borne.
    let patient =
        move |dsn: &Dsn| Dsn { options: Some("-c wal_sender_timeout=3s".to_owned()), ..through(dsn) };
    let app = TestApp::builder().on(url).through(patient).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    proxy.black_hole();
    app.sql("select walcast.emit('o1', 'swallowed', '1')").await;
    eventually("the silence is noticed", || async {
        (app.get("/readyz").await.body.trim() == "source_down").then_some(())
    })
    .await;
    proxy.restore();
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let types: Vec<_> = stream.events_until(done).await.iter().filter_map(Frame::event_type).collect();
    assert_eq!(types, ["swallowed", "done"]);
}
