//! Applications that write, however they have set their sessions and whatever they may do.

use std::collections::HashMap;

use walcast::catalog::EventId;

use super::*;

const ROWS: &str = "
    create table kinds (id int primary key, organization_id text, moment timestamptz, day date, span interval,
        bytes bytea, number float8, price money, named regclass);
";

const ROW: &str =
    "'o1', '2026-11-21 13:00:00.5+00', '2026-11-21', '1 day 2 hours', '\\x00ff'::bytea, 0.1::float8 + 0.2,
    1234.5::float8::numeric::money, 'public.kinds'";

#[tokio::test]
async fn what_a_session_has_set_changes_nothing_of_what_is_written() {
    let app = over(SourceKind::Outbox).before(ROWS).catalog(KINDS_CATALOG).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql(&format!("insert into kinds values (1, {ROW})")).await;
    let hostile = server::session(&app.dsn).await;
    hostile
        .batch_execute(
            "create schema hostile;
             create function hostile.octet_length(text) returns int language sql as 'select 1/0';
             create function hostile.pg_notify(text, text) returns void language sql as 'select 1/0';
             create function hostile.eq(oid, oid) returns bool language sql as 'select 1/0 > 0';
             create operator hostile.= (function = hostile.eq, leftarg = oid, rightarg = oid);
             create temp table outbox (id int); create temp table pg_attribute (attrelid oid);
             set search_path = hostile, public, pg_catalog;
             set timezone = 'Asia/Kolkata'; set datestyle = 'German, DMY'; set intervalstyle = 'iso_8601';
             set bytea_output = 'escape'; set extra_float_digits = -15; set lc_monetary = 'C';
             set quote_all_identifiers = on; set standard_conforming_strings = off; set escape_string_warning = off;
             set default_transaction_isolation = 'serializable'; set row_security = off;
             set plpgsql.extra_errors = 'all'; set session_replication_role = replica",
        )
        .await
        .unwrap();
    hostile.batch_execute("insert into public.kinds select 2, organization_id, moment, day, span, bytes, number, price, named from public.kinds where id = 1").await.unwrap();
    let tail = |event: &Frame| event.raw.split_once("\"row\":{\"id\":").map(|(_, rest)| rest[1..].to_owned());
    let (plain, other) = (stream.event().await, stream.event().await);
    assert!(other.raw.contains("\"row\":{\"id\":2"), "{}", other.raw);
    assert_eq!(tail(&plain), tail(&other));
    assert!(
        plain.raw.contains(r#""moment":"2026-11-21T13:00:00.5+00:00","day":"2026-11-21""#),
        "{}",
        plain.raw
    );
}

#[tokio::test]
async fn a_role_without_rights_in_walcast_writes_and_can_do_nothing_else_there() {
    let app = over(SourceKind::Outbox).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    let role = format!("{}_app", app.dsn.database);
    app.sql(&format!("create role {role} login; grant select, insert, update, delete on devices to {role}"))
        .await;
    let writer = server::session(&Dsn { user: role.clone(), ..app.dsn.clone() }).await;
    writer
        .batch_execute("insert into devices (id, organization_id, name, model, status) values ('d1', 'o1', 'D', 'M', 'ONLINE')")
        .await
        .unwrap();
    assert_eq!(stream.event().await.json()["data"]["deviceId"], "d1");
    for forbidden in [
        "select * from walcast.outbox",
        "insert into walcast.outbox (operation, message) values ('M', 'x')",
        "select walcast.number_outbox()",
        "select walcast.prune_outbox(1000000, 1000)",
        "select walcast.write_canary('x')",
        "select walcast.clear_outbox()",
        "select walcast.emit('o1', 'x', '1')",
        "create temp table t (id int); create trigger t after insert on t for each row execute function walcast.outbox_change()",
    ] {
        assert!(writer.batch_execute(forbidden).await.is_err(), "{forbidden}");
    }
    drop(writer);
    app.sql(&format!("drop owned by {role}; drop role {role}")).await;
}

/// Several writers change the same few rows, each change one more than the row had: whatever order their commits take,
/// the row's own numbers tell it.
#[tokio::test]
async fn concurrent_writers_come_whole_once_and_in_an_order_that_their_rows_agree_with() {
    const WRITERS: u32 = 6;
    const EACH: u32 = 60;
    let mut app = over(SourceKind::Outbox).start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.sql(
        "insert into lots (id, organization_id, name, total_slots, occupied)
           select 'l' || n, 'o1', 'L', 1000000, 0 from generate_series(0, 4) n",
    )
    .await;
    let mut stream = app.open(&member, "&types=capacity_update,done").await;
    let long = server::session(&app.dsn).await;
    long.batch_execute("begin; select walcast.emit('o1', 'done', '0')").await.unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let dsn = app.dsn.clone();
            tokio::spawn(async move {
                let session = server::session(&dsn).await;
                let mut rng = fastrand::Rng::with_seed(u64::from(writer));
                let mut committed = 0_u64;
                for n in 0..EACH {
                    let lot = rng.u32(..5);
                    let bump = format!("update lots set occupied = occupied + 1 where id = 'l{lot}';");
                    let name = format!("{}_{writer}_{n}", dsn.database);
                    // A transaction that was prepared is ended by a query of its own.
                    let prepare = || format!("begin; {bump} prepare transaction '{name}'");
                    let (queries, counts) = match rng.u32(..6) {
                        0 => (vec![format!("begin; {bump} rollback")], 0),
                        1 => (vec![format!("begin; savepoint a; {bump} rollback to a; {bump} commit")], 1),
                        2 => (vec![format!("begin; savepoint a; {bump} release a; {bump} commit")], 2),
                        3 => (vec![prepare(), format!("commit prepared '{name}'")], 1),
                        4 => (vec![prepare(), format!("rollback prepared '{name}'")], 0),
                        _ => (vec![bump], 1),
                    };
                    for query in queries {
                        session.batch_execute(&query).await.unwrap_or_else(|e| panic!("{e:?} in {query}"));
                    }
                    committed += counts;
                }
                committed
            })
        })
        .collect();
    let mut expected = 0;
    for writer in writers {
        expected += writer.await.unwrap();
    }
    let mut events = Vec::new();
    for _ in 0..expected {
        events.push(stream.event().await);
    }
    long.batch_execute("commit").await.unwrap();
    events.extend(stream.events_until(done).await);
    let mut occupied: HashMap<String, u64> = HashMap::new();
    let mut last = None;
    for event in &events {
        let id: EventId = event.id.as_deref().unwrap().parse().unwrap();
        assert!(last < Some(id.place()), "ids ascend");
        last = Some(id.place());
        let data = event.json()["data"].clone();
        if let Some(lot) = data["parkingLotId"].as_str() {
            let seen = occupied.entry(lot.to_owned()).or_default();
            *seen += 1;
            assert_eq!(data["occupied"].as_u64(), Some(*seen), "{lot}: none missing, none twice, in order");
        }
    }
    assert_eq!(occupied.values().sum::<u64>(), expected);

    // A place is given once: another process reads the same frames.
    app.restart().await;
    let mut again = app.open(&member, "&types=capacity_update,done&since=earliest").await;
    let replayed = again.events_until(done).await;
    let replayed = &replayed[replayed.len() - events.len()..];
    let raw = |events: &[Frame]| events.iter().map(|event| event.raw.clone()).collect::<Vec<_>>();
    assert_eq!(raw(replayed), raw(&events));
}

#[tokio::test]
async fn a_commit_wakes_the_worker_where_transactions_are_not_prepared() {
    let settings =
        vec![("wal_level".to_owned(), "minimal".to_owned()), ("max_wal_senders".to_owned(), "0".to_owned())];
    let cluster = Cluster::start(ClusterOptions { durable: false, settings, ..ClusterOptions::default() })
        .await
        .unwrap();
    let dsn = Dsn::parse(&cluster.dsn("postgres")).unwrap();
    migrate::run(&dsn, true).await.unwrap();
    let app = over(SourceKind::Auto).on(cluster.dsn("postgres")).start().await;
    let listener = server::session(&dsn).await;
    listener.batch_execute("listen walcast").await.unwrap();
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("select walcast.emit('o1', 'done', '1')").await;
    listener.notified().await;
    assert_eq!(stream.events_until(done).await.len(), 1);
}
