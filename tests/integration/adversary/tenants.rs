//! Other people's organizations: no answer, id or delay tells that they exist.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{encoded, native, told};
use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::eventually;
use crate::bench::http::Request;
use crate::bench::sse::Stream;

/// Names that mean something to some program.
const STRANGE: [&str; 22] = [
    "*",
    "..",
    "../o2",
    "/",
    "o2/",
    "o2'",
    "\"o2\"",
    "o2\\",
    "o2' or '1'='1",
    "$1",
    "%",
    "o2%",
    "_",
    "{organizationId}",
    "null",
    "undefined",
    "🙂",
    "ｏ2",
    "o2\u{200b}",
    "o2\u{0}",
    "o2\r\nX: y",
    "\u{2028}",
];

async fn ask(
    app: &TestApp,
    path: &str,
    organization: &str,
    token: &str,
) -> (u16, Vec<(String, String)>, String) {
    let target = format!("{path}?organizationId={}", encoded(organization));
    told(&Request::get(target).bearer(token).header("Accept", "text/event-stream").fetch(app.address).await)
}

#[tokio::test]
async fn an_organization_that_is_not_ones_own_answers_as_one_that_does_not_exist() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    app.member("o2", "u2", "admin").await;
    // One that is strange and exists.
    app.member("..", "u2", "admin").await;
    app.member("🙂", "u2", "admin").await;
    for path in ["/api/realtime/stream", "/api/sse/dashboard", "/api/realtime/issues/stream"] {
        let foreign = ask(&app, path, "o2", &one.token).await;
        assert_eq!(foreign.0, 403);
        let long = "o".repeat(8000);
        let names = STRANGE.into_iter().chain(["nowhere", "O1", " o1", "o1 ", "o1,o2", long.as_str()]);
        for organization in names {
            let answer = ask(&app, path, organization, &one.token).await;
            assert_eq!(answer, foreign, "{path} {organization:.40?}: bytes and headers");
        }
    }
    let body = ask(&app, "/api/realtime/stream", "o2", &one.token).await.2;
    assert!(!body.contains("o2"), "{body}");
}

#[tokio::test]
async fn a_user_of_any_name_is_somebody_only_where_they_are_a_member() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    let foreign = ask(&app, "/api/realtime/stream", "o2", &one.token).await;
    let long = "u".repeat(4000);
    for user in STRANGE.into_iter().chain(["U1", "u1 ", " u1", "u1\u{0}", "u1'--", long.as_str()]) {
        let token = token_with(user, json!({ "role": "admin", "admin": true }));
        let answer = ask(&app, "/api/realtime/stream", "o1", &token).await;
        assert_eq!(answer, foreign, "{user:.40?}");
    }
}

#[tokio::test]
async fn organizations_and_users_of_any_name_get_their_own_events_whole() {
    let app = TestApp::start().await;
    let other = app.member("o1", "u1", "admin").await;
    let mut outside = app.open(&other, "").await;
    // What PostgreSQL's text can hold.
    let names = STRANGE.into_iter().filter(|name| !name.contains('\0') && *name != "*");
    for (n, name) in names.enumerate() {
        let quoted = name.replace('\'', "''");
        let user = format!("{name}#{n}");
        let quoted_user = user.replace('\'', "''");
        app.sql(&format!(
            "begin;
             insert into organizations (id, name, plan) values ('{quoted}', '{quoted}', 'free');
             insert into users (id, email, name) values ('{quoted_user}', 'e{n}', 'n');
             insert into memberships (organization_id, user_id, role) values ('{quoted}', '{quoted_user}', 'admin');
             commit"
        ))
        .await;
        let member = Member { organization: encoded(name), token: token_with(&user, json!({})) };
        let mut stream = eventually("the membership is known", || async {
            let stream = app.connect(&member, "&channel=custom").await;
            (stream.head.status == 200).then_some(stream)
        })
        .await;
        let connected = stream.data().await.json();
        assert_eq!(connected["organizationId"], name);
        assert_eq!(connected["organization"]["name"], name);
        app.sql(&format!("select walcast.emit('{quoted}', 'strange', '{n}')")).await;
        let event = stream.event().await;
        assert_eq!(
            event.raw.matches('\n').count(),
            3,
            "an id, a line of data, an empty one: {:?}",
            event.raw
        );
        assert_eq!((&event.json()["organizationId"], &event.json()["data"]), (&json!(name), &json!(n)));
    }
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let seen = outside.events_until(|frame| frame.event_type().as_deref() == Some("done")).await;
    let own = seen.iter().filter(|frame| frame.json()["organizationId"] == "o1").count();
    assert_eq!(own, seen.len(), "nothing of the others: {seen:#?}");
}

#[tokio::test]
async fn nobody_becomes_everybody_by_a_row_or_a_claim() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&one, "").await;
    // An organization that calls itself what the catalog calls all of them.
    app.sql(
        "insert into organizations (id, name, plan) values ('*', 'Every', 'free');
         insert into users (id, email, name) values ('evil', 'evil@example.com', 'evil');
         insert into memberships (organization_id, user_id, role) values ('*', 'evil', 'admin');
         insert into devices (id, organization_id, name, model, status) values ('d1', '*', 'D', 'M', 'ONLINE')",
    )
    .await;
    assert!(app.try_sql("select walcast.emit('*', 'evil', '1')").await.is_err());
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let events = stream.events_until(|frame| frame.event_type().as_deref() == Some("done")).await;
    assert_eq!(events.len(), 1, "{events:#?}");
    for claims in
        [json!({}), json!({ "organizations": ["*"], "organizationId": "*" }), json!({ "scope": "*" })]
    {
        let token = token_with("evil", claims);
        assert_eq!(native("organizationId=*").bearer(&token).fetch(app.address).await.error().0, 403);
        let preset = Request::get("/api/sse/dashboard").bearer(&token).fetch(app.address).await;
        assert!(matches!(preset.error().0, 400 | 403), "{}", preset.body);
    }
}

/// What a stream says first when it is asked to go on after an id, without what differs by time and chance.
async fn resumed(app: &TestApp, member: &Member, id: &str) -> Vec<Value> {
    let request = native(&format!("organizationId={}", member.organization))
        .bearer(&member.token)
        .header("Last-Event-ID", id);
    let mut stream = Stream::open(app.address, request).await;
    assert_eq!(stream.head.status, 200);
    let mut said = Vec::new();
    for _ in 0..2 {
        let frame = stream.data().await;
        let mut json = frame.json();
        let connected = json["type"] == "connected";
        for place in [
            "/timestamp",
            "/id",
            "/connectionId",
            "/clientId",
            "/data/connectionId",
            "/data/clientId",
            "/data/delayMs",
        ] {
            if let Some(value) = json.pointer_mut(place) {
                *value = Value::Null;
            }
        }
        let id = frame.id.expect("both carry a position");
        let zero = id.ends_with(".0.0");
        said.push(json!([json, connected, zero]));
    }
    said
}

#[tokio::test]
async fn an_id_of_another_organization_is_answered_as_one_that_names_nothing() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    let two = app.member("o2", "u2", "admin").await;
    let mut first = app.open(&one, "").await;
    let mut second = app.open(&two, "").await;
    // Around a foreign one, so that all of them are within the window.
    app.sql("select walcast.emit('o2', 'before', '1')").await;
    app.sql("select walcast.emit('o1', 'secret', '1')").await;
    app.sql("select walcast.emit('o2', 'after', '1')").await;
    let foreign = first.event().await.id.expect("an id");
    second.events_until(|frame| frame.event_type().as_deref() == Some("after")).await;
    let [epoch, lsn, ordinal] = foreign.split('.').collect::<Vec<_>>()[..] else { panic!("{foreign}") };
    let lsn: u64 = lsn.parse().expect("a position");
    let answer = resumed(&app, &two, &foreign).await;
    for (why, id) in [
        ("a byte further", format!("{epoch}.{}.{ordinal}", lsn + 1)),
        ("a byte before", format!("{epoch}.{}.{ordinal}", lsn - 1)),
        ("another event of the foreign transaction", format!("{epoch}.{lsn}.7")),
        ("another history", format!("{:016x}.{lsn}.{ordinal}", 7)),
        ("nothing at all", "nonsense".to_owned()),
    ] {
        assert_eq!(resumed(&app, &two, &id).await, answer, "{why}");
    }
    // Within a transaction of both, an ordinal that is the other's is as good as one that is nobody's.
    app.transaction("select walcast.emit('o2', 'both', '1'); select walcast.emit('o1', 'both', '1'); select walcast.emit('o2', 'end', '1')")
        .await;
    let foreign = first.event().await.id.expect("an id");
    let both = foreign.rsplit_once('.').expect("an ordinal").0;
    let by_foreign = resumed(&app, &two, &foreign).await;
    // The own ones are 1 and 3.
    assert_eq!(foreign, format!("{both}.2"));
    assert_eq!(resumed(&app, &two, &format!("{both}.1")).await, by_foreign);
    assert_eq!(by_foreign[1][0]["type"], "end");
    let raw = format!("{answer:?}");
    assert!(raw.contains("history_reset") && !raw.contains("secret"), "{raw}");
}

/// The middle of how long refusals take.
async fn median(app: &TestApp, one: &Member, organizations: [&str; 2], rounds: usize) -> [Duration; 2] {
    let mut times = [Vec::new(), Vec::new()];
    // In turns, so that what else the machine does falls on both.
    for _ in 0..rounds {
        for (organization, times) in organizations.iter().zip(&mut times) {
            let request = native(&format!("organizationId={organization}")).bearer(&one.token);
            let began = Instant::now();
            let answer = request.fetch(app.address).await;
            times.push(began.elapsed());
            assert_eq!(answer.head.status, 403);
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}

#[tokio::test]
async fn a_refusal_takes_as_long_whether_the_organization_exists_or_not() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    app.member("exists", "u2", "admin").await;
    app.sql(
        "insert into users (id, email, name) select 'm' || n, 'm' || n, 'n' from generate_series(1, 2000) n;
         insert into memberships (organization_id, user_id, role)
           select 'exists', 'm' || n, 'member' from generate_series(1, 2000) n;
         select walcast.emit('exists', 'history', to_jsonb(n)) from generate_series(1, 2000) n",
    )
    .await;
    // A worker that is behind asks strangers to come again.
    eventually("it has read all that", || async {
        let answer = native("organizationId=absent").bearer(&one.token).fetch(app.address).await;
        (answer.head.status == 403).then_some(())
    })
    .await;
    // Loose: it would show a query, a scan of the members, or a journal that is made. What shows once and not again is
    // the machine.
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let [foreign, absent] = median(&app, &one, ["exists", "absent"], 300).await;
        println!("foreign {foreign:?}, absent {absent:?}");
        let (less, more) = (foreign.min(absent), foreign.max(absent));
        if more < less * 3 / 2 + Duration::from_micros(100) {
            return;
        }
        seen.push((foreign, absent));
    }
    panic!("foreign and absent: {seen:?}");
}
