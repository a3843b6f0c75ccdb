//! The live preset under requests that no front end makes, and under what happens to its members while they watch.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use walcast::config::{Config, WhenFull};

use super::{ISSUES, ONE, PATH, connect, often, open, oracle, runs, sum, update};
use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::eventually;
use crate::bench::http::{Request, Response};
use crate::bench::sse::Stream;

async fn get(app: &TestApp, member: &Member, query: &str) -> Response {
    let request = Request::get(format!("{PATH}?{query}")).bearer(&member.token);
    request.header("Accept", "text/event-stream").fetch(app.address).await
}

/// Opens with these headers; the stream with its `connected`.
async fn open_with(app: &TestApp, member: &Member, headers: &[(&str, &str)]) -> (Stream, Value) {
    let path = format!("{PATH}?organizationId={}&updateInterval=100", member.organization);
    let mut request = Request::get(path).bearer(&member.token);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut stream = Stream::open(app.address, request).await;
    assert_eq!(stream.head.status, 200, "{headers:?}");
    let connected = stream.data().await.json();
    (stream, connected)
}

/// Every byte of it as `%xx`.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "%{byte:02x}");
        out
    })
}

#[tokio::test]
async fn a_parameter_that_is_wrong_is_named_and_one_that_is_not_known_is_let_be() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "employee").await;
    for (query, told) in [
        ("organizationId=o1&updateInterval=5000&updateInterval=5000", "updateInterval: given more than once"),
        ("organizationId=o1&organizationId=o1", "organizationId: given more than once"),
        ("organizationId=o1&organizationId=o2", "organizationId: given more than once"),
        ("organizationId=o1&buildingIds=%ff", "buildingIds: not UTF-8"),
        ("organizationId=o1&%c3%28=x", "a parameter's name is not UTF-8"),
        ("organizationId=o1&updateInterval=%2b5000", "updateInterval: a whole number of milliseconds"),
        ("organizationId=o1&updateInterval=5000%00", "updateInterval: a whole number of milliseconds"),
        ("organizationId=o1&updateInterval=٥٠٠٠", "updateInterval: a whole number of milliseconds"),
        ("organizationId=o1&updateInterval=0x1388", "updateInterval: a whole number of milliseconds"),
        ("organizationId=o1&keepalive=never", "keepalive: allowed are comment, event"),
    ] {
        let answer = get(&app, &member, query).await;
        let text = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!((answer.head.status, text.contains(told)), (400, true), "{query}: {text}");
    }
    app.sql(&format!("{ISSUES} and o = 'o1'")).await;
    let all = oracle(&app, "o1", "").await;
    for parameters in [
        "&updateInterval=99999999999999999999999999",
        "&updateInterval=0000000000000005000",
        "&updateInterval=",
        "&UPDATEINTERVAL=1&updateinterval=1&interval=0&since=nonsense&lastEventId=nonsense&types=%00&channel=lots",
        "&campusId=&campusId=,&buildingIds=,,%20,&categories",
        "&&&=&=x&%3d=%26",
    ] {
        assert_eq!(update(&mut open(&app, &member, parameters).await).await, all, "{parameters}");
    }
    // As many values as a request can hold; and one more than that is refused, not cut.
    let many = |n: usize| format!("&buildingIds=b1,{}", "zz,".repeat(n));
    let rows = update(&mut open(&app, &member, &many(2000)).await).await;
    assert_eq!(rows, oracle(&app, "o1", "and building_id = 'b1'").await);
    let longer = get(&app, &member, &format!("organizationId=o1{}", many(100_000))).await;
    assert!(matches!(longer.head.status, 414 | 431), "{:?}", longer.head);
}

#[tokio::test]
async fn whatever_text_a_place_is_called_by_it_is_shown_and_found_and_no_other_is() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "employee").await;
    let names = [
        "a'; drop table issues; --",
        "{b1}",
        "NULL",
        "%",
        "\"quoted\\\"",
        "$1",
        "line\r\nbreak",
        "é\u{2028}\u{0085}😀",
        "</script>",
        "data: x",
    ];
    for name in names {
        let quoted = name.replace('\'', "''");
        app.sql(&format!(
            "insert into issues (organization_id, building_id, priority, status, title)
             values ('o1', '{quoted}', 'low', 'open', 't')"
        ))
        .await;
    }
    for name in names {
        let rows = update(&mut open(&app, &member, &format!("&buildingIds={}", escaped(name))).await).await;
        let row = json!({ "campusId": null, "buildingId": name, "category": null, "total": 1, "open": 1, "critical": 0 });
        assert_eq!(rows, json!([row]), "{name:?}");
    }
    // Its frame is one line, and what is no text in the database is no mistake.
    let mut all = open(&app, &member, "").await;
    assert_eq!(update(&mut all).await.as_array().map(Vec::len), Some(names.len()));
    assert_eq!(update(&mut open(&app, &member, "&buildingIds=%00,NU%00LL").await).await, json!([]));
}

#[tokio::test]
async fn whatever_id_a_client_comes_back_with_it_is_let_in_and_shown_all_of_it() {
    let app = TestApp::builder().config(often).start().await;
    let member = app.member("o1", "u1", "employee").await;
    app.sql(ONE).await;
    for id in [
        "",
        "0",
        "nonsense",
        "0000000000000000.1.0",
        "ffffffffffffffff.18446744073709551615.4294967295",
        "99999999999999999999.1.1",
        "a'b\\\"{}",
    ] {
        let (mut stream, connected) = open_with(&app, &member, &[("Last-Event-ID", id)]).await;
        assert_eq!(connected["resumed"], false, "{id:?}");
        let frame = stream.data().await;
        assert_eq!(frame.event_type().as_deref(), Some("update"), "{id:?}: {}", frame.raw);
        assert_eq!(frame.id, None);
    }
    // The id that `connected` gave it, a change later, and one that is ahead of the worker.
    let mut stream = connect(&app, &member, "").await;
    let id = loop {
        let frame = stream.frame().await.expect("connected");
        if let Some(id) = frame.id {
            break id;
        }
    };
    app.sql(ONE).await;
    let (epoch, _) = id.split_once('.').expect("an epoch");
    for id in [id.clone(), format!("{epoch}.9999999999999.1")] {
        let (mut stream, connected) = open_with(&app, &member, &[("Last-Event-ID", &id)]).await;
        assert_eq!(connected["resumed"], false, "{id}");
        assert_eq!(sum(&update(&mut stream).await, "total"), 2, "{id}");
    }
}

#[tokio::test]
async fn methods_and_organizations_are_as_on_every_path() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "employee").await;
    for (method, status) in [("HEAD", 200), ("POST", 405), ("PUT", 405), ("DELETE", 405), ("PATCH", 405)] {
        let request = Request::new(method, format!("{PATH}?organizationId=o1")).bearer(&member.token);
        let answer = request.fetch(app.address).await;
        assert_eq!(answer.head.status, status, "{method}");
    }
    let nobody = Request::get(format!("{PATH}?organizationId=o1")).fetch(app.address).await;
    assert_eq!(nobody.head.status, 401);
    // Left out: the only one, or the one that the token names, or none can be told.
    let one = get_stream(&app, &member.token, "").await.expect("the only one");
    assert_eq!(one, "o1");
    app.member("o2", "u1", "employee").await;
    let answer = get(&app, &member, "").await;
    assert_eq!(answer.head.status, 400, "{}", answer.body);
    let named = token_with("u1", json!({ "organizationId": "o2" }));
    assert_eq!(get_stream(&app, &named, "").await.as_deref(), Some("o2"));
    for organization in ["o3", "O1", "o1%20", "*", "o1%00", "o1,o2"] {
        let answer = get(&app, &member, &format!("organizationId={organization}")).await;
        let is_none_of_theirs = answer.head.status == 403
            && answer.error() == get(&app, &member, "organizationId=unknown").await.error();
        assert!(is_none_of_theirs, "{organization}: {:?} {}", answer.head, answer.body);
    }
}

/// The organization of a stream that opens.
async fn get_stream(app: &TestApp, token: &str, query: &str) -> Option<String> {
    let mut stream = Stream::open(app.address, Request::get(format!("{PATH}?{query}")).bearer(token)).await;
    assert_eq!(stream.head.status, 200);
    stream.data().await.json()["organizationId"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_stream_is_changed_by_its_own_user_alone_and_in_nothing_but_what_the_query_knows() {
    let app = TestApp::builder().config(often).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let colleague = app.member("o1", "u2", "admin").await;
    app.sql(&format!("{ISSUES} and o = 'o1'")).await;
    let (mut stream, connected) = open_with(&app, &member, &[]).await;
    update(&mut stream).await;
    let path = format!("/api/realtime/stream/{}", connected["connectionId"].as_str().expect("an id"));
    let put = |token: &str, body: Value| Request::new("PUT", path.clone()).bearer(token).json(&body);
    for (body, status) in [
        (json!({ "channels": ["issues"] }), 400),
        (json!({ "types": ["heatmap:updated"] }), 400),
        (json!({ "tags": { "status": ["open"] } }), 400),
        (json!({ "tags": { "organization_id": ["o2"] } }), 400),
        (json!({ "tags": { "campusId": [7] } }), 400),
        (json!({ "updateInterval": 1 }), 400),
        (json!({ "token": token_with("u2", json!({})) }), 403),
    ] {
        let answer = put(&member.token, body.clone()).fetch(app.address).await;
        assert_eq!(answer.head.status, status, "{body}: {}", answer.body);
    }
    let theirs = put(&colleague.token, json!({ "tags": {} })).fetch(app.address).await;
    assert_eq!(theirs.head.status, 404);
    let delete = Request::new("DELETE", path.clone()).bearer(&colleague.token).fetch(app.address).await;
    assert_eq!(delete.head.status, 404);

    // Changed over and over, it asks no more often than its interval lets it, and ends at the last.
    let before = runs(&app, "answered").await;
    for n in 0..60 {
        let body = json!({ "channels": ["heatmap"], "tags": { "buildingIds": [format!("b{}", n % 5)] } });
        let answer = put(&member.token, body).fetch(app.address).await;
        assert_eq!(answer.head.status, 200, "{}", answer.body);
    }
    let expected = oracle(&app, "o1", "and building_id = 'b4'").await;
    while update(&mut stream).await != expected {}
    let asked = runs(&app, "answered").await - before;
    assert!(asked <= 61, "{asked}");
    // What it was changed by is what it is told of.
    app.sql("update issues set status = 'closed' where building_id = 'b3'; delete from issues where building_id = 'b4'")
        .await;
    let mut rows = update(&mut stream).await;
    while rows != json!([]) {
        rows = update(&mut stream).await;
    }
    app.sql("delete from memberships where user_id = 'u1'").await;
    let frames = stream.rest().await;
    assert_eq!(frames.last().and_then(|last| last.event_type()).as_deref(), Some("access.revoked"));
    let gone = put(&member.token, json!({ "tags": {} })).fetch(app.address).await;
    assert!(matches!(gone.head.status, 403 | 404), "{}", gone.body);
}

#[tokio::test]
async fn a_role_that_changes_leaves_the_stream_and_an_organization_that_goes_ends_it() {
    let app = TestApp::builder().config(often).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = open(&app, &member, "&updateInterval=100").await;
    assert_eq!(update(&mut stream).await, json!([]));
    for (n, role) in ["member", "manager", "employee", "admin"].into_iter().enumerate() {
        app.sql(&format!("begin; update memberships set role = '{role}'; {ONE}; commit")).await;
        assert_eq!(sum(&update(&mut stream).await, "total"), i64::try_from(n).expect("a few") + 1);
    }
    app.sql("delete from organizations where id = 'o1'").await;
    let frames = stream.rest().await;
    assert_eq!(frames.last().and_then(|last| last.event_type()).as_deref(), Some("access.revoked"));
    assert!(frames.iter().all(|frame| frame.event_type().as_deref() != Some("update")), "{frames:?}");
}

#[tokio::test]
async fn a_live_stream_counts_against_the_limits_and_is_pushed_out_as_any() {
    let full = |config: &mut Config| {
        config.limits.streams_per_user = 2;
        config.limits.when_full = WhenFull::EvictOldest;
    };
    let app = TestApp::builder().config(full).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut oldest = open(&app, &member, "").await;
    update(&mut oldest).await;
    let _others = [app.open(&member, "").await, open(&app, &member, "").await];
    let last = oldest.rest().await.pop().expect("a farewell");
    assert_eq!((last.event_type().as_deref(), last.retry), (Some("stream.evicted"), Some(86_400_000)));

    let app = TestApp::builder().config(|config| config.limits.streams_per_user = 2).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut held = vec![open(&app, &member, "").await, open(&app, &member, "").await];
    let refused = connect(&app, &member, "").await;
    assert_eq!(refused.head.status, 429);
    assert!(refused.head.header("retry-after").is_some());
    held.pop();
    eventually("there is room again", || async {
        (connect(&app, &member, "").await.head.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_keepalive_that_is_asked_for_as_an_event_is_one() {
    let app =
        TestApp::builder().config(|config| config.http.keepalive = Duration::from_millis(500)).start().await;
    let member = app.member("o1", "u1", "employee").await;
    let mut stream = open(&app, &member, "&keepalive=event").await;
    update(&mut stream).await;
    let frame = stream.data().await;
    assert_eq!(frame.event_type().as_deref(), Some("keepalive"), "{}", frame.raw);
    assert!(frame.id.is_some());
}
