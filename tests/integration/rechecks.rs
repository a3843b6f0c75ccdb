//! Streams that a session in the database opened, while the session changes.

use std::time::Duration;

use serde_json::json;
use walcast::config::Config;

use crate::bench::app::{TestApp, token_with};
use crate::bench::http::Request;
use crate::bench::sse::Stream;
use crate::sessions::{SESSIONS, by_rows, by_rows_through_a_proxy, login, request};

fn each_second(config: &mut Config) {
    config.access.session_recheck = Duration::from_secs(1);
}

async fn start() -> TestApp {
    let app = TestApp::builder().before(SESSIONS).config(by_rows).config(each_second).start().await;
    app.member("o1", "u1", "admin").await;
    app
}

/// A stream under a session, and its connection id.
async fn open(app: &TestApp, request: Request) -> (Stream, String) {
    let mut stream = Stream::open(app.address, request).await;
    let connected = stream.data().await.json();
    assert_eq!(connected["type"], "connected", "{connected}");
    (stream, connected["connectionId"].as_str().expect("an id").to_owned())
}

/// The last frame says that the session is over, and nothing came before.
async fn assert_over(stream: &mut Stream) {
    let rest = stream.rest().await;
    let types: Vec<_> = rest.iter().filter_map(|frame| frame.event_type()).collect();
    assert_eq!(types, ["token.expired"]);
}

async fn assert_open(app: &TestApp, streams: &mut [Stream]) {
    app.sql("select walcast.emit('o1', 'still', '1')").await;
    for stream in streams {
        assert_eq!(stream.data().await.event_type().as_deref(), Some("still"));
    }
}

#[tokio::test]
async fn a_deleted_session_ends_its_open_streams_and_no_others() {
    let app = start().await;
    login(&app, "first", "u1", "1 hour").await;
    login(&app, "second", "u1", "1 hour").await;
    let (mut by_cookie, _) = open(&app, request("sid=first")).await;
    let (mut in_another_tab, _) = open(&app, request("sid=first")).await;
    let asked = Request::new("POST", "/api/realtime/tickets").header("Cookie", "sid=first");
    let ticket = asked.fetch(app.address).await.json()["ticket"].as_str().expect("a ticket").to_owned();
    let content = ticket.split('.').next().expect("a content");
    let content = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, content);
    let content = String::from_utf8(content.expect("base64")).expect("text");
    assert!(content.contains("\"session\"") && !content.contains("first"), "{content}");
    let by_ticket = Request::get(format!("/api/realtime/stream?organizationId=o1&ticket={ticket}"));
    let (mut by_ticket, _) = open(&app, by_ticket).await;
    let (other, _) = open(&app, request("sid=second")).await;
    app.sql("delete from sessions where \"sessionToken\" = 'first'").await;
    for stream in [&mut by_cookie, &mut in_another_tab, &mut by_ticket] {
        assert_over(stream).await;
    }
    assert_open(&app, &mut [other]).await;
}

#[tokio::test]
async fn a_stream_lasts_as_long_as_its_session_does_by_now() {
    let app = start().await;
    for session in ["kept", "extended", "brief"] {
        login(&app, session, "u1", "6 seconds").await;
    }
    login(&app, "shortened", "u1", "1 hour").await;
    login(&app, "given-away", "u1", "1 hour").await;
    let (extended, _) = open(&app, request("sid=extended")).await;
    let (mut brief, _) = open(&app, request("sid=brief")).await;
    let (mut shortened, _) = open(&app, request("sid=shortened")).await;
    let (mut given_away, _) = open(&app, request("sid=given-away")).await;
    // A token of the same user takes the session's place.
    let (renewed, id) = open(&app, request("sid=kept")).await;
    let put = Request::new("PUT", format!("/api/realtime/stream/{id}")).header("Cookie", "sid=kept");
    let put = put.json(&json!({ "token": token_with("u1", json!({})) })).fetch(app.address).await;
    assert_eq!(put.head.status, 200, "{}", put.body);
    app.sql(
        "begin;
         update sessions set expires = now() + interval '1 hour' where \"sessionToken\" = 'extended';
         update sessions set expires = now() + interval '1 second' where \"sessionToken\" = 'shortened';
         update sessions set \"userId\" = 'u2' where \"sessionToken\" = 'given-away';
         delete from sessions where \"sessionToken\" = 'kept';
         commit",
    )
    .await;
    assert_over(&mut shortened).await;
    assert_over(&mut given_away).await;
    assert_over(&mut brief).await;
    assert_open(&app, &mut [extended, renewed]).await;
}

#[tokio::test]
async fn a_database_that_is_away_ends_no_stream_before_its_sessions_end() {
    let (app, proxy) = by_rows_through_a_proxy(each_second).await;
    app.member("o1", "u1", "admin").await;
    login(&app, "long", "u1", "1 hour").await;
    login(&app, "brief", "u1", "5 seconds").await;
    let (long, _) = open(&app, request("sid=long")).await;
    let (mut brief, _) = open(&app, request("sid=brief")).await;
    let (mut gone, _) = open(&app, request("sid=long")).await;
    proxy.cut();
    // What was known holds, and ends when it was to end; the others were asked about meanwhile, in vain.
    assert_over(&mut brief).await;
    proxy.restore();
    app.ready().await;
    assert_open(&app, &mut [long]).await;
    app.sql("delete from sessions").await;
    assert_eq!(gone.data().await.event_type().as_deref(), Some("still"));
    assert_over(&mut gone).await;
}

#[tokio::test]
async fn a_table_of_sessions_that_is_gone_is_told_and_ends_no_stream() {
    let app = start().await;
    login(&app, "good", "u1", "1 hour").await;
    let (stream, _) = open(&app, request("sid=good")).await;
    app.sql("alter table sessions rename to moved").await;
    app.degraded("access.session_query").await;
    app.sql("alter table moved rename to sessions").await;
    app.undegraded().await;
    assert_open(&app, &mut [stream]).await;
}
