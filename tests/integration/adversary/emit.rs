//! Events that a service was talked into emitting: what stands in a body stays in its field.

use serde_json::{Value, json};

use super::frames::{HOSTILE, assert_whole};
use crate::bench::app::{TestApp, token_with};
use crate::bench::http::{Request, Response};

async fn post(app: &TestApp, token: &str, body: &str) -> Response {
    let request = Request::new("POST", "/api/realtime/events").bearer(token);
    request.header("Content-Type", "application/json").body(body).fetch(app.address).await
}

fn service() -> String {
    token_with("service", json!({ "scope": "walcast:emit" }))
}

#[tokio::test]
async fn hostile_text_in_an_emitted_body_stays_inside_its_string() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&channel=custom").await;
    for text in HOSTILE {
        let data = json!({ text: [text] });
        let body =
            json!({ "organizationId": "o1", "type": "hostile", "data": data, "tags": { "tagName": text } });
        let answer = post(&app, &service(), &body.to_string()).await;
        assert_eq!(answer.head.status, 202, "{text:?}: {}", answer.body);
        let frame = stream.event().await;
        assert_whole(&frame);
        assert_eq!((&frame.json()["type"], &frame.json()["data"]), (&json!("hostile"), &data));
    }
    for text in HOSTILE.into_iter().chain(["connected", "data.sync", "", "*"]) {
        for body in [
            json!({ "organizationId": "o1", "type": text, "data": 1 }),
            json!({ "organizationId": "o1", "type": "fine", "data": 1, "tags": { text: 1 } }),
            json!({ "organizationId": "o1", "type": "fine", "data": 1, "only": { text: "u1" } }),
        ] {
            let names_a_tag = body["tags"].get("connected").or(body["tags"].get("data.sync")).is_some();
            let answer = post(&app, &service(), &body.to_string()).await;
            assert_eq!(answer.head.status, if names_a_tag { 202 } else { 400 }, "{body}: {}", answer.body);
            assert!(!answer.body.contains(['\r', '\n']), "{:?}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_body_has_one_reading() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.member("o2", "u2", "admin").await;
    let mut stream = app.open(&member, "&channel=custom").await;
    let bound = token_with("service", json!({ "scope": "walcast:emit", "organizationId": "o1" }));
    for body in [
        r#"{"organizationId":"o1","organizationId":"o2","type":"t","data":1}"#,
        r#"{"organizationId":"o2","organizationId":"o1","type":"t","data":1}"#,
        r#"{"organizationId":"o1","organizationid":"o2","type":"t","data":1}"#,
        r#"{"organizationId":["o1"],"type":"t","data":1}"#,
        r#"{"organizationId":"*","type":"t","data":1}"#,
        r#"{"organizationId":"o1","type":"t","data":1,"only":null,"only":{"user":"u2"}}"#,
        r#"{"organizationId":"o1","type":"t","data":1,"only":{}}"#,
        r#"{"organizationId":"o1","type":"t","data":1,"only":{"user":"u1","users":["u2"]}}"#,
        r#"{"organizationId":"o1","type":"t","type":"u","data":1}"#,
        r#"{"organizationId":"o1","type":"t","data":1}{"organizationId":"o2","type":"t","data":1}"#,
        r#"[{"organizationId":"o1","type":"t","data":1}]"#,
        r#"["o1","t",1]"#,
        r#"{"organizationId":"o1","type":"t","data":"\ud800"}"#,
        r#"{"organizationId":"o1","type":"t","data":"\u0000"}"#,
        "{\"organizationId\":\"o1\",\"type\":\"t\",\"data\":\"\u{1}\"}",
    ] {
        let answer = post(&app, &bound, body).await;
        assert!(matches!(answer.error().0, 400 | 403), "{body}: {} {}", answer.head.status, answer.body);
    }
    // The one that says the same organization in another spelling is the same.
    let answer =
        post(&app, &bound, "{\"organization\\u0049d\":\"\\u006f1\",\"type\":\"done\",\"data\":1}").await;
    assert_eq!(answer.head.status, 202, "{}", answer.body);
    let first: Value = stream.event().await.json();
    assert_eq!(first["type"], "done", "nothing of the others: {first}");
}

#[tokio::test]
async fn who_may_emit_for_some_learns_nothing_of_other_organizations() {
    let app = TestApp::start().await;
    app.member("o1", "u1", "admin").await;
    app.member("o2", "u2", "admin").await;
    let token = token_with("u1", json!({ "scope": "walcast:emit" }));
    let ask = async |organization: &str| {
        let body = json!({ "organizationId": organization, "type": "t", "data": 1 });
        super::told(&post(&app, &token, &body.to_string()).await)
    };
    let foreign = ask("o2").await;
    assert_eq!(foreign.0, 403);
    for organization in ["nowhere", "O1", " o1", "..", "🙂", "o2'--"] {
        assert_eq!(ask(organization).await, foreign, "{organization:?}");
    }
}
