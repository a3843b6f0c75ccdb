//! Who is let in: keys and claims, limits, presets' caps, a database that is away, what proxies and browsers add.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use walcast::config::WhenFull;

use crate::bench::app::{JWT_SECRET, Member, TestApp, token_with};
use crate::bench::eventually;
use crate::bench::http::Request;
use crate::bench::proxy::proxied;
use crate::bench::server;
use crate::bench::sse::{Frame, Stream};

fn key_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/access/authenticator/fixtures").join(name)
}

fn native(token: &str) -> Request {
    Request::get("/api/realtime/stream?organizationId=o1").bearer(token)
}

#[tokio::test]
async fn every_configured_algorithm_is_taken_and_nothing_beside_it() {
    let app = TestApp::builder()
        .config(|config| {
            let names = ["rsa.public.pem", "p256.public.pem", "ed25519.public.pem"];
            config.access.jwt_public_keys = names.map(key_file).into();
            config.access.issuer = Some("https://issuer.example.com".to_owned());
            config.access.audience = Some("walcast".to_owned());
        })
        .start();
    // The builder's own members would need the issuer too: the membership is written and awaited here.
    let app = app.await;
    app.sql(
        "insert into organizations (id, name, plan) values ('o1', 'One', 'free');
         insert into users (id, email, name) values ('u1', 'u1@example.com', 'u1');
         insert into memberships (organization_id, user_id, role) values ('o1', 'u1', 'admin')",
    )
    .await;
    let claims = |change: Value| -> Value {
        let text =
            token_with("u1", json!({ "iss": "https://issuer.example.com", "aud": ["other", "walcast"] }));
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
        validation.validate_aud = false;
        let key = jsonwebtoken::DecodingKey::from_secret(JWT_SECRET.as_bytes());
        let mut claims: Value = jsonwebtoken::decode(&text, &key, &validation).expect("claims").claims;
        for (name, value) in change.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        claims
    };
    let private = |name: &str| std::fs::read(key_file(name)).expect("a fixture");
    let secret = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    let sign = |header: &Header, change: Value, key: &EncodingKey| {
        encode(header, &claims(change), key).expect("a token")
    };
    let status = async |token: &str| Stream::open(app.address, native(token)).await.head.status;

    let hs256 = Header::new(Algorithm::HS256);
    let good = sign(&hs256, json!({}), &secret);
    eventually("the membership is known", || async { (status(&good).await == 200).then_some(()) }).await;
    for (algorithm, key) in [
        (Algorithm::RS256, EncodingKey::from_rsa_pem(&private("rsa.private.pem"))),
        (Algorithm::ES256, EncodingKey::from_ec_pem(&private("p256.private.pem"))),
        (Algorithm::EdDSA, EncodingKey::from_ed_pem(&private("ed25519.private.pem"))),
    ] {
        let token = sign(&Header::new(algorithm), json!({}), &key.expect("a key"));
        assert_eq!(status(&token).await, 200, "{algorithm:?}");
    }
    let rsa = EncodingKey::from_rsa_pem(&private("rsa.private.pem")).expect("a key");
    let public_as_secret = EncodingKey::from_secret(&private("rsa.public.pem"));
    let critical = Header { crit: Some(vec!["b64".to_owned()]), ..hs256.clone() };
    let now = jsonwebtoken::get_current_timestamp();
    for (why, token) in [
        ("the public key as an HMAC secret", sign(&hs256, json!({}), &public_as_secret)),
        (
            "an algorithm of the same key that is not configured",
            sign(&Header::new(Algorithm::RS512), json!({}), &rsa),
        ),
        ("a header that must be understood", sign(&critical, json!({}), &secret)),
        ("another issuer", sign(&hs256, json!({ "iss": "https://evil.example.com" }), &secret)),
        ("no issuer", sign(&hs256, json!({ "iss": null }), &secret)),
        ("another audience", sign(&hs256, json!({ "aud": "other" }), &secret)),
        ("no audience", sign(&hs256, json!({ "aud": null }), &secret)),
        ("this very second", sign(&hs256, json!({ "exp": now }), &secret)),
        ("not yet", sign(&hs256, json!({ "nbf": now + 30 }), &secret)),
        ("no user", sign(&hs256, json!({ "sub": "" }), &secret)),
    ] {
        let answer = native(&token).fetch(app.address).await;
        let expected = if why == "this very second" { "token_expired" } else { "invalid_token" };
        assert_eq!(answer.error(), (401, expected.to_owned()), "{why}");
    }
}

#[tokio::test]
async fn with_the_database_away_for_too_long_nobody_new_is_let_in_and_who_is_in_stays() {
    let url = server::database().await;
    let (proxy, through) = proxied(&url).await;
    let app = TestApp::builder()
        .on(url)
        .config(|config| config.access.max_staleness = Duration::from_secs(1))
        .through(through)
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let mut inside = app.open(&member, "").await;
    proxy.cut();
    let refused = eventually("the worker is stale", || async {
        let stream = Stream::open(app.address, native(&member.token)).await;
        (stream.head.status == 503).then_some(())?;
        Some(native(&member.token).fetch(app.address).await)
    })
    .await;
    assert_eq!(refused.error(), (503, "stale".to_owned()));
    assert!(refused.head.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()));
    assert_eq!(app.get("/readyz").await.body, "source_down");
    // A browser would give up for good at any status but 200.
    let browser = native(&member.token).header("Accept", "text/event-stream").fetch(app.address).await;
    assert_eq!((browser.head.status, browser.head.header("content-type")), (200, Some("text/event-stream")));
    assert!(browser.body.contains("retry: ") && !browser.body.contains("data:"), "{}", browser.body);
    // What will not pass by itself is a status, whoever asks.
    let stranger = native("x").header("Accept", "text/event-stream").fetch(app.address).await;
    assert_eq!(stranger.error().0, 401);
    proxy.restore();
    app.ready().await;
    app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'still.here', '1')").await;
    assert_eq!(inside.event().await.event_type().as_deref(), Some("still.here"));
}

#[tokio::test]
async fn a_preset_shows_its_channels_and_no_other_may_be_asked_for() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let open = async |path: &str| {
        let mut stream = Stream::open(app.address, Request::get(path).bearer(&member.token)).await;
        let connected = stream.data().await.json();
        (stream, connected["channels"].clone())
    };
    let (mut dashboard, channels) = open("/api/sse/dashboard?organizationId=o1&statuses=x&_=1&_=2").await;
    assert_eq!(channels, json!(["alerts", "custom", "lots", "violations"]));
    let (mut narrowed, channels) = open("/api/sse/dashboard?channel=lots,custom&parkingLotId=l1").await;
    assert_eq!(channels, json!(["custom", "lots"]));
    app.sql("insert into devices (organization_id, name, model, status) values ('o1', 'D', 'M', 'ONLINE')")
        .await;
    for id in ["l2", "l1"] {
        app.sql(&format!(
            "insert into lots (id, organization_id, name, total_slots, occupied) values ('{id}', 'o1', 'L', 1, 0)"
        ))
        .await;
    }
    for id in ["l2", "l1"] {
        assert_eq!(dashboard.event().await.json()["data"]["parkingLotId"], id);
    }
    assert_eq!(narrowed.event().await.json()["data"]["parkingLotId"], "l1");
    for query in
        ["channel=devices", "channel=lots,devices", "organizationId=o1&organizationId=o1", "keepalive=x"]
    {
        let answer = Request::get(format!("/api/sse/dashboard?{query}"))
            .bearer(&member.token)
            .fetch(app.address)
            .await;
        assert_eq!(answer.error(), (400, "bad_request".to_owned()), "{query}");
    }
    // The same answer wherever one asks.
    let foreign = Request::get("/api/sse/dashboard?organizationId=nowhere").bearer(&member.token);
    assert_eq!(
        foreign.fetch(app.address).await.body,
        Request::get("/api/realtime/stream?organizationId=o9")
            .bearer(&member.token)
            .fetch(app.address)
            .await
            .body
    );
}

#[tokio::test]
async fn limits_are_429_with_a_time_to_come_back() {
    let app = TestApp::builder()
        .config(|config| {
            config.limits.streams_per_address = 2;
            config.http.trusted_proxies = vec!["127.0.0.1".to_owned()];
        })
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let from = |client: &str| native(&member.token).header("X-Forwarded-For", client);
    let mut open = Vec::new();
    for _ in 0..2 {
        let stream = Stream::open(app.address, from("9.9.9.9, 10.0.0.1")).await;
        assert_eq!(stream.head.status, 200);
        open.push(stream);
    }
    // What a client writes before its own address does not make it another.
    let refused = from("8.8.8.8, 10.0.0.1").header("Accept", "text/event-stream").fetch(app.address).await;
    assert_eq!(refused.error().0, 429, "{}", refused.body);
    assert_eq!(refused.head.header("content-type"), Some("application/json"));
    assert!(refused.head.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()));
    assert_eq!(Stream::open(app.address, from("10.0.0.2")).await.head.status, 200);
}

#[tokio::test]
async fn the_oldest_stream_of_a_full_address_makes_room_whoever_asks() {
    let app = TestApp::builder()
        .config(|config| {
            config.limits.streams_per_address = 2;
            config.limits.when_full = WhenFull::EvictOldest;
            config.http.trusted_proxies = vec!["127.0.0.1".to_owned()];
        })
        .start()
        .await;
    let (one, two) = (app.member("o1", "u1", "admin").await, app.member("o2", "u2", "admin").await);
    let from = async |member: &Member, client: &str| {
        eventually("a stream is let in", || async {
            let request = Request::get(TestApp::target(member, "")).bearer(&member.token);
            let mut stream = Stream::open(app.address, request.header("X-Forwarded-For", client)).await;
            if stream.head.status != 200 {
                return None;
            }
            (stream.data().await.event_type()? == "connected").then_some(stream)
        })
        .await
    };
    let mut elsewhere = from(&one, "10.0.0.2").await;
    let mut oldest = from(&one, "10.0.0.1").await;
    let mut second = from(&one, "10.0.0.1").await;
    let mut third = from(&two, "10.0.0.1").await;
    let farewell = oldest.rest().await;
    assert_eq!(
        farewell.last().and_then(Frame::event_type).as_deref(),
        Some("stream.evicted"),
        "{farewell:?}"
    );
    for organization in ["o1", "o2"] {
        app.sql(&format!("select walcast.emit('{organization}', 'done', '1')")).await;
    }
    for stream in [&mut elsewhere, &mut second, &mut third] {
        assert_eq!(stream.event().await.event_type().as_deref(), Some("done"));
    }
}

#[tokio::test]
async fn a_preflight_allows_what_an_event_source_with_headers_sends() {
    let app = TestApp::builder()
        .config(|config| config.http.allowed_origins = vec!["https://app.example.com".to_owned()])
        .start()
        .await;
    let ask = async |origin: &str| {
        Request::new("OPTIONS", "/api/sse/dashboard")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET")
            .header("Access-Control-Request-Headers", "authorization,last-event-id")
            .fetch(app.address)
            .await
            .head
    };
    let allowed = ask("https://app.example.com").await;
    assert_eq!(allowed.status, 204);
    let headers = allowed.header("access-control-allow-headers").unwrap_or_default();
    assert!(
        ["authorization", "last-event-id", "cache-control"].iter().all(|name| headers.contains(name)),
        "{headers}"
    );
    assert!(allowed.header("access-control-allow-methods").is_some_and(|methods| methods.contains("GET")));
    let other = ask("https://app.example.com.evil.example").await;
    assert!(!other.headers.iter().any(|(name, _)| name.starts_with("access-control-")), "{other:?}");
}

#[tokio::test]
async fn methods_beside_reading_are_405_and_head_is_what_get_would_begin_with() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    for path in ["/api/sse/dashboard", "/healthz", "/readyz", "/metrics", "/"] {
        let refused = Request::new("PATCH", path).fetch(app.address).await;
        assert_eq!(refused.error(), (405, "method_not_allowed".to_owned()), "{path}");
        assert!(refused.head.header("allow").is_some_and(|allow| allow.contains("GET")), "{path}");
    }
    let head = |token: &str| Request::new("HEAD", "/api/sse/dashboard").bearer(token);
    let good = head(&member.token).fetch(app.address).await.head;
    assert_eq!((good.status, good.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(head("x").fetch(app.address).await.head.status, 401);
}

#[tokio::test]
async fn metrics_and_reasons_are_for_this_machine_or_the_scope() {
    let app = TestApp::start().await;
    let reader = token_with("operator", json!({ "scope": "other walcast:stats" }));
    let nobody = token_with("operator", json!({ "scope": "walcast:emit" }));
    for path in ["/metrics", "/readyz/reasons"] {
        assert_eq!(app.get(path).await.head.status, 200, "{path}");
        for name in ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"] {
            let from_afar = || Request::get(path).header(name, "127.0.0.1");
            assert_eq!(from_afar().fetch(app.address).await.error().0, 401, "{path} {name}");
            assert_eq!(from_afar().bearer(&nobody).fetch(app.address).await.error().0, 403, "{path} {name}");
            assert_eq!(
                from_afar().bearer(&reader).fetch(app.address).await.head.status,
                200,
                "{path} {name}"
            );
        }
    }
}
