//! Streams at a pace: slower than their events, and nothing lost without a word.

use std::time::{Duration, Instant};

use walcast::config::{ByteSize, WhenFull};

use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::eventually;
use crate::bench::http::Request;
use crate::bench::sse::Frame;

fn numbers(events: &[Frame]) -> Vec<i64> {
    events.iter().map(|event| event.json()["data"].as_i64().expect("a number")).collect()
}

async fn emit(app: &TestApp, range: std::ops::RangeInclusive<i64>) {
    let (first, last) = (range.start(), range.end());
    let sql =
        format!("select walcast.emit('o1', 'tick', to_jsonb(n)) from generate_series({first}, {last}) n");
    app.sql(&sql).await;
}

fn number(wanted: i64) -> impl FnMut(&Frame) -> bool {
    move |event| event.json()["data"] == wanted
}

#[tokio::test]
async fn no_more_than_its_events_a_minute_reach_a_stream_and_none_is_lost() {
    let app = TestApp::builder().config(|config| config.limits.events_per_minute = 1200).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let began = Instant::now();
    emit(&app, 1..=70).await;
    let events = stream.events_until(number(70)).await;
    // Twenty a second, and a second's worth at once: fifty have to wait for their turn.
    assert!(began.elapsed() >= Duration::from_millis(2500), "{:?}", began.elapsed());
    assert_eq!(numbers(&events), (1..=70).collect::<Vec<_>>());
    let metrics = app.get("/metrics").await.body;
    assert!(!metrics.contains("walcast_syncs_total"), "{metrics}");
}

#[tokio::test]
async fn a_stream_that_its_pace_leaves_behind_the_window_is_told_so() {
    let app = TestApp::builder()
        .config(|config| {
            config.limits.events_per_minute = 60;
            config.replay.max_memory = ByteSize(1 << 20);
        })
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    for _ in 0..4 {
        app.sql("select walcast.emit('o1', 'big', to_jsonb(repeat('x', 3000))) from generate_series(1, 200)")
            .await;
    }
    let mut seen = stream.events_until(|event| event.event_type().as_deref() == Some("data.sync")).await;
    assert_eq!(seen.pop().expect("a sync").json()["data"]["reason"], "slow_consumer");
    assert!(seen.len() < 100, "{}", seen.len());
}

#[tokio::test]
async fn a_paced_stream_is_kept_alive_and_ends_when_its_token_does() {
    let app = TestApp::builder()
        .config(|config| {
            config.limits.events_per_minute = 1;
            config.http.keepalive = Duration::from_secs(1);
        })
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let now = jsonwebtoken::get_current_timestamp();
    let short = Member { token: token_with("u1", serde_json::json!({ "exp": now + 4 })), ..member };
    let mut stream = app.open(&short, "&keepalive=event").await;
    emit(&app, 1..=10).await;
    let first = stream.event().await;
    assert_eq!(first.json()["data"], 1);
    let keepalive = stream.data().await;
    assert_eq!(keepalive.event_type().as_deref(), Some("keepalive"));
    assert_eq!(keepalive.id, first.id, "the position is what was sent, not what there is");
    let rest = stream.rest().await;
    let types: Vec<_> = rest.iter().filter_map(Frame::event_type).collect();
    assert_eq!(types.last().map(String::as_str), Some("token.expired"));
    assert!(!types.contains(&"tick".to_owned()), "{types:?}");
}

#[tokio::test]
async fn an_interval_gathers_events_into_batches_on_native_and_preset_paths() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let native = format!("{}&interval=700ms", TestApp::target(&member, ""));
    for path in [native.as_str(), "/api/realtime?organizationId=o1&interval=700"] {
        let request = Request::get(path).bearer(&member.token);
        let mut stream = crate::bench::sse::Stream::open(app.address, request).await;
        stream.data().await;
        // Before the first is sent, so that the interval has not begun.
        let opened = Instant::now();
        emit(&app, 1..=1).await;
        // What was written before the stream opened may come first.
        stream.events_until(number(1)).await;
        // Each in a transaction of its own: without an interval they would come as they are written.
        for n in 2..=20 {
            emit(&app, n..=n).await;
        }
        let written = opened.elapsed();
        let events = stream.events_until(number(20)).await;
        assert!(opened.elapsed() >= Duration::from_millis(700), "{path}: {:?}", opened.elapsed());
        assert_eq!(numbers(&events), (2..=20).collect::<Vec<_>>(), "{path}");
        assert!(written < Duration::from_secs(20), "{path}: the writer was slower than the test allows");
    }
}

#[tokio::test]
async fn a_new_stream_of_who_is_full_evicts_their_oldest_and_frees_its_place() {
    let app = TestApp::builder()
        .config(|config| {
            config.limits.streams_per_user = 2;
            config.limits.when_full = WhenFull::EvictOldest;
        })
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let other = app.member("o1", "u2", "admin").await;
    let alone = eventually("the probes of the bench are gone", || async {
        let metrics = app.get("/metrics").await.body;
        metrics.contains("walcast_streams 0\n").then_some(())
    });
    alone.await;
    let mut bystander = app.open(&other, "").await;
    let mut first = app.open(&member, "").await;
    let mut second = app.open(&member, "").await;
    let mut third = app.open(&member, "").await;
    let farewell = first.rest().await;
    assert_eq!(farewell.len(), 1, "{farewell:?}");
    assert_eq!(farewell[0].event_type().as_deref(), Some("stream.evicted"));
    assert!(farewell[0].raw.starts_with("retry: 86400000\ndata: "), "{farewell:?}");
    emit(&app, 1..=1).await;
    for stream in [&mut bystander, &mut second, &mut third] {
        assert_eq!(stream.event().await.json()["data"], 1);
    }
    // One that does not read its farewell is not counted either.
    let mut fourth = app.open(&member, "").await;
    let mut fifth = app.open(&member, "").await;
    emit(&app, 2..=2).await;
    for stream in [&mut bystander, &mut fourth, &mut fifth] {
        assert_eq!(stream.event().await.json()["data"], 2);
    }
}
