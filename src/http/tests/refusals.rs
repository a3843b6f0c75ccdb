//! What is refused, and how.

use std::time::Duration;

use super::bench::{Bench, sign, token};
use super::client::zeroed;
use crate::config::WhenFull;
use crate::http::state::Phase as ServerPhase;
use crate::telemetry::Phase;

/// An answer in JSON, as the server writes it.
fn json(status: &str, extra: &str, code: &str, message: &str) -> String {
    let body = format!("{{\"error\":\"{code}\",\"message\":\"{message}\"}}");
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n{extra}\
         x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\nvary: Origin\r\ncontent-length: {length}\r\nconnection: close\r\n\
         date: D\r\n\r\n{body}"
    )
}

const STREAM: &str = "/api/realtime/stream?organizationId=a";

#[tokio::test]
async fn nobody_is_told_what_is_wrong_with_their_token() {
    let bench = Bench::new().await;
    let bearer = "www-authenticate: Bearer\r\n";
    let unauthorized = |code, message| json("401 Unauthorized", bearer, code, message);
    assert_eq!(
        bench.ask("GET", STREAM, &[]).await,
        unauthorized(
            "unauthorized",
            "a token is needed: Authorization: Bearer, or the parameter token or ticket"
        )
    );
    let invalid = unauthorized("invalid_token", "the token is not valid");
    assert_eq!(bench.ask("GET", &format!("{STREAM}&token=x"), &[]).await, invalid);
    let forged = format!("{}A", token("u"));
    assert_eq!(bench.ask("GET", &format!("{STREAM}&token={forged}"), &[]).await, invalid);
    let ticket = format!("{STREAM}&ticket=t&token={}", token("u"));
    assert_eq!(bench.ask("GET", &ticket, &[]).await, invalid);
    // The bad one decides, whatever good one stands behind it.
    let good = format!("{STREAM}&token={}", token("u"));
    assert_eq!(bench.ask("GET", &good, &[("authorization", "Bearer x")]).await, invalid);
    let expired = format!("{STREAM}&token={}", sign("u", 0, &["a"], ""));
    assert_eq!(bench.ask("GET", &expired, &[]).await, unauthorized("token_expired", "the token has expired"));
}

#[tokio::test]
async fn who_is_nobody_learns_nothing_of_the_parameters() {
    let bench = Bench::new().await;
    let answer = bench.ask("GET", "/api/realtime/stream?channel=none&x=1", &[]).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn an_organization_that_exists_and_one_that_does_not_look_the_same() {
    let bench = Bench::new().await;
    bench.publish("b", 110, "lots", &[]);
    let forbidden = json("403 Forbidden", "", "forbidden", "you may not read this, or it does not exist");
    let every = sign("u", 60, &["a", "*"], "");
    for (organization, token) in [("b", token("u")), ("none", token("u")), ("*", every)] {
        let path = format!("/api/realtime/stream?organizationId={organization}&token={token}");
        assert_eq!(bench.ask("GET", &path, &[]).await, forbidden, "{organization}");
        assert_eq!(bench.ask("GET", &path, &[("accept", "text/event-stream")]).await, forbidden);
    }
}

#[tokio::test]
async fn a_wrong_request_names_the_parameter() {
    let bench = Bench::new().await;
    let bad = |message: &str| json("400 Bad Request", "", "bad_request", message);
    let path = |rest: &str| format!("{STREAM}&token={}{rest}", token("u"));
    assert_eq!(bench.ask("GET", &path("&token=x"), &[]).await, bad("token: given more than once"));
    assert_eq!(
        bench.ask("GET", &path("&channel=none"), &[]).await,
        bad("channel: there is no channel \\\"none\\\" here; allowed are custom, issues, lots, presence")
    );
    let ambiguous = sign("u", 60, &["a", "b"], "");
    assert_eq!(
        bench.ask("GET", &format!("/issues?token={ambiguous}"), &[]).await,
        bad("organizationId: required, since the token does not say which organization")
    );
}

#[tokio::test]
async fn unknown_paths_and_methods_are_json_too() {
    let bench = Bench::new().await;
    let missing = json("404 Not Found", "", "not_found", "there is nothing at this path");
    assert_eq!(bench.ask("GET", "/api/realtime/none", &[]).await, missing);
    assert_eq!(bench.ask("DELETE", "/api/realtime/streams/1", &[]).await, missing);
    let method =
        json("405 Method Not Allowed", "", "method_not_allowed", "this path does not take this method");
    let allowing = method.replace("vary: Origin\r\n", "vary: Origin\r\nallow: GET,HEAD,OPTIONS\r\n");
    assert_eq!(bench.ask("PUT", "/issues", &[]).await, allowing);
}

#[tokio::test]
async fn a_full_limit_says_when_to_come_back() {
    let bench = Bench::with(|config| {
        config.limits.streams_per_user = 1;
        config.limits.streams_per_address = 2;
    })
    .await;
    let full = |message| json("429 Too Many Requests", "retry-after: 10\r\n", "too_many_streams", message);
    let path = |user| format!("{STREAM}&token={}", token(user));
    let first = bench.stream("").await;
    let of_user = full("you have as many streams open in this organization as one user may: 1");
    assert_eq!(bench.ask("GET", &path("u"), &[("accept", "text/event-stream")]).await, of_user);
    let second = bench.open(&path("v"), &[]).await;
    assert_eq!(
        bench.ask("GET", &path("w"), &[]).await,
        full("your address has as many streams open as one may: 2")
    );
    // A client that leaves is noticed, and its place is free.
    drop((first, second));
    bench.state.streams.ended().await;
    bench.stream("").await;
}

#[tokio::test]
async fn what_passes_by_itself_is_an_ended_stream_for_an_event_source() {
    let bench = Bench::with(|config| config.access.max_staleness = Duration::ZERO).await;
    let path = format!("{STREAM}&token={}", token("u"));
    let check = async |word: &str, message: &str| {
        let answer = bench.ask("GET", &path, &[]).await;
        assert_eq!(
            zeroed(&answer, "retry-after: "),
            json("503 Service Unavailable", "retry-after: 0\r\n", word, message)
        );
        let answer = bench.ask("GET", &path, &[("accept", "text/html, Text/Event-Stream;q=0.9")]).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"), "{head}");
        assert_eq!(zeroed(body, "retry: "), format!(": {word}\nretry: 0\n\n"));
    };
    bench.readiness.enter(Phase::Starting);
    check("starting", "the worker is starting").await;
    bench.readiness.enter(Phase::Standby);
    check("standby", "another worker is serving").await;
    bench.readiness.enter(Phase::SourceDown);
    check("stale", "the database has been away for too long to judge by what is known").await;
    bench.readiness.enter(Phase::Live);
    bench.state.phase.send_replace(ServerPhase::Draining { until: tokio::time::Instant::now() });
    check("draining", "the worker is stopping").await;
}

#[tokio::test]
async fn a_user_who_is_full_pushes_out_their_own_oldest_stream_and_nobody_elses() {
    let bench = Bench::with(|config| {
        config.limits.streams_per_user = 2;
        config.limits.when_full = WhenFull::EvictOldest;
    })
    .await;
    let mut other = bench.open(&format!("{STREAM}&token={}", token("v")), &[]).await;
    other.connected().await;
    let mut oldest = bench.stream("").await;
    let mut second = bench.stream("").await;
    let mut third = bench.stream("").await;
    let farewell = oldest.rest().await;
    let frame = "retry: 86400000\ndata: {\"type\":\"stream.evicted\",\"timestamp\":0,\"data\":{}}\n\n";
    assert_eq!(zeroed(&farewell, "\"timestamp\":"), frame);
    bench.publish("a", 110, "lots", &[]);
    for stream in [&mut other, &mut second, &mut third] {
        assert_eq!(stream.frame().await, super::bench::frame(110, ""));
    }
}

#[tokio::test]
async fn a_full_address_and_a_full_worker_push_out_the_oldest_stream_of_all() {
    for (address, worker) in [(2, 0), (0, 2)] {
        let bench = Bench::with(|config| {
            config.limits.streams_per_address = address;
            config.limits.streams = worker;
            config.limits.when_full = WhenFull::EvictOldest;
        })
        .await;
        let path = |user| format!("{STREAM}&token={}", token(user));
        let mut oldest = bench.open(&path("u"), &[]).await;
        oldest.connected().await;
        let mut second = bench.open(&path("v"), &[]).await;
        second.connected().await;
        // Who is refused pushes nobody out.
        let refused = format!("/api/realtime/stream?organizationId=none&token={}", token("w"));
        assert!(bench.ask("GET", &refused, &[]).await.starts_with("HTTP/1.1 403 "));
        bench.publish("a", 105, "lots", &[]);
        assert_eq!(oldest.frame().await, super::bench::frame(105, ""));
        let mut third = bench.open(&path("v"), &[]).await;
        third.connected().await;
        let frame = "retry: 86400000\ndata: {\"type\":\"stream.evicted\",\"timestamp\":0,\"data\":{}}\n\n";
        assert_eq!(zeroed(&oldest.rest().await, "\"timestamp\":"), frame, "{address} {worker}");
        bench.publish("a", 110, "lots", &[]);
        assert_eq!(second.frame().await, super::bench::frame(105, ""));
        for stream in [&mut second, &mut third] {
            assert_eq!(stream.frame().await, super::bench::frame(110, ""));
        }
    }
}

#[tokio::test]
async fn more_opens_than_the_rate_are_asked_to_come_back() {
    let bench = Bench::with(|config| config.limits.opens_per_second = 1).await;
    let first = bench.stream("").await;
    let path = format!("{STREAM}&token={}", token("u"));
    let answer = bench.ask("GET", &path, &[]).await;
    let message = "too many streams are being opened at once";
    let expected = json("429 Too Many Requests", "retry-after: 0\r\n", "busy", message);
    assert_eq!(zeroed(&answer, "retry-after: "), expected);
    let answer = bench.ask("GET", &path, &[("accept", "text/event-stream")]).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"), "{answer}");
    assert!(zeroed(&answer, "retry: ").ends_with("\r\n\r\n: busy\nretry: 0\n\n"), "{answer}");
    drop(first);
}

#[tokio::test]
async fn listed_origins_may_read_errors_too_and_others_nothing() {
    let bench = Bench::new().await;
    let listed = [("origin", "https://app.example.com")];
    let cors = "vary: Origin\r\naccess-control-allow-origin: https://app.example.com\r\n\
                access-control-allow-credentials: true\r\naccess-control-expose-headers: retry-after\r\n";
    for path in [STREAM, "/none"] {
        let answer = bench.ask("GET", path, &listed).await;
        assert!(answer.contains(cors), "{answer}");
        let answer = bench.ask("GET", path, &[("origin", "https://evil.example")]).await;
        assert!(answer.contains("vary: Origin\r\n") && !answer.contains("access-control"), "{answer}");
    }
    assert_eq!(
        bench.ask("OPTIONS", STREAM, &[listed[0], ("access-control-request-method", "GET")]).await,
        format!(
            "HTTP/1.1 204 No Content\r\nallow: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\n\
             x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n{cors}\
             access-control-allow-headers: authorization, cache-control, content-type, idempotency-key, last-event-id\r\n\
             access-control-max-age: 600\r\n\
             access-control-allow-methods: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\nconnection: close\r\ndate: D\r\n\r\n"
        )
    );
}

#[tokio::test]
async fn a_cookie_counts_only_from_an_origin_that_may() {
    let bench = Bench::new().await;
    let cookie = format!("session={}", token("u"));
    let cookie = ("cookie", cookie.as_str());
    let message =
        "a cookie does not count from this origin, which http.allowed_origins does not list; a token does";
    let refused = json("403 Forbidden", "", "origin_not_allowed", message);
    assert_eq!(bench.ask("GET", STREAM, &[cookie, ("origin", "https://evil.example")]).await, refused);
    assert_eq!(bench.ask("GET", STREAM, &[cookie, ("sec-fetch-site", "cross-site")]).await, refused);
    let mut own = bench.open(STREAM, &[cookie, ("origin", "http://walcast.example.com")]).await;
    own.connected().await;
}
