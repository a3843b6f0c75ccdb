//! Where a stream starts, what it is told when history can't be proven, and what it says when there is nothing to say.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use walcast::config::ByteSize;

use crate::bench::app::{Member, TestApp};
use crate::bench::eventually;
use crate::bench::http::Request;
use crate::bench::sse::{Frame, Stream};

fn done(frame: &Frame) -> bool {
    frame.event_type().as_deref() == Some("done")
}

fn types(events: &[Frame]) -> Vec<String> {
    events.iter().filter_map(Frame::event_type).collect()
}

fn position(id: &str) -> (String, u64, u32) {
    let parts: Vec<_> = id.split('.').collect();
    let [epoch, lsn, ordinal] = parts[..] else { panic!("an id: {id}") };
    (epoch.to_owned(), lsn.parse().expect("a position"), ordinal.parse().expect("an ordinal"))
}

/// The reason that a stream which starts after `id` is told, and the frame.
async fn told(app: &TestApp, member: &Member, id: &str) -> Option<(String, Frame)> {
    let mut stream = app.connect(member, &format!("&lastEventId={id}&keepalive=event")).await;
    let connected = stream.data().await.json();
    if connected["resumed"] == true {
        return None;
    }
    let sync = stream.data().await;
    assert_eq!(sync.event_type().as_deref(), Some("data.sync"), "{}", sync.raw);
    Some((sync.json()["data"]["reason"].as_str().expect("a reason").to_owned(), sync))
}

/// Writes `megabytes` of events, ten a transaction.
async fn write(app: &TestApp, organization: &str, megabytes: usize) {
    for _ in 0..megabytes {
        app.sql(&format!(
            "select walcast.emit('{organization}', 'bulk', to_jsonb(repeat('x', 100000))) from generate_series(1, 10)"
        ))
        .await;
    }
}

#[tokio::test]
pub async fn an_id_that_left_a_full_window_is_history_expired_until_the_client_has_the_syncs_own() {
    let app = TestApp::builder().config(|config| config.replay.max_memory = ByteSize(1 << 20)).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'first', '1')").await;
    let first = stream.event().await.id.expect("an id");
    drop(stream);
    write(&app, "o1", 4).await;
    let (reason, sync) = eventually("the window gave way", || told(&app, &member, &first)).await;
    assert_eq!(reason, "history_expired");
    let id = sync.id.clone().expect("an id");
    assert_eq!(sync.json()["id"], json!(id));
    assert!(sync.json()["data"]["delayMs"].as_u64().is_some_and(|delay| delay <= 60_000), "{}", sync.raw);

    // Lost between the two frames, the connection leaves a client that was told nothing: it is told again.
    let mut lost = app.connect(&member, &format!("&lastEventId={first}")).await;
    let connected = lost.data().await;
    assert_eq!(connected.json()["resumed"], false);
    drop(lost);
    let again = told(&app, &member, &connected.id.expect("an id")).await.expect("a sync");
    assert_eq!(again.0, "history_expired");

    // Who has the sync goes on without a gap.
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let mut on = app.connect(&member, &format!("&lastEventId={id}")).await;
    assert_eq!(on.data().await.json()["resumed"], true);
    assert_eq!(types(&on.events_until(done).await).last().map(String::as_str), Some("done"));
}

#[tokio::test]
async fn an_id_older_than_the_windows_age_is_history_expired_and_a_quiet_position_is_not() {
    let app =
        TestApp::builder().config(|config| config.replay.max_age = Duration::from_secs(2)).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'first', '1'); ").await;
    let first = stream.event().await.id.expect("an id");
    let (reason, sync) = eventually("the window passed", || async {
        app.sql("select walcast.emit('o1', 'later', '1')").await;
        told(&app, &member, &first).await
    })
    .await;
    assert_eq!(reason, "history_expired");
    assert!(told(&app, &member, &sync.id.expect("an id")).await.is_none());
}

#[tokio::test]
async fn an_id_behind_the_log_that_the_slot_may_keep_is_history_expired() {
    let app = TestApp::builder().config(|config| config.replay.max_wal = ByteSize(1 << 20)).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'first', '1')").await;
    let first = stream.event().await.id.expect("an id");
    let told = eventually("the window gave way", || async {
        // What is not ours counts too: it is the log that the slot pins.
        app.sql("select pg_logical_emit_message(true, 'other', repeat('x', 1000000))").await;
        app.sql("select walcast.emit('o1', 'later', '1')").await;
        told(&app, &member, &first).await
    })
    .await;
    assert_eq!(told.0, "history_expired");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_told_once_it_fell_out_of_the_window_and_delays_nobody() {
    let app = TestApp::builder()
        .config(|config| {
            config.replay.max_memory = ByteSize(2 << 20);
            // However long the writing takes here.
            config.http.write_timeout = Duration::from_secs(600);
        })
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let mut brisk = app.open(&member, "&channel=alerts").await;
    let mut slow = app.open(&member, "&channel=alerts").await;
    let mut all = Vec::new();
    // More than the window and what two sockets buffer. Who reads has each transaction before the next is written.
    for round in 0..30 {
        app.sql(&format!(
            "insert into lot_alerts (organization_id, lot_id, type, severity, message, status)
               select 'o1', '{round}', 'camera_offline', 'low', repeat('x', 50000), 'active' from generate_series(1, 10)"
        ))
        .await;
        for _ in 0..10 {
            let event = brisk.event().await;
            assert_eq!(event.event_type().as_deref(), Some("alert"), "who reads misses nothing");
            all.push(event.id.expect("an id"));
        }
    }
    let is_sync = |frame: &Frame| frame.event_type().as_deref() == Some("data.sync");
    let mut seen = slow.events_until(is_sync).await;
    let told = seen.pop().expect("a sync");
    assert_eq!(told.json()["data"]["reason"], "slow_consumer");
    // Up to the sync every event is there, in order; after it, what a reader of the database does not have yet.
    let run: Vec<_> = seen.iter().map(|event| event.id.clone().expect("an id")).collect();
    assert!(run.len() < all.len(), "{} of {}", run.len(), all.len());
    assert_eq!(run, all[..run.len()]);
    app.sql("select walcast.emit('o1', 'done', '1', 'alerts')").await;
    let on = slow.events_until(done).await;
    assert!(
        on.iter().all(|event| position(event.id.as_deref().expect("an id")) > position(&all[run.len() - 1]))
    );
    let metrics = app.get("/metrics").await.body;
    assert!(metrics.contains("walcast_syncs_total{reason=\"slow_consumer\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_socket_that_takes_nothing_for_the_write_timeout_is_closed() {
    let app =
        TestApp::builder().config(|config| config.http.write_timeout = Duration::from_secs(1)).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut socket = socket.connect(app.address).await.expect("the worker listens");
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        TestApp::target(&member, ""),
        member.token
    );
    socket.write_all(request.as_bytes()).await.expect("the request is taken");
    socket.read_exact(&mut [0; 15]).await.expect("an answer");
    write(&app, "o1", 10).await;
    eventually("the stream ended", || async {
        let metrics = app.get("/metrics").await.body;
        (metrics.contains("walcast_stream_ends_total{reason=\"write_timeout\"} 1\n")
            && metrics.contains("walcast_streams 0\n"))
        .then_some(())
    })
    .await;
}

#[tokio::test]
async fn events_of_every_organization_are_merged_by_id_and_go_by_the_filter() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut all = app.open(&member, "").await;
    let mut system = app.open(&member, "&channel=system").await;
    let mut custom = app.open(&member, "&channel=custom").await;
    for round in 0..5 {
        app.transaction(&format!(
            "select walcast.emit('o1', 'before', '{round}');
             insert into system_alerts (severity, message) values ('low', '{round}');
             select walcast.emit('o1', 'after', '{round}')"
        ))
        .await;
    }
    app.sql("select walcast.emit('o1', 'done', '1', 'system')").await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let live = all.events_until(done).await;
    let expected: Vec<_> = ["before", "system.alert", "after"].repeat(5);
    assert_eq!(types(&live)[..15], expected);
    let ids: Vec<_> = live.iter().map(|event| position(event.id.as_deref().expect("an id"))).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    assert_eq!(types(&system.events_until(done).await), [vec!["system.alert"; 5], vec!["done"]].concat());
    let custom = types(&custom.events_until(done).await);
    assert_eq!(custom, [["before", "after"].repeat(5), vec!["done"]].concat());

    // After an event of `*`, what follows it in the same transaction is not lost and not repeated.
    let mut resumed =
        app.open(&member, &format!("&lastEventId={}", live[1].id.as_deref().expect("an id"))).await;
    let rest = resumed.events_until(done).await;
    assert_eq!(
        rest.iter().map(|e| &e.raw).collect::<Vec<_>>(),
        live[2..=15].iter().map(|e| &e.raw).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn an_id_ahead_of_this_node_is_waited_for_and_one_that_never_comes_is_history_reset() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.connect(&member, "").await;
    let (epoch, now, _) = position(&stream.data().await.id.expect("an id"));
    let never = format!("{epoch}.{}.0", now + (1 << 40));
    let ahead = format!("{epoch}.{}.0", now + 20_000);
    let waiting = async {
        let mut stream = app.connect(&member, &format!("&lastEventId={ahead}")).await;
        (stream.data().await.json()["resumed"].clone(), stream.events_until(done).await)
    };
    let writing = async {
        eventually("the log passed the id", || async {
            app.sql("select walcast.emit('o1', 'before', to_jsonb(repeat('x', 2000)))").await;
            let lsn = app.text("pg_current_wal_insert_lsn() - '0/0'").await;
            (lsn.parse::<u64>().expect("a position") > now + 20_000).then_some(())
        })
        .await;
        app.sql("select walcast.emit('o1', 'done', '1')").await;
    };
    let ((resumed, events), ()) = tokio::join!(waiting, writing);
    assert_eq!(resumed, true);
    for event in &events {
        let id = position(event.id.as_deref().expect("an id"));
        assert!(id.1 >= now + 20_000, "nothing below the id: {id:?}");
    }
    assert_eq!(told(&app, &member, &never).await.expect("a sync").0, "history_reset");
}

#[tokio::test]
pub async fn an_id_inside_the_window_that_names_no_transaction_is_history_reset() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'a', '1')").await;
    let (epoch, lsn, ordinal) = position(&stream.event().await.id.expect("an id"));
    app.sql("select walcast.emit('o1', 'b', '1')").await;
    stream.event().await;
    let off = told(&app, &member, &format!("{epoch}.{}.{ordinal}", lsn + 1)).await;
    assert_eq!(off.expect("a sync").0, "history_reset");
    // The position at a transaction is before it.
    let mut at = app.open(&member, &format!("&lastEventId={epoch}.{lsn}.0")).await;
    assert_eq!(at.event().await.event_type().as_deref(), Some("a"));
}

#[tokio::test]
async fn keepalives_name_the_cursor_and_the_next_stream_goes_on_from_there() {
    let app =
        TestApp::builder().config(|config| config.http.keepalive = Duration::from_secs(1)).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&keepalive=event&channel=lots").await;
    app.sql("select walcast.emit('o1', 'filtered.out', '1')").await;
    let passed = app.text("pg_current_wal_flush_lsn() - '0/0'").await.parse::<u64>().expect("a position");
    let id = loop {
        let frame = stream.frame().await.expect("a keepalive");
        let id = frame.id.clone().expect("an id");
        let at = frame.json()["timestamp"].as_i64().expect("milliseconds");
        let expected = format!("id: {id}\ndata: {{\"type\":\"keepalive\",\"timestamp\":{at}}}\n\n");
        assert_eq!(frame.raw, expected);
        let (_, lsn, ordinal) = position(&id);
        if ordinal == 0 && lsn >= passed {
            break id;
        }
    };
    let mut resumed = app.connect(&member, &format!("&lastEventId={id}")).await;
    let connected = resumed.data().await;
    assert_eq!((connected.json()["resumed"].clone(), connected.id), (json!(true), Some(id)));
    assert_eq!(resumed.frame().await.expect("a keepalive").raw, ": keepalive\n\n");
}

#[tokio::test]
async fn a_quiet_stream_gets_an_id_before_the_window_passes_it() {
    let app = TestApp::builder()
        .config(|config| {
            config.http.keepalive = Duration::from_secs(1);
            config.replay.max_age = Duration::from_secs(8);
        })
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let mut quiet = app.open(&member, "&channel=lots").await;
    let opened = Instant::now();
    let mut comments = 0;
    let carried = loop {
        app.sql("select walcast.emit('o1', 'elsewhere', '1')").await;
        let frame = quiet.frame().await.expect("a keepalive");
        if !frame.is_comment() {
            break frame;
        }
        comments += 1;
    };
    // A quarter of the window is two seconds, in which one is due at least: unless the machine was held up.
    assert!(comments >= 1 || opened.elapsed() >= Duration::from_secs(2), "none came first");
    assert!(comments < 8, "{comments} comments came first");
    assert_eq!(carried.event_type().as_deref(), Some("keepalive"));
    assert!(told(&app, &member, &carried.id.expect("an id")).await.is_none());
}

#[tokio::test]
async fn an_event_without_the_tag_does_not_match_and_values_are_read_as_urls_write_them() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let insert = |id: &str, property: &str| {
        format!(
            "insert into activities (id, organization_id, property_id, category, subcategory, location, status, reporter)
               values ('{id}', 'o1', {property}, 'c', 's', 'l', 'open', 'r')"
        )
    };
    let mut by_property = app.open(&member, "&channel=activities&propertyId=p%C3%A9%26,,%20p2%20,").await;
    let mut unset = app.open(&member, "&channel=activities&propertyId=&types=").await;
    for (id, property) in [("a1", "null"), ("a2", "'p3'"), ("a3", "'pé&'"), ("a4", "'p2'")] {
        app.sql(&insert(id, property)).await;
    }
    for id in ["a3", "a4"] {
        assert_eq!(by_property.event().await.json()["data"]["id"], id);
    }
    for id in ["a1", "a2", "a3", "a4"] {
        assert_eq!(unset.event().await.json()["data"]["id"], id, "an empty filter is none");
    }
    // A row that moves between values is seen by both; one that had none is seen to come.
    app.sql("update activities set property_id = 'p2' where id = 'a1'").await;
    assert_eq!(by_property.event().await.json()["data"]["id"], "a1");
    app.sql("update activities set property_id = null where id = 'a4'").await;
    assert_eq!(by_property.event().await.json()["data"]["id"], "a4");
    app.sql("update activities set location = 'unseen' where id = 'a4'").await;
    app.sql("delete from activities where id = 'a3'").await;
    let gone = by_property.event().await.json();
    assert_eq!((&gone["type"], &gone["data"]["id"]), (&json!("activity_deleted"), &json!("a3")));
}

#[tokio::test]
async fn the_workers_own_events_pass_every_filter() {
    let app =
        TestApp::builder().config(|config| config.http.keepalive = Duration::from_secs(1)).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let filters = "&channel=devices&types=nothing.at.all&deviceId=none&keepalive=event";
    let mut stream = app.open(&member, filters).await;
    assert_eq!(stream.data().await.event_type().as_deref(), Some("keepalive"));
    app.sql("truncate devices").await;
    let sync = stream.event().await.json();
    assert_eq!((&sync["type"], &sync["data"]["reason"]), (&json!("data.sync"), &json!("truncated")));
    let mut reset = app.connect(&member, &format!("{filters}&lastEventId=nonsense")).await;
    reset.data().await;
    assert_eq!(reset.data().await.json()["data"]["reason"], "history_reset");
}

/// What a stream since a duration shows up to `done`, a `data.sync` by its reason.
async fn shown(app: &TestApp, member: &Member, since: &str) -> Vec<String> {
    let mut stream = app.connect(member, &format!("&channel=custom&since={since}")).await;
    stream.data().await;
    let mut shown = Vec::new();
    loop {
        let frame = stream.data().await;
        let reason = frame.json()["data"]["reason"].as_str().map(str::to_owned);
        shown.extend(reason.or_else(|| frame.event_type()));
        if done(&frame) {
            return shown;
        }
    }
}

#[tokio::test]
pub async fn since_longer_ago_than_the_window_reaches_is_history_expired_and_then_what_is_kept() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.sql("select walcast.emit('o1', 'kept', '1')").await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    assert_eq!(shown(&app, &member, "5m").await, ["kept", "done"]);
    let expired = eventually("the window has a beginning", || async {
        let shown = shown(&app, &member, "1h").await;
        (shown.len() == 3).then_some(shown)
    })
    .await;
    assert_eq!(expired, ["history_expired", "kept", "done"]);
}

#[tokio::test]
async fn since_before_a_slot_that_was_made_again_is_history_expired() {
    let mut app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.stop().await;
    app.sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()")
        .await;
    app.sql("select walcast.emit('o1', 'unseen', '1')").await;
    app.restart().await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    assert_eq!(shown(&app, &member, "5m").await, ["history_expired", "done"]);
}

#[tokio::test]
pub async fn since_starts_at_a_duration_at_an_id_and_at_the_earliest() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    // Not its own joining, which a stream that starts now may see or not.
    let mut stream = app.open(&member, "&channel=custom").await;
    for name in ["a", "b", "done"] {
        app.sql(&format!("select walcast.emit('o1', '{name}', '1')")).await;
    }
    let events = stream.events_until(done).await;
    for since in ["earliest", "5m", "300s"] {
        let mut stream = app.connect(&member, &format!("&channel=custom&since={since}")).await;
        assert_eq!(stream.data().await.json()["resumed"], false, "{since}");
        let seen: Vec<_> = stream.events_until(done).await.into_iter().map(|event| event.raw).collect();
        let raw: Vec<_> = events.iter().map(|event| event.raw.clone()).collect();
        assert_eq!(seen, raw, "{since}");
    }
    let since =
        app.open(&member, &format!("&since={}", events[0].id.as_deref().expect("an id"))).await.event().await;
    assert_eq!(since.raw, events[1].raw);
    let empty = Request::get(TestApp::target(&member, "&since=&lastEventId="))
        .bearer(&member.token)
        .header("Last-Event-ID", "");
    let mut now = Stream::open(app.address, empty).await;
    assert_eq!(now.data().await.json()["resumed"], false);
    app.sql("select walcast.emit('o1', 'new', '1')").await;
    assert_eq!(now.event().await.event_type().as_deref(), Some("new"));
}
