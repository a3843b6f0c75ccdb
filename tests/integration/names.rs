//! Names and texts that would break what is careless: identifiers, organization ids, what stands in rows.

use serde_json::{Value, json};

use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::http::Request;
use crate::bench::sse::Stream;

const CATALOG: &str = r#"
[tables.things]
organization = "organization_id"
channel = "things"
tags = { name = "name" }
[[tables.things.events]]
type = "thing"
on = ["insert", "update", "delete"]
data = { id = "id", name = "name" }
"#;

const THINGS: &str = "create table things (id int primary key, organization_id text, name text);";

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

async fn organization(app: &TestApp, id: &str) -> Member {
    app.sql(&format!(
        "insert into organizations (id, name, plan) values ({0}, {0}, 'free');
         insert into users (id, email, name) values ('u1', 'u1@example.com', 'u') on conflict do nothing;
         insert into memberships (organization_id, user_id, role) values ({0}, 'u1', 'admin')",
        literal(id)
    ))
    .await;
    Member { organization: id.to_owned(), token: token_with("u1", json!({})) }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn open(app: &TestApp, member: &Member) -> Stream {
    let target = format!("/api/realtime/stream?organizationId={}", encoded(&member.organization));
    loop {
        let request =
            Request::get(target.clone()).bearer(&member.token).header("Accept", "text/event-stream");
        let mut stream = Stream::open(app.address, request).await;
        // The membership may not have come yet.
        if stream.head.status == 200
            && stream.data().await.json()["organizationId"] == member.organization.as_str()
        {
            return stream;
        }
    }
}

#[tokio::test]
async fn an_organization_may_be_any_text() {
    let app = TestApp::builder().before(THINGS).catalog(CATALOG).start().await;
    let ids =
        ["a\"b'c\\d", "line\nbreak\r\n\r\nid: 1", "🏢 ünï \u{2028}", " ", "%2F/../?&=", "null", "0", "a,b"];
    for (row, id) in (1..).zip(ids) {
        let member = organization(&app, id).await;
        let mut stream = open(&app, &member).await;
        app.sql(&format!("insert into things values ({row}, {}, 'x')", literal(id))).await;
        let event = stream.event().await;
        assert_eq!(event.json()["organizationId"], id);
        assert_eq!(event.json()["data"], json!({ "id": row, "name": "x" }));
    }
}

#[tokio::test]
async fn rows_of_no_organization_make_no_events_and_nobody_is_a_member_of_all() {
    let app = TestApp::builder().before(THINGS).catalog(CATALOG).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let every = organization(&app, "*").await;
    let mut stream = app.open(&member, "").await;
    let huge = "x".repeat(1 << 20);
    app.sql(&format!(
        "insert into things values (1, '*', 'for all?'), (2, null, 'none'), (3, '', 'empty'), (4, '{huge}', 'huge');
         update things set organization_id = '*' where id = 2;
         insert into things values (5, 'o1', 'own')"
    ))
    .await;
    let event = stream.event().await;
    assert_eq!(event.json()["data"], json!({ "id": 5, "name": "own" }), "{}", event.raw);
    app.refused(&every, "").await;
    app.degraded("no organization").await;
}

#[tokio::test]
async fn a_row_may_hold_any_text() {
    let app = TestApp::builder().before(THINGS).catalog(CATALOG).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let controls: String = (1..32_u8).chain([127]).map(char::from).collect();
    let texts = [
        controls.as_str(),
        "\u{2028}\u{2029}\u{85}\u{a0}\u{200b}\u{feff}\u{fffe}\u{ffff}\u{10ffff}",
        "data: x\n\nevent: y\nid: 1\nretry: 0\n\n",
        "\\u0000 \\n \" ' </script><!--",
        "👩‍👩‍👧‍👦 e\u{301} \u{202e}",
        "",
    ];
    for (id, text) in (1..).zip(texts) {
        app.sql(&format!("insert into things values ({id}, 'o1', {})", literal(text))).await;
        let event = stream.event().await;
        assert_eq!(event.json()["data"]["name"], text);
        assert_eq!(event.raw.lines().count(), 3, "an id, a line of data, and the blank: {:?}", event.raw);
    }
    let tagged = |name: &str| format!("&name={}", encoded(name));
    let mut filtered = app.open(&member, &tagged(texts[3])).await;
    app.sql(&format!("update things set name = {} where id = 4", literal("moved"))).await;
    assert_eq!(filtered.event().await.json()["data"]["name"], "moved");
}

#[tokio::test]
async fn tables_and_columns_may_be_named_anything() {
    let before = "
        create schema \"Söhne & Co\";
        create table \"Söhne & Co\".\"Tab le.\"\"x\"\"\" (
            \"Id\" int, \"ORG\" text, \"select\" text, \"ünï_cødé\" text, \"a\"\"b\" int, \"x.y\" int, \"_lead_ing_\" int,
            \"emoji🏢\" int, primary key (\"Id\"));
        create table camel (id int primary key, organization_id text, a_b int, \"aB\" int, a__b int, a1_2b int);
    ";
    let catalog = r#"
[tables.'Söhne & Co.Tab le."x"']
organization = "ORG"
channel = "odd"
tags = { sel = "select" }
[['tables'.'Söhne & Co.Tab le."x"'.events]]
type = "odd"
on = ["insert", "update", "delete"]
data = { id = "Id", sel = "select", 'quo"te' = 'a"b', "x.y" = "x.y", sum = { expr = "new['a\"b'] + new['x.y']" }, row = { row = "new" } }
"#;
    let app = TestApp::builder().before(before).catalog(catalog).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&sel=s").await;
    let table = "\"Söhne & Co\".\"Tab le.\"\"x\"\"\"";
    app.sql(&format!("insert into {table} values (1, 'o1', 's', 'u', 2, 3, 4, 5)")).await;
    app.sql(&format!("update {table} set \"select\" = 'other'; delete from {table}")).await;
    let expected = |sel: &str| -> Value {
        json!({
            "id": 1, "sel": sel, "quo\"te": 2, "x.y": 3, "sum": 5,
            "row": {
                "Id": 1, "ORG": "o1", "select": sel, "ünïCødé": "u", "a\"b": 2, "x.y": 3, "_leadIng_": 4, "emoji🏢": 5
            }
        })
    };
    assert_eq!(stream.event().await.json()["data"], expected("s"));
    assert_eq!(stream.event().await.json()["data"], expected("other"), "it left the filter by this");
    app.sql("select walcast.emit('o1', 'last', '1', 'custom', '{\"sel\":\"s\"}')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("last"));
}
