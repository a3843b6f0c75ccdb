//! Who may listen, judged by the stream itself: a membership that goes ends the user's streams at its commit, a role
//! holds from the commit that changes it, a new member is let in at once.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::bench::PATIENCE;
use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::sse::{Frame, Stream};

/// What an ended stream still gave, its last frame apart.
fn parted(mut frames: Vec<Frame>) -> (Vec<Frame>, Frame) {
    let last = frames.pop().expect("a stream says why it ends");
    (frames.into_iter().filter(|frame| frame.id.is_some()).collect(), last)
}

fn assert_revoked(last: &Frame) {
    let data = last.json();
    assert_eq!((&data["type"], &data["data"]), (&json!("access.revoked"), &json!({})), "{}", last.raw);
    assert!(last.id.is_none(), "{}", last.raw);
}

fn is(event_type: &str) -> impl Fn(&Frame) -> bool {
    move |frame| frame.event_type().as_deref() == Some(event_type)
}

fn types(frames: &[Frame]) -> Vec<String> {
    frames.iter().filter_map(Frame::event_type).collect()
}

fn commit_lsn(frame: &Frame) -> u64 {
    let id = frame.id.as_deref().expect("an id");
    id.split('.').nth(1).and_then(|lsn| lsn.parse().ok()).expect("a position")
}

const EMIT: &str = "select walcast.emit('o1', 'thing', '1')";
const DONE: &str = "select walcast.emit('o1', 'done', '1')";
const REVOKE: &str = "delete from memberships where user_id = 'gone'";

/// A worker, somebody who stays and somebody who will go.
async fn two() -> (TestApp, Member, Member) {
    let app = TestApp::start().await;
    let stays = app.member("o1", "stays", "admin").await;
    let goes = app.member("o1", "gone", "admin").await;
    (app, stays, goes)
}

#[tokio::test]
pub async fn a_revoked_member_gets_nothing_of_the_transaction_that_revokes() {
    let (app, stays, goes) = two().await;
    let (mut staying, mut first, mut second) =
        (app.open(&stays, "").await, app.open(&goes, "").await, app.open(&goes, "&channel=custom").await);
    app.transaction(&format!("{EMIT}; {REVOKE}; {EMIT}")).await;
    app.sql(DONE).await;
    for stream in [&mut first, &mut second] {
        let (events, last) = parted(stream.rest().await);
        assert_revoked(&last);
        assert!(events.is_empty(), "{events:#?}");
    }
    assert_eq!(types(&staying.events_until(is("done")).await), ["thing", "member.leave", "thing", "done"]);
    app.refused(&goes, "").await;
}

#[tokio::test]
async fn a_member_of_two_organizations_loses_the_one_alone() {
    let (app, _, goes) = two().await;
    let elsewhere = app.member("o2", "gone", "member").await;
    let (mut ends, mut lives) = (app.open(&goes, "").await, app.open(&elsewhere, "").await);
    app.sql("delete from memberships where user_id = 'gone' and organization_id = 'o1'").await;
    app.sql("select walcast.emit('o2', 'done', '1')").await;
    assert_revoked(&parted(ends.rest().await).1);
    assert_eq!(types(&lives.events_until(is("done")).await), ["done"]);
}

#[tokio::test]
async fn a_membership_that_moves_or_goes_with_its_organization_is_gone_too() {
    let (app, stays, goes) = two().await;
    app.member("o2", "boss", "admin").await;
    let mut moved = app.open(&goes, "").await;
    app.sql("update memberships set organization_id = 'o2' where user_id = 'gone'").await;
    assert_revoked(&parted(moved.rest().await).1);
    let there = Member { organization: "o2".to_owned(), ..goes };
    app.open(&there, "").await;
    let mut orphaned = app.open(&stays, "").await;
    app.sql("delete from organizations where id = 'o1'").await;
    assert_revoked(&parted(orphaned.rest().await).1);
}

#[tokio::test]
pub async fn truncated_memberships_leave_only_who_is_a_member_at_the_commit() {
    let (app, stays, goes) = two().await;
    let (mut staying, mut going) = (app.open(&stays, "").await, app.open(&goes, "").await);
    app.transaction(
        "truncate memberships;
         insert into memberships (organization_id, user_id, role) values ('o1', 'stays', 'admin')",
    )
    .await;
    app.sql(DONE).await;
    assert_revoked(&parted(going.rest().await).1);
    assert!(types(&staying.events_until(is("done")).await).ends_with(&["done".to_owned()]));
}

#[tokio::test]
async fn who_is_removed_and_added_in_one_transaction_stays() {
    let (app, _, goes) = two().await;
    let mut stream = app.open(&goes, "").await;
    let again = "insert into memberships (organization_id, user_id, role) values ('o1', 'gone', 'member')";
    app.transaction(&format!("{REVOKE}; {again}")).await;
    app.sql(DONE).await;
    assert_eq!(types(&stream.events_until(is("done")).await), ["member.leave", "member.join", "done"]);
    // In two, however close, the first ends the stream.
    app.sql(&format!("begin; {REVOKE}; commit; begin; {again}; commit")).await;
    let (events, last) = parted(stream.rest().await);
    assert_revoked(&last);
    assert!(events.is_empty(), "{events:#?}");
    app.open(&goes, "").await;
}

#[tokio::test]
async fn under_load_no_event_of_the_revoking_commit_or_after_reaches_the_revoked() {
    let (app, stays, goes) = two().await;
    for round in 0..5 {
        let mut staying = app.open(&stays, "").await;
        let mut going = Vec::new();
        for _ in 0..4 {
            going.push(app.open(&goes, "").await);
        }
        let one = format!("begin; {EMIT}; {EMIT}; commit;");
        let (before, after) = (one.repeat(200), one.repeat(100));
        app.sql(&format!("{before} begin; {EMIT}; {REVOKE}; {EMIT}; commit; {after} {DONE}")).await;
        let all = staying.events_until(is("done")).await;
        let revoking = commit_lsn(all.iter().find(|frame| is("member.leave")(frame)).expect("who left"));
        assert_eq!(types(&all).iter().filter(|one| *one == "thing").count(), 602, "round {round}");
        for stream in &mut going {
            let (events, last) = parted(stream.rest().await);
            assert_revoked(&last);
            assert!(events.iter().all(|frame| commit_lsn(frame) < revoking), "round {round}: {events:#?}");
            let ids: Vec<_> = events.iter().map(|frame| &frame.id).collect();
            let expected: Vec<_> = all.iter().map(|frame| &frame.id).take(ids.len()).collect();
            assert_eq!(ids, expected, "what came before is whole");
        }
        app.member("o1", "gone", "admin").await;
    }
}

#[tokio::test]
async fn a_replay_ends_at_once_also_for_a_client_that_reads_nothing() {
    let app = TestApp::builder()
        .config(|config| config.http.write_timeout = Duration::from_secs(600))
        .start()
        .await;
    let stays = app.member("o1", "stays", "admin").await;
    let goes = app.member("o1", "gone", "admin").await;
    let mut staying = app.open(&stays, "").await;
    // More than the buffers of both ends of a connection take.
    let large =
        "select walcast.emit('o1', 'thing', to_jsonb(repeat('x', 100000))) from generate_series(1, 160)";
    app.sql(&format!("begin; {large}; commit; {DONE}")).await;
    let sent = staying.events_until(is("done")).await.len();
    let mut replayed = app.connect(&goes, "&since=earliest").await;
    assert_eq!(replayed.head.status, 200);
    app.sql(&format!("begin; {REVOKE}; commit; {DONE}")).await;
    staying.events_until(is("done")).await;
    // Its place is free though it has read nothing: the worker only owes it the end of a frame.
    let (events, last) = parted(timeout(PATIENCE, replayed.rest()).await.expect("an end"));
    assert_revoked(&last);
    assert!(events.len() < sent, "{} of {sent}", events.len());
    assert!(!types(&events).contains(&"member.leave".to_owned()));
}

#[tokio::test]
pub async fn who_was_revoked_while_the_worker_was_down_is_refused_and_the_others_resume() {
    let (mut app, stays, goes) = two().await;
    let (mut staying, mut going) = (app.open(&stays, "").await, app.open(&goes, "").await);
    app.sql(EMIT).await;
    let id = staying.event().await.id.expect("an id");
    assert_eq!(going.event().await.id.as_deref(), Some(&*id));
    app.stop().await;
    app.sql(&format!("{EMIT}; {REVOKE}; {DONE}")).await;
    app.restart().await;
    let resume = format!("&lastEventId={id}");
    app.refused(&goes, &resume).await;
    let mut staying = app.open(&stays, &resume).await;
    assert_eq!(types(&staying.events_until(is("done")).await), ["thing", "member.leave", "done"]);
}

/// Whether events for managers are seen around two changes of a role, in as many transactions as close to each other as
/// can be.
const AROUND: &str = "
    begin; insert into user_activity (organization_id, user_id, action) values ('o1', 'u', 'before'); commit;
    begin; insert into user_activity (organization_id, user_id, action) values ('o1', 'u', 'promoted first');
           update memberships set role = 'manager' where user_id = 'gone';
           insert into user_activity (organization_id, user_id, action) values ('o1', 'u', 'promoted'); commit;
    begin; insert into user_activity (organization_id, user_id, action) values ('o1', 'u', 'between'); commit;
    begin; insert into user_activity (organization_id, user_id, action) values ('o1', 'u', 'demoted first');
           update memberships set role = 'member' where user_id = 'gone';
           insert into user_activity (organization_id, user_id, action) values ('o1', 'u', 'demoted'); commit;
    begin; insert into user_activity (organization_id, user_id, action) values ('o1', 'u', 'after'); commit;";

#[tokio::test]
async fn a_role_holds_from_the_commit_that_changes_it() {
    let app = TestApp::start().await;
    let user = app.member("o1", "gone", "member").await;
    for _ in 0..20 {
        let mut stream = app.open(&user, "").await;
        let mut narrow = app.open(&user, "&types=user.activity,done").await;
        app.sql(&format!("{AROUND} {DONE}")).await;
        for stream in [&mut stream, &mut narrow] {
            let events = stream.events_until(is("done")).await;
            let seen: Vec<_> = events.iter().map(|event| event.json()["data"]["action"].clone()).collect();
            assert_eq!(seen, [json!("promoted first"), json!("promoted"), json!("between"), json!(null)]);
        }
    }
}

#[tokio::test]
async fn a_replay_is_judged_by_the_role_of_who_asks_now() {
    let app = TestApp::start().await;
    let user = app.member("o1", "gone", "manager").await;
    let mut stream = app.open(&user, "").await;
    app.sql(&format!("{AROUND} {DONE}")).await;
    stream.events_until(is("done")).await;
    let mut replay = app.open(&user, "&since=earliest&channel=activity-log,custom").await;
    assert_eq!(types(&replay.events_until(is("done")).await), ["done"]);
    app.sql("update memberships set role = 'manager' where user_id = 'gone'").await;
    let mut replay = app.open(&user, "&since=earliest&channel=activity-log,custom").await;
    assert_eq!(replay.events_until(is("done")).await.len(), 8);
}

#[tokio::test]
async fn a_new_member_can_connect_at_once() {
    let app = TestApp::start().await;
    app.member("o1", "boss", "admin").await;
    for round in 0..20 {
        let user = format!("new{round}");
        let member = Member { organization: "o1".to_owned(), token: token_with(&user, json!({})) };
        app.refused(&member, "").await;
        app.sql(&format!(
            "insert into users (id, email, name) values ('{user}', '{user}@example.com', '{user}');
             insert into memberships (organization_id, user_id, role) values ('o1', '{user}', 'member')"
        ))
        .await;
        let mut stream = app.open(&member, "").await;
        app.sql(DONE).await;
        // Their own arrival came before they did.
        assert_eq!(types(&stream.events_until(is("done")).await), ["done"]);
    }
}

#[tokio::test]
async fn however_opening_and_revoking_race_no_stream_of_the_revoked_lives_on() {
    let (app, stays, goes) = two().await;
    let mut staying = app.open(&stays, "").await;
    for round in 0..30 {
        let opening = async {
            tokio::time::sleep(Duration::from_micros(round * 100)).await;
            app.connect(&goes, "&since=earliest").await
        };
        let revoking = app.sql(REVOKE);
        let (mut stream, ()): (Stream, ()) = tokio::join!(opening, revoking);
        let status = stream.head.status;
        if status == 200 {
            assert_revoked(&parted(stream.rest().await).1);
        } else {
            assert_eq!(status, 403);
        }
        app.member("o1", "gone", "admin").await;
    }
    app.sql(DONE).await;
    staying.events_until(is("done")).await;
}
