//! Streams that their users change and close while they are open, over a database that is being written to.

use serde_json::{Value, json};

use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::http::{Request, Response};
use crate::bench::sse::{Frame, Stream};

/// Opens a stream and says its connection id.
async fn open(app: &TestApp, member: &Member, parameters: &str) -> (Stream, String) {
    let mut stream = app.connect(member, parameters).await;
    let connected = stream.data().await.json();
    (stream, connected["connectionId"].as_str().expect("an id").to_owned())
}

async fn put(app: &TestApp, member: &Member, id: &str, body: &Value) -> Response {
    let request = Request::new("PUT", format!("/api/realtime/stream/{id}")).bearer(&member.token);
    request.json(body).fetch(app.address).await
}

fn position(standing: &Value) -> (String, u64) {
    let id = standing["position"].as_str().expect("a position");
    let mut parts = id.split('.');
    let epoch = parts.next().expect("an epoch").to_owned();
    let lsn = parts.next().and_then(|lsn| lsn.parse().ok()).expect("a position");
    assert_eq!(parts.next(), Some("0"), "{id}");
    (epoch, lsn)
}

#[tokio::test]
async fn a_changed_filter_has_neither_gap_nor_duplicate_while_rows_are_written() {
    const ROUNDS: usize = 40;
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let (mut changed, id) = open(&app, &member, "&channel=alerts").await;
    // Sees everything, and so says what there was.
    let mut witness = app.open(&member, "&types=tick,last").await;
    let writer = async {
        for number in 0..ROUNDS * 8 {
            let channel = ["devices", "lots"][number % 2];
            app.sql(&format!("select walcast.emit('o1', 'tick', '{number}', '{channel}')")).await;
        }
    };
    let changer = async {
        let mut held = Vec::new();
        for round in 0..ROUNDS {
            let channels = [&["devices"][..], &["lots"], &["devices", "lots"], &["alerts"]][round % 4];
            let answer = put(&app, &member, &id, &json!({ "channels": channels })).await;
            assert_eq!(answer.head.status, 200, "{}", answer.body);
            let standing = answer.json();
            assert_eq!(standing["channels"], json!(channels));
            held.push((position(&standing).1, channels));
        }
        held
    };
    let (held, ()) = tokio::join!(changer, writer);
    let last = put(&app, &member, &id, &json!({})).await.json();
    let mut held: Vec<(u64, &[&str])> = held;
    held.push((position(&last).1, &["devices", "lots", "custom"]));
    app.sql("select walcast.emit('o1', 'last', 'null')").await;
    let is_last = |frame: &Frame| frame.event_type().as_deref() == Some("last");
    let seen: Vec<_> = changed.events_until(is_last).await.into_iter().map(|frame| frame.raw).collect();
    let all = witness.events_until(is_last).await;
    let wanted = all.iter().filter(|frame| {
        let lsn: u64 = frame.id.as_deref().and_then(|id| id.split('.').nth(1)).unwrap().parse().unwrap();
        let channel = frame.json()["channel"].as_str().expect("a channel").to_owned();
        // The newest that was answered for a position at or below it; before all of them, none passed.
        held.iter()
            .rev()
            .find(|(from, _)| *from <= lsn)
            .is_some_and(|(_, channels)| channels.contains(&&*channel))
    });
    let wanted: Vec<_> = wanted.map(|frame| frame.raw.clone()).collect();
    assert_eq!(all.len(), ROUNDS * 8 + 1);
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn a_member_who_is_no_more_can_change_nothing() {
    let app = TestApp::start().await;
    let (one, two) = (app.member("o1", "u1", "admin").await, app.member("o2", "u1", "member").await);
    let (mut first, first_id) = open(&app, &one, "").await;
    let (mut second, second_id) = open(&app, &two, "").await;
    app.sql("delete from memberships where organization_id = 'o1' and user_id = 'u1'").await;
    assert_eq!(first.event().await.event_type().as_deref(), Some("access.revoked"));
    assert!(first.frame().await.is_none());
    let renewal = json!({ "token": one.token });
    for body in [json!({}), renewal.clone()] {
        let answer = put(&app, &one, &first_id, &body).await;
        assert!([403, 404].contains(&answer.head.status), "{}", answer.body);
    }
    // Their stream elsewhere is theirs still, by whatever token of theirs.
    let later = token_with("u1", json!({ "exp": 4_000_000_000_u64 }));
    let answer = put(&app, &two, &second_id, &json!({ "token": later })).await;
    assert_eq!((answer.head.status, answer.json()["expiresAt"].as_u64()), (200, Some(4_000_000_000)));
    let foreign = token_with("u2", json!({}));
    assert_eq!(
        put(&app, &two, &second_id, &json!({ "token": foreign })).await.error(),
        (403, "forbidden".to_owned())
    );
    app.sql("select walcast.emit('o2', 'still', '1')").await;
    assert_eq!(second.event().await.event_type().as_deref(), Some("still"));
}

#[tokio::test]
async fn a_stream_of_another_worker_is_said_to_be_elsewhere() {
    let (here, there) = tokio::join!(TestApp::start(), TestApp::start());
    let member = here.member("o1", "u1", "admin").await;
    let other = there.member("o1", "u1", "admin").await;
    let (_stream, id) = open(&there, &other, "").await;
    for method in ["PUT", "DELETE"] {
        let request = Request::new(method, format!("/api/realtime/stream/{id}")).bearer(&member.token);
        let answer = request.json(&json!({})).fetch(here.address).await;
        assert_eq!(answer.error(), (421, "other_node".to_owned()));
    }
    let request = Request::new("DELETE", format!("/api/realtime/stream/{id}")).bearer(&other.token);
    assert_eq!(request.fetch(there.address).await.head.status, 204);
}

#[tokio::test]
async fn a_closed_stream_ends_and_another_users_can_not_be_closed() {
    let app = TestApp::start().await;
    let (one, two) = (app.member("o1", "u1", "admin").await, app.member("o1", "u2", "admin").await);
    let (mut stream, id) = open(&app, &one, "&channel=lots").await;
    let delete = |member: &Member| {
        Request::new("DELETE", format!("/api/realtime/stream?connectionId={id}"))
            .bearer(&member.token)
            .fetch(app.address)
    };
    assert_eq!(delete(&two).await.error(), (404, "not_found".to_owned()));
    let answer = delete(&one).await;
    assert_eq!((answer.head.status, answer.body.as_str()), (204, ""));
    let rest: Vec<_> = stream.rest().await.into_iter().map(|frame| frame.raw).collect();
    assert_eq!(rest, ["retry: 86400000\n\n"]);
    assert_eq!(delete(&one).await.error(), (404, "not_found".to_owned()));
}
