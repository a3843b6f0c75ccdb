//! Another server, or the same one at another time.

use walcast::cli::cluster::StopMode;

use super::*;

#[tokio::test]
pub async fn a_copy_of_an_older_state_with_the_same_identifier_is_another_history() {
    let (cluster, url) = own_cluster(&[]).await;
    let mut app = TestApp::builder().on(url).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'kept', '1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("kept"));
    let data = cluster.data_dir();
    let backup = data.with_file_name("backup");
    cluster.stop(StopMode::Fast).await.expect("a stop");
    failover::copy(data, &backup);
    cluster.resume().await.expect("a start");
    app.reconnect().await;
    for _ in 0..20 {
        app.sql("select walcast.emit('o1', 'undone', to_jsonb(repeat('x', 10000)))").await;
        assert_eq!(stream.event().await.event_type().as_deref(), Some("undone"));
    }
    cluster.stop(StopMode::Fast).await.expect("a stop");
    std::fs::remove_dir_all(data).expect("the data is removed");
    std::fs::rename(&backup, data).expect("the copy takes its place");
    cluster.resume().await.expect("a start");
    app.reconnect().await;
    told_reset(&mut stream).await;
    app.ready().await;
    assert_eq!(until_done(&app, &mut stream).await, ["done"]);
}

#[tokio::test]
async fn a_commit_decoded_before_it_is_visible_is_after_what_a_new_stream_calls_now() {
    let (_cluster, url) = own_cluster(&[]).await;
    let app = TestApp::builder().on(url).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut early = app.open(&member, "").await;
    app.sql("alter system set synchronous_standby_names = 'nobody'").await;
    app.sql("select pg_reload_conf()").await;
    eventually("commits wait for a standby", || async {
        (app.text("select current_setting('synchronous_standby_names')").await == "nobody").then_some(())
    })
    .await;
    let writer = shared::session(&app.dsn).await;
    let waiting =
        tokio::spawn(
            async move { writer.batch_execute("select walcast.emit('o1', 'invisible', '1')").await },
        );
    let decoded = early.event().await;
    assert_eq!(decoded.event_type().as_deref(), Some("invisible"));
    assert!(!waiting.is_finished(), "its commit waits for a standby that is away");
    let mut late = app.open(&member, "").await;
    assert_eq!(
        late.event().await.raw,
        decoded.raw,
        "who connects and then reads the database misses nothing"
    );
    app.sql("alter system reset synchronous_standby_names").await;
    app.sql("select pg_reload_conf()").await;
    waiting.await.expect("the writer").expect("its commit");
    let mut later = app.open(&member, "").await;
    assert_eq!(until_done(&app, &mut later).await, ["done"]);
}
