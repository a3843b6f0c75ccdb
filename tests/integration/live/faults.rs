//! A live query that keeps failing, or takes long: its streams are told that what they show is old, it is asked again
//! until it works, and nobody else waits for it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use walcast::config::Config;

use super::queries::query;
use super::{ONE, PATH, connect, often, open, runs, sum, update};
use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::http::Request;
use crate::bench::proxy::proxied;
use crate::bench::sse::{Frame, Stream};
use crate::bench::{eventually, server};

/// Told within seconds, and while the source is there by the answers' own age alone.
fn impatient(config: &mut Config) {
    often(config);
    config.canary.interval = Duration::ZERO;
    config.canary.stale_after = Duration::from_secs(2);
}

/// An event on the preset's channel, though no issue changed.
const TOUCH: &str = "select walcast.emit('o1', 'heatmap:updated', '{}', 'heatmap')";

/// The next frame of data; a table that is not published any more may be a new history, which is told as ever.
async fn next(stream: &mut Stream) -> Frame {
    loop {
        let frame = stream.data().await;
        if frame.event_type().as_deref() != Some("data.sync") {
            return frame;
        }
    }
}

/// The next frame is `stale` or `fresh`, whole and as for any stream; its seconds.
async fn expect_age(stream: &mut Stream, name: &str) -> u64 {
    let frame = next(stream).await;
    let mut told = frame.json();
    assert!(told["timestamp"].take().is_u64(), "{}", frame.raw);
    let seconds = told["data"]["seconds"].as_u64().unwrap_or_else(|| panic!("no age: {}", frame.raw));
    assert_eq!(told, json!({ "type": name, "timestamp": null, "data": { "seconds": seconds } }));
    assert_eq!(frame.id, None, "it is no position");
    seconds
}

/// The next frame of data is an update; its sum of `total`.
async fn expect_update(stream: &mut Stream) -> i64 {
    let frame = next(stream).await;
    let told = frame.json();
    assert_eq!(told["type"], "update", "{}", frame.raw);
    sum(&told["data"], "total")
}

/// A stream that shows what is so, and one that is opened while the query fails, from `breaks` to `mends`.
async fn a_failure_is_told(app: &TestApp, breaks: impl AsyncFn(), mends: impl AsyncFnOnce()) {
    let member = app.member("o1", "u1", "employee").await;
    let mut stream = open(app, &member, "&updateInterval=100").await;
    assert_eq!(expect_update(&mut stream).await, 0);
    app.sql(ONE).await;
    assert_eq!(expect_update(&mut stream).await, 1);

    breaks().await;
    app.sql(TOUCH).await;
    assert!(expect_age(&mut stream, "stale").await >= 2);
    let mut late = open(app, &member, "&updateInterval=100").await;
    assert!(expect_age(&mut late, "stale").await >= 2);

    mends().await;
    for stream in [&mut stream, &mut late] {
        assert_eq!(expect_update(stream).await, 1);
        assert!(expect_age(stream, "fresh").await >= 2);
    }
    app.sql(ONE).await;
    while expect_update(&mut stream).await != 2 {}
    app.undegraded().await;
}

#[tokio::test]
async fn a_table_that_is_gone_makes_its_streams_stale_until_it_is_back() {
    let app = TestApp::builder().config(impatient).start().await;
    let rename = async |from: &str, to: &str| app.sql(&format!("alter table {from} rename to {to}")).await;
    let breaks = async || {
        rename("issues", "issues_away").await;
    };
    let mends = async || {
        app.degraded("relation \\\"public.issues\\\" does not exist").await;
        rename("issues_away", "issues").await;
    };
    a_failure_is_told(&app, breaks, mends).await;
}

#[tokio::test]
async fn a_table_that_is_locked_for_longer_than_a_query_may_take_makes_its_streams_stale_until_it_is_free() {
    let app = TestApp::builder().config(impatient).start().await;
    let locker = server::session(&app.dsn).await;
    let colleague = app.member("o1", "u2", "employee").await;
    let mut events = app.open(&colleague, "&channel=custom").await;
    let breaks = async || {
        locker.batch_execute("begin; lock table issues in access exclusive mode").await.expect("a lock");
    };
    let mends = async || {
        // Until it has failed for it.
        eventually("a run fails", || async { (runs(&app, "failed").await > 0).then_some(()) }).await;
        assert_eq!(app.get("/readyz").await.body.trim(), "ready", "it is nothing against the worker");
        // What is made of events alone is current.
        app.sql("select walcast.emit('o1', 'news', '1')").await;
        let event = events.data().await;
        assert_eq!(event.event_type().as_deref(), Some("news"), "{}", event.raw);
        locker.batch_execute("commit").await.expect("it ends");
    };
    a_failure_is_told(&app, breaks, mends).await;
}

#[tokio::test]
async fn a_database_that_is_away_makes_a_stream_stale_once_however_many_reasons_there_are() {
    let url = server::database().await;
    let (proxy, through) = proxied(&url).await;
    let app = TestApp::builder().on(url).config(impatient).through(through).start().await;
    let member = app.member("o1", "u1", "employee").await;
    let mut stream = open(&app, &member, "&updateInterval=100").await;
    assert_eq!(expect_update(&mut stream).await, 0);
    proxy.cut();
    let away = || async { (app.get("/readyz").await.body.trim() == "source_down").then_some(()) };
    eventually("it is noticed", away).await;
    // Who comes now is told for both: nothing flows, and no answer comes.
    let mut late = open(&app, &member, "&updateInterval=100").await;
    assert!(expect_age(&mut late, "stale").await >= 2);
    app.sql(ONE).await;
    proxy.restore();
    assert_eq!(expect_update(&mut late).await, 1);
    assert!(expect_age(&mut late, "fresh").await >= 2);
    while sum(&update(&mut stream).await, "total") != 1 {}
}

/// A query by which every organization has it as the function `behave` says.
const BEHAVES: &str =
    "select count(*) + public.behave($1) as total from public.issues where organization_id = $1
    and $2::text[] is null and $3::text[] is null and ($4::text[] is null or category = any ($4))";

const BEHAVIOUR: &str =
    "create or replace function public.behave(organization text) returns int language plpgsql as $$
    begin
        if organization = 'slow' then perform pg_sleep(60); end if;
        if organization = 'raises' then raise exception 'secret-value of %', organization; end if;
        if organization = 'divides' then return 1 / (length(organization) - 7); end if;
        return 0;
    end $$;";

/// Sessions that run a live query now.
async fn busy(app: &TestApp) -> i64 {
    let count = "select count(*) from pg_stat_activity
                 where datname = current_database() and application_name = 'walcast live' and state = 'active'";
    app.text(count).await.parse().expect("a number")
}

#[tokio::test]
async fn an_organization_whose_query_is_slow_or_fails_delays_nobody_else() {
    const ROUNDS: i64 = 15;
    let mut file = None;
    let app = TestApp::builder()
        .before(BEHAVIOUR)
        .config(|config| {
            impatient(config);
            file = Some(query(config, BEHAVES));
        })
        .start()
        .await;
    let mut bad = Vec::new();
    for organization in ["slow", "raises", "divides"] {
        let member = app.member(organization, &format!("u-{organization}"), "employee").await;
        // Each asks something of its own: more than there are sessions.
        for n in 0..8 {
            bad.push(open(&app, &member, &format!("&updateInterval=100&categories=k{n}")).await);
        }
    }
    let slow_is_asked = || async { (busy(&app).await >= 2).then_some(()) };
    eventually("the slow queries run", slow_is_asked).await;
    let member = app.member("o1", "u1", "employee").await;
    let mut good = open(&app, &member, "&updateInterval=100").await;
    assert_eq!(sum(&update(&mut good).await, "total"), 0);
    let mut events = app.open(&member, "&channel=issues").await;
    let began = Instant::now();
    for n in 1..=ROUNDS {
        app.sql(ONE).await;
        assert_eq!(events.event().await.event_type().as_deref(), Some("issue:created"));
        assert_eq!(sum(&update(&mut good).await, "total"), n);
        let busy = busy(&app).await;
        assert!(busy <= 4, "{busy} sessions");
    }
    // A slow query is given up after 5 s: who waited for one each time would need more than a minute.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    for stream in &mut bad {
        assert!(expect_age(stream, "stale").await >= 2);
    }
    let told = eventually("warnings", || async {
        let told = app.get("/readyz/reasons").await.body;
        told.contains("(SQLSTATE ").then_some(told)
    })
    .await;
    assert!(!told.contains("secret-value"), "{told}");
    assert_eq!(app.get("/readyz").await.body.trim(), "ready", "{told}");

    app.sql(
        &BEHAVIOUR.replace("'slow'", "'none'").replace("'raises'", "'none'").replace("'divides'", "'none'"),
    )
    .await;
    for stream in &mut bad {
        assert_eq!(expect_update(stream).await, 0);
        assert!(expect_age(stream, "fresh").await >= 2);
    }
    drop(file);
}

#[tokio::test]
async fn a_stream_whose_answer_does_not_come_is_kept_ends_and_is_controlled_as_any() {
    let mut file = None;
    let app = TestApp::builder()
        .before(&BEHAVIOUR.replace("'slow'", "'o1'"))
        .config(|config| {
            impatient(config);
            config.http.keepalive = Duration::from_millis(500);
            file = Some(query(config, BEHAVES));
        })
        .start()
        .await;
    let member = app.member("o1", "u1", "employee").await;
    let mut kept = open(&app, &member, "").await;
    expect_age(&mut kept, "stale").await;
    for _ in 0..2 {
        assert_eq!(kept.frame().await.expect("a keepalive").raw, ": keepalive\n\n");
    }
    // Its credential runs out while it waits.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let soon = Member { token: token_with("u1", json!({ "exp": now + 4 })), ..member.clone() };
    let mut expires = connect(&app, &soon, "").await;
    // Closed by its user while it waits.
    let path = format!("{PATH}?organizationId=o1");
    let mut closed = Stream::open(app.address, Request::get(path).bearer(&member.token)).await;
    let id = closed.data().await.json()["connectionId"].as_str().expect("an id").to_owned();
    let delete = Request::new("DELETE", format!("/api/realtime/stream/{id}")).bearer(&member.token);
    assert_eq!(delete.fetch(app.address).await.head.status, 204);
    let last = closed.rest().await.pop().expect("a farewell");
    assert_eq!((last.retry, last.data), (Some(86_400_000), None));
    let last = expires.rest().await.pop().expect("a farewell");
    assert_eq!(last.event_type().as_deref(), Some("token.expired"));
    // Removed while it waits.
    app.sql("delete from memberships where user_id = 'u1'").await;
    let last = kept.rest().await.pop().expect("a farewell");
    assert_eq!(last.event_type().as_deref(), Some("access.revoked"));
    drop(file);
}
