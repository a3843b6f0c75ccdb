//! Tickets that were not issued, not to this caller, not for this, or not for a second time.

use serde_json::json;

use super::{encoded, native, told};
use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::http::{Request, Response};
use crate::bench::sse::Stream;

const PATH: &str = "/api/realtime/tickets";

/// Asks for a ticket as the holder of the token.
async fn ask(app: &TestApp, token: &str, body: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::new("POST", PATH).bearer(token);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(body).fetch(app.address).await
}

async fn ticket(app: &TestApp, member: &Member, body: &str) -> String {
    let answer = ask(app, &member.token, body, &[("Content-Type", "application/json")]).await;
    assert_eq!(answer.head.status, 200, "{}", answer.body);
    answer.json()["ticket"].as_str().expect("a ticket").to_owned()
}

fn with(ticket: &str, organization: &str) -> Request {
    native(&format!("organizationId={organization}&ticket={}", encoded(ticket)))
}

#[tokio::test]
async fn a_ticket_that_was_changed_or_cut_opens_nothing_and_is_not_used_up() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let good = ticket(&app, &member, "").await;
    for (at, byte) in good.bytes().enumerate().step_by(5) {
        let mut bytes = good.as_bytes().to_vec();
        bytes[at] = if byte == b'A' { b'B' } else { b'A' };
        let answer = with(std::str::from_utf8(&bytes).unwrap(), "o1").fetch(app.address).await;
        assert_eq!(answer.error().0, 401, "at {at}: {}", answer.body);
    }
    for other in
        [&good[..good.len() - 1], &format!("{good}A"), &format!("{good}."), &format!(".{good}"), "", ".", "x"]
    {
        let answer = with(other, "o1").fetch(app.address).await;
        assert_eq!(answer.error().0, 401, "{other}");
    }
    // Nor is it another kind of credential, nor another kind a ticket.
    for request in [
        native("organizationId=o1").bearer(&good),
        native(&format!("organizationId=o1&token={}", encoded(&good))),
        with(&member.token, "o1"),
    ] {
        assert_eq!(request.fetch(app.address).await.error().0, 401);
    }
    // Neither a refusal nor a look used it up.
    assert_eq!(with(&good, "nowhere").fetch(app.address).await.error().0, 403);
    assert_eq!(Stream::open(app.address, with(&good, "o1")).await.head.status, 200);
    assert_eq!(with(&good, "o1").fetch(app.address).await.error().0, 401, "a second time");
}

#[tokio::test]
async fn of_many_who_come_with_one_ticket_at_once_one_gets_in() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let good = ticket(&app, &member, "").await;
    let tries = (0..20).map(|_| Stream::open(app.address, with(&good, "o1")));
    let statuses: Vec<_> =
        futures_util::future::join_all(tries).await.into_iter().map(|stream| stream.head.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 401)), "{statuses:?}");
}

#[tokio::test]
async fn a_ticket_is_for_what_it_was_asked_for_and_gets_no_other() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.member("o2", "u1", "admin").await;
    app.member("o3", "u3", "admin").await;
    let bound = ticket(&app, &member, r#"{"organizationId":"o1"}"#).await;
    let foreign = told(&with(&bound, "o3").fetch(app.address).await);
    assert_eq!(foreign.0, 403);
    assert_eq!(told(&with(&bound, "o2").fetch(app.address).await), foreign, "another of the user's own");
    for organization in ["o3", "nowhere", "*"] {
        let body = json!({ "organizationId": organization }).to_string();
        let answer = ask(&app, &member.token, &body, &[("Content-Type", "application/json")]).await;
        assert_eq!(answer.error().0, 403, "{organization}");
        assert_eq!(answer.body, foreign.2, "{organization}: the same words everywhere");
    }
    // A ticket that asks for a ticket would never run out.
    let request = Request::new("POST", format!("{PATH}?ticket={}", encoded(&bound)));
    let answer = request.header("Content-Type", "application/json").body("{}").fetch(app.address).await;
    assert!(matches!(answer.error().0, 401 | 403), "{}", answer.body);
    let answer = ask(&app, &bound, "{}", &[("Content-Type", "application/json")]).await;
    assert_eq!(answer.error().0, 401);
}

#[tokio::test]
async fn no_page_of_another_origin_gets_a_ticket_by_the_users_cookie() {
    let app =
        TestApp::builder().config(|config| config.access.cookie = Some("session".to_owned())).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let cookie = format!("session={}", member.token);
    let ask = async |headers: &[(&str, &str)], body: &str| {
        let mut request = Request::new("POST", PATH).header("Cookie", &cookie);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(body).fetch(app.address).await
    };
    let json = ("Content-Type", "application/json");
    for headers in [
        vec![json, ("Origin", "https://evil.example.com")],
        vec![json, ("Origin", "null")],
        vec![json, ("Sec-Fetch-Site", "cross-site")],
        vec![json, ("Sec-Fetch-Site", "same-site")],
        vec![("Origin", "https://evil.example.com")],
    ] {
        let answer = ask(&headers, "{}").await;
        assert_eq!(answer.error(), (403, "origin_not_allowed".to_owned()), "{headers:?}");
    }
    // What a form can send without asking first is no JSON.
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
    ] {
        let answer = ask(&[("Content-Type", kind)], "{}").await;
        assert!(matches!(answer.error().0, 400 | 415), "{kind}: {}", answer.head.status);
    }
    let own = format!("http://{}", app.address);
    assert_eq!(ask(&[json, ("Origin", &own)], "{}").await.head.status, 200);
}

#[tokio::test]
async fn a_body_that_is_not_what_was_asked_for_is_400_and_says_nothing_back() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let long = format!("{{\"organizationId\":\"{}\"}}", "a".repeat(100_000));
    let deep = "[".repeat(4000);
    for body in [
        "[]",
        "[\"o1\"]",
        "null",
        "\"o1\"",
        "{",
        "{\"organizationId\":1}",
        "{\"organizationId\":\"\"}",
        "{\"organizationId\":[\"o1\"]}",
        "{\"organizationId\":\"o1\",\"organizationId\":\"o2\"}",
        "{\"organizationId\":\"o1\",\"scope\":\"walcast:stats\"}",
        "{\"organizationid\":\"o1\"}",
        "{\"organizationId\":\"\\ud800\"}",
        "{}{}",
        "\u{feff}{}",
        long.as_str(),
        deep.as_str(),
    ] {
        let answer = ask(&app, &member.token, body, &[("Content-Type", "application/json")]).await;
        assert!(matches!(answer.error().0, 400 | 413), "{body:.60}: {} {}", answer.head.status, answer.body);
        assert!(answer.body.len() < 300, "{body:.60}: {}", answer.body);
    }
    let bad = token_with("u1", json!({ "exp": 1 }));
    let answer = ask(&app, &bad, "{", &[("Content-Type", "application/json")]).await;
    assert_eq!(answer.error().0, 401, "who is nobody learns nothing of bodies");
}
