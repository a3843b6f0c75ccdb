//! Streams that are changed and closed by their users.

use super::bench::{Bench, EPOCH, frame, now, sign, token};
use super::client::{Client, dateless};

const CORS: &str = "vary: Origin\r\n";

/// The id that a stream's first frame says.
fn id(connected: &str) -> String {
    let id = connected.split("\"connectionId\":\"").nth(1).and_then(|rest| rest.split('"').next());
    id.unwrap().to_owned()
}

async fn opened(bench: &Bench, query: &str) -> (Client, String) {
    let path = format!("/api/realtime/stream?organizationId=a&token={}{query}", token("u"));
    let mut client = bench.open(&path, &[]).await;
    let id = id(&client.connected().await);
    (client, id)
}

/// The answer to a request with a body, on a connection of its own: status line and body.
pub(super) async fn ask(
    bench: &Bench,
    method: &str,
    path: &str,
    token: &str,
    body: &str,
) -> (String, String) {
    let answer = ask_as(bench, method, path, &[("content-type", "application/json")], token, body).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

async fn ask_as(
    bench: &Bench,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    token: &str,
    body: &str,
) -> String {
    let mut client = bench.connect().await;
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: walcast.example.com\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("authorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    client.send_raw(text.as_bytes()).await;
    dateless(&client.rest().await)
}

fn error(code: &str, message: &str) -> String {
    format!("{{\"error\":\"{code}\",\"message\":\"{message}\"}}")
}

const OK: &str = "HTTP/1.1 200 OK";
const BAD: &str = "HTTP/1.1 400 Bad Request";

#[tokio::test]
async fn filters_are_replaced_as_a_whole_from_the_position_that_is_answered() {
    let bench = Bench::new().await;
    let (mut client, id) = opened(&bench, "&channel=lots&since=earliest").await;
    bench.publish("a", 110, "lots", &[]);
    bench.publish("a", 120, "issues", &[(1, "open")]);
    let body = r#"{"channels":["issues"],"types":["changed"],"tags":{"status":["open","new"]}}"#;
    let expires = now().as_secs() + 3600;
    let answer = ask_as(
        &bench,
        "PUT",
        &format!("/api/realtime/stream/{id}"),
        &[("content-type", "application/json")],
        &token("u"),
        body,
    )
    .await;
    let (head, standing) = answer.split_once("\r\n\r\n").unwrap();
    let standing = super::client::zeroed(standing, "\"expiresAt\":");
    assert_eq!(
        standing,
        format!(
            "{{\"connectionId\":\"{id}\",\"organizationId\":\"a\",\"channels\":[\"issues\"],\"types\":[\"changed\"],\
             \"tags\":{{\"status\":[\"open\",\"new\"]}},\"position\":\"{EPOCH}.121.0\",\"expiresAt\":0}}"
        )
    );
    let length = standing.len() + expires.to_string().len() - 1;
    assert_eq!(
        head,
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
             x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n{CORS}content-length: {length}\r\nconnection: close\r\ndate: D"
        )
    );
    bench.publish("a", 130, "lots", &[]);
    bench.publish("a", 140, "issues", &[(1, "new")]);
    bench.publish("a", 150, "issues", &[(1, "closed")]);
    for lsn in [110, 140] {
        assert_eq!(client.frame().await, frame(lsn, ""));
    }
    // Only one of them named: the others are gone.
    let path = format!("/api/realtime/stream?connectionId={id}");
    let (status, standing) =
        ask(&bench, "POST", &path, &token("u"), r#"{"channels":["lots","issues"]}"#).await;
    assert_eq!(status, OK);
    assert!(
        standing.contains("\"channels\":[\"issues\",\"lots\"],\"types\":[],\"tags\":{},\"position\""),
        "{standing}"
    );
    bench.publish("a", 160, "issues", &[(1, "closed")]);
    assert_eq!(client.frame().await, frame(160, ""));
    // What an answer says can be sent again, and null is as good as nothing.
    let body =
        format!("{{\"connectionId\":\"{id}\",\"channels\":[],\"types\":null,\"tags\":{{\"status\":[]}}}}");
    let (status, standing) = ask(&bench, "PUT", "/api/realtime/stream", &token("u"), &body).await;
    assert_eq!(status, OK);
    assert!(standing.contains("\"channels\":[\"custom\",\"issues\",\"lots\",\"presence\"]"), "{standing}");
}

#[tokio::test]
async fn a_token_alone_renews_and_leaves_the_filters() {
    let bench = Bench::new().await;
    let (mut client, id) = opened(&bench, "&channel=lots&types=changed").await;
    let path = format!("/api/realtime/stream/{id}");
    let longer = sign("u", 7200, &["a"], "");
    let body = format!("{{\"token\":\"{longer}\"}}");
    let (status, standing) = ask(&bench, "PUT", &path, &token("u"), &body).await;
    assert_eq!(status, OK);
    let expires: u64 = standing.rsplit(':').next().unwrap().trim_end_matches('}').parse().unwrap();
    assert!(expires > now().as_secs() + 7000, "{standing}");
    assert!(standing.contains("\"channels\":[\"lots\"],\"types\":[\"changed\"],\"tags\":{},"), "{standing}");
    // The token says who is a member here: one that names other organizations is none for this stream.
    for (token_in_body, status, code) in [
        (sign("v", 7200, &["a"], ""), "HTTP/1.1 403 Forbidden", "forbidden"),
        (sign("u", 7200, &["b"], ""), "HTTP/1.1 403 Forbidden", "forbidden"),
        (sign("u", 0, &["a"], ""), "HTTP/1.1 401 Unauthorized", "token_expired"),
        ("x".to_owned(), "HTTP/1.1 401 Unauthorized", "invalid_token"),
    ] {
        // Neither is done when one can't be.
        let body = format!("{{\"token\":\"{token_in_body}\",\"channels\":[\"issues\"]}}");
        let answer = ask(&bench, "PUT", &path, &token("u"), &body).await;
        assert!(answer.0 == status && answer.1.contains(&format!("\"error\":\"{code}\"")), "{answer:?}");
        assert!(!answer.1.contains(&token_in_body) || token_in_body == "x", "no token is said back");
    }
    bench.publish("a", 110, "issues", &[]);
    bench.publish("a", 120, "lots", &[]);
    assert_eq!(client.frame().await, frame(120, ""));
    // A shorter one holds too: the newest says when the stream ends.
    loop {
        let short = sign("u", 1, &["a"], "");
        let body = format!("{{\"token\":\"{short}\"}}");
        let (status, body) = ask(&bench, "PUT", &path, &token("u"), &body).await;
        if status == OK {
            break;
        }
        // Its second was over on the way.
        assert!(body.contains("token_expired"), "{status} {body}");
    }
    assert_eq!(client.frame().await, "data: {\"type\":\"token.expired\",\"timestamp\":0,\"data\":{}}\n\n");
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_stream_is_its_users_alone_and_others_learn_nothing() {
    let bench = Bench::new().await;
    let (mut client, id) = opened(&bench, "").await;
    let missing = error("not_found", "you have no open stream of this id");
    let gone = ("HTTP/1.1 404 Not Found".to_owned(), missing);
    let unknown = format!("{}-{}", id.split('-').next().unwrap(), "0".repeat(32));
    for (method, body) in [("PUT", "{}"), ("DELETE", "")] {
        let path = |id: &str| format!("/api/realtime/stream/{id}");
        // Another user of the same organization; an id of this node that is none; what is no id.
        assert_eq!(ask(&bench, method, &path(&id), &token("v"), body).await, gone);
        assert_eq!(ask(&bench, method, &path(&unknown), &token("u"), body).await, gone);
        for text in ["x", "%00", "0-0", "a/b", "..%2f", "é"] {
            let path = path(text);
            let (status, _) = ask(&bench, method, &path, &token("u"), body).await;
            assert!(
                status.starts_with("HTTP/1.1 404") || status.starts_with("HTTP/1.1 400"),
                "{text}: {status}"
            );
        }
        let elsewhere = format!("{:016x}-{}", 7, "0".repeat(32));
        let other = error("other_node", "this stream is, or was, on another node, which alone can change it");
        assert_eq!(
            ask(&bench, method, &path(&elsewhere), &token("u"), body).await,
            ("HTTP/1.1 421 Misdirected Request".to_owned(), other)
        );
        // Who is nobody learns not even that.
        let answer = bench.ask(method, &path(&elsewhere), &[]).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    // A token of theirs that does not make them a member.
    let outside = sign("u", 60, &["b"], "");
    let (status, _) = ask(&bench, "PUT", &format!("/api/realtime/stream/{id}"), &outside, "{}").await;
    assert_eq!(status, "HTTP/1.1 403 Forbidden");
    bench.publish("a", 110, "lots", &[]);
    assert_eq!(client.frame().await, frame(110, ""));
}

#[tokio::test]
async fn a_closed_stream_ends_and_its_client_stays_away() {
    let bench = Bench::new().await;
    for way in 0..3 {
        let (mut client, id) = opened(&bench, "").await;
        let (path, body) = match way {
            0 => (format!("/api/realtime/stream/{id}"), String::new()),
            1 => (format!("/api/realtime/stream?connectionId={id}"), String::new()),
            _ => ("/api/realtime/stream".to_owned(), format!("{{\"connectionId\":\"{id}\"}}")),
        };
        let json = [("content-type", "application/json")];
        let answer = ask_as(&bench, "DELETE", &path, &json, &token("u"), &body).await;
        assert_eq!(
            answer,
            format!(
                "HTTP/1.1 204 No Content\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n{CORS}\
                 connection: close\r\ndate: D\r\n\r\n"
            )
        );
        assert_eq!(client.rest().await, "retry: 86400000\n\n");
        let again = ask(&bench, "DELETE", &path, &token("u"), &body).await;
        assert_eq!(again.0, "HTTP/1.1 404 Not Found");
        let change = ask(&bench, "PUT", &path, &token("u"), if way == 2 { &body } else { "{}" }).await;
        assert_eq!(change.0, "HTTP/1.1 404 Not Found");
    }
}

#[tokio::test]
async fn a_wrong_body_says_what_is_wrong_and_changes_nothing() {
    let bench = Bench::new().await;
    let (mut client, id) = opened(&bench, "&channel=lots").await;
    let path = format!("/api/realtime/stream/{id}");
    let known = "connectionId, channels, types, tags, token";
    let deep = "[".repeat(20_000);
    let many = format!("{{\"types\":[{}\"t\"]}}", "\"t\",".repeat(8192));
    for (body, message) in [
        ("", "the body: a JSON object is needed: EOF while parsing a value at line 1 column 0".to_owned()),
        ("[]", "the body: a JSON object is needed: invalid type: sequence, expected an object at line 1 column 0".to_owned()),
        (&*deep, "the body: a JSON object is needed: invalid type: sequence, expected an object at line 1 column 0".to_owned()),
        (r#"{"channel":["lots"]}"#, format!("channel: unknown; allowed are {known}")),
        (r#"{"types":["t"],"types":["u"]}"#, "the body: types is given more than once".to_owned()),
        (r#"{"tags":{"status":["a"],"status":["b"]}}"#, "tags: status is given more than once".to_owned()),
        (r#"{"channels":["none"]}"#, "channels: there is no channel \\\"none\\\" here; allowed are custom, issues, lots, presence".to_owned()),
        (r#"{"channels":{"a":1}}"#, "channels: a list of texts is needed".to_owned()),
        (r#"{"channels":["lots",1]}"#, "channels: a list of texts is needed".to_owned()),
        (r#"{"channels":[[[["lots"]]]]}"#, "channels: a list of texts is needed".to_owned()),
        (r#"{"types":["a b"]}"#, "types: event types, 1 to 100 of A-Z a-z 0-9 . _ : - each, between commas".to_owned()),
        (r#"{"types":[""]}"#, "types: an empty text is no value".to_owned()),
        (r#"{"tags":["status"]}"#, "tags: a JSON object is needed: invalid type: sequence, expected an object at line 1 column 0".to_owned()),
        (r#"{"tags":{"colour":["red"]}}"#, "tags: there is no tag \\\"colour\\\" here; allowed are priority, status".to_owned()),
        (r#"{"tags":{"status":7}}"#, "tags: status: a list of texts is needed".to_owned()),
        (r#"{"token":7}"#, "token: a text is needed".to_owned()),
        (r#"{"connectionId":"x"}"#, "connectionId: given more than once, and not the same".to_owned()),
        (&*many, "channels, types, tags: at most 8192 values together".to_owned()),
    ] {
        let answer = ask(&bench, "PUT", &path, &token("u"), body).await;
        assert_eq!(answer, (BAD.to_owned(), error("bad_request", &message)), "{body:.60}");
    }
    let large = format!("{{\"types\":[\"{}\"]}}", "t".repeat(65_536));
    let (status, body) = ask(&bench, "PUT", &path, &token("u"), &large).await;
    assert_eq!(status, "HTTP/1.1 413 Payload Too Large", "{body}");
    for headers in
        [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/json; charset=latin1")]]
    {
        let answer = ask_as(&bench, "PUT", &path, headers, &token("u"), r#"{"channels":["issues"]}"#).await;
        assert!(answer.starts_with("HTTP/1.1 415 Unsupported Media Type\r\n"), "{answer}");
    }
    let (status, body) = ask(&bench, "PUT", &format!("{path}?organizationId=a"), &token("u"), "{}").await;
    let message =
        error("bad_request", "organizationId: unknown parameter; allowed are connectionId, token, ticket");
    assert_eq!((status.as_str(), body.as_str()), (BAD, message.as_str()));
    for method in ["PUT", "POST", "DELETE"] {
        let (status, body) = ask(&bench, method, "/api/realtime/stream", &token("u"), "{}").await;
        assert!(
            status == BAD && body.contains("connectionId: required, in the path, the body or the query"),
            "{body}"
        );
    }
    let (status, body) = ask(&bench, "DELETE", &path, &token("u"), r#"{"channels":[]}"#).await;
    assert_eq!(
        (status.as_str(), body),
        (BAD, error("bad_request", "channels: unknown; allowed is connectionId"))
    );
    bench.publish("a", 110, "issues", &[]);
    bench.publish("a", 120, "lots", &[]);
    assert_eq!(client.frame().await, frame(120, ""));
}

#[tokio::test]
async fn a_presets_streams_stay_within_its_channels_and_know_its_names() {
    let bench = Bench::new().await;
    let mut client = bench.open(&format!("/issues?token={}", token("u")), &[]).await;
    let path = format!("/api/realtime/stream/{}", id(&client.connected().await));
    let (status, body) = ask(&bench, "PUT", &path, &token("u"), r#"{"channels":["lots"]}"#).await;
    let message =
        error("bad_request", "channels: there is no channel \\\"lots\\\" here; allowed are custom, issues");
    assert_eq!((status.as_str(), body), (BAD, message));
    let (status, body) = ask(&bench, "PUT", &path, &token("u"), r#"{"tags":{"statuses":"open"}}"#).await;
    assert_eq!(status, OK);
    assert!(
        body.contains("\"channels\":[\"custom\",\"issues\"],\"types\":[],\"tags\":{\"status\":[\"open\"]}"),
        "{body}"
    );
    bench.publish("a", 110, "lots", &[(1, "open")]);
    bench.publish("a", 120, "issues", &[(1, "new")]);
    bench.publish("a", 130, "issues", &[(1, "open")]);
    assert_eq!(client.frame().await, frame(130, ""));
}

#[tokio::test]
async fn each_path_says_what_it_takes() {
    let bench = Bench::new().await;
    let listed = ("origin", "https://app.example.com");
    for (path, methods, short) in [
        ("/api/realtime/stream", "GET, HEAD, POST, PUT, DELETE, OPTIONS", "GET,HEAD,OPTIONS,POST,PUT,DELETE"),
        ("/api/realtime/stream/x", "PUT, DELETE, OPTIONS", "PUT,DELETE,OPTIONS"),
        ("/api/realtime/stats", "GET, HEAD, OPTIONS", "GET,HEAD,OPTIONS"),
        ("/issues", "GET, HEAD, OPTIONS", "GET,HEAD,OPTIONS"),
    ] {
        let plain = bench.ask("OPTIONS", path, &[]).await;
        assert!(plain.starts_with(&format!("HTTP/1.1 204 No Content\r\nallow: {methods}\r\n")), "{plain}");
        assert!(!plain.contains("access-control"), "{plain}");
        let preflight = bench.ask("OPTIONS", path, &[listed, ("access-control-request-method", "PUT")]).await;
        for line in [
            format!("access-control-allow-methods: {methods}\r\n"),
            "access-control-allow-origin: https://app.example.com\r\n".to_owned(),
            "access-control-allow-credentials: true\r\n".to_owned(),
        ] {
            assert!(preflight.contains(&line), "{preflight}");
        }
        let wrong = bench.ask("PATCH", path, &[]).await;
        assert!(wrong.starts_with("HTTP/1.1 405 "), "{wrong}");
        let mut allowed: Vec<&str> =
            wrong.split("allow: ").nth(1).unwrap().lines().next().unwrap().split(',').collect();
        let mut expected: Vec<&str> = short.split(',').collect();
        allowed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(allowed, expected, "{path}");
    }
}

#[tokio::test]
async fn a_cookie_changes_a_stream_only_from_an_origin_that_may() {
    let bench = Bench::new().await;
    let (mut client, id) = opened(&bench, "").await;
    let cookie = format!("session={}", token("u"));
    let path = format!("/api/realtime/stream/{id}");
    for origin in ["https://evil.example", "null"] {
        let headers = [("cookie", cookie.as_str()), ("origin", origin), ("content-length", "0")];
        for method in ["PUT", "DELETE"] {
            let answer = bench.ask(method, &path, &headers).await;
            assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("origin_not_allowed"), "{answer}");
        }
    }
    let headers = [("cookie", cookie.as_str()), ("origin", "https://app.example.com")];
    let answer = bench.ask("DELETE", &path, &headers).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert!(answer.contains("access-control-allow-credentials: true\r\n"), "{answer}");
    assert_eq!(client.rest().await, "retry: 86400000\n\n");
}

#[tokio::test]
async fn the_registry_holds_open_streams_only() {
    let bench = Bench::new().await;
    let (client, id) = opened(&bench, "").await;
    assert!(bench.state.registry.find(&id).is_ok());
    drop(client);
    bench.state.streams.ended().await;
    assert!(bench.state.registry.find(&id).is_err());
}

#[tokio::test]
async fn what_a_body_says_is_said_back_in_bounded_length() {
    let bench = Bench::new().await;
    let (_client, id) = opened(&bench, "").await;
    let path = format!("/api/realtime/stream/{id}");
    let long = "\u{7f}é".repeat(10_000);
    for body in [
        format!("\"{long}\""),
        format!("{{\"{long}\":1}}"),
        format!("{{\"channels\":[\"{long}\"]}}"),
        format!("{{\"tags\":{{\"{long}\":[]}}}}"),
    ] {
        let (status, answer) = ask(&bench, "PUT", &path, &token("u"), &body).await;
        assert_eq!(status, BAD);
        assert!(answer.len() < 10_000, "{} bytes", answer.len());
    }
}
