//! What an open stream says.

use std::time::Duration;

use super::bench::{Bench, EPOCH, frame, token};
use super::client::dateless;
use crate::http::registry::ConnectionId;
use crate::postgres::Lsn;

#[tokio::test]
async fn the_first_frame_says_where_the_stream_starts() {
    let bench = Bench::new().await;
    bench.publish("a", 110, "lots", &[]);
    let mut client = bench.connect().await;
    let authorization = format!("Bearer {}", token("u"));
    let headers = [("authorization", authorization.as_str()), ("origin", "https://app.example.com")];
    client.send("GET", "/api/realtime/stream?organizationId=a", &headers).await;
    assert_eq!(
        dateless(&client.until("\r\n\r\n").await),
        "HTTP/1.1 200 OK\r\n\
         content-type: text/event-stream\r\n\
         cache-control: no-cache, no-transform\r\n\
         x-accel-buffering: no\r\nreferrer-policy: no-referrer\r\n\
         connection: close\r\n\
         vary: Origin\r\n\
         access-control-allow-origin: https://app.example.com\r\n\
         access-control-allow-credentials: true\r\n\
         access-control-expose-headers: retry-after\r\n\
         date: D\r\n\r\n"
    );
    let connected = client.frame().await;
    let id = connected.split("\"connectionId\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(id.parse::<ConnectionId>().is_ok(), "{id}");
    let fields = format!(
        "\"connectionId\":\"{id}\",\"clientId\":\"{id}\",\"organizationId\":\"a\",\
         \"organization\":{{\"id\":\"a\",\"name\":null,\"role\":\"manager\"}},\
         \"channels\":[\"custom\",\"issues\",\"lots\",\"presence\"],\"resumed\":false,\
         \"message\":\"Real-time connection established\""
    );
    assert_eq!(
        connected,
        format!(
            "retry: 2000\nid: {EPOCH}.111.0\n\
             data: {{\"type\":\"connected\",\"timestamp\":0,{fields},\"data\":{{{fields}}}}}\n\n"
        )
    );
    bench.publish("a", 120, "lots", &[]);
    assert_eq!(client.frame().await, frame(120, ""));
}

#[tokio::test]
async fn now_is_where_a_reader_of_the_database_stands() {
    let bench = Bench::new().await;
    bench.publish("a", 110, "lots", &[]);
    bench.publish("a", 120, "lots", &[]);
    // Decoded, and not yet visible to a snapshot: who connects and reads does not find it there.
    *bench.now.pinned.lock().unwrap() = Some(Lsn::new(115));
    let path = format!("/api/realtime/stream?organizationId=a&token={}", token("u"));
    let mut client = bench.open(&path, &[]).await;
    assert!(client.connected().await.contains(&format!("id: {EPOCH}.115.0\n")));
    assert_eq!(client.frame().await, frame(120, ""));
}

#[tokio::test]
async fn a_resumed_stream_gets_what_it_missed_and_nothing_twice() {
    let bench = Bench::new().await;
    for lsn in [110, 120, 130] {
        bench.publish("a", lsn, "lots", &[]);
    }
    bench.publish("b", 140, "lots", &[]);
    bench.publish("*", 150, "lots", &[]);
    let path = format!("/api/realtime/stream?organizationId=a&token={}", token("u"));
    let id = format!("{EPOCH}.110.1");
    for (path, headers) in [
        (path.clone(), vec![("last-event-id", id.as_str())]),
        (format!("{path}&lastEventId={id}"), vec![("last-event-id", "")]),
        (format!("{path}&since={id}"), vec![]),
    ] {
        let mut client = bench.open(&path, &headers).await;
        let connected = client.connected().await;
        assert!(
            connected.contains(&format!("id: {id}\n")) && connected.contains("\"resumed\":true"),
            "{connected}"
        );
        for lsn in [120, 130, 150] {
            assert_eq!(client.frame().await, frame(lsn, ""));
        }
    }
    let mut earliest = bench.stream("&since=earliest").await;
    for lsn in [110, 120, 130, 150] {
        assert_eq!(earliest.frame().await, frame(lsn, ""));
    }
    drop(earliest);
    bench.state.streams.ended().await;
    assert!(bench.metrics.encode().contains("walcast_frames_written_total 13\n"));
}

#[tokio::test]
async fn an_id_that_is_none_of_ours_is_answered_by_a_sync() {
    let bench = Bench::new().await;
    bench.publish("a", 110, "lots", &[]);
    for id in ["42", "00000000000000ff.110.1"] {
        let mut client = bench.stream(&format!("&lastEventId={id}")).await;
        let sync = client.frame().await;
        let at = sync.strip_prefix("id: ").and_then(|rest| rest.split('\n').next()).unwrap();
        assert_eq!(
            sync,
            format!(
                "id: {at}\ndata: {{\"type\":\"data.sync\",\"id\":\"{at}\",\"timestamp\":0,\"organizationId\":\"a\",\
                 \"data\":{{\"reason\":\"history_reset\",\"delayMs\":0}}}}\n\n"
            )
        );
    }
    assert!(bench.metrics.encode().contains("walcast_syncs_total{reason=\"history_reset\"} 2\n"));
}

#[tokio::test]
async fn a_stream_sees_what_its_filter_lets_through() {
    let bench = Bench::new().await;
    let mut all = bench.stream("").await;
    let mut lots = bench.stream("&channel=lots,custom").await;
    let mut other_type = bench.stream("&types=other").await;
    let mut open_high = bench.stream("&status=open,new&priority=high").await;
    bench.publish("a", 110, "issues", &[(0, "high"), (1, "open")]);
    bench.publish("a", 120, "lots", &[]);
    bench.publish("a", 130, "issues", &[(0, "low"), (1, "open")]);
    bench.publish("a", 140, "issues", &[(0, "high"), (1, "closed"), (1, "new")]);
    bench.publish_truncate("a", 150);
    let sync = format!(
        "id: {EPOCH}.150.1\ndata: {{\"type\":\"data.sync\",\"id\":\"{EPOCH}.150.1\",\"timestamp\":0,\
         \"organizationId\":\"a\",\"data\":{{\"reason\":\"truncated\",\"delayMs\":0}}}}\n\n"
    );
    for (client, seen) in
        [(&mut all, vec![110, 120, 130, 140]), (&mut lots, vec![120]), (&mut open_high, vec![110, 140])]
    {
        for lsn in seen {
            assert_eq!(client.frame().await, frame(lsn, ""));
        }
        assert_eq!(client.frame().await, sync);
    }
    assert_eq!(other_type.frame().await, sync);
}

#[tokio::test]
async fn a_preset_takes_the_only_organization_and_caps_its_channels() {
    let bench = Bench::new().await;
    let path = format!("/issues?token={}&statuses=open&unknown=1", token("u"));
    let mut client = bench.open(&path, &[]).await;
    let connected = client.connected().await;
    assert!(
        connected.contains("\"organizationId\":\"a\"")
            && connected.contains("\"channels\":[\"custom\",\"issues\"]")
    );
    bench.publish("a", 110, "lots", &[(1, "open")]);
    bench.publish("a", 120, "issues", &[(1, "closed")]);
    bench.publish("a", 130, "issues", &[(1, "open")]);
    assert_eq!(client.frame().await, frame(130, ""));
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_in_the_form_that_was_asked_for() {
    let bench = Bench::with(|config| config.http.keepalive = Duration::from_millis(50)).await;
    let mut comment = bench.stream("").await;
    assert_eq!(comment.frame().await, ": keepalive\n\n");
    assert_eq!(comment.frame().await, ": keepalive\n\n");
    let mut event = bench.stream("&keepalive=event").await;
    let keepalive = "data: {\"type\":\"keepalive\",\"timestamp\":0}\n\n";
    assert_eq!(event.frame().await, format!("id: {EPOCH}.100.0\n{keepalive}"));
    // What does not pass the filter moves the cursor, and so the keepalive's id.
    bench.publish("b", 110, "lots", &[]);
    let moved = format!("id: {EPOCH}.111.0\n{keepalive}");
    while event.frame().await != moved {}
    let mut preset = bench.open(&format!("/issues?token={}", token("u")), &[]).await;
    preset.connected().await;
    assert_eq!(
        preset.frame().await,
        format!("id: {EPOCH}.111.0\ndata: {{\"type\":\"heartbeat\",\"data\":{{}},\"timestamp\":0}}\n\n")
    );
}

#[tokio::test]
async fn a_quiet_filtered_stream_is_given_the_id_before_the_window_passes_it() {
    let bench = Bench::with(|config| {
        config.http.keepalive = Duration::from_millis(60);
        config.replay.max_age = Duration::from_millis(120);
    })
    .await;
    let mut client = bench.stream("&types=none").await;
    bench.publish("a", 110, "lots", &[]);
    let frame = client.frame().await;
    assert_eq!(frame, format!("id: {EPOCH}.111.0\ndata: {{\"type\":\"keepalive\",\"timestamp\":0}}\n\n"));
}

#[tokio::test]
async fn a_history_that_begins_anew_is_told_to_live_streams() {
    let bench = Bench::new().await;
    let mut client = bench.stream("").await;
    bench.journals.reset(EPOCH, Lsn::new(500), i64::MIN);
    let sync = client.frame().await;
    assert!(sync.starts_with(&format!("id: {EPOCH}.500.0\n")) && sync.contains("history_reset"), "{sync}");
    bench.publish("a", 510, "lots", &[]);
    assert_eq!(client.frame().await, frame(510, ""));
}

#[tokio::test]
async fn a_stream_is_told_once_that_it_is_behind_and_once_that_it_is_not() {
    let bench = Bench::new().await;
    let mut early = bench.stream("").await;
    bench.freshness.grow_stale(Duration::from_secs(31));
    let stale = "data: {\"type\":\"stale\",\"timestamp\":0,\"data\":{\"seconds\":31}}\n\n";
    assert_eq!(early.frame().await, stale);
    let mut late = bench.stream("&channel=lots").await;
    assert_eq!(late.frame().await, stale, "it opened meanwhile");
    bench.freshness.grow_stale(Duration::from_secs(40));
    bench.publish("a", 110, "lots", &[]);
    bench.freshness.refresh();
    let fresh = "data: {\"type\":\"fresh\",\"timestamp\":0,\"data\":{\"seconds\":40}}\n\n";
    for stream in [&mut early, &mut late] {
        let both = [stream.frame().await, stream.frame().await];
        assert!(both.contains(&frame(110, "")) && both.contains(&fresh.to_owned()), "{both:?}");
    }
    let mut after = bench.stream("").await;
    bench.publish("a", 120, "lots", &[]);
    assert_eq!(after.frame().await, frame(120, ""));
}
