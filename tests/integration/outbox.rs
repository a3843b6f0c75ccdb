//! The outbox as a source: what only it can do, and that it says the same as the log.

mod cost;
mod drift;
mod room;
mod sides;
mod writers;

use walcast::app::App;
use walcast::cli::cluster::{Cluster, ClusterOptions};
use walcast::cli::{migrate, setup};
use walcast::config::SourceKind;
use walcast::postgres::dsn::Dsn;

use crate::bench::app::{Builder, TestApp, configuration};
use crate::bench::http::Request;
use crate::bench::sse::{Frame, Stream};
use crate::bench::{eventually, server};

fn over(kind: SourceKind) -> Builder {
    TestApp::builder().config(|config| config.source.kind = kind)
}

fn done(frame: &Frame) -> bool {
    frame.event_type().as_deref() == Some("done")
}

/// A table with a column of every kind that is printed in a way of its own.
const KINDS: &str = r#"
    create type mood as enum ('sad', 'o k', 'q"uote', 'back\slash');
    create domain whole as int8;
    create type spot as (id int4, "na ""me" text, at timestamptz, notes text[]);
    create table kinds (
        id int primary key, organization_id text, tenth numeric generated always as (number / 10) stored,
        flag bool, small int2, big int8, single float4, double float8, number numeric, words text, fixed char(9),
        bytes bytea, day date, clock time, zoned timetz, stamp timestamp, moment timestamptz, span interval,
        doc json, docb jsonb, tag uuid, address inet, bits varbit, place point, feeling mood, counted whole,
        place_of spot, spots spot[], numbers int4[], texts text[], days daterange, price money, found tsvector
    );
    alter table kinds add column gone text;
    alter table kinds drop column gone;
"#;

const KINDS_CATALOG: &str = r#"
[tables.kinds]
organization = "organization_id"
channel = "kinds"

[[tables.kinds.events]]
type = "kinds.changed"
on = ["insert", "update", "delete"]
data = { row = { row = "new" }, old = { row = "old" }, changed = { changed = true } }
"#;

const KINDS_ROWS: &str = r#"
    set timezone = 'Asia/Kolkata'; set datestyle = 'SQL, DMY'; set intervalstyle = 'iso_8601';
    set extra_float_digits = 0; set bytea_output = 'escape';
    insert into kinds (id, organization_id) values (1, 'o1');
    insert into kinds (id, organization_id, flag, small, big, single, double, number, words, fixed, bytes, day, clock,
        zoned, stamp, moment, span, doc, docb, tag, address, bits, place, feeling, counted, place_of, spots, numbers,
        texts, days, price, found)
      values (2, 'o1', true, -32768, 9223372036854775807, 0.1, 1e300, 12.50, E'a "b" \\ (c),\n{d}\t', 'x', '\x00ff5c',
        '0044-03-15 BC', '24:00', '12:34:56.7-05:30', 'infinity', '2026-11-21 13:00:00.123456+00', '-1 year 2 days 3.5 s',
        '{ "a" : [1, null],
           "b": "\u00e9" }', '{"k": 1.50}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '10.0.0.0/8', '1010', '(1.5,-2)',
        'q"uote', 7, row(1, 'x "y"', '2026-01-01 00:00+00', array['p', null, 'q,r']),
        array[row(2, null, null, null)::spot], '{{1,2},{3,4}}', array['', 'null', null, 'a"b\c'],
        '[2026-01-01,2026-02-01)', 12.34, 'cat:1A dog');
    update kinds set words = '', number = 'NaN', double = '-Infinity', texts = '{}' where id = 2;
    update kinds set id = 3 where id = 1;
    delete from kinds where id = 2;
    reset all;
"#;

#[tokio::test]
async fn data_is_byte_for_byte_that_of_the_log_for_every_kind_of_value() {
    let mut said = Vec::new();
    for kind in [SourceKind::Wal, SourceKind::Outbox] {
        let app = over(kind).before(KINDS).catalog(KINDS_CATALOG).start().await;
        let member = app.member("o1", "u1", "admin").await;
        let mut stream = app.open(&member, "").await;
        app.sql(KINDS_ROWS).await;
        app.sql("select walcast.emit('o1', 'done', '1')").await;
        let events = stream.events_until(done).await;
        assert_eq!(events.len(), 6, "{events:#?}");
        let data = |event: &Frame| {
            event.raw.split_once("\"channel\":").map(|(_, rest)| rest.to_owned()).expect("an envelope")
        };
        said.push(events.iter().map(data).collect::<Vec<_>>());
    }
    assert_eq!(said[0], said[1]);
}

#[tokio::test]
async fn rows_read_as_their_table_was_when_they_were_written_and_partitions_as_their_root() {
    let app = over(SourceKind::Outbox)
        .before(
            "create table kinds (id int, organization_id text, a text, b text, primary key (id)) partition by list (id);
             create table kinds_1 (b text, gone int, a text, organization_id text, id int not null primary key);
             alter table kinds_1 drop column gone;
             alter table kinds attach partition kinds_1 for values in (1);
             create table kinds_2 partition of kinds for values in (2)",
        )
        .catalog(KINDS_CATALOG)
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&channel=kinds").await;
    app.sql(
        "begin;
         insert into kinds values (1, 'o1', 'A', 'B');
         alter table kinds rename a to c;
         insert into kinds values (2, 'o1', 'A', 'B');
         alter table kinds rename b to a;
         update kinds set id = 2 - id + 1 where false;
         delete from kinds where id = 1;
         commit",
    )
    .await;
    let rows = [
        r#""row":{"id":1,"organizationId":"o1","a":"A","b":"B"}"#,
        r#""row":{"id":2,"organizationId":"o1","c":"A","b":"B"}"#,
        r#""old":{"id":1,"organizationId":"o1","c":"A","a":"B"}"#,
    ];
    for row in rows {
        let event = stream.event().await;
        assert!(event.raw.contains(row), "{row} in {}", event.raw);
    }
}

#[tokio::test]
async fn without_logical_wal_and_without_replication_auto_is_the_outbox() {
    let settings = vec![("wal_level".to_owned(), "replica".to_owned())];
    let cluster = Cluster::start(ClusterOptions { durable: false, settings, ..ClusterOptions::default() })
        .await
        .unwrap();
    let dsn = Dsn::parse(&cluster.dsn("postgres")).unwrap();
    let session = server::session(&dsn).await;
    let wal_level: String = session.query_one("show wal_level", &[]).await.unwrap().get(0);
    assert_eq!(wal_level, "replica");
    migrate::run(&dsn, true).await.unwrap();
    session.batch_execute("create role worker login; create role app login").await.unwrap();
    let app = over(SourceKind::Auto).on(cluster.dsn("postgres")).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("insert into devices (id, organization_id, name, model, status) values ('d1', 'o1', 'D', 'M', 'ONLINE')")
        .await;
    assert_eq!(stream.event().await.json()["data"]["deviceId"], "d1");
    assert_eq!(app.text("select source from walcast.meta").await, "outbox");
    let slots = app.text("select count(*) from pg_replication_slots").await;
    assert_eq!(slots, "0");
}

#[tokio::test]
async fn a_database_set_up_for_one_source_is_refused_by_another() {
    let app = over(SourceKind::Outbox).start().await;
    let mut config = configuration();
    config.source.kind = SourceKind::Wal;
    let mut other = App::start(config, app.dsn.clone(), true).await.unwrap();
    let refusal = other.ended().await.unwrap_err().to_string();
    assert!(refusal.contains("source.kind is wal, and the database is set up for outbox"), "{refusal}");
}

#[tokio::test]
async fn triggers_come_and_go_with_the_catalog_and_with_the_source() {
    let app = over(SourceKind::Outbox).before(KINDS).start().await;
    let triggers = "select string_agg(distinct tgrelid::regclass::text, ',') from pg_trigger
                    where tgfoid = 'walcast.outbox_change()'::regprocedure";
    let all = app.text(triggers).await;
    assert!(all.contains("devices") && all.contains("memberships") && !all.contains("kinds"), "{all}");
    let mut config = app.config.clone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.toml");
    std::fs::write(&path, KINDS_CATALOG).unwrap();
    config.catalog.path = Some(path);
    setup::apply(&config, &app.dsn).await.unwrap();
    let some = app.text(triggers).await;
    assert_eq!(some, "kinds,memberships,organizations");
    config.source.kind = SourceKind::Wal;
    setup::apply(&config, &app.dsn).await.unwrap();
    assert_eq!(app.text(&format!("coalesce(({triggers}), 'none')")).await, "none");
    assert_eq!(app.text("select source from walcast.meta").await, "wal");
}

#[tokio::test]
async fn what_left_the_window_is_pruned_and_an_idle_position_stays_valid() {
    let mut app = over(SourceKind::Outbox)
        .config(|config| config.replay.max_age = std::time::Duration::from_secs(2))
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    eventually("the outbox is empty", || async {
        (app.text("select count(*) from walcast.outbox").await == "0").then_some(())
    })
    .await;
    assert_eq!(app.text("select floor = head from walcast.outbox_state").await, "true");
    let mut stream = app.connect(&member, "").await;
    let idle = stream.data().await.id.expect("connected carries an id");
    app.restart().await;
    app.sql("select walcast.emit('o1', 'done', '2')").await;
    let mut resumed = app.connect(&member, &format!("&lastEventId={idle}")).await;
    assert_eq!(resumed.data().await.json()["resumed"], true);
    assert_eq!(resumed.events_until(done).await.len(), 1);
}

#[tokio::test]
async fn a_role_without_replication_reads_what_setup_granted_and_nothing_else() {
    let app = over(SourceKind::Outbox).start().await;
    let role = format!("{}_worker", app.dsn.database);
    app.sql(&format!("create role {role} login")).await;
    let output = crate::bench::process::command(&app.url)
        .args(["setup", "--reference", "--role", &role])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let member = app.member("o1", "u1", "admin").await;
    let dsn = Dsn { user: role.clone(), ..app.dsn.clone() };
    let worker = server::session(&dsn).await;
    assert!(worker.batch_execute("delete from walcast.outbox").await.is_err());
    assert!(worker.batch_execute("select walcast.outbox_relation(1)").await.is_err());
    drop(worker);
    let standby = App::start(app.config.clone(), dsn, true).await.unwrap();
    let address = standby.address();
    let word = async || Request::get("/readyz").fetch(address).await.body;
    eventually("it stands by", || async { (word().await.trim() == "standby").then_some(()) }).await;
    let app = {
        let mut app = app;
        app.stop().await;
        app
    };
    eventually("it takes over", || async {
        matches!(word().await.trim(), "ready" | "degraded").then_some(())
    })
    .await;
    let target = TestApp::target(&member, "");
    let mut stream = Stream::open(address, Request::get(target).bearer(&member.token)).await;
    assert_eq!(stream.data().await.event_type().as_deref(), Some("connected"));
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    // Beside notices of a canary that a busy machine makes late.
    let events = stream.events_until(done).await;
    assert_eq!(
        events.iter().filter(|event| event.id.is_some()).count(),
        1,
        "verified and delivered by that role"
    );
    standby.stop().await.unwrap();
    app.sql(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_transaction_that_is_open_for_long_comes_when_it_commits_and_holds_nobody_up() {
    let app = over(SourceKind::Outbox).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let early = server::session(&app.dsn).await;
    early.batch_execute("begin; select walcast.emit('o1', 'first.written', '1')").await.unwrap();
    app.sql("select walcast.emit('o1', 'first.committed', '1')").await;
    assert_eq!(stream.event().await.event_type().as_deref(), Some("first.committed"));
    early.batch_execute("select walcast.emit('o1', 'second.written', '1'); commit").await.unwrap();
    assert_eq!(stream.event().await.event_type().as_deref(), Some("first.written"));
    assert_eq!(stream.event().await.event_type().as_deref(), Some("second.written"));
}

#[tokio::test]
async fn a_row_that_does_not_read_is_told_and_the_rest_goes_on() {
    let app = over(SourceKind::Outbox).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "&channel=custom").await;
    app.sql("select walcast.emit('o1', 'before', '1')").await;
    app.sql(
        "insert into walcast.outbox (operation, relation, new_row)
           select 'I', max(id), '(of another shape)' from walcast.outbox_relations",
    )
    .await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    let events = stream.events_until(done).await;
    let types: Vec<_> = events.iter().filter_map(Frame::event_type).collect();
    assert_eq!(types.last().map(String::as_str), Some("done"));
    assert!(types.iter().any(|event| event == "data.sync"), "{types:?}");
}
