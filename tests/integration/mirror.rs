//! The mirror against a real server: what is looked up is what the table holds, however it came in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::{Instant, timeout};
use walcast::mirror::{LoadError, Mirror, MirrorError, MirrorRow, MirrorSpec, MirrorTableId};
use walcast::postgres::client::connect;
use walcast::postgres::schema::TableName;
use walcast::source::{Change, SourceItem};

use super::source::{Source, TestDatabase};
use crate::bench::PATIENCE;

const BAYS: MirrorTableId = MirrorTableId(0);
const BY_ID: usize = 0;
const BY_SITE: usize = 1;

fn bays(max_bytes: u64) -> Mirror {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let spec = MirrorSpec {
        table: TableName::parse("bays"),
        columns: names(&["note", "id"]),
        indexes: vec![names(&["id"]), names(&["site"])],
    };
    Mirror::new(vec![spec], max_bytes)
}

fn text(row: &MirrorRow, column: usize) -> Option<String> {
    row.cell(column).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn note(mirror: &Mirror, id: &str) -> Option<String> {
    text(&*mirror.lookup(BAYS, BY_ID, &[id.as_bytes()])?, 0)
}

fn ids(mirror: &Mirror, site: &str) -> Vec<String> {
    let rows = mirror.lookup_all(BAYS, BY_SITE, &[site.as_bytes()]);
    rows.iter().map(|row: &Arc<MirrorRow>| text(row, 1).unwrap()).collect()
}

/// Feeds the mirror until the stream has passed a commit made now.
async fn follow(database: &TestDatabase, source: &mut Source, mirror: &Mirror) -> bool {
    database.run("select pg_logical_emit_message(true, 'walcast', 'followed')").await;
    let mut joined = false;
    loop {
        match source.item().await {
            SourceItem::Transaction(transaction) => {
                let mut reader = transaction.reader().unwrap();
                let mut last = false;
                while let Some(change) = reader.next().unwrap() {
                    match change {
                        Change::Row(row) => drop(mirror.apply(transaction.xid, row).unwrap()),
                        Change::Truncate(relations) => drop(mirror.truncate(transaction.xid, relations)),
                        Change::Emit(_) => last = true,
                        Change::Canary(_) => {}
                    }
                }
                joined |= mirror.advance(transaction.end_lsn);
                if last {
                    return joined;
                }
            }
            SourceItem::Position { lsn, .. } => joined |= mirror.advance(lsn),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_loaded_and_what_is_streamed_are_one_table() {
    let database = TestDatabase::with_bays().await;
    database
        .run("insert into bays values ('1', 'north', 'loaded'), ('2', 'north', null), ('3', null, 'no site')")
        .await;
    let mut source = database.source();
    source.connected().await;
    let mirror = bays(1 << 20);
    assert!(!mirror.advance(walcast::postgres::Lsn::MAX), "nobody is let in before a load");
    mirror.load(&database.sql).await.unwrap();
    assert_eq!(ids(&mirror, "north"), ["1", "2"]);
    assert_eq!((note(&mirror, "1"), note(&mirror, "2")), (Some("loaded".to_owned()), None));

    database
        .run(
            "update bays set site = 'south' where id = '1';
             update bays set id = '9', note = 'renamed' where id = '2';
             insert into bays values ('4', 'south', 'new');
             delete from bays where id = '3'",
        )
        .await;
    assert!(follow(&database, &mut source, &mirror).await);
    assert_eq!(ids(&mirror, "south"), ["1", "4"]);
    assert_eq!(ids(&mirror, "north"), ["9"]);
    assert_eq!(note(&mirror, "9"), Some("renamed".to_owned()));
    assert_eq!((note(&mirror, "2"), note(&mirror, "3")), (None, None));
    assert_eq!(mirror.len(BAYS), 3);

    database.run("truncate bays").await;
    follow(&database, &mut source, &mirror).await;
    assert_eq!((mirror.len(BAYS), mirror.bytes()), (0, 0));
}

#[tokio::test]
async fn an_update_that_does_not_touch_a_large_value_keeps_it() {
    let database = TestDatabase::with_bays().await;
    database.run("alter table bays alter note set storage external").await;
    database.run("insert into bays values ('1', 'north', repeat('long ', 20000))").await;
    let mut source = database.source();
    source.connected().await;
    let mirror = bays(1 << 20);
    mirror.load(&database.sql).await.unwrap();
    for change in ["update bays set site = 'south'", "update bays set id = '2'"] {
        database.run(change).await;
        follow(&database, &mut source, &mirror).await;
    }
    assert_eq!(ids(&mirror, "south"), ["2"]);
    assert_eq!(note(&mirror, "2"), Some("long ".repeat(20000)));
}

#[tokio::test]
async fn loaded_text_is_the_text_of_the_stream() {
    const VALUES: &str = "'1', 1.10::numeric, 0.1::float8, true, '2026-11-21 12:00:00.5+02', '1 day 02:00', \
                          '\\x00ff', '{1,NULL,\"a b\"}', '{\"a\":  1}', 'x', E'tab\\tnew\\nline\\\\'";
    let database = TestDatabase::with_bays().await;
    database
        .run(
            "create table types (id text primary key, n numeric, f float8, b bool, t timestamptz, i interval, \
             y bytea, a text[], j json, c char(4), e text); alter publication walcast add table types",
        )
        .await;
    database.run(&format!("insert into types values ({VALUES})")).await;
    let columns = ["n", "f", "b", "t", "i", "y", "a", "j", "c", "e"];
    let spec = MirrorSpec {
        table: TableName::parse("types"),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        indexes: vec![vec!["id".to_owned()]],
    };
    let mirror = Mirror::new(vec![spec], 1 << 20);
    let mut source = database.source();
    source.connected().await;
    // Another session's settings must not matter: the loading connection has the stream's.
    mirror.load(&database.sql).await.unwrap();
    database.run(&format!("insert into types values ({})", VALUES.replacen("'1'", "'2'", 1))).await;
    follow(&database, &mut source, &mirror).await;
    let row = |id: &str| mirror.lookup(BAYS, BY_ID, &[id.as_bytes()]).unwrap();
    let cells = |id: &str| (0..columns.len()).map(|column| text(&row(id), column)).collect::<Vec<_>>();
    assert_eq!(cells("1"), cells("2"));
    assert_eq!(cells("1")[3].as_deref(), Some("2026-11-21 10:00:00.5+00"));
}

#[tokio::test]
async fn loading_while_others_write_joins_the_stream_without_a_seam() {
    let database = TestDatabase::with_bays().await;
    database.run("insert into bays select n, 'site ' || n % 7, 'old' from generate_series(1, 500) n").await;
    let mut source = database.source();
    source.connected().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..3 {
        let (dsn, stop) = (database.dsn.clone(), Arc::clone(&stop));
        writers.push(tokio::spawn(async move {
            let client = connect(&dsn).await.unwrap();
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                let (own, other) = (format!("{writer}.{round}"), (round * 3 + writer) % 500);
                client
                    .batch_execute(&format!(
                        "begin; insert into bays values ('{own}', 'site {writer}', 'new');
                         update bays set note = '{own}', site = 'site {}' where id = '{other}'; commit;
                         delete from bays where id = '{writer}.{}'",
                        round % 7,
                        round - 5
                    ))
                    .await
                    .unwrap();
            }
        }));
    }
    let mirror = bays(16 << 20);
    let loader = connect(&database.dsn).await.unwrap();
    for _ in 0..5 {
        mirror.load(&loader).await.unwrap();
        follow(&database, &mut source, &mirror).await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(follow(&database, &mut source, &mirror).await);
    let rows =
        database.sql.query("select id, site, note from bays order by id collate \"C\"", &[]).await.unwrap();
    assert_eq!(mirror.len(BAYS), rows.len());
    for row in rows {
        let (id, site): (String, String) = (row.get(0), row.get(1));
        assert_eq!(note(&mirror, &id), row.get(2), "{id}");
        assert!(ids(&mirror, &site).contains(&id), "{id} in {site}");
    }
}

#[tokio::test]
async fn a_load_passes_its_barrier_in_an_idle_database() {
    let database = TestDatabase::with_bays().await;
    let mut source = database.source();
    source.connected().await;
    let mirror = bays(1 << 20);
    let barrier = mirror.load(&database.sql).await.unwrap().barrier;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let head = match timeout(PATIENCE, source.0.next()).await.unwrap().unwrap() {
            SourceItem::Transaction(transaction) => transaction.end_lsn,
            SourceItem::Position { lsn, .. } => lsn,
            other => panic!("{other:?}"),
        };
        assert_eq!(mirror.advance(head), head >= barrier);
        if head >= barrier {
            break;
        }
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test]
async fn a_table_that_can_not_be_mirrored_whole_is_refused() {
    let database = TestDatabase::with_bays().await;
    database.run("insert into bays select n, 'north', repeat('x', 100) from generate_series(1, 100) n").await;
    let mirror = bays(10_000);
    let error = mirror.load(&database.sql).await.unwrap_err();
    let LoadError::Mirror(MirrorError::TooLarge { table, limit_bytes }) = &error else { panic!("{error}") };
    assert_eq!((table.to_string().as_str(), *limit_bytes), ("bays", 10_000));

    let refused = async |sql: &str| {
        database.run(sql).await;
        bays(1 << 20).load(&connect(&database.dsn).await.unwrap()).await.unwrap_err().to_string()
    };
    let nothing = refused("alter table bays replica identity nothing").await;
    assert!(nothing.contains("primary key"), "{nothing}");
    let column =
        refused("alter table bays replica identity default; alter table bays rename site to place").await;
    assert!(column.contains("no column site"), "{column}");
    let table = refused("alter table bays rename to places").await;
    assert!(table.contains("bays does not exist"), "{table}");
}

#[tokio::test]
async fn a_column_by_which_no_row_is_found_may_be_missing_and_is_null() {
    let database = TestDatabase::with_bays().await;
    database.run("insert into bays values ('1', 'north', 'x'); alter table bays rename note to remark").await;
    let mirror = bays(1 << 20);
    mirror.load(&database.sql).await.unwrap();
    assert_eq!(mirror.missing(), [(TableName::parse("bays"), "note".to_owned())]);
    assert_eq!((ids(&mirror, "north"), note(&mirror, "1")), (vec!["1".to_owned()], None));
}

#[tokio::test]
async fn rows_hidden_by_a_policy_are_an_error_and_no_partial_mirror() {
    let database = TestDatabase::with_bays().await;
    let role = format!("reader_{}", database.slot);
    database
        .run(&format!(
            "insert into bays values ('1', 'north', 'secret');
             alter table bays enable row level security; create policy none on bays using (false);
             create role {role} login; grant select on bays to {role}; grant usage on schema public to {role}"
        ))
        .await;
    let client = connect(&database.dsn).await.unwrap();
    client.batch_execute(&format!("set role {role}")).await.unwrap();
    let error = bays(1 << 20).load(&client).await.unwrap_err();
    let LoadError::Query(query) = &error else { panic!("{error}") };
    assert_eq!(query.code().map(|state| state.code()), Some("42501"));
    drop(client);
    database.run(&format!("drop owned by {role}; drop role {role}")).await;
}
