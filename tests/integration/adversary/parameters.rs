//! Parameters that try to be read twice, or as something else.

use serde_json::json;

use super::{encoded, native, told};
use crate::bench::app::{TestApp, token_with};
use crate::bench::http::Request;
use crate::bench::sse::Stream;

#[tokio::test]
async fn a_parameter_has_one_spelling_and_one_value() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.member("o2", "u2", "admin").await;
    for (query, status) in [
        ("organizationId=o1&organizationId=o2", 400),
        ("organizationId=o2&organizationId=o1", 400),
        ("organizationId=o1&organization%49d=o2", 400),
        ("organizationId=o1&%6frganizationId=o2", 400),
        ("organizationId=o1&organizationid=o2", 400),
        ("organizationId=o1&ORGANIZATIONID=o2", 400),
        ("organizationId=o1&organizationId[]=o2", 400),
        ("organizationId=o1&organizationId%00=o2", 400),
        ("organizationId=o1&+organizationId=o2", 400),
        ("organizationId[]=o1", 400),
        // Separators of other servers are text here: these name an organization that nobody is a member of.
        ("organizationId=o1;organizationId=o2", 403),
        ("organizationId=o1,o2", 403),
        ("organizationId=o1%26organizationId=o2", 403),
        ("organizationId=o1%00", 403),
        ("organizationId=%00o1", 403),
        ("organizationId=o1%20", 403),
        ("organizationId=%20o1", 403),
        ("organizationId=O1", 403),
        ("organizationId=o1%2500", 403),
        ("organizationId=%6f2", 403),
        // Overlong UTF-8, and what is no encoding.
        ("organizationId=%c0%af", 400),
        ("organizationId=%ed%a0%80", 400),
        ("organizationId=%f8%88%80%80%80", 400),
        ("organizationId=%zz", 403),
        ("organizationId=%", 403),
        ("organizationId=%u006f1", 403),
    ] {
        let answer = native(query).bearer(&member.token).fetch(app.address).await;
        assert_eq!(answer.error().0, status, "{query}: {}", answer.body);
    }
    // The encoded spelling of the right name and value is the same parameter.
    let stream = Stream::open(app.address, native("organization%49d=%6f1").bearer(&member.token)).await;
    assert_eq!(stream.head.status, 200);
}

#[tokio::test]
async fn a_preset_takes_no_organization_from_a_parameter_that_it_does_not_know() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.member("o2", "u2", "admin").await;
    for query in
        ["organizationid=o2", "organization_id=o2", "orgId=o2", "organizationId[]=o2", "Organizationid%00=o2"]
    {
        let request = Request::get(format!("/api/sse/dashboard?{query}")).bearer(&member.token);
        let mut stream = Stream::open(app.address, request).await;
        assert_eq!(stream.data().await.json()["organizationId"], "o1", "{query}");
    }
    for header in ["X-Organization-Id", "organizationId", "X-Original-URL", "X-Rewrite-URL"] {
        let value = "/api/sse/dashboard?organizationId=o2";
        let request = Request::get("/api/sse/dashboard").bearer(&member.token).header(header, value);
        let mut stream = Stream::open(app.address, request).await;
        assert_eq!(stream.data().await.json()["organizationId"], "o1", "{header}");
    }
    // A claim decides only where the request names none, and is judged all the same.
    let claimed = token_with("u1", json!({ "organizationId": "o2", "organizations": { "o2": "admin" } }));
    let answer = Request::get("/api/sse/dashboard").bearer(&claimed).fetch(app.address).await;
    assert_eq!(answer.error().0, 403, "the memberships table decides, not the token");
}

#[tokio::test]
async fn nothing_is_too_long_to_be_refused() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let long = "a".repeat(8000);
    for query in [
        format!("organizationId={long}"),
        format!("organizationId=o1&{long}=1"),
        format!("organizationId=o1&channel={long}"),
        format!("organizationId=o1&types={long}"),
        format!("organizationId=o1&since={long}"),
        format!("organizationId=o1&types={}", "a,".repeat(3000).trim_end_matches('b').to_owned() + "%20!"),
    ] {
        let answer = native(&query).bearer(&member.token).fetch(app.address).await;
        assert!(matches!(answer.error().0, 400 | 403), "{query:.60}: {}", answer.head.status);
    }
    let many = format!("organizationId=o1&status={}", "x,".repeat(200));
    assert_eq!(Stream::open(app.address, native(&many).bearer(&member.token)).await.head.status, 200);
    // What does not fit is refused before it is read to its end.
    let target = format!("/api/realtime/stream?organizationId={}", "a".repeat(40_000));
    let answer =
        super::exchange(app.address, format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    let statuses = super::statuses(&answer);
    assert!(statuses.iter().all(|status| (400..500).contains(status)), "{statuses:?}");
}

#[tokio::test]
async fn what_a_client_sends_comes_back_in_no_header_and_only_inside_json() {
    let app = TestApp::builder()
        .config(|config| config.http.allowed_origins = vec!["https://app.example.com".to_owned()])
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    for hostile in
        ["x\r\nSet-Cookie: a=b\r\n\r\n<script>", "x\u{2028}y\u{85}", "\u{0}", "\"}{\"", "\u{202e}\u{feff}"]
    {
        let text = encoded(hostile);
        for query in [
            format!("organizationId={text}"),
            format!("organizationId=o1&channel={text}"),
            format!("organizationId=o1&types={text}"),
            format!("organizationId=o1&since={text}"),
            format!("organizationId=o1&keepalive={text}"),
            format!("organizationId=o1&{text}=1"),
        ] {
            let request = native(&query).bearer(&member.token).header("Origin", "https://app.example.com");
            let answer = request.fetch(app.address).await;
            assert!(matches!(answer.error().0, 400 | 403), "{query}: {}", answer.head.status);
            assert_eq!(answer.head.header("content-type"), Some("application/json"), "{query}");
            assert_eq!(answer.head.header("x-content-type-options"), Some("nosniff"), "{query}");
            let mut names: Vec<_> = answer.head.headers.iter().map(|(name, _)| name.as_str()).collect();
            names.sort_unstable();
            let known = [
                "access-control-allow-credentials",
                "access-control-allow-origin",
                "access-control-expose-headers",
                "cache-control",
                "connection",
                "content-length",
                "content-type",
                "date",
                "referrer-policy",
                "vary",
                "x-content-type-options",
            ];
            assert!(names.iter().all(|name| known.contains(name)), "{query}: {names:?}");
            assert!(!answer.body.contains(['\r', '\n', '\0']), "{query}: {:?}", answer.body);
        }
        // An id that is none of ours is not said back either.
        let mut stream = app.connect(&member, &format!("&lastEventId={text}")).await;
        let (connected, sync) = (stream.data().await, stream.data().await);
        assert_eq!(sync.json()["data"]["reason"], "history_reset");
        for frame in [connected, sync] {
            assert!(!frame.raw.contains("Set-Cookie") && !frame.raw.contains("script"), "{}", frame.raw);
        }
    }
}

#[tokio::test]
async fn refusals_do_not_depend_on_what_else_was_asked() {
    let app = TestApp::start().await;
    app.member("o1", "u1", "admin").await;
    // Who is nobody learns nothing of parameters, channels or organizations.
    let bare = told(&native("organizationId=o1").fetch(app.address).await);
    for query in [
        "organizationId=nowhere",
        "organizationId=o1&channel=nope",
        "unheard=1",
        "organizationId=o1&since=x",
        "",
    ] {
        assert_eq!(told(&native(query).fetch(app.address).await), bare, "{query}");
    }
}
