//! What a request is answered: statuses, bodies, headers, first frames.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::app::{JWT_SECRET, Member, TestApp, token_with};
use crate::bench::http::Request;
use crate::bench::sse::Stream;

fn native(parameters: &str) -> Request {
    Request::get(format!("/api/realtime/stream?{parameters}")).header("Accept", "text/event-stream")
}

#[tokio::test]
async fn the_first_frame_is_connected_and_the_head_keeps_proxies_from_buffering() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.connect(&member, "&channel=lots,devices").await;
    assert_eq!(stream.head.status, 200);
    let header = |name: &str| stream.head.header(name).map(str::to_owned);
    assert_eq!(header("content-type").as_deref(), Some("text/event-stream"));
    assert_eq!(header("cache-control").as_deref(), Some("no-cache, no-transform"));
    assert_eq!(header("x-accel-buffering").as_deref(), Some("no"));
    let frame = stream.frame().await.expect("connected");
    assert_eq!(frame.retry, Some(2000));
    assert!(frame.id.is_some());
    let connected = frame.json();
    let id = connected["connectionId"].as_str().expect("an id").to_owned();
    let fields = json!({
        "connectionId": id, "clientId": id, "organizationId": "o1",
        "organization": { "id": "o1", "name": "Org o1", "role": "admin" },
        "channels": ["devices", "lots"], "resumed": false, "message": "Real-time connection established",
    });
    assert_eq!(connected["type"], "connected");
    assert!(connected["timestamp"].is_i64());
    let sorted = |channels: &Value| {
        let mut names: Vec<_> = channels.as_array().expect("a list").clone();
        names.sort_by_key(ToString::to_string);
        Value::from(names)
    };
    for place in [&connected, &connected["data"]] {
        for (name, expected) in fields.as_object().expect("fields") {
            let got = if name == "channels" { sorted(&place[name]) } else { place[name].clone() };
            assert_eq!(got, *expected, "{name} in {connected}");
        }
    }
}

#[tokio::test]
async fn a_missing_or_bad_credential_is_401_and_never_a_fall_back() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let good = &member.token;
    let expired = token_with("u1", json!({ "exp": 1 }));
    let endless = {
        let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &json!({ "sub": "u1" }), &key)
            .expect("a token")
    };
    let forged = {
        let key = jsonwebtoken::EncodingKey::from_secret(b"some other secret of enough length!!");
        let claims = json!({ "sub": "u1", "exp": 4_102_444_800_u64 });
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")
    };
    // {"alg":"none"} over the same claims.
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", good.split('.').nth(1).expect("claims"));
    let swapped =
        format!("{}.{}", good.rsplit_once('.').expect("signed").0, forged.rsplit_once('.').expect("s").1);
    for bad in [&expired, &endless, &forged, &none, &swapped, "x", "", "a.b.c"] {
        let answers = [
            native("organizationId=o1").bearer(bad),
            native(&format!("organizationId=o1&token={bad}")),
            native(&format!("organizationId=o1&token={good}")).bearer(bad),
        ];
        for request in answers {
            let answer = request.fetch(app.address).await;
            assert_eq!(answer.head.status, 401, "{bad:?}: {}", answer.body);
            assert_eq!(answer.head.header("content-type"), Some("application/json"), "{bad:?}");
            assert!(bad.len() < 4 || !answer.body.contains(bad), "a token is never said back");
        }
    }
    assert_eq!(native("organizationId=o1").fetch(app.address).await.head.status, 401);
    let mut by_query = Stream::open(app.address, native(&format!("organizationId=o1&token={good}"))).await;
    assert_eq!(by_query.data().await.event_type().as_deref(), Some("connected"));
}

#[tokio::test]
async fn a_bad_parameter_is_400_and_says_which_and_what_is_allowed() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    for (parameters, names) in [
        ("", &["organizationId"][..]),
        ("organizationId=o1&channel=nope", &["channel", "nope", "devices"]),
        ("organizationId=o1&types=a%20b", &["types"]),
        ("organizationId=o1&unheard=1", &["unheard"]),
        ("organizationId=o1&organizationId=o2", &["organizationId"]),
        ("organizationId=o1&since=yesterday", &["since"]),
    ] {
        let answer = native(parameters).bearer(&member.token).fetch(app.address).await;
        assert_eq!(answer.error().0, 400, "{parameters}: {}", answer.body);
        let message = answer.json()["message"].as_str().expect("a message").to_owned();
        assert!(names.iter().all(|name| message.contains(name)), "{parameters}: {message}");
    }
}

#[tokio::test]
async fn an_empty_id_is_absent_and_an_unreadable_one_is_told() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&lastEventId=").await;
    app.sql("select walcast.emit('o1', 'a', '1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("a"));
    for id in ["nonsense", "1.2.3", "0000000000000000.1.1"] {
        let mut stream = app.open(&member, &format!("&lastEventId={id}")).await;
        let told = stream.data().await.json();
        assert_eq!(told["type"], "data.sync", "{told}");
        assert_eq!(told["data"]["reason"], "history_reset");
        assert!(told["data"]["delayMs"].is_u64());
    }
}

#[tokio::test]
async fn the_header_names_the_start_before_the_parameter_does() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.transaction("select walcast.emit('o1', 'a', '1'); select walcast.emit('o1', 'b', '2')").await;
    let first = stream.event().await.id.expect("an id");
    let second = stream.event().await.id.expect("an id");
    app.sql("select walcast.emit('o1', 'c', '3')").await;
    stream.event().await;
    let request = native(&format!("organizationId=o1&lastEventId={second}&since=earliest"))
        .bearer(&member.token)
        .header("Last-Event-ID", &first);
    let mut resumed = Stream::open(app.address, request).await;
    assert_eq!(resumed.data().await.json()["resumed"], true);
    assert_eq!(resumed.event().await.event_type().as_deref(), Some("b"));
    let since = app.open(&member, &format!("&since={second}")).await.event().await;
    assert_eq!(since.event_type().as_deref(), Some("c"));
    let since = app.open(&member, "&since=5m").await.event().await;
    assert!(since.event_type().is_some());
}

#[tokio::test]
async fn filters_are_and_between_names_and_or_within_one() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream =
        app.open(&member, "&channel=devices,telemetry&deviceId=d1,d2&types=new_device,new_telemetry").await;
    let device = |id: &str| {
        format!(
            "insert into devices (id, organization_id, name, model, status)
               values ('{id}', 'o1', '{id}', 'M', 'ONLINE');
             update devices set status = 'OFFLINE' where id = '{id}';
             insert into device_telemetry (organization_id, device_id, event_type) values ('o1', '{id}', 'boot');"
        )
    };
    app.sql(&device("d3")).await;
    app.sql(&device("d1")).await;
    app.sql("insert into lots (organization_id, name, total_slots, occupied) values ('o1', 'L', 1, 0)").await;
    app.sql(&device("d2")).await;
    for (event_type, id) in
        [("new_device", "d1"), ("new_telemetry", "d1"), ("new_device", "d2"), ("new_telemetry", "d2")]
    {
        let event = stream.event().await.json();
        assert_eq!((&event["type"], &event["data"]["deviceId"]), (&json!(event_type), &json!(id)));
    }
}

#[tokio::test]
async fn a_row_is_seen_leaving_a_filter() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut open = app.open(&member, "&channel=issues&status=open&types=issue:created,issue:updated").await;
    app.sql("insert into issues (id, organization_id, category, priority, status, title, description, reporter_id)
             values ('i1', 'o1', 'c', 'low', 'open', 't', 'd', 'u1')").await;
    app.sql("update issues set status = 'closed' where id = 'i1'").await;
    app.sql("update issues set title = 'unseen' where id = 'i1'").await;
    app.sql("update issues set status = 'open' where id = 'i1'").await;
    for status in ["open", "closed", "open"] {
        assert_eq!(open.event().await.json()["data"]["issue"]["status"], status);
    }
}

#[tokio::test]
async fn presets_speak_as_their_front_ends_expect() {
    let app =
        TestApp::builder().config(|config| config.http.keepalive = Duration::from_secs(1)).start().await;
    let member = app.member("o1", "u1", "admin").await;
    // The only organization of the user, and parameters that the preset does not know.
    let keepalives = [
        ("/api/realtime", r#"{"type":"keepalive","timestamp":"#),
        ("/api/events", r#"{"type":"heartbeat","data":{},"timestamp":"#),
        ("/api/sse/dashboard", r#"{"type":"ping","data":{"timestamp":""#),
        ("/api/realtime/issues/stream", ""),
    ];
    for (path, keepalive) in keepalives {
        let request = Request::get(format!("{path}?unknown=1")).bearer(&member.token);
        let mut stream = Stream::open(app.address, request).await;
        assert_eq!(stream.head.status, 200, "{path}");
        assert_eq!(stream.data().await.event_type().as_deref(), Some("connected"), "{path}");
        let quiet = stream.frame().await.expect("a keepalive");
        match quiet.data {
            Some(data) => assert!(!keepalive.is_empty() && data.starts_with(keepalive), "{path}: {data}"),
            None => assert!(keepalive.is_empty() && quiet.is_comment(), "{path}: {}", quiet.raw),
        }
    }
    let request = Request::get("/api/realtime/issues/stream?priorities=high,critical").bearer(&member.token);
    let mut urgent = Stream::open(app.address, request).await;
    urgent.data().await;
    for priority in ["low", "critical"] {
        app.sql(&format!(
            "insert into issues (organization_id, category, priority, status, title, description, reporter_id)
             values ('o1', 'c', '{priority}', 'open', 't', 'd', 'u1')"
        ))
        .await;
    }
    assert_eq!(urgent.event().await.json()["data"]["issue"]["priority"], "critical");
}

#[tokio::test]
async fn an_ambiguous_organization_is_400_on_a_preset() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.member("o2", "u1", "member").await;
    let answer = Request::get("/api/events").bearer(&member.token).fetch(app.address).await;
    assert_eq!(answer.error().0, 400, "{}", answer.body);
    let claimed = token_with("u1", json!({ "organizationId": "o2" }));
    let mut stream = Stream::open(app.address, Request::get("/api/events").bearer(&claimed)).await;
    assert_eq!(stream.data().await.json()["organizationId"], "o2");
}

#[tokio::test]
async fn the_eleventh_stream_of_a_user_is_429_and_a_closed_one_makes_room() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let other = app.member("o1", "u2", "admin").await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(app.open(&member, "").await);
    }
    let refused = native("organizationId=o1").bearer(&member.token).fetch(app.address).await;
    assert_eq!(refused.error().0, 429, "{}", refused.body);
    assert!(refused.head.header("retry-after").is_some(), "{:?}", refused.head);
    app.open(&other, "").await;
    streams.pop();
    crate::bench::eventually("room", || async {
        (app.connect(&member, "").await.head.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn listed_origins_may_read_errors_too_and_others_may_not() {
    let app = TestApp::builder()
        .config(|config| config.http.allowed_origins = vec!["https://app.example.com".to_owned()])
        .start()
        .await;
    let ask = async |method, origin: &str| {
        Request::new(method, "/api/realtime/stream?organizationId=o1")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET")
            .fetch(app.address)
            .await
            .head
    };
    let listed = ask("GET", "https://app.example.com").await;
    assert_eq!(listed.status, 401);
    assert_eq!(listed.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(listed.header("access-control-allow-credentials"), Some("true"));
    assert!(listed.header("vary").is_some_and(|vary| vary.to_lowercase().contains("origin")));
    let other = ask("GET", "https://evil.example.com").await;
    assert_eq!(other.header("access-control-allow-origin"), None);
    let preflight = ask("OPTIONS", "https://app.example.com").await;
    assert_eq!(
        (preflight.status, preflight.header("access-control-allow-origin")),
        (204, Some("https://app.example.com"))
    );
}

#[tokio::test]
async fn a_cookie_counts_from_its_own_origin_alone() {
    let app =
        TestApp::builder().config(|config| config.access.cookie = Some("session".to_owned())).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let cookie = format!("theme=dark; session={}", member.token);
    let ask = async |headers: &[(&str, &str)]| {
        let mut request = native("organizationId=o1").header("Cookie", &cookie);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        Stream::open(app.address, request).await.head.status
    };
    let own = format!("http://{}", app.address);
    assert_eq!(ask(&[]).await, 200);
    assert_eq!(ask(&[("Origin", &own)]).await, 200);
    assert_eq!(ask(&[("Sec-Fetch-Site", "same-origin")]).await, 200);
    assert_eq!(ask(&[("Origin", "https://evil.example.com")]).await, 403);
    assert_eq!(ask(&[("Sec-Fetch-Site", "cross-site")]).await, 403);
}

#[tokio::test]
async fn a_stream_ends_at_its_tokens_expiry() {
    let app = TestApp::start().await;
    app.member("o1", "u1", "admin").await;
    let mut stream = loop {
        let now = jsonwebtoken::get_current_timestamp();
        let token = token_with("u1", json!({ "exp": now + 2 }));
        let stream = app.connect(&Member { organization: "o1".to_owned(), token }, "").await;
        if stream.head.status == 200 {
            break stream;
        }
        // It was over on the way.
        assert_eq!(stream.head.status, 401);
    };
    let last = stream.rest().await.pop().expect("a farewell").json();
    assert_eq!((&last["type"], &last["data"]), (&json!("token.expired"), &json!({})));
}

#[tokio::test]
async fn health_readiness_and_metrics_answer() {
    let app = TestApp::start().await;
    for path in ["/healthz", "/health"] {
        assert_eq!(app.get(path).await.head.status, 200, "{path}");
    }
    let ready = app.get("/readyz").await;
    assert_eq!((ready.head.status, ready.body.trim()), (200, "ready"));
    let metrics = app.get("/metrics").await;
    assert_eq!(metrics.head.status, 200);
    assert!(metrics.body.contains("walcast_"), "{}", metrics.body);
    let page = app.get("/").await;
    assert_eq!(page.head.status, 200);
    assert!(page.body.contains("EventSource"));
    let absent = app.get("/nowhere").await;
    assert_eq!(absent.error().0, 404);
}

#[tokio::test]
async fn metrics_count_the_bytes_of_appended_frames() {
    async fn counted(app: &TestApp) -> usize {
        let metrics = app.get("/metrics").await.body;
        let value = metrics.lines().find_map(|line| line.strip_prefix("walcast_event_bytes_total "));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no such metric in {metrics}"))
    }
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    // What the member's own row made is behind a stream that starts now.
    let mut stream = app.open(&member, "").await;
    let before = counted(&app).await;
    app.sql("select walcast.emit('o1', 'counted', '{\"of\": 1}')").await;
    let bytes = stream.event().await.raw.len();
    assert_eq!(counted(&app).await, before + bytes);
}

#[tokio::test]
async fn malformed_requests_stop_nobody_else() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let endless = "x".repeat(200_000);
    for bytes in [
        "\r\n\r\n\0\0\0".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        format!("GET /{endless} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {endless}\r\n\r\n"),
        "GET /api/realtime/stream?organizationId=%ff%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            .to_owned(),
    ] {
        let mut socket = tokio::net::TcpStream::connect(app.address).await.expect("the worker listens");
        // It may hang up before it has read everything.
        let _ = socket.write_all(bytes.as_bytes()).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(crate::bench::PATIENCE, socket.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection ends after {bytes:.40?}");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{bytes:.40?}");
        assert!(!answer.starts_with(b"HTTP/1.1 5"), "{bytes:.40?}: {}", String::from_utf8_lossy(&answer));
    }
    app.sql("select walcast.emit('o1', 'still.here', '1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("still.here"));
}
