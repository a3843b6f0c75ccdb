//! Rows and messages that were written to break out of their frame.

use serde_json::{Value, json};

use crate::bench::app::TestApp;
use crate::bench::eventually;
use crate::bench::sse::Frame;

/// What ends lines, fields, strings or documents for somebody.
pub(super) const HOSTILE: [&str; 12] = [
    "a\r\n\r\ndata: {\"type\":\"injected\"}\n\nid: 1\n\n",
    "\nevent: injected\n",
    "\rretry: 0\r\r",
    "\n: comment\n\n",
    "line\u{2028}separator\u{2029}paragraph\u{85}next\u{b}\u{c}",
    "\u{feff}bom\u{1}\u{1f}\u{7f}",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"},\"type\":\"injected\",\"x\":{\"",
    "\\\"\\u0000\\ud800\\n",
    "\u{10ffff}\u{fffe}\u{fffd}🙂\u{202e}",
    "' or 1=1; drop table lots; --",
];

/// An SQL literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A frame that is one event and nothing else.
pub(super) fn assert_whole(frame: &Frame) {
    let lines: Vec<_> = frame.raw.split('\n').collect();
    assert_eq!(lines.len(), 4, "id, data, and an empty line: {:?}", frame.raw);
    assert!(lines[0].starts_with("id: ") && lines[1].starts_with("data: {"), "{:?}", frame.raw);
    assert!(!frame.raw.contains('\r') && !frame.raw.contains('\0'), "{:?}", frame.raw);
    assert_eq!(frame.json()["id"].as_str(), frame.id.as_deref());
}

#[tokio::test]
async fn hostile_text_in_every_column_stays_inside_its_string() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&channel=issues,property,notifications,lots&types=issue:created,issue:deleted,property.update,notification.new,capacity_update").await;
    for (n, text) in HOSTILE.into_iter().enumerate() {
        let t = literal(text);
        let id = literal(&format!("{n}{text}"));
        app.sql(&format!(
            "insert into issues (id, organization_id, campus_id, building_id, category, priority, status, title,
                                 description, reporter_id, assigned_to)
               values ({id}, 'o1', {t}, {t}, {t}, 'low', 'open', {t}, {t}, {t}, {t});
             insert into properties (id, organization_id, title, address, city, status, owner_id, metadata)
               values ({id}, 'o1', {t}, {t}, {t}, 'draft', {t}, jsonb_build_object({t}, {t}));
             insert into notifications (organization_id, user_id, title, body) values ('o1', 'u1', {t}, {t});
             delete from issues where id = {id};"
        ))
        .await;
        for expected in ["issue:created", "property.update", "notification.new", "issue:deleted"] {
            let frame = stream.event().await;
            assert_whole(&frame);
            let event = frame.json();
            assert_eq!(event["type"], expected, "{text:?}");
            let data = &event["data"];
            match expected {
                "property.update" => {
                    assert_eq!(data["id"], format!("{n}{text}"));
                    assert_eq!(data["property"]["title"], text);
                    assert_eq!(data["property"]["metadata"], json!({ text: text }));
                }
                "notification.new" => {
                    assert_eq!((&data["title"], &data["body"]), (&json!(text), &json!(text)));
                }
                _ => {
                    for column in ["title", "description", "category", "campusId", "buildingId", "assignedTo"]
                    {
                        assert_eq!(data["issue"][column], text, "{expected} {column}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn hostile_text_in_a_filter_matches_only_itself() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    // A comma separates values, so such a value can't be asked for.
    for (n, text) in HOSTILE.into_iter().filter(|text| !text.contains(',')).enumerate() {
        let asked = super::encoded(text.trim());
        let mut stream =
            app.open(&member, &format!("&channel=issues&types=issue:created&category={asked}")).await;
        for category in ["other", text.trim()] {
            app.sql(&format!(
                "insert into issues (organization_id, category, priority, status, title, description, reporter_id)
                   values ('o1', {}, 'low', 'open', 't{n}', 'd', 'u')",
                literal(category)
            ))
            .await;
        }
        let frame = stream.event().await;
        assert_whole(&frame);
        assert_eq!(frame.json()["data"]["issue"]["category"], text.trim());
    }
}

#[tokio::test]
async fn emitted_names_are_checked_in_the_database_and_emitted_data_stays_inside() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&channel=custom").await;
    for text in
        HOSTILE.into_iter().chain(["", " ", "a b", "connected", "data.sync", "token.expired", "ü", "*"])
    {
        let t = literal(text);
        for call in [format!("walcast.emit('o1', {t}, '1')"), format!("walcast.emit('o1', 'fine', '1', {t})")]
        {
            let name_is_fine =
                call.contains("'fine'") && matches!(text, "connected" | "data.sync" | "token.expired");
            let outcome = app.try_sql(&format!("select {call}")).await;
            assert_eq!(outcome.is_ok(), name_is_fine, "{call}");
        }
    }
    for text in HOSTILE {
        let t = literal(text);
        app.sql(&format!(
            "select walcast.emit('o1', 'hostile', jsonb_build_object({t}, to_jsonb({t}::text)), 'custom',
                                 jsonb_build_object('tagName', {t}::text))"
        ))
        .await;
        let frame = stream.event().await;
        assert_whole(&frame);
        assert_eq!(
            (&frame.json()["type"], &frame.json()["data"]),
            (&json!("hostile"), &json!({ text: text }))
        );
    }
    // jsonb knows no lone surrogate and no NUL: they do not even get into the log.
    for json in [r#""\ud800""#, r#""\u0000""#, r#"{"a":"\udc00"}"#] {
        assert!(app.try_sql(&format!("select walcast.emit('o1', 'x', '{json}')")).await.is_err(), "{json}");
    }
}

#[tokio::test]
async fn json_columns_keep_their_lone_surrogates_and_lose_their_newlines() {
    let app = TestApp::builder()
        .before("create table papers (id text primary key, organization_id text not null, body json)")
        .catalog(
            r#"
[tables.papers]
organization = "organization_id"
channel = "papers"
[[tables.papers.events]]
type = "paper"
on = ["insert"]
[tables.papers.events.data]
body = "body"
seen = { expr = "new.body" }
row = { row = "new" }
"#,
        )
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&channel=papers").await;
    for (n, body) in
        [r#""\ud800""#, r#""\u0000""#, r#"{"\udc00\ud800":"\ud83d"}"#, "[1,\r\n\"a\",\n\n2]", "  {\n}\n"]
            .into_iter()
            .enumerate()
    {
        app.sql(&format!("insert into papers values ('p{n}', 'o1', '{body}')")).await;
        // serde_json, by which the bench tells events apart, knows no lone surrogate.
        let frame = stream.data().await;
        let lines: Vec<_> = frame.raw.split('\n').collect();
        assert_eq!(lines.len(), 4, "{:?}", frame.raw);
        assert!(!frame.raw.contains('\r'), "{:?}", frame.raw);
        let one_line = body.replace(['\r', '\n'], " ");
        assert!(frame.raw.contains(&format!("\"body\":{one_line},\"seen\":")), "{:?}", frame.raw);
    }
}

#[tokio::test]
async fn messages_that_nobody_signed_reach_nobody() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let refused = async || {
        let metrics = app.get("/metrics").await.body;
        let counts = metrics.lines().filter_map(|line| line.strip_prefix("walcast_emit_refused_total"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let before = refused().await;
    let body = json!({ "organization_id": "o1", "type": "forged", "channel": "custom", "data": {} });
    for content in [
        body.to_string(),
        format!("{}{body}", "0".repeat(64)),
        String::new(),
        "\0\0\0".to_owned(),
        "{".repeat(5000),
    ] {
        let bytes: String = content.bytes().map(|byte| format!("{byte:02x}")).collect();
        app.sql(&format!("select pg_logical_emit_message(true, 'walcast', '\\x{bytes}'::bytea)")).await;
        app.sql(&format!("select pg_logical_emit_message(false, 'walcast', '\\x{bytes}'::bytea)")).await;
    }
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let seen: Vec<Value> = stream
        .events_until(|frame| frame.event_type().as_deref() == Some("done"))
        .await
        .iter()
        .map(Frame::json)
        .collect();
    assert_eq!(seen.len(), 1, "{seen:#?}");
    eventually("they are counted", || async { (refused().await >= before + 5).then_some(()) }).await;
}
