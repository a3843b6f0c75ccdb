//! The migrations on a real server: what `walcast.emit` writes, refuses and keeps to itself, and what the reference
//! domain's tables accept.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: it stops where it can't go on"
)]

use sha2::{Digest, Sha256};
use walcast::postgres::client::Client;
use walcast::postgres::dsn::Dsn;

use crate::bench::server;

const WALCAST: [&str; 4] = [
    include_str!("../../migrations/walcast/0001_schema.sql"),
    include_str!("../../migrations/walcast/0002_emit.sql"),
    include_str!("../../migrations/walcast/0003_outbox.sql"),
    include_str!("../../migrations/walcast/0004_emit.sql"),
];

/// A database with all migrations done, and its owner's session.
struct Database {
    dsn: Dsn,
    client: Client,
}

impl Database {
    async fn migrated() -> Self {
        let dsn = server::database().await.parse().unwrap();
        let client = server::session(&dsn).await;
        // What is not flushed is not decoded.
        client.batch_execute("set synchronous_commit = on").await.unwrap();
        Self { client, dsn }
    }

    /// As before walcast's own migrations.
    async fn without_walcast() -> Self {
        let database = Self::migrated().await;
        database.client.batch_execute("drop schema walcast cascade").await.unwrap();
        database
    }

    /// What the server answers to a statement that it must refuse.
    async fn refusal(&self, sql: &str) -> String {
        let error = self.client.batch_execute(sql).await.expect_err(sql);
        error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
    }

    /// A role of this database's own that may do nothing, and a session as it.
    async fn role(&self) -> (String, Client) {
        let role = format!("{}_role", self.dsn.database);
        let session = server::session(&self.dsn).await;
        session
            .batch_execute(&format!("drop role if exists {role}; create role {role}; set role {role}"))
            .await
            .unwrap();
        (role, session)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        server::clean_up(self.dsn.clone());
    }
}

/// The content of a pgoutput Message: flags, LSN, prefix, length, content (protocol 1, "Logical Replication Message
/// Formats").
fn content_of(message: &[u8]) -> Option<String> {
    let body = message.strip_prefix(b"M\x01")?.get(8..)?;
    let body = body.strip_prefix(b"walcast\0")?.get(4..)?;
    String::from_utf8(body.to_vec()).ok()
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_emitted_event_is_signed_for_its_transaction_and_a_rolled_back_one_never_was() {
    let database = Database::migrated().await;
    let client = &database.client;
    let slot = &database.dsn.database;
    client.batch_execute("create publication walcast").await.unwrap();
    let create = format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput', true)");
    client.batch_execute(&create).await.unwrap();

    client.batch_execute("begin; select walcast.emit('o', 'gone', '1'); rollback").await.unwrap();
    client
        .batch_execute(
            r#"begin; savepoint a;
               select walcast.emit('ø', 'import.done', '{"rows": [1, "x\ny"]}', tags => '{"importId": "i1"}',
                                   "only" => '{"user": "u1"}');
               release a; commit"#,
        )
        .await
        .unwrap();

    let read = format!(
        "select xid::text, data from pg_logical_slot_get_binary_changes('{slot}', null, null,
             'proto_version', '1', 'publication_names', 'walcast', 'messages', 'true')"
    );
    let rows = client.query(&read, &[]).await.unwrap();
    let messages: Vec<(String, String)> =
        rows.iter().filter_map(|row| Some((row.get(0), content_of(row.get(1))?))).collect();
    let [(xid, content)] = messages.as_slice() else { panic!("one message, not {messages:?}") };

    let (signature, event) = content.split_once(' ').expect("a signature, then the event");
    let secret: Vec<u8> = client.query_one("select value from walcast.secret", &[]).await.unwrap().get(0);
    assert_eq!(secret.len(), 32);
    let inner = sha256(&[&secret, xid.as_bytes(), b":", event.as_bytes()]);
    assert_eq!(signature, hex(&sha256(&[&secret, &inner])));
    assert_eq!(
        event,
        r#"{"organization_id" : "ø", "type" : "import.done", "channel" : "custom", "tags" : {"importId": "i1"}, "only" : {"user": "u1"}, "data" : {"rows": [1, "x\ny"]}}"#
    );
}

#[tokio::test]
async fn emit_says_what_is_wrong_with_an_argument() {
    let database = Database::migrated().await;
    let long = format!("'o', '{}', '1'", "x".repeat(101));
    for (arguments, message) in [
        ("null, 't', '1'", "organization_id is missing"),
        ("'', 't', '1'", "organization_id is missing"),
        ("'*', 't', '1'", "organization_id must be one organization, not *"),
        ("'o', null, '1'", "type is missing"),
        ("'o', 'a b', '1'", "type 'a b' must be 1 to 100 of A-Z a-z 0-9 . _ : -"),
        ("'o', E'a\\n', '1'", "must be 1 to 100"),
        ("'o', '', '1'", "must be 1 to 100"),
        (&long, "must be 1 to 100"),
        ("'o', 'data.sync', '1'", "type 'data.sync' is the worker's own"),
        ("'o', 't', null", "data is missing"),
        ("'o', 't', '1', 'a b'", "channel 'a b' must be 1 to 100"),
        ("'o', 't', '1', tags => '[]'", "tags must be an object, not array"),
        ("'o', 't', '1', tags => '{\"a b\": 1}'", "tag name 'a b' must be 1 to 100"),
        ("'o', 't', '1', tags => '{\"a\": {}}'", "tag 'a' must be a string, a number, a boolean or null"),
        ("'o', 't', '1', \"only\" => '{}'", "only must be"),
        ("'o', 't', '1', \"only\" => '\"admin\"'", "only must be"),
        ("'o', 't', '1', \"only\" => '{\"role\": \"admin\"}'", "only must be"),
        ("'o', 't', '1', \"only\" => '{\"user\": null}'", "only.user must be a user's id"),
        ("'o', 't', '1', \"only\" => '{\"roles\": []}'", "only.roles must be a list of role names"),
        ("'o', 't', '1', \"only\" => '{\"roles\": \"admin\"}'", "only.roles must be a list of role names"),
        (
            "'o', 't', '1', \"only\" => '{\"roles\": [[\"admin\"]]}'",
            "only.roles must be a list of role names",
        ),
        ("'o', 't', '1', \"only\" => '{\"roles\": [\"a\", 1]}'", "only.roles must be a list of role names"),
    ] {
        let said = database.refusal(&format!("select walcast.emit({arguments})")).await;
        assert!(said.starts_with("walcast.emit: ") && said.contains(message), "{arguments}: {said}");
    }
    for arguments in ["'o', 't', 'null', null, null, null", "'o', 't', '1', 'c', '{\"a\": null}', 'null'"] {
        database.client.batch_execute(&format!("select walcast.emit({arguments})")).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_reads_the_secret_or_emits_without_a_grant_whatever_the_default_privileges() {
    let database = Database::without_walcast().await;
    let (role, client) = database.role().await;
    let defaults = format!(
        "alter default privileges grant select on tables to {role};
         alter default privileges grant execute on functions to {role}"
    );
    database.client.batch_execute(&defaults).await.unwrap();
    for migration in WALCAST {
        database.client.batch_execute(migration).await.unwrap();
    }
    let grant = format!("grant usage on schema walcast to {role}");
    database.client.batch_execute(&grant).await.unwrap();

    let refused = async |sql: &str| {
        let error = client.batch_execute(sql).await.expect_err(sql);
        error.as_db_error().map(|error| error.message().to_owned())
    };
    let secret = "select value from walcast.secret";
    let emit = "select walcast.emit('o', 't', '1')";
    assert_eq!(refused(secret).await.as_deref(), Some("permission denied for table secret"));
    assert_eq!(refused(emit).await.as_deref(), Some("permission denied for function emit"));

    let grant = format!("grant execute on function walcast.emit to {role}");
    database.client.batch_execute(&grant).await.unwrap();
    client.batch_execute(emit).await.unwrap();
    assert_eq!(refused(secret).await.as_deref(), Some("permission denied for table secret"));
}

#[tokio::test]
async fn a_schema_of_somebody_else_is_not_used() {
    let database = Database::without_walcast().await;
    let (role, _) = database.role().await;
    let create = format!("create schema walcast authorization {role}");
    database.client.batch_execute(&create).await.unwrap();
    let said = database.refusal(WALCAST[0]).await;
    assert!(said.starts_with(&format!("schema walcast belongs to {role}, not to ")), "{said}");
}

#[tokio::test]
async fn the_reference_tables_take_right_rows_and_refuse_wrong_ones() {
    let database = Database::migrated().await;
    let client = &database.client;
    let right = "
        insert into organizations (id, name) values ('o', 'O');
        insert into users (id, name) values ('u', 'U'), ('v', 'V');
        insert into memberships values ('o', 'u', 'admin'), ('o', 'v', 'member');
        insert into campuses (organization_id, name) values ('o', 'c');
        insert into buildings (organization_id, name) values ('o', 'b');
        insert into properties (organization_id, title, status) values ('o', 't', 'under_offer');
        insert into activities (organization_id, status) values ('o', 'in_progress');
        insert into activity_updates (organization_id) values ('o');
        insert into devices (organization_id, name, status) values ('o', 'd', 'ONLINE');
        insert into device_telemetry (organization_id, battery) values ('o', 7);
        insert into lots (organization_id, name, total_slots, occupied) values ('o', 'l', 1, 2);
        insert into gate_events (organization_id, event) values ('o', 'vehicle_exit');
        insert into lot_alerts (organization_id, type, severity, status)
            values ('o', 'camera_offline', 'low', 'acknowledged');
        insert into violations (organization_id, violation_type, status) values ('o', 'overparking', 'pending');
        insert into issues (organization_id, priority, status, title) values ('o', 'critical', 'closed', 't');
        insert into notifications (organization_id, title) values ('o', 't');
        insert into user_activity (organization_id) values ('o');
        insert into system_alerts (message) values ('m')";
    client.batch_execute(right).await.unwrap();

    for (table, columns, values, broken) in [
        ("organizations", "id", "'p'", "null value in column \"name\""),
        ("memberships", "organization_id, user_id, role", "'o', 'u', 'owner'", "memberships_role_check"),
        (
            "memberships",
            "organization_id, user_id, role",
            "'x', 'u', 'admin'",
            "memberships_organization_id_fkey",
        ),
        ("memberships", "organization_id, user_id, role", "'o', 'x', 'admin'", "memberships_user_id_fkey"),
        ("properties", "organization_id, title", "'o', 't'", "null value in column \"status\""),
        ("properties", "organization_id, title, status", "'o', 't', 'new'", "properties_status_check"),
        ("activities", "organization_id, status", "'o', 'done'", "activities_status_check"),
        ("devices", "organization_id, name, status", "'o', 'd', 'online'", "devices_status_check"),
        (
            "devices",
            "organization_id, name, status",
            "null, 'd', 'ONLINE'",
            "null value in column \"organization_id\"",
        ),
        ("lots", "organization_id, name, total_slots, occupied", "'o', 'l', 1, -1", "lots_occupied_check"),
        ("lots", "organization_id, name, total_slots", "'o', 'l', 1", "null value in column \"occupied\""),
        ("gate_events", "organization_id, event", "'o', 'entry'", "gate_events_event_check"),
        (
            "lot_alerts",
            "organization_id, type, severity, status",
            "'o', 'x', 'low', 'active'",
            "lot_alerts_type_check",
        ),
        (
            "violations",
            "organization_id, violation_type, status",
            "'o', 'x', 'pending'",
            "violations_violation_type_check",
        ),
        (
            "issues",
            "organization_id, priority, status, title",
            "'o', 'urgent', 'open', 't'",
            "issues_priority_check",
        ),
        ("notifications", "organization_id", "'o'", "null value in column \"title\""),
    ] {
        let said = database.refusal(&format!("insert into {table} ({columns}) values ({values})")).await;
        assert!(said.contains(broken), "{table} ({columns}) values ({values}): {said}");
    }

    let count = async |table: &str| -> i64 {
        client.query_one(&format!("select count(*) from {table}"), &[]).await.unwrap().get(0)
    };
    client.batch_execute("delete from users where id = 'u'").await.unwrap();
    assert_eq!(count("memberships").await, 1);
    client.batch_execute("delete from organizations").await.unwrap();
    for table in ["memberships", "issues", "device_telemetry", "user_activity"] {
        assert_eq!(count(table).await, 0, "{table} goes with its organization");
    }
    assert_eq!(count("system_alerts").await, 1);
}
