//! The live preset of the reference domain: what its query answers, at once and after changes, to members alone.

mod faults;
mod hostile;
mod queries;
mod scale;

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use walcast::config::{ByteSize, Config, Live};

use crate::bench::app::{Member, TestApp};
use crate::bench::http::Request;
use crate::bench::proxy::proxied;
use crate::bench::sse::{Frame, Stream};
use crate::bench::{eventually, server};

pub const PATH: &str = "/api/realtime/heatmap/stream";

fn preset(config: &mut Config) -> &mut Live {
    let preset = config.presets.iter_mut().find(|preset| preset.path == PATH).expect("the preset");
    preset.live.as_mut().expect("a query")
}

/// As often as no client may ask for outside of tests.
pub fn often(config: &mut Config) {
    preset(config).min_interval = Duration::from_millis(100);
}

async fn connect(app: &TestApp, member: &Member, parameters: &str) -> Stream {
    let path = format!("{PATH}?organizationId={}{parameters}", member.organization);
    let request = Request::get(path).bearer(&member.token).header("Accept", "text/event-stream");
    Stream::open(app.address, request).await
}

/// A stream, its `connected` read.
async fn open(app: &TestApp, member: &Member, parameters: &str) -> Stream {
    eventually("a stream is let in", || async {
        let mut stream = connect(app, member, parameters).await;
        assert_eq!(stream.head.status, 200, "{:?}", stream.head);
        let first = stream.frame().await?;
        first.data.as_ref()?;
        let connected = first.json();
        assert_eq!((&connected["type"], &connected["channels"]), (&json!("connected"), &json!(["heatmap"])));
        assert_eq!(first.retry, Some(2000));
        Some(stream)
    })
    .await
}

/// The rows of the next update, whose frame has no id and nothing else in it.
async fn update(stream: &mut Stream) -> Value {
    let frame = stream.event().await;
    assert!(frame.raw.starts_with("data: {\"type\":\"update\",\"data\":["), "{}", frame.raw);
    assert_eq!(frame.raw.lines().count(), 2, "{}", frame.raw);
    let mut update = frame.json();
    assert_eq!(update.as_object().expect("an object").len(), 2);
    update["data"].take()
}

fn sum(rows: &Value, name: &str) -> i64 {
    rows.as_array().expect("rows").iter().map(|row| row[name].as_i64().expect("a number")).sum()
}

/// Issues of every place, category, status and priority, in two organizations.
const ISSUES: &str = "
    insert into issues (organization_id, campus_id, building_id, category, priority, status, title)
    select o, nullif('c' || n % 3, 'c0'), nullif('b' || n % 5, 'b0'), nullif('k' || n % 4, 'k0'),
           (array['low', 'medium', 'high', 'critical'])[1 + n % 7 % 4],
           (array['open', 'in_progress', 'resolved', 'closed'])[1 + n % 11 % 4], 'issue ' || n
    from generate_series(1, 300) n, unnest(array['o1', 'o2']) o where o = 'o1' or n % 2 = 0";

pub const ONE: &str =
    "insert into issues (organization_id, campus_id, building_id, category, priority, status, title)
                   values ('o1', 'c1', 'b1', 'k1', 'critical', 'open', 'one more')";

/// What is right, counted in another way than the query does: row by row of the distinct places.
async fn oracle(app: &TestApp, organization: &str, filter: &str) -> Value {
    let of = |what: &str| {
        format!(
            "(select count(*) from issues i where i.organization_id = '{organization}'
              and i.campus_id is not distinct from p.campus_id and i.building_id is not distinct from p.building_id
              and i.category is not distinct from p.category {what})"
        )
    };
    let (total, open, critical) = (of(""), of("and i.status = 'open'"), of("and i.priority = 'critical'"));
    let rows = app
        .text(&format!(
            "select coalesce(json_agg(json_build_object('campusId', campus_id, 'buildingId', building_id,
                 'category', category, 'total', {total}, 'open', {open}, 'critical', {critical})
                 order by campus_id, building_id, category), '[]')
             from (select distinct campus_id, building_id, category from issues
                   where organization_id = '{organization}' {filter}) p"
        ))
        .await;
    serde_json::from_str(&rows).expect("rows")
}

/// How often a query was run with this outcome.
async fn runs(app: &TestApp, outcome: &str) -> u64 {
    let name = format!("walcast_live_runs_total{{outcome=\"{outcome}\"}} ");
    let metrics = app.get("/metrics").await.body;
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn what_is_shown_at_once_is_what_sql_counts_whatever_is_filtered() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "employee").await;
    let other = app.member("o2", "u2", "employee").await;
    app.member("o3", "u3", "employee").await;
    app.sql(ISSUES).await;
    for (parameters, filter) in [
        ("", ""),
        ("&campusId=c1", "and campus_id = 'c1'"),
        ("&buildingIds=b1,b3&campusId=", "and building_id in ('b1', 'b3')"),
        ("&buildingIds=b2&categories=k1,k3", "and building_id = 'b2' and category in ('k1', 'k3')"),
        ("&buildingId=b4&category=k2", "and building_id = 'b4' and category = 'k2'"),
        (
            "&campusId=c2&buildingIds=b1&categories=k1",
            "and (campus_id, building_id, category) = ('c2', 'b1', 'k1')",
        ),
        ("&campusId=none", "and false"),
        ("&campusId=c1'%20or%20true--", "and false"),
        // Not what the query knows, whatever it is elsewhere.
        ("&status=open&priority=low&x=1&types=no&since=earliest&organization_id=o2&updateInterval=60000", ""),
    ] {
        let rows = update(&mut open(&app, &member, parameters).await).await;
        assert_eq!(rows, oracle(&app, "o1", filter).await, "{parameters}");
        assert_eq!(rows.as_array().unwrap().is_empty(), filter == "and false", "{parameters}");
    }
    let theirs = update(&mut open(&app, &other, "").await).await;
    assert_eq!(theirs, oracle(&app, "o2", "").await);
    assert_eq!(sum(&theirs, "total"), 150);
    let row = &theirs.as_array().unwrap()[0];
    let names: Vec<_> = row.as_object().unwrap().keys().collect();
    assert_eq!(names, ["campusId", "buildingId", "category", "total", "open", "critical"]);
    // Of an organization without any, and of one that is not one's own.
    let foreign = Member { organization: "o3".to_owned(), ..other };
    assert_eq!(connect(&app, &foreign, "").await.head.status, 403);
}

#[tokio::test]
async fn an_interval_that_is_too_short_or_no_number_is_told() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "employee").await;
    for wrong in ["4999", "0", "-1", "5s", "abc", "5000.5"] {
        let path = format!("{PATH}?organizationId=o1&updateInterval={wrong}");
        let answer = Request::get(path).bearer(&member.token).fetch(app.address).await;
        assert_eq!(
            answer.json(),
            json!({ "error": "bad_request",
                    "message": "updateInterval: a whole number of milliseconds, at least 5000" }),
            "{wrong}"
        );
        assert_eq!(answer.head.status, 400);
    }
    update(&mut open(&app, &member, "&updateInterval=5000").await).await;
}

#[tokio::test]
pub async fn updates_come_once_an_interval_and_the_last_change_is_in_one() {
    let app = TestApp::builder().config(often).start().await;
    let member = app.member("o1", "u1", "employee").await;
    let mut stream = open(&app, &member, "&updateInterval=700").await;
    assert_eq!(update(&mut stream).await, json!([]));
    let began = Instant::now();
    let (mut shown, mut updates) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        app.sql(ONE).await;
    }
    while updates.last() != Some(&40) {
        updates.push(sum(&update(&mut stream).await, "open"));
        shown.push(began.elapsed());
    }
    assert!(updates.is_sorted(), "{updates:?}");
    // Forty changes in less time than forty intervals.
    assert!(updates.len() < 20, "{updates:?}");
    // Counted from before the first change: when each was seen says only when it was sent at the latest.
    for (intervals, shown_after) in (0..).zip(&shown) {
        assert!(*shown_after >= intervals * Duration::from_millis(700), "{shown:?}");
    }
}

#[tokio::test]
pub async fn every_update_holds_the_change_that_it_follows() {
    let app = TestApp::builder().config(often).start().await;
    let member = app.member("o1", "u1", "employee").await;
    let mut stream = open(&app, &member, "&updateInterval=100&campusId=c1").await;
    assert_eq!(update(&mut stream).await, json!([]));
    for n in 1..=25 {
        app.sql(ONE).await;
        assert_eq!(sum(&update(&mut stream).await, "critical"), n);
    }
    // A row that leaves the filter, and one that goes.
    app.sql("update issues set campus_id = 'c2' where id = (select min(id) from issues)").await;
    assert_eq!(sum(&update(&mut stream).await, "total"), 24);
    app.sql("delete from issues where campus_id = 'c1'").await;
    assert_eq!(update(&mut stream).await, json!([]));
    app.sql(&format!("truncate issues; {ONE}")).await;
    let told = stream.event().await.json();
    assert_eq!((&told["type"], &told["data"]["reason"]), (&json!("data.sync"), &json!("truncated")));
    let mut last = json!([]);
    while last == json!([]) {
        last = update(&mut stream).await;
    }
    assert_eq!(sum(&last, "total"), 1);
}

#[tokio::test]
async fn nothing_is_sent_without_a_change_that_concerns_it() {
    let keepalive = |config: &mut Config| {
        often(config);
        config.http.keepalive = Duration::from_secs(1);
        // The window's quarter passes between two keepalives.
        config.replay.max_age = Duration::from_secs(2);
    };
    let app = TestApp::builder().config(keepalive).start().await;
    let member = app.member("o1", "u1", "employee").await;
    app.member("o2", "u2", "employee").await;
    app.sql(ISSUES).await;
    let mut stream = open(&app, &member, "&updateInterval=100&buildingIds=b1").await;
    let before = update(&mut stream).await;
    app.sql(
        "update issues set status = 'closed' where organization_id = 'o2';
         update issues set status = 'closed' where building_id = 'b2';
         update issues set status = 'closed' where building_id is null;
         insert into lots (organization_id, name, total_slots, occupied) values ('o1', 'p', 9, 1);
         select walcast.emit('o1', 'other', '1')",
    )
    .await;
    for _ in 0..3 {
        let quiet = stream.frame().await.expect("a keepalive");
        assert_eq!(quiet.raw, ": keepalive\n\n");
    }
    app.sql(ONE).await;
    let after = update(&mut stream).await;
    assert_eq!(sum(&after, "total"), sum(&before, "total") + 1);
}

#[tokio::test]
pub async fn a_revoked_member_is_shown_nothing_of_that_transaction_or_after() {
    let app = TestApp::builder().config(often).start().await;
    app.member("o1", "stays", "admin").await;
    for round in 0..8 {
        let member = app.member("o1", &format!("goes{round}"), "admin").await;
        app.sql("delete from issues").await;
        let mut stream = open(&app, &member, "&updateInterval=100").await;
        update(&mut stream).await;
        // A run that the first of them triggers may well see the last.
        app.sql(&format!(
            "{ONE}; begin; {ONE}; delete from memberships where user_id = 'goes{round}'; {ONE}; commit; {ONE}"
        ))
        .await;
        let frames = stream.rest().await;
        let last = frames.last().expect("a farewell");
        assert_eq!(last.event_type().as_deref(), Some("access.revoked"), "{}", last.raw);
        for frame in frames.iter().filter(|frame| frame.event_type().as_deref() == Some("update")) {
            assert!(sum(&frame.json()["data"], "total") <= 1, "{}", frame.raw);
        }
        app.refuses(|| connect(&app, &member, "")).await;
    }
}

/// Stops the server's process that sends the log, or lets it go on.
async fn signal_walsender(app: &TestApp, signal: Signal) {
    let slot = "select active_pid from pg_replication_slots where database = current_database() and active";
    let pid = app.text(slot).await.parse().expect("a process");
    kill_process(Pid::from_raw(pid).expect("a process"), signal).expect("a server on this machine");
}

#[tokio::test]
async fn what_a_query_sees_before_the_worker_does_waits_for_the_memberships() {
    let keepalive = |config: &mut Config| {
        often(config);
        config.http.keepalive = Duration::from_secs(1);
        // Not what this is about, and it would stand between.
        config.canary.interval = Duration::ZERO;
    };
    let app = TestApp::builder().config(keepalive).start().await;
    let member = app.member("o1", "goes", "admin").await;
    let path = format!("{PATH}?organizationId=o1&updateInterval=100");
    let mut stream = Stream::open(app.address, Request::get(path).bearer(&member.token)).await;
    let connected = stream.data().await.json();
    assert_eq!(update(&mut stream).await, json!([]));
    let before = runs(&app, "answered").await;

    signal_walsender(&app, Signal::STOP).await;
    app.sql(&format!("delete from memberships where user_id = 'goes'; {ONE}")).await;
    // The worker has not read that they are gone, and has them ask anew.
    let id = connected["connectionId"].as_str().expect("an id");
    let put = Request::new("PUT", format!("/api/realtime/stream/{id}"))
        .bearer(&member.token)
        .json(&json!({ "tags": { "campusId": ["c1"] } }));
    let answer = put.fetch(app.address).await;
    eventually("the query is run", || async { (runs(&app, "answered").await > before).then_some(()) }).await;
    for _ in 0..2 {
        assert_eq!(stream.frame().await.expect("a keepalive").raw, ": keepalive\n\n");
    }
    signal_walsender(&app, Signal::CONT).await;
    assert_eq!(answer.head.status, 200, "{}", answer.body);
    let rest: Vec<_> = stream.rest().await.into_iter().filter(|frame| !frame.is_comment()).collect();
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(rest[0].event_type().as_deref(), Some("access.revoked"));
}

#[tokio::test]
async fn streams_that_ask_the_same_share_a_run() {
    const STREAMS: usize = 40;
    let app = TestApp::builder()
        .config(|config| {
            often(config);
            config.limits.streams_per_user = 0;
            config.http.keepalive = Duration::from_secs(1);
        })
        .start()
        .await;
    let member = app.member("o1", "u1", "employee").await;
    app.sql(ISSUES.replace("o = 'o1' or", "o = 'o1' and").as_str()).await;
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        // The same, however it is spelt.
        let building = ["&buildingIds=b1,b2", "&buildingId=b2&buildingIds=b1,b2"][n % 2];
        streams.push(open(&app, &member, &format!("&updateInterval=100{building}")).await);
    }
    for stream in &mut streams {
        update(stream).await;
        // So long that its next update is due.
        while !stream.frame().await.expect("a keepalive").is_comment() {}
    }
    let before = runs(&app, "answered").await;
    app.sql(ONE).await;
    let expected = oracle(&app, "o1", "and building_id in ('b1', 'b2')").await;
    for stream in &mut streams {
        assert_eq!(update(stream).await, expected);
    }
    let runs = runs(&app, "answered").await - before;
    assert!((1..=5).contains(&runs), "{runs} runs for {STREAMS} streams");
    let metrics = app.get("/metrics").await.body;
    assert!(metrics.contains(&format!("walcast_live_updates_total {}\n", 2 * STREAMS)), "{metrics}");
}

#[tokio::test]
async fn statistics_count_the_streams_that_show_it() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut one = open(&app, &member, "").await;
    let mut two = open(&app, &member, "&campusId=c1").await;
    update(&mut one).await;
    update(&mut two).await;
    let stats = Request::get("/api/realtime/stats").bearer(&member.token).fetch(app.address).await.json();
    assert_eq!(stats["sse"]["heatmapStreams"], 2, "{stats}");
    assert_eq!(stats["organizations"]["o1"]["channels"], json!({ "heatmap": 2 }), "{stats}");
}

#[tokio::test]
async fn a_filter_that_is_replaced_is_what_is_shown_from_then_on() {
    let app = TestApp::builder().config(often).start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.sql(ISSUES.replace("o = 'o1' or", "o = 'o1' and").as_str()).await;
    let path = format!("{PATH}?organizationId=o1&updateInterval=100");
    let mut stream = Stream::open(app.address, Request::get(path).bearer(&member.token)).await;
    let connected = stream.data().await.json();
    assert_eq!(update(&mut stream).await, oracle(&app, "o1", "").await);
    let id = connected["connectionId"].as_str().expect("an id");
    let put = Request::new("PUT", format!("/api/realtime/stream/{id}"))
        .bearer(&member.token)
        .json(&json!({ "tags": { "buildingIds": ["b1"] } }));
    let answer = put.fetch(app.address).await;
    assert_eq!(answer.head.status, 200, "{}", answer.body);
    assert_eq!(update(&mut stream).await, oracle(&app, "o1", "and building_id = 'b1'").await);
}

#[tokio::test]
async fn an_answer_that_is_too_large_says_so() {
    let small = |config: &mut Config| {
        often(config);
        config.journal.max_event = ByteSize(1024);
    };
    let app = TestApp::builder().config(small).start().await;
    let member = app.member("o1", "u1", "employee").await;
    app.sql(&format!("{ISSUES} and o = 'o1'")).await;
    let mut stream = open(&app, &member, "&updateInterval=100").await;
    let frame = stream.event().await;
    let told = frame.json();
    let oversize = told["oversize"].as_u64().expect("bytes");
    assert_eq!(frame.raw, format!("data: {{\"type\":\"update\",\"data\":null,\"oversize\":{oversize}}}\n\n"));
    assert!(oversize > 1024);
    assert!(runs(&app, "oversize").await > 0);
    app.sql("delete from issues where building_id <> 'b1' or building_id is null or campus_id is null").await;
    assert_eq!(update(&mut stream).await, oracle(&app, "o1", "").await);
}

#[tokio::test]
pub async fn while_the_database_is_away_a_stream_stays_and_afterwards_shows_what_changed() {
    let url = server::database().await;
    let (proxy, through) = proxied(&url).await;
    let app = TestApp::builder().on(url).config(often).through(through).start().await;
    let member = app.member("o1", "u1", "employee").await;
    let mut stream = open(&app, &member, "&updateInterval=100").await;
    assert_eq!(update(&mut stream).await, json!([]));
    app.sql(ONE).await;
    assert_eq!(sum(&update(&mut stream).await, "total"), 1);
    proxy.cut();
    eventually("it is noticed", || async {
        (app.get("/readyz").await.body.trim() == "source_down").then_some(())
    })
    .await;
    app.sql(&format!("{ONE}; {ONE}")).await;
    let mut early = open(&app, &member, "&updateInterval=100").await;
    proxy.restore();
    let mut seen = 1;
    while seen < 3 {
        seen = sum(&update(&mut stream).await, "total");
        assert!((1..=3).contains(&seen));
    }
    // The first answer of who came meanwhile is whole.
    assert_eq!(sum(&update(&mut early).await, "total"), 3);
}

#[tokio::test]
async fn a_restart_of_the_worker_begins_with_what_is_so_now() {
    let mut app = TestApp::start().await;
    let member = app.member("o1", "u1", "employee").await;
    let mut stream = open(&app, &member, "").await;
    update(&mut stream).await;
    app.sql(ONE).await;
    app.stop().await;
    let frames = stream.rest().await;
    assert!(frames.last().is_some_and(|frame: &Frame| frame.retry.is_some()), "{frames:?}");
    app.sql(ONE).await;
    app.restart().await;
    assert_eq!(sum(&update(&mut open(&app, &member, "").await).await, "total"), 2);
}
