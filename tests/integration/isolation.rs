//! Nobody sees an event of an organization that they are not a member of: live, replayed, or in an error.

use serde_json::json;

use crate::bench::app::{TestApp, token_with};
use crate::bench::http::Request;

#[tokio::test]
pub async fn a_stream_sees_its_own_organization_alone_live_and_replayed() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    let two = app.member("o2", "u2", "admin").await;
    let mut first = app.open(&one, "").await;
    let mut second = app.open(&two, "").await;
    for round in 0..20 {
        app.transaction(&format!(
            "select walcast.emit('o1', 'secret.one', '{round}'); select walcast.emit('o2', 'secret.two', '{round}')"
        ))
        .await;
    }
    app.transaction("select walcast.emit('o1', 'done', '1'); select walcast.emit('o2', 'done', '2')").await;
    let done = |frame: &crate::bench::sse::Frame| frame.event_type().as_deref() == Some("done");
    for (stream, own, foreign) in [(&mut first, "o1", "secret.two"), (&mut second, "o2", "secret.one")] {
        let live = stream.events_until(done).await;
        assert_eq!(live.len(), 21);
        assert!(live.iter().all(|event| event.json()["organizationId"] == own));
        assert!(!live.iter().any(|event| event.raw.contains(foreign)), "{live:#?}");
    }
    let mut replay = app.open(&one, "&since=earliest").await;
    let events = replay.events_until(done).await;
    assert!(events.iter().all(|event| event.json()["organizationId"] == "o1"), "{events:#?}");
}

#[tokio::test]
pub async fn an_id_of_another_organization_is_not_trusted() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    let two = app.member("o2", "u2", "admin").await;
    let mut first = app.open(&one, "").await;
    app.sql("select walcast.emit('o1', 'a', '1')").await;
    let id = first.event().await.id.expect("an id");
    let mut second = app.connect(&two, &format!("&lastEventId={id}")).await;
    let connected = second.data().await;
    assert_eq!(connected.json()["resumed"], false, "{}", connected.raw);
    let told = second.data().await;
    assert_eq!(
        (&told.json()["type"], &told.json()["data"]["reason"]),
        (&json!("data.sync"), &json!("history_reset"))
    );
}

#[tokio::test]
async fn refusals_are_the_same_for_every_organization_existing_or_not() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    app.member("o2", "u2", "admin").await;
    let ask = async |organization: &str| {
        Request::get(format!("/api/realtime/stream?organizationId={organization}"))
            .bearer(&one.token)
            .header("Accept", "text/event-stream")
            .fetch(app.address)
            .await
    };
    let (foreign, absent) = (ask("o2").await, ask("nowhere").await);
    assert_eq!(foreign.error(), (403, "forbidden".to_owned()));
    assert_eq!(foreign.body, absent.body);
    let stranger = token_with("stranger", json!({}));
    let refused =
        Request::get("/api/realtime/stream?organizationId=o1").bearer(&stranger).fetch(app.address).await;
    assert_eq!(refused.body, foreign.body);
    let every = ask("*").await;
    assert_eq!((every.head.status, &every.body), (403, &foreign.body));
}

#[tokio::test]
pub async fn only_the_named_roles_and_the_named_user_see_what_is_for_them() {
    let app = TestApp::start().await;
    let admin = app.member("o1", "u1", "admin").await;
    let member = app.member("o1", "u2", "member").await;
    let mut to_admin = app.open(&admin, "").await;
    let mut to_member = app.open(&member, "").await;
    app.transaction(
        "insert into user_activity (organization_id, user_id, action) values ('o1', 'u2', 'login');
         insert into notifications (organization_id, user_id, title, body) values ('o1', 'u2', 'Psst', '');
         select walcast.emit('o1', 'for.managers', '1', 'custom', '{}', '{\"roles\": [\"manager\"]}');
         select walcast.emit('o1', 'for.u2', '1', 'custom', '{}', '{\"user\": \"u2\"}');
         select walcast.emit('o1', 'done', '1')",
    )
    .await;
    let done = |frame: &crate::bench::sse::Frame| frame.event_type().as_deref() == Some("done");
    let types = |events: Vec<crate::bench::sse::Frame>| {
        events.iter().filter_map(crate::bench::sse::Frame::event_type).collect::<Vec<_>>()
    };
    assert_eq!(types(to_admin.events_until(done).await), ["user.activity", "done"]);
    assert_eq!(types(to_member.events_until(done).await), ["notification.new", "for.u2", "done"]);
    let mut replayed = app.open(&member, "&since=earliest&types=user.activity,notification.new,done").await;
    assert_eq!(types(replayed.events_until(done).await), ["notification.new", "done"]);
}

#[tokio::test]
pub async fn a_row_that_moves_between_organizations_is_deleted_in_one_and_inserted_in_the_other() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    let two = app.member("o2", "u2", "admin").await;
    app.sql("insert into devices (id, organization_id, name, model, status) values ('d1', 'o1', 'D', 'M', 'ONLINE')")
        .await;
    let mut first = app.open(&one, "&channel=devices").await;
    let mut second = app.open(&two, "&channel=devices").await;
    app.sql("update devices set organization_id = 'o2', name = 'D of two' where id = 'd1'").await;
    let left = first.event().await.json();
    assert_eq!(
        (&left["type"], &left["data"]),
        (&json!("device_removed"), &json!({"deviceId": "d1", "deviceName": "D"}))
    );
    let came = second.event().await.json();
    assert_eq!(
        (&came["type"], &came["data"]),
        (&json!("new_device"), &json!({"deviceId": "d1", "deviceName": "D of two", "status": "ONLINE"}))
    );
}
