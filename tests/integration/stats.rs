//! `GET /api/realtime/stats` over the memberships table.

use serde_json::{Value, json};
use walcast::app::App;

use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::eventually;
use crate::bench::http::Request;

async fn stats(app: &TestApp, token: &str) -> Value {
    let answer = Request::get("/api/realtime/stats").bearer(token).fetch(app.address).await;
    assert_eq!(answer.head.status, 200, "{}", answer.body);
    assert_eq!(answer.head.header("content-type"), Some("application/json"));
    answer.json()
}

/// Once the worker counts so many streams for this caller: those of before have been noticed to be gone.
async fn settled(app: &TestApp, token: &str, streams: u64) -> Value {
    eventually("the streams are counted", || async {
        let stats = stats(app, token).await;
        (stats["totalConnections"] == streams).then_some(stats)
    })
    .await
}

#[tokio::test]
async fn members_see_their_organizations_overseers_their_users_and_the_scope_all() {
    let app = TestApp::start().await;
    let manager = app.member("o1", "boss", "manager").await;
    let employee = app.member("o1", "emma", "employee").await;
    let elsewhere = app.member("o2", "boss", "member").await;
    let stranger = app.member("o3", "eve", "admin").await;
    let operator = token_with("ops", json!({ "scope": "walcast:stats" }));
    settled(&app, &operator, 0).await;
    let _one = app.open(&manager, "&channel=issues,presence").await;
    let _two = app.open(&employee, "&channel=lots").await;
    let _three = app.open(&elsewhere, "&channel=lots,heatmap").await;
    let _four = app.open(&stranger, "&channel=lots").await;
    let mut all = settled(&app, &operator, 4).await;
    let (position, lag) = (all["position"].take(), all["lagBytes"].take());
    assert!(position.as_str().is_some_and(|id| id.ends_with(".0")) && lag.is_u64(), "{position} {lag}");
    let o1 = json!({ "connections": 2, "channels": { "issues": 1, "lots": 1, "presence": 1 } });
    let o2 = json!({ "connections": 1, "channels": { "heatmap": 1, "lots": 1 } });
    let o3 = json!({ "connections": 1, "channels": { "lots": 1 } });
    let websocket = json!({ "totalConnections": 0, "rooms": 0 });
    assert_eq!(
        all,
        json!({
            "totalConnections": 4, "activeConnections": 4,
            "connectionsByUser": { "boss": 2, "emma": 1, "eve": 1 },
            "organizations": { "o1": o1, "o2": o2, "o3": o3 },
            "sse": { "totalConnections": 4, "heatmapStreams": 1, "issueStreams": 1 },
            "websocket": websocket, "position": null, "lagBytes": null,
        })
    );
    let expect = async |member: &Member, expected: Value| {
        let mut told = stats(&app, &member.token).await;
        (told["position"], told["lagBytes"]) = (Value::Null, Value::Null);
        assert_eq!(told, expected);
    };
    // A manager of the one, and no more than a member of the other.
    let managers = json!({
        "totalConnections": 3, "activeConnections": 3, "connectionsByUser": { "boss": 1, "emma": 1 },
        "organizations": { "o1": o1, "o2": o2 },
        "sse": { "totalConnections": 3, "heatmapStreams": 1, "issueStreams": 1 },
        "websocket": websocket, "position": null, "lagBytes": null,
    });
    expect(&manager, managers).await;
    let employees = json!({
        "totalConnections": 2, "activeConnections": 2, "organizations": { "o1": o1 },
        "sse": { "totalConnections": 2, "heatmapStreams": 0, "issueStreams": 1 },
        "websocket": websocket, "position": null, "lagBytes": null,
    });
    expect(&employee, employees).await;
    // Whoever loses a membership loses the view.
    app.sql("delete from memberships where organization_id = 'o1' and user_id = 'emma'").await;
    let told = settled(&app, &employee.token, 0).await;
    assert_eq!(told["organizations"], json!({}));
}

#[tokio::test]
async fn a_member_of_just_now_sees_their_organization_and_one_until_just_now_does_not() {
    let app = TestApp::start().await;
    for number in 0..20 {
        let member = app.member(&format!("o{number}"), "u1", "admin").await;
        let told = stats(&app, &member.token).await;
        assert_eq!(told["organizations"].as_object().map(serde_json::Map::len), Some(1), "{told}");
        app.sql("delete from memberships where user_id = 'u1'").await;
        assert_eq!(stats(&app, &member.token).await["organizations"], json!({}));
    }
}

#[tokio::test]
async fn a_worker_that_does_not_know_the_members_asks_to_come_again_instead_of_counting_none() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "member").await;
    let standby = App::start(app.config.clone(), app.dsn.clone(), true).await.expect("a second worker");
    let ask =
        async |target: &str, token: &str| Request::get(target).bearer(token).fetch(standby.address()).await;
    let stands_by = async || ask("/readyz", &member.token).await.body == "standby";
    let answer = eventually("it is asked while it stands by", || async {
        let before = stands_by().await;
        let answer = ask("/api/realtime/stats", &member.token).await;
        (before && stands_by().await).then_some(answer)
    })
    .await;
    assert_eq!(answer.error(), (503, "standby".to_owned()));
    assert!(answer.head.header("retry-after").is_some());
    // Who oversees all sees that there is nobody.
    let operator = token_with("ops", json!({ "scope": "walcast:stats" }));
    let all = ask("/api/realtime/stats", &operator).await;
    assert_eq!((all.head.status, &all.json()["totalConnections"]), (200, &json!(0)));
    standby.stop().await.expect("a graceful stop");
}
