//! Other people's streams: to change, to close, to count.

use serde_json::{Value, json};

use super::{encoded, told};
use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::http::{Request, Response};
use crate::bench::sse::Stream;

const STREAM: &str = "/api/realtime/stream";

async fn open(app: &TestApp, member: &Member) -> (Stream, String) {
    let mut stream = app.connect(member, "&channel=custom").await;
    let id = stream.data().await.json()["connectionId"].as_str().expect("an id").to_owned();
    (stream, id)
}

/// Every way to name a stream to a method.
async fn asked(app: &TestApp, token: &str, id: &str, body: &Value) -> Vec<Response> {
    let mut answers = Vec::new();
    for method in ["PUT", "DELETE"] {
        let with_id = {
            let mut body = body.clone();
            body["connectionId"] = json!(id);
            body
        };
        let requests = [
            Request::new(method, format!("{STREAM}/{}", encoded(id))).bearer(token).json(body),
            Request::new(method, format!("{STREAM}?connectionId={}", encoded(id))).bearer(token).json(body),
            Request::new(method, STREAM).bearer(token).json(&with_id),
        ];
        for request in requests {
            answers.push(request.fetch(app.address).await);
        }
    }
    answers
}

#[tokio::test]
async fn a_stream_of_somebody_else_answers_as_one_that_does_not_exist() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    // A colleague, and somebody of another organization who is an admin there.
    let colleague = app.member("o1", "u2", "admin").await;
    let stranger = app.member("o2", "u3", "admin").await;
    let (mut stream, id) = open(&app, &one).await;
    let random = id.rsplit('-').next().map(str::len);
    assert_eq!(random, Some(32), "a node, and 128 random bits: {id}");
    let absent = format!("{}{}", &id[..id.len() - 1], if id.ends_with('0') { '1' } else { '0' });
    let scoped = token_with("operator", json!({ "scope": "walcast:stats walcast:emit" }));
    for token in [&colleague.token, &stranger.token, &scoped] {
        let theirs = asked(&app, token, &id, &json!({})).await;
        let nobodys = asked(&app, token, &absent, &json!({})).await;
        for (theirs, nobodys) in theirs.iter().zip(&nobodys) {
            assert!(matches!(theirs.head.status, 404 | 421), "{} {}", theirs.head.status, theirs.body);
            assert_eq!(told(theirs), told(nobodys), "bytes and headers");
            assert!(!theirs.body.contains("u1") && !theirs.body.contains("o1"), "{}", theirs.body);
        }
    }
    app.sql("select walcast.emit('o1', 'still.here', '1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("still.here"), "as it was");
}

#[tokio::test]
async fn a_stream_is_renewed_by_its_own_user_alone_and_never_by_what_is_no_token() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    app.member("o1", "u2", "admin").await;
    let (mut stream, id) = open(&app, &one).await;
    let put = async |body: &Value| {
        let request = Request::new("PUT", format!("{STREAM}/{id}")).bearer(&one.token).json(body);
        request.fetch(app.address).await
    };
    let others = token_with("u2", json!({}));
    let forged = format!("{}x", one.token);
    for token in [
        json!(others),
        json!(forged),
        json!(token_with("u1", json!({ "exp": 1 }))),
        json!(""),
        json!(1),
        json!([]),
    ] {
        let answer = put(&json!({ "token": token, "channels": ["lots"] })).await;
        assert!(matches!(answer.error().0, 400 | 401 | 403), "{token}: {}", answer.body);
        assert!(!answer.body.contains(&others) && !answer.body.contains(&forged), "{}", answer.body);
    }
    // A change is whole or not at all: the channels are the old ones.
    app.sql("select walcast.emit('o1', 'still.custom', '1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("still.custom"));
    for body in [
        json!({ "organizationId": "o2" }),
        json!({ "channels": ["nope"] }),
        json!({ "types": ["a b"] }),
        json!({ "types": ["x\r\ny"] }),
        json!({ "tags": { "nope": ["1"] } }),
        json!({ "tags": [] }),
        json!([]),
        json!(null),
    ] {
        let answer = put(&body).await;
        assert_eq!(answer.error().0, 400, "{body}: {}", answer.body);
    }
    for raw in
        [r#"{"channels":["lots"],"channels":["custom"]}"#, r#"{"tags":{"status":["a"],"status":["b"]}}"#]
    {
        let request = Request::new("PUT", format!("{STREAM}/{id}")).bearer(&one.token);
        let answer = request.header("Content-Type", "application/json").body(raw).fetch(app.address).await;
        assert_eq!(answer.error().0, 400, "{raw}: {}", answer.body);
    }
}

#[tokio::test]
async fn no_page_of_another_origin_closes_a_stream_by_the_users_cookie() {
    let app =
        TestApp::builder().config(|config| config.access.cookie = Some("session".to_owned())).start().await;
    let one = app.member("o1", "u1", "admin").await;
    let (mut stream, id) = open(&app, &one).await;
    let cookie = format!("session={}", one.token);
    for method in ["DELETE", "PUT", "POST"] {
        for (name, value) in [("Origin", "https://evil.example.com"), ("Sec-Fetch-Site", "cross-site")] {
            for target in [format!("{STREAM}/{id}"), format!("{STREAM}?connectionId={id}")] {
                let request = Request::new(method, target).header("Cookie", &cookie).header(name, value);
                let answer = request.json(&json!({})).fetch(app.address).await;
                assert!(
                    matches!(answer.error().0, 403 | 405),
                    "{method}: {} {}",
                    answer.head.status,
                    answer.body
                );
            }
        }
    }
    app.sql("select walcast.emit('o1', 'still.here', '1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("still.here"));
}

#[tokio::test]
async fn statistics_tell_nothing_of_organizations_that_are_not_the_callers() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    let plain = app.member("o1", "u2", "member").await;
    let other = app.member("secret-organization", "secret-user", "admin").await;
    let (_stream, id) = open(&app, &other).await;
    let get = async |query: &str, token: &str| {
        Request::get(format!("/api/realtime/stats{query}")).bearer(token).fetch(app.address).await
    };
    for token in [&one.token, &plain.token] {
        let mine = get("", token).await;
        assert_eq!(mine.head.status, 200, "{}", mine.body);
        for told in ["secret", id.as_str()] {
            assert!(!mine.body.contains(told), "{}", mine.body);
        }
        assert_eq!(mine.json()["totalConnections"], mine.json()["sse"]["totalConnections"], "{}", mine.body);
        // What is asked for beside it changes nothing of that.
        for query in ["?organizationId=secret-organization", "?scope=walcast:stats", "?all=true"] {
            let answer = get(query, token).await;
            assert!(
                !answer.body.contains("secret-user") && !answer.body.contains(&id),
                "{query}: {}",
                answer.body
            );
            assert!(matches!(answer.head.status, 200 | 400), "{query}");
        }
    }
    let emitter =
        token_with("operator", json!({ "scope": "walcast:emit walcast:statistics xwalcast:stats" }));
    let answer = get("", &emitter).await;
    assert!(!answer.body.contains("secret"), "{}", answer.body);
    assert_eq!(Request::get("/api/realtime/stats").fetch(app.address).await.error().0, 401);
}
