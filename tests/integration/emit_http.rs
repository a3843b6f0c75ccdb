//! Events that services hand in over HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use walcast::postgres::dsn::Dsn;

use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::http::{Request, Response};
use crate::bench::proxy::proxied;
use crate::bench::{eventually, server};

const PATH: &str = "/api/realtime/events";

fn service() -> String {
    token_with("importer", json!({ "scope": "walcast:emit" }))
}

fn request(token: &str, body: &Value) -> Request {
    Request::new("POST", PATH).bearer(token).json(body)
}

async fn post(app: &TestApp, token: &str, body: &Value) -> Response {
    request(token, body).fetch(app.address).await
}

fn body(data: impl Into<Value>) -> Value {
    json!({ "organizationId": "o1", "type": "import.finished", "data": data.into() })
}

#[tokio::test]
async fn an_event_is_accepted_once_committed_and_reads_as_one_of_walcast_emit() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let answer = post(&app, &service(), &body(json!({ "rows": 1200, "text": "ü\n" }))).await;
    assert_eq!(answer.head.status, 202, "{}", answer.body);
    assert_eq!(answer.head.header("content-type"), Some("application/json"));
    assert_eq!(answer.head.header("cache-control"), Some("no-store"));
    assert_eq!(answer.json()["accepted"], true);
    let first = stream.event().await;
    let event = first.json();
    assert_eq!(event["type"], "import.finished");
    assert_eq!(event["channel"], "custom");
    assert_eq!(event["organizationId"], "o1");
    assert_eq!(event["data"], json!({ "rows": 1200, "text": "ü\n" }));
    // The position is before the event: a stream that starts there shows it, and so a browser can be sent there.
    let position = answer.json()["position"].as_str().expect("a position").to_owned();
    let mut from_there = app.open(&member, &format!("&lastEventId={position}")).await;
    assert_eq!(from_there.event().await.raw, first.raw);
    // In order with what SQL emits.
    app.sql("select walcast.emit('o1', 'sql', '1')").await;
    post(&app, &service(), &body(2)).await;
    app.sql("select walcast.emit('o1', 'sql', '3')").await;
    let events: Vec<_> = [stream.event().await, stream.event().await, stream.event().await].into();
    assert_eq!(events.iter().map(|e| e.json()["data"].clone()).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
pub async fn channel_tags_and_only_are_kept_and_a_catalogued_type_inherits_its_own() {
    let app = TestApp::start().await;
    let admin = app.member("o1", "u1", "admin").await;
    let employee = app.member("o1", "u2", "employee").await;
    let mut low = app.open(&admin, "&channel=alerts&severity=low").await;
    let mut of_admin = app.open(&admin, "").await;
    let mut of_employee = app.open(&employee, "").await;
    let mut event = body(1);
    event["channel"] = json!("alerts");
    event["tags"] = json!({ "severity": "low" });
    assert_eq!(post(&app, &service(), &event).await.head.status, 202);
    assert_eq!(low.event().await.json()["channel"], "alerts");
    assert_eq!(of_employee.event().await.json()["data"], 1);
    of_admin.event().await;
    // user.activity is only for roles: the catalog says so, not the caller.
    let activity = json!({ "organizationId": "o1", "type": "user.activity", "data": 2, "channel": "custom" });
    assert_eq!(post(&app, &service(), &activity).await.head.status, 202);
    let seen = of_admin.event().await.json();
    assert_eq!((&seen["type"], &seen["channel"]), (&json!("user.activity"), &json!("activity-log")));
    let mut only = body(3);
    only["only"] = json!({ "user": "u2" });
    assert_eq!(post(&app, &service(), &only).await.head.status, 202);
    assert_eq!(of_employee.event().await.json()["data"], 3);
    post(&app, &service(), &body(4)).await;
    assert_eq!(of_admin.event().await.json()["data"], 4);
    // What the worker would drop in silence is refused.
    let nobody = json!({ "organizationId": "o1", "type": "notification.new", "data": 1 });
    let answer = post(&app, &service(), &nobody).await;
    assert_eq!(answer.error().0, 400);
    assert!(answer.body.contains("only.user"), "{}", answer.body);
}

#[tokio::test]
async fn a_bad_request_says_which_field_and_what_is_allowed() {
    let app = TestApp::start().await;
    app.member("o1", "u1", "admin").await;
    let with = |name: &str, value: Value| {
        let mut event = body(1);
        event[name] = value;
        event
    };
    for (event, says) in [
        (json!({}), "organizationId: required"),
        (json!([]), "the body must be a JSON object"),
        (with("organizationId", json!("*")), "organizationId: must be one organization, not *"),
        (with("type", json!("a b")), "type: must be 1 to 100 of A-Z a-z 0-9 . _ : -"),
        (with("type", json!("x".repeat(101))), "type: must be 1 to 100"),
        (with("type", json!("connected")), "type: connected is the worker's own"),
        (with("channel", json!("a/b")), "channel: must be 1 to 100"),
        (with("tags", json!({ "a": [] })), "tags: must be an object"),
        (with("only", json!({ "role": "admin" })), "only.role: unknown; allowed are roles, user"),
        (
            with("unheard", json!(1)),
            "unheard: unknown; allowed are organizationId, type, data, channel, tags, only",
        ),
        (with("data", json!("a\u{0}b")), "data: a character that jsonb can't hold"),
    ] {
        let answer = post(&app, &service(), &event).await;
        assert_eq!(answer.error(), (400, "bad_request".to_owned()), "{event}: {}", answer.body);
        let message = answer.json()["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(says), "{event}: {message}");
    }
    let raw = |text: &str| {
        Request::new("POST", PATH).bearer(&service()).header("Content-Type", "application/json").body(text)
    };
    for text in [
        r#"{"organizationId":"o1","organizationId":"o2","type":"t","data":1}"#,
        r#"{"organizationId":"o1","type":"t","data":"\ud800"}"#,
        r#"{"organizationId":"o1","type":"t","data":1e999999}"#,
        "{",
        "",
    ] {
        let answer = raw(text).fetch(app.address).await;
        assert_eq!(answer.error().0, 400, "{text}: {}", answer.body);
    }
    let deep = format!(
        "{{\"organizationId\":\"o1\",\"type\":\"t\",\"data\":{}1{}}}",
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    assert_eq!(raw(&deep).fetch(app.address).await.error().0, 400);
    let text = Request::new("POST", PATH).bearer(&service()).header("Content-Type", "text/plain").body("{}");
    assert_eq!(text.fetch(app.address).await.error(), (415, "unsupported_media_type".to_owned()));
    let large = post(&app, &service(), &body("x".repeat(1 << 20))).await;
    assert_eq!(large.error(), (413, "too_large".to_owned()));
    let unknown = Request::new("POST", format!("{PATH}?organizationId=o1")).bearer(&service()).json(&body(1));
    assert_eq!(unknown.fetch(app.address).await.error().0, 400);
    let get = Request::get(PATH).bearer(&service()).fetch(app.address).await;
    assert_eq!((get.error().0, get.head.header("allow")), (405, Some("POST,OPTIONS")));
    assert_eq!(app.get("/readyz").await.body, "ready", "none of it is the worker's trouble");
}

#[tokio::test]
async fn only_a_token_with_the_scope_emits_and_only_where_it_may() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.member("o2", "u2", "admin").await;
    let scope = json!("walcast:emit");
    let tokens = [
        ("nobody", String::new(), 401),
        ("a member without the scope", member.token.clone(), 403),
        ("with another scope", token_with("u1", json!({ "scope": "walcast:stats" })), 403),
        ("a member with it", token_with("u1", json!({ "scope": "walcast:stats walcast:emit" })), 202),
        ("a member of another organization", token_with("u2", json!({ "scope": scope })), 403),
        (
            "a service that is bound to it",
            token_with("s", json!({ "scope": scope, "organizationId": "o1" })),
            202,
        ),
        (
            "a service that is bound to another",
            token_with("s", json!({ "scope": scope, "organizationId": "o2" })),
            403,
        ),
        (
            "one that is bound to several",
            token_with("s", json!({ "scope": scope, "organizations": ["o2", "o1"] })),
            202,
        ),
        (
            "one that is bound to others",
            token_with("s", json!({ "scope": scope, "organizations": ["o2"] })),
            403,
        ),
        (
            "a member of it, by a token for another",
            token_with("u1", json!({ "scope": scope, "organizationId": "o2" })),
            403,
        ),
        ("a service without bounds", service(), 202),
    ];
    for (who, token, status) in tokens {
        let mut request = Request::new("POST", PATH).json(&body(1));
        if !token.is_empty() {
            request = request.bearer(&token);
        }
        let answer = request.fetch(app.address).await;
        assert_eq!(answer.head.status, status, "{who}: {}", answer.body);
    }
    // An organization that does not exist looks like one that is not the caller's.
    let missing = json!({ "organizationId": "none", "type": "t", "data": 1 });
    let foreign = json!({ "organizationId": "o2", "type": "t", "data": 1 });
    let token = token_with("u1", json!({ "scope": scope }));
    assert_eq!(post(&app, &token, &missing).await.body, post(&app, &token, &foreign).await.body);
}

#[tokio::test]
async fn a_cookie_emits_only_from_an_origin_that_may_and_browsers_may_ask_first() {
    let app = TestApp::builder()
        .config(|config| {
            config.access.cookie = Some("session".to_owned());
            config.http.allowed_origins = vec!["https://app.example.com".to_owned()];
        })
        .start()
        .await;
    let bound = token_with("importer", json!({ "scope": "walcast:emit", "organizationId": "o1" }));
    let cookie = format!("session={bound}");
    let from = |origin: &str| {
        Request::new("POST", PATH).header("Cookie", &cookie).header("Origin", origin).json(&body(1))
    };
    let refused = from("https://evil.example").fetch(app.address).await;
    assert_eq!(refused.error(), (403, "origin_not_allowed".to_owned()));
    let taken = from("https://app.example.com").fetch(app.address).await;
    assert_eq!(taken.head.status, 202, "{}", taken.body);
    assert_eq!(taken.head.header("access-control-allow-origin"), Some("https://app.example.com"));
    // Without bounds it is good in the header that services use, and nowhere else.
    let unbound =
        Request::new("POST", format!("{PATH}?token={}", service())).json(&body(1)).fetch(app.address).await;
    assert_eq!(unbound.error().0, 403);
    let preflight = Request::new("OPTIONS", PATH)
        .header("Origin", "https://app.example.com")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization, content-type, idempotency-key")
        .fetch(app.address)
        .await;
    assert_eq!(preflight.head.status, 204);
    let allowed = |name: &str| preflight.head.header(name).unwrap_or_default().to_owned();
    assert!(allowed("access-control-allow-methods").contains("POST"));
    assert!(allowed("access-control-allow-headers").contains("idempotency-key"));
}

#[tokio::test]
pub async fn a_key_stands_for_one_event_however_often_and_at_once_it_is_asked_for() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.sql("insert into organizations (id, name, plan) values ('o2', 'Two', 'free')").await;
    let mut stream = app.open(&member, "").await;
    let keyed = |key: &str, body: &Value| request(&service(), body).header("Idempotency-Key", key);
    let asked = (0..12).map(|_| keyed("k1", &body(json!({ "a": 1, "b": 2 }))).fetch(app.address));
    let answers = futures_util::future::join_all(asked).await;
    for answer in &answers {
        assert_eq!((answer.head.status, &answer.body), (202, &answers[0].body));
    }
    // Equal as JSON is equal.
    let spelled = r#"{"data":{"b": 2, "a": 1},"type":"import.finished","organizationId":"o1"}"#;
    let again = Request::new("POST", PATH)
        .bearer(&service())
        .header("Content-Type", "application/json")
        .header("Idempotency-Key", "k1")
        .body(spelled);
    assert_eq!(again.fetch(app.address).await.body, answers[0].body);
    let other = keyed("k1", &body(2)).fetch(app.address).await;
    assert_eq!(other.error(), (422, "idempotency_key_reused".to_owned()));
    // Another subject's and another organization's key of the same name are others.
    let theirs = token_with("exporter", json!({ "scope": "walcast:emit" }));
    let answer = request(&theirs, &body(3)).header("Idempotency-Key", "k1").fetch(app.address).await;
    assert_eq!(answer.head.status, 202);
    let mut elsewhere = body(4);
    elsewhere["organizationId"] = json!("o2");
    assert_eq!(keyed("k1", &elsewhere).fetch(app.address).await.head.status, 202);
    // A refused event does not use up its key.
    assert_eq!(keyed("k2", &body("\u{0}")).fetch(app.address).await.head.status, 400);
    assert_eq!(keyed("k2", &body(5)).fetch(app.address).await.head.status, 202);
    let seen = stream.events_until(|event| event.json()["data"] == 5).await;
    let data: Vec<_> = seen.iter().map(|event| event.json()["data"].clone()).collect();
    assert_eq!(data, [json!({ "a": 1, "b": 2 }), json!(3), json!(5)]);
    // A day later it stands for nothing, and what is old is taken away by what comes.
    app.sql("update walcast.idempotency set created_at = now() - interval '25 hours'").await;
    assert_eq!(keyed("k1", &body(6)).fetch(app.address).await.head.status, 202);
    assert_eq!(stream.event().await.json()["data"], 6);
    assert_eq!(app.text("select count(*) from walcast.idempotency").await, "1");
    for wrong in ["", "a b", &"x".repeat(256)] {
        let answer = keyed(wrong, &body(7)).fetch(app.address).await;
        assert_eq!(answer.error().0, 400, "{wrong:?}");
    }
}

#[tokio::test]
async fn with_the_database_away_an_event_is_refused_in_bounded_time_and_taken_when_it_is_back() {
    let url = server::database().await;
    let (proxy, through) = proxied(&url).await;
    let app = TestApp::builder().on(url).through(through).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    assert_eq!(post(&app, &service(), &body(0)).await.head.status, 202);
    proxy.cut();
    let began = std::time::Instant::now();
    let keyed = || request(&service(), &body(1)).header("Idempotency-Key", "k");
    let answer = keyed().fetch(app.address).await;
    assert_eq!(answer.head.status, 503, "{}", answer.body);
    assert!(answer.head.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    proxy.restore();
    eventually("events are taken again", || async {
        (keyed().fetch(app.address).await.head.status == 202).then_some(())
    })
    .await;
    assert_eq!(post(&app, &service(), &body(2)).await.head.status, 202);
    let seen = stream.events_until(|event| event.json()["data"] == 2).await;
    assert_eq!(seen.iter().map(|event| event.json()["data"].clone()).collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test]
async fn a_role_that_may_not_emit_is_told_to_callers_and_by_readiness_until_it_may() {
    let mut app = TestApp::start().await;
    app.member("o1", "u1", "admin").await;
    app.stop().await;
    let role = format!("{}_worker", app.dsn.database);
    app.sql(&format!("create role {role} login replication password 'secret'")).await;
    let mut setup = crate::bench::process::command(&app.url);
    let done = setup.args(["setup", "--reference", "--role", &role]).output().await.expect("setup");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let dsn = Dsn { user: role.clone(), ..app.dsn.clone() };
    let worker = walcast::app::App::start(app.config.clone(), dsn, true).await.expect("a worker");
    app.address = worker.address();
    app.ready().await;
    let keyed = || request(&service(), &body(1)).header("Idempotency-Key", "k");
    assert_eq!(keyed().fetch(app.address).await.head.status, 202, "setup grants what it takes");
    assert_eq!(post(&app, &service(), &body(2)).await.head.status, 202);

    let functions = "walcast.emit(text, text, jsonb, text, jsonb, jsonb)";
    app.sql(&format!("revoke execute on function {functions} from {role}")).await;
    let refused = post(&app, &service(), &body(3)).await;
    assert_eq!(refused.error(), (503, "emit_not_allowed".to_owned()));
    let told = app.degraded("walcast setup --role").await;
    assert!(told.contains("GRANT EXECUTE"), "{told}");
    app.sql(&format!("grant execute on function {functions} to {role}")).await;
    assert_eq!(post(&app, &service(), &body(4)).await.head.status, 202);
    app.undegraded().await;
    worker.stop().await.expect("a graceful stop");
    app.sql(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn one_caller_with_too_much_in_hand_is_asked_to_wait_and_others_are_not() {
    let app = TestApp::start().await;
    app.member("o1", "u1", "admin").await;
    // Bodies that never end: each is in hand for as long as it may take to come.
    let mut held = Vec::new();
    for _ in 0..16 {
        let text = format!(
            "POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: 100\r\nExpect: 100-continue\r\n\r\n",
            service()
        );
        let mut socket = tokio::net::TcpStream::connect(app.address).await.expect("the worker listens");
        tokio::io::AsyncWriteExt::write_all(&mut socket, text.as_bytes()).await.expect("it is taken");
        let mut go_on = [0; 25];
        tokio::io::AsyncReadExt::read_exact(&mut socket, &mut go_on).await.expect("its body is asked for");
        held.push(socket);
    }
    let answer = post(&app, &service(), &body(1)).await;
    assert_eq!(answer.error(), (429, "too_many_requests".to_owned()));
    assert!(answer.head.header("retry-after").is_some());
    let other = token_with("exporter", json!({ "scope": "walcast:emit" }));
    assert_eq!(post(&app, &other, &body(2)).await.head.status, 202);
    // They are given up, and told so.
    for socket in &mut held {
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(socket, &mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert_eq!(post(&app, &service(), &body(3)).await.head.status, 202);
}

#[tokio::test]
async fn a_token_that_names_organizations_emits_nowhere_else_when_its_user_is_no_member_any_more() {
    let app = TestApp::start().await;
    let member: Member = app.member("o1", "u1", "admin").await;
    let revoked = token_with("u1", json!({ "scope": "walcast:emit", "organizationId": "o9" }));
    app.sql("delete from memberships where user_id = 'u1'").await;
    eventually("the membership is gone", || async {
        (app.connect(&member, "").await.head.status == 403).then_some(())
    })
    .await;
    assert_eq!(post(&app, &revoked, &body(1)).await.error().0, 403);
}

#[tokio::test]
async fn where_emitters_are_named_nobody_else_emits_beyond_their_memberships() {
    let app = TestApp::builder()
        .config(|config| config.access.emitters = vec!["importer".to_owned(), "bot".to_owned()])
        .start()
        .await;
    app.member("o1", "u1", "admin").await;
    app.member("o2", "bot", "member").await;
    let token = |subject: &str| token_with(subject, json!({ "scope": "walcast:emit" }));
    let status = async |token: &str| post(&app, token, &body(1)).await.head.status;
    assert_eq!(status(&service()).await, 202);
    assert_eq!(status(&token("bot")).await, 202, "also who is a member of something");
    assert_eq!(status(&token("u1")).await, 202, "where they are a member");
    assert_eq!(status(&token("exporter")).await, 403);
    let named = token_with("exporter", json!({ "scope": "walcast:emit", "organizationId": "o1" }));
    assert_eq!(status(&named).await, 202);
    let elsewhere = token_with("importer", json!({ "scope": "walcast:emit", "organizationId": "o2" }));
    assert_eq!(status(&elsewhere).await, 403, "what a token names is its bound, whoever it is of");
    let in_url = Request::new("POST", format!("{PATH}?token={}", service())).json(&body(1));
    assert_eq!(in_url.fetch(app.address).await.head.status, 403);
    // Who loses their last membership emits nowhere, instead of everywhere.
    app.sql("delete from memberships where user_id = 'u1'").await;
    eventually("the membership is gone", || async { (status(&token("u1")).await == 403).then_some(()) })
        .await;
    // A member of just now is one at once.
    for number in 0..20 {
        let user = format!("new{number}");
        app.member("o1", &user, "member").await;
        assert_eq!(status(&token(&user)).await, 202);
    }
}
