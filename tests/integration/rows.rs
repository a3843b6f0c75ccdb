//! Rows as the log carries them: TOAST, replica identity, key changes, TRUNCATE, transactions of any size.

use std::fmt::Write;

use serde_json::json;

use crate::bench::app::TestApp;
use crate::bench::eventually;

/// Text that is stored out of line: long, and not compressible.
fn long_text() -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut text = String::new();
    while text.len() < 40_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let _ = write!(text, "{state:016x}");
    }
    text
}

const DOCUMENTS: &str = "
    create table documents (id int, organization_id text, title text, body text, primary key (organization_id, id));
    alter table documents alter column body set storage external;
";

const DOCUMENTS_CATALOG: &str = r#"
[tables.documents]
organization = "organization_id"
channel = "documents"

[[tables.documents.events]]
type = "document.saved"
on = ["insert", "update"]
data = { id = "id", title = "title", body = "body" }
"#;

#[tokio::test]
async fn an_unchanged_toast_value_is_left_out_and_named() {
    let app = TestApp::builder().before(DOCUMENTS).catalog(DOCUMENTS_CATALOG).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let body = long_text();
    app.sql(&format!("insert into documents values (1, 'o1', 'a', '{body}')")).await;
    app.sql("update documents set title = 'b' where id = 1").await;
    app.sql("update documents set body = null where id = 1").await;
    let inserted = stream.event().await.json();
    assert_eq!(inserted["data"], json!({ "id": 1, "title": "a", "body": body }));
    let touched = stream.event().await.json();
    assert_eq!(touched["data"], json!({ "id": 1, "title": "b" }), "neither null nor new");
    assert_eq!(touched["unchanged"], json!(["body"]));
    let emptied = stream.event().await.json();
    assert_eq!(emptied["data"], json!({ "id": 1, "title": "b", "body": null }));
    assert_eq!(emptied.get("unchanged"), None);
}

#[tokio::test]
async fn with_replica_identity_full_an_unchanged_toast_value_is_filled_in() {
    let catalog =
        DOCUMENTS_CATALOG.replace(r#"body = "body""#, r#"body = "body", changed = { changed = true }"#);
    let app = TestApp::builder().before(DOCUMENTS).catalog(&catalog).start().await;
    assert_eq!(app.text("select relreplident from pg_class where oid = 'documents'::regclass").await, "f");
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let body = long_text();
    app.sql(&format!("insert into documents values (1, 'o1', 'a', '{body}')")).await;
    app.sql("update documents set title = 'b' where id = 1").await;
    stream.event().await;
    let touched = stream.event().await.json();
    assert_eq!(touched["data"], json!({ "id": 1, "title": "b", "body": body, "changed": ["title"] }));
}

#[tokio::test]
async fn setup_sets_the_replica_identity_that_the_catalog_needs() {
    let app = TestApp::start().await;
    let identity = async |table: &str| {
        app.text(&format!("select relreplident from pg_class where oid = '{table}'::regclass")).await
    };
    assert_eq!(identity("properties").await, "f", "changed, previous, and the row on delete");
    assert_eq!(identity("system_alerts").await, "d", "inserts alone, and of no one organization");
}

#[tokio::test]
async fn a_delete_that_cannot_be_routed_is_told() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.sql("insert into devices (id, organization_id, name, model, status) values ('d1', 'o1', 'D', 'M', 'ONLINE')")
        .await;
    let mut listening = app.open(&member, "&channel=devices").await;
    let mut elsewhere = app.open(&member, "&channel=lots,custom").await;
    app.sql("alter table devices replica identity default").await;
    app.sql("delete from devices where id = 'd1'").await;
    app.sql("select walcast.emit('o1', 'after', '1')").await;
    let told = listening.event().await;
    assert_eq!(told.json()["type"], "data.sync", "{}", told.raw);
    assert_eq!(told.json()["data"]["reason"], "unroutable");
    assert_eq!(told.id.as_deref(), told.json()["id"].as_str(), "an id of its own");
    assert_eq!(
        elsewhere.event().await.event_type().as_deref(),
        Some("after"),
        "other channels hear nothing of it"
    );
    eventually("readiness tells", || async {
        (app.get("/readyz").await.body.trim() == "degraded").then_some(())
    })
    .await;
}

#[tokio::test]
pub async fn a_changed_primary_key_is_an_update_of_the_same_row() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.sql("insert into properties (id, organization_id, title, status) values ('p1', 'o1', 'T', 'draft')")
        .await;
    let mut stream = app.open(&member, "&channel=property").await;
    app.sql("update properties set id = 'p2' where id = 'p1'").await;
    let data = stream.event().await.json()["data"].clone();
    assert_eq!((&data["action"], &data["id"]), (&json!("updated"), &json!("p2")));
    assert_eq!((&data["changed"], &data["previous"]), (&json!(["id"]), &json!({ "id": "p1" })));
}

#[tokio::test]
pub async fn a_mirrored_row_follows_its_changed_key() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.sql("insert into devices (id, organization_id, name, model, status) values ('d1', 'o1', 'D', 'M', 'ONLINE')")
        .await;
    app.sql("update devices set id = 'd2', name = 'E' where id = 'd1'").await;
    let mut stream = app.open(&member, "&channel=telemetry").await;
    app.sql(
        "insert into device_telemetry (organization_id, device_id, event_type) values ('o1', 'd1', 'x'), ('o1', 'd2', 'x')",
    )
    .await;
    assert_eq!(stream.event().await.json()["data"]["deviceName"], json!(null));
    assert_eq!(stream.event().await.json()["data"]["deviceName"], json!("E"));
}

#[tokio::test]
pub async fn a_related_row_of_another_organization_is_not_told() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.member("o2", "u2", "admin").await;
    app.sql(
        "insert into lots (id, organization_id, name, total_slots, occupied) values ('l1', 'o1', 'L', 10, 0)",
    )
    .await;
    app.sql("insert into devices (id, organization_id, name, model, status) values ('d2', 'o2', 'Theirs', 'M', 'ONLINE')")
        .await;
    let mut stream = app.open(&member, "&channel=lots,telemetry").await;
    app.transaction(
        "update lots set occupied = 1 where id = 'l1';
         insert into gate_events (organization_id, lot_id, event, plate_number)
           values ('o2', 'l1', 'vehicle_entry', 'SECRET');
         insert into device_telemetry (organization_id, device_id, event_type) values ('o1', 'd2', 'x')",
    )
    .await;
    let capacity = stream.event().await;
    assert!(!capacity.raw.contains("SECRET"), "{}", capacity.raw);
    assert_eq!(stream.event().await.json()["data"]["deviceName"], json!(null));
}

#[tokio::test]
pub async fn truncate_is_told_to_streams_of_the_tables_channels() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut lots = app.open(&member, "&channel=lots").await;
    let mut devices = app.open(&member, "&channel=devices,custom").await;
    app.sql("truncate gate_events").await;
    app.sql("select walcast.emit('o1', 'after', '1')").await;
    let told = lots.event().await;
    assert_eq!(
        (told.json()["type"].as_str(), told.json()["data"]["reason"].as_str()),
        (Some("data.sync"), Some("truncated"))
    );
    assert_eq!(devices.event().await.event_type().as_deref(), Some("after"));
    let mut replayed = app.open(&member, "&channel=lots&since=earliest").await;
    assert_eq!(replayed.event().await.id, told.id, "journalled under the same id");
}

#[tokio::test]
pub async fn an_event_above_the_limit_goes_out_without_its_data() {
    let app = TestApp::builder()
        .config(|config| config.journal.max_event = walcast::config::ByteSize(4096))
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'large', to_jsonb(repeat('x', 5000)))").await;
    let event = stream.event().await.json();
    assert_eq!(event["data"], json!(null));
    assert!(event["oversize"].as_u64().is_some_and(|bytes| (5002..5300).contains(&bytes)), "{event}");
}

#[tokio::test]
pub async fn emit_refuses_what_is_not_an_event_and_strangers() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let session = crate::bench::server::session(&app.dsn).await;
    for bad in [
        "'o1', 'two words', '1'",
        "'o1', 'data.sync', '1'",
        "'o1', 'access.revoked', '1'",
        "'o1', '', '1'",
        "null, 'a', '1'",
        "'o1', 'a', '1', 'no channel!'",
        "'o1', 'a', '1', 'custom', '[]'",
        "'o1', 'a', '1', 'custom', '{}', '{}'",
    ] {
        let refused = session.batch_execute(&format!("select walcast.emit({bad})")).await;
        assert!(refused.is_err(), "{bad}");
    }
    let forged = json!({
        "organization_id": "o1", "type": "forged", "channel": "custom", "tags": {}, "only": null, "data": 1
    });
    let content = format!("{} {forged}", "0".repeat(64));
    app.sql(&format!("select pg_logical_emit_message(true, 'walcast', '{content}')")).await;
    app.sql("select pg_logical_emit_message(true, 'walcast', 'garbage')").await;
    app.sql("select pg_logical_emit_message(false, 'walcast', 'garbage')").await;
    app.sql("select walcast.emit('o1', 'honest', '1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("honest"));
}

#[tokio::test]
pub async fn a_transaction_larger_than_memory_allows_is_spooled_and_whole() {
    const ROWS: usize = 20_000;
    let app = TestApp::builder()
        .config(|config| config.source.max_transaction = walcast::config::ByteSize(64 * 1024))
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&channel=devices").await;
    app.sql(&format!(
        "insert into devices (id, organization_id, name, model, status)
         select 'd' || n, 'o1', 'Device ' || n, 'M', 'ONLINE' from generate_series(1, {ROWS}) n"
    ))
    .await;
    for n in 1..=ROWS {
        let event = stream.event().await.json();
        assert_eq!(event["data"]["deviceId"], format!("d{n}"));
    }
}
