//! The worker dies, stops, loses its database: clients resume as if nothing had happened.

use crate::bench::app::TestApp;
use crate::bench::process::WorkerProcess;
use crate::bench::sse::{Frame, Stream};
use crate::bench::{eventually, http::Request};

fn done(frame: &Frame) -> bool {
    frame.event_type().as_deref() == Some("done")
}

#[tokio::test]
pub async fn after_kill_9_the_same_ids_name_the_same_events_and_nothing_is_lost() {
    let mut app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.stop().await;
    let worker = WorkerProcess::start(&app.url, &[]).await;
    let mut stream = open(&worker, &member.token, "&since=earliest&channel=devices,custom").await;
    for n in 0..10 {
        app.sql(&format!(
            "insert into devices (id, organization_id, name, model, status) values ('d{n}', 'o1', 'D', 'M', 'ONLINE')"
        ))
        .await;
    }
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let before = stream.events_until(done).await;
    worker.kill().await;
    app.sql("insert into devices (id, organization_id, name, model, status) values ('late', 'o1', 'D', 'M', 'ONLINE')")
        .await;
    app.sql("select walcast.emit('o1', 'done', '2')").await;
    let worker = WorkerProcess::start(&app.url, &[]).await;

    let mut again = open(&worker, &member.token, "&since=earliest&channel=devices,custom").await;
    let replayed = again.events_until(done).await;
    assert_eq!(raw(&replayed), raw(&before), "byte for byte");

    let middle = before[4].id.clone().expect("an id");
    let mut resumed =
        open(&worker, &member.token, &format!("&channel=devices,custom&lastEventId={middle}")).await;
    let mut rest = resumed.events_until(done).await;
    assert_eq!(raw(&rest), raw(&before[5..]), "from the id on, once each");
    rest = resumed.events_until(done).await;
    assert_eq!(rest.len(), 2, "what was written while nobody ran");
    assert_eq!(rest[0].json()["data"]["deviceId"], "late");
}

fn raw(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| frame.raw.as_str()).collect()
}

async fn open(worker: &WorkerProcess, token: &str, parameters: &str) -> Stream {
    let target = format!("/api/realtime/stream?organizationId=o1{parameters}");
    let mut stream = Stream::open(worker.address, Request::get(target).bearer(token)).await;
    assert_eq!(stream.head.status, 200);
    assert_eq!(stream.data().await.event_type().as_deref(), Some("connected"));
    stream
}

#[tokio::test]
pub async fn sigterm_closes_streams_with_a_retry_and_exits_0() {
    let mut app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.stop().await;
    let worker = WorkerProcess::start(&app.url, &[("WALCAST_HTTP_DRAIN", "300ms")]).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(open(&worker, &member.token, "").await);
    }
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    for stream in &mut streams {
        stream.event().await;
    }
    let ended = tokio::spawn(worker.terminate());
    for stream in &mut streams {
        let farewell = stream.rest().await;
        let retry = farewell.last().and_then(|frame| frame.retry);
        assert!(retry.is_some_and(|millis| millis > 0), "{farewell:?}");
    }
    assert_eq!(ended.await.expect("waited").code(), Some(0));
}

#[tokio::test]
async fn streams_go_on_when_the_walsender_is_terminated() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    for round in 0..3 {
        app.sql(&format!("select walcast.emit('o1', 'before', '{round}')")).await;
        app.sql(
            "select pg_terminate_backend(active_pid) from pg_replication_slots
             where database = current_database() and active",
        )
        .await;
        app.sql(&format!("select walcast.emit('o1', 'done', '{round}')")).await;
        let events = stream.events_until(done).await;
        let types: Vec<_> = events.iter().filter_map(Frame::event_type).collect();
        assert_eq!(types, ["before", "done"], "once each, in the same stream, without data.sync");
    }
}

#[tokio::test]
async fn a_quiet_system_confirms_what_it_read_once_the_window_has_passed() {
    let app = TestApp::builder()
        .config(|config| config.replay.max_age = std::time::Duration::from_secs(1))
        .start()
        .await;
    app.sql("create table unrelated (n int)").await;
    let confirmed =
        "select confirmed_flush_lsn from pg_replication_slots where database = current_database()";
    let head = app.text("pg_current_wal_lsn()").await;
    app.sql("insert into unrelated select generate_series(1, 10000)").await;
    eventually("the slot moves past what nobody catalogued", || async {
        let passed = app.text(&format!("({confirmed}) > '{head}'::pg_lsn")).await;
        (passed == "true").then_some(())
    })
    .await;
}

#[tokio::test]
pub async fn a_graceful_restart_keeps_ids_and_an_idle_systems_positions_valid() {
    let mut app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.connect(&member, "").await;
    let idle = stream.data().await.id.expect("connected carries the id that it resumes after");
    drop(stream);
    app.restart().await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let mut resumed = app.connect(&member, &format!("&lastEventId={idle}")).await;
    assert_eq!(resumed.data().await.json()["resumed"], true);
    let missed = resumed.events_until(done).await;
    assert_eq!(missed.len(), 1, "nothing to be told: {missed:#?}");
}
