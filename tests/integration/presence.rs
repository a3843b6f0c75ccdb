//! Who is online, over real members: told, kept apart, and forgotten when a membership is.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::eventually;
use crate::bench::http::Request;
use crate::bench::sse::{Frame, Stream};

async fn start(grace: Duration) -> TestApp {
    TestApp::builder().config(|config| config.presence.grace = grace).start().await
}

async fn members<const N: usize>(app: &TestApp, members: [(&str, &str); N]) -> [Member; N] {
    let mut made = Vec::new();
    for (organization, user) in members {
        made.push(app.member(organization, user, "employee").await);
    }
    made.try_into().expect("as many")
}

/// Each opens a stream and leaves; returns once nobody has one open.
async fn visit(app: &TestApp, visitors: &[&Member]) {
    for member in visitors {
        drop(app.open(member, "").await);
    }
    let operator = token_with("ops", json!({ "scope": "walcast:stats" }));
    eventually("nobody listens", || async {
        let answer = Request::get("/api/realtime/stats").bearer(&operator).fetch(app.address).await.json();
        (answer["totalConnections"] == 0).then_some(())
    })
    .await;
}

async fn open(app: &TestApp, member: &Member) -> (Stream, BTreeSet<String>) {
    let mut stream = app.connect(member, "&channel=presence").await;
    let connected = stream.data().await.json();
    assert_eq!(connected["online"], connected["data"]["online"]);
    let online = serde_json::from_value(connected["online"].clone());
    (stream, online.unwrap_or_else(|error| panic!("{error}: {connected}")))
}

/// The frame is about this user, whole.
#[track_caller]
fn assert_update(frame: &Frame, organization: &str, user: &str, is_online: bool) {
    let timestamp = frame.json()["timestamp"].as_u64().expect("a time");
    assert!(timestamp > 1_700_000_000_000);
    assert_eq!(
        frame.raw,
        format!(
            "data: {{\"type\":\"presence_updated\",\"timestamp\":{timestamp},\"organizationId\":\"{organization}\",\
             \"channel\":\"presence\",\"data\":{{\"userId\":\"{user}\",\"isOnline\":{is_online}}}}}\n\n"
        )
    );
}

#[tokio::test]
async fn arrivals_and_departures_are_told_within_the_organization_alone() {
    let app = start(Duration::ZERO).await;
    let [ann, bob, eve] = members(&app, [("o1", "ann"), ("o1", "bob"), ("o2", "eve")]).await;
    let (mut of_ann, online) = open(&app, &ann).await;
    assert_eq!(online, BTreeSet::from(["ann".to_owned()]));
    let (mut of_eve, online) = open(&app, &eve).await;
    assert_eq!(online, BTreeSet::from(["eve".to_owned()]));
    let (of_bob, online) = open(&app, &bob).await;
    assert_eq!(online, BTreeSet::from(["ann".to_owned(), "bob".to_owned()]));
    assert_update(&of_ann.data().await, "o1", "bob", true);
    drop(of_bob);
    assert_update(&of_ann.data().await, "o1", "bob", false);
    drop(of_ann);
    app.sql("select walcast.emit('o2', 'next', '1', 'presence')").await;
    assert_eq!(of_eve.data().await.event_type().as_deref(), Some("next"), "of the others she heard nothing");
}

#[tokio::test]
async fn presence_is_not_replayed() {
    let app = start(Duration::ZERO).await;
    let [ann, bob] = members(&app, [("o1", "ann"), ("o1", "bob")]).await;
    let (mut of_ann, _) = open(&app, &ann).await;
    let (of_bob, _) = open(&app, &bob).await;
    assert_update(&of_ann.data().await, "o1", "bob", true);
    drop(of_bob);
    assert_update(&of_ann.data().await, "o1", "bob", false);
    app.sql("select walcast.emit('o1', 'kept', '1', 'presence')").await;
    let kept = of_ann.data().await;
    let mut again = app.connect(&ann, "&channel=presence&since=earliest").await;
    assert_eq!(again.data().await.event_type().as_deref(), Some("connected"));
    assert_eq!(again.data().await.raw, kept.raw, "the event, and nothing of who came and went");
}

#[tokio::test]
async fn who_is_no_member_any_more_is_gone_at_once() {
    let app = start(Duration::from_secs(3600)).await;
    let [ann, bob, cid] = members(&app, [("o1", "ann"), ("o1", "bob"), ("o1", "cid")]).await;
    // Everybody was here just now, and the grace is long.
    visit(&app, &[&bob, &cid]).await;
    let (mut of_ann, online) = open(&app, &ann).await;
    assert_eq!(online, ["ann", "bob", "cid"].map(str::to_owned).into());
    let (mut of_bob, _) = open(&app, &bob).await;
    app.sql("delete from memberships where organization_id = 'o1' and user_id = 'bob'").await;
    assert_update(&of_ann.data().await, "o1", "bob", false);
    assert_eq!(of_bob.event().await.event_type().as_deref(), Some("access.revoked"));
    // Also who has no stream, and would come back.
    app.sql("delete from memberships where organization_id = 'o1' and user_id = 'cid'").await;
    assert_update(&of_ann.data().await, "o1", "cid", false);
    // A member again is somebody who arrives.
    app.sql("insert into memberships (organization_id, user_id, role) values ('o1', 'bob', 'member')").await;
    let again = app.open(&bob, "").await;
    assert_update(&of_ann.data().await, "o1", "bob", true);
    drop(again);
}

#[tokio::test]
async fn a_crowd_that_comes_at_once_knows_all_of_itself() {
    const CROWD: usize = 40;
    let app = start(Duration::from_secs(3600)).await;
    let values = (0..CROWD).map(|n| format!("('u{n}', 'u{n}@x', 'u{n}')")).collect::<Vec<_>>().join(",");
    let roles = (0..CROWD).map(|n| format!("('o1', 'u{n}', 'member')")).collect::<Vec<_>>().join(",");
    app.sql(&format!(
        "begin; insert into organizations (id, name, plan) values ('o1', 'o1', 'free');
         insert into users (id, email, name) values {values};
         insert into memberships (organization_id, user_id, role) values {roles}; commit"
    ))
    .await;
    let everybody: BTreeSet<String> = (0..CROWD).map(|n| format!("u{n}")).collect();
    let visitor = async |n: usize| {
        let user = format!("u{n}");
        let member = Member { organization: "o1".to_owned(), token: token_with(&user, json!({})) };
        let (mut stream, mut online) = open(&app, &member).await;
        assert!(online.contains(&user), "{online:?}");
        while online != everybody {
            let update = stream.data().await.json();
            assert_eq!(update["type"], "presence_updated");
            assert_eq!(update["data"]["isOnline"], Value::Bool(true));
            let told = update["data"]["userId"].as_str().expect("a user").to_owned();
            assert_ne!(told, user, "nobody is told of themselves");
            online.insert(told);
        }
        stream
    };
    let streams = futures_util::future::join_all((0..CROWD).map(visitor)).await;
    assert_eq!(streams.len(), CROWD);
}

#[tokio::test]
async fn a_preset_with_presence_greets_with_who_is_online_and_hides_reconnects() {
    let app = start(Duration::from_secs(3600)).await;
    let [ann, bob] = members(&app, [("o1", "ann"), ("o1", "bob")]).await;
    visit(&app, &[&bob]).await;
    let path = |member: &Member| format!("/api/events?organizationId=o1&token={}", member.token);
    let mut of_ann = Stream::open(app.address, Request::get(path(&ann))).await;
    let connected = of_ann.data().await.json();
    assert_eq!(connected["online"], json!(["ann", "bob"]), "bob was here within the grace");
    for _ in 0..5 {
        let mut of_bob = Stream::open(app.address, Request::get(path(&bob))).await;
        assert_eq!(of_bob.data().await.event_type().as_deref(), Some("connected"));
    }
    app.sql("select walcast.emit('o1', 'next', '1')").await;
    assert_eq!(of_ann.data().await.event_type().as_deref(), Some("next"), "bob was never away");
}
