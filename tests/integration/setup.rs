//! What `setup` plans, run against a real server.

use walcast::postgres::schema::TableName;
use walcast::source::Kind;
use walcast::source::setup::{IdentityNeed, Requirements, SetupError, plan};

use super::source::TestDatabase;

fn requirements(database: &TestDatabase, tables: &[(&str, IdentityNeed)]) -> Requirements {
    Requirements {
        source: Kind::Wal,
        publication: "walcast".to_owned(),
        slot: database.slot.clone(),
        max_outbox: None,
        tables: tables.iter().map(|(name, need)| (TableName::parse(name), *need)).collect(),
        grant_to: None,
    }
}

async fn with_tables() -> TestDatabase {
    let database = TestDatabase::create().await;
    database
        .run(
            "create table bays (id text primary key, site text);
             create schema billing;
             create table billing.\"Invo\"\"ice\nx\" (id int primary key, sum numeric);
             create table readings (id int, day date, primary key (id, day)) partition by range (day);
             create table readings_1 partition of readings for values from ('2026-01-01') to ('2027-01-01')",
        )
        .await;
    database
}

const TABLES: [(&str, IdentityNeed); 3] = [
    ("bays", IdentityNeed::Default),
    ("billing.Invo\"ice\nx", IdentityNeed::Full),
    ("readings", IdentityNeed::Full),
];

#[tokio::test]
async fn a_plan_that_was_run_leaves_nothing_to_do_and_a_source_that_reads() {
    let database = with_tables().await;
    let role = format!("worker_{}", database.slot);
    database.run(&format!("create role {role} login replication")).await;
    let mut wanted = requirements(&database, &TABLES);
    wanted.grant_to = Some(role.clone());
    let first = plan(&database.sql, &wanted).await.unwrap();
    // Two replica identities and one of a partition, publication, slot, a schema and the tables.
    assert_eq!(first.statements.len(), 7, "{first}");
    first.run(&database.sql).await.unwrap();
    let second = plan(&database.sql, &wanted).await.unwrap();
    let notes: Vec<_> = second.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(second.is_empty(), "{second}");
    assert_eq!(notes, [walcast::source::setup::UNLIMITED], "a slot without a bound is no secret");

    let mut source = database.source();
    source.connected().await;
    database.run("insert into readings values (1, '2026-11-21'); delete from readings").await;
    let mut names = Vec::new();
    for _ in 0..2 {
        let transaction = source.transaction().await;
        let mut reader = transaction.reader().unwrap();
        while let Some(change) = reader.next().unwrap() {
            if let walcast::source::Change::Row(row) = change {
                names.push((row.relation.name.clone(), row.old.as_ref().map(|old| old.tuple().len())));
            }
        }
        if names.len() == 2 {
            break;
        }
    }
    assert_eq!(names, [("readings".to_owned(), None), ("readings".to_owned(), Some(2))]);
    database.run(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn what_dry_run_prints_is_sql_that_does_it() {
    let database = with_tables().await;
    let wanted = requirements(&database, &TABLES);
    let printed = plan(&database.sql, &wanted).await.unwrap().to_string();
    // As psql does: one statement after the other.
    for statement in printed.split(";\n") {
        database.run(statement).await;
    }
    let after = plan(&database.sql, &wanted).await.unwrap();
    assert!(after.is_empty(), "{after}");
    assert!(after.to_string().starts_with("-- Nothing to do"));
}

#[tokio::test]
async fn a_publication_follows_the_catalog() {
    let database = with_tables().await;
    plan(&database.sql, &requirements(&database, &TABLES)).await.unwrap().run(&database.sql).await.unwrap();
    database.run("alter publication walcast set (publish = 'insert')").await;
    let fewer = requirements(&database, &TABLES[..1]);
    plan(&database.sql, &fewer).await.unwrap().run(&database.sql).await.unwrap();
    let published = "select string_agg(tablename, ',') from pg_publication_tables where pubname = 'walcast'";
    assert_eq!(database.text(published).await.as_deref(), Some("bays"));
    // Column lists came with PostgreSQL 15.
    let lists = "select (current_setting('server_version_num')::int >= 150000)::text";
    if database.text(lists).await.as_deref() == Some("true") {
        database.run("alter publication walcast set table bays (id)").await;
    }
    let whole = plan(&database.sql, &requirements(&database, &TABLES)).await.unwrap();
    whole.run(&database.sql).await.unwrap();
    assert!(plan(&database.sql, &requirements(&database, &TABLES)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_table_in_use_is_waited_for_without_holding_up_others() {
    let database = with_tables().await;
    let busy = walcast::postgres::client::connect(&database.dsn).await.unwrap();
    busy.batch_execute("begin; lock table readings in share mode").await.unwrap();
    let wanted = requirements(&database, &[("readings", IdentityNeed::Full)]);
    let plan = plan(&database.sql, &wanted).await.unwrap();
    let (ran, ()) = tokio::join!(plan.run(&database.sql), async {
        // Longer than one attempt waits for the lock.
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
        busy.batch_execute("commit").await.unwrap();
    });
    ran.unwrap();
    let identity = "select relreplident::text from pg_class where relname = 'readings'";
    assert_eq!(database.text(identity).await.as_deref(), Some("f"));
}

#[tokio::test]
async fn what_stands_in_the_way_is_told_with_its_sql() {
    let database = TestDatabase::create().await;
    database.run("create table keyless (a int); create publication walcast for all tables").await;
    let wanted = requirements(&database, &[("keyless", IdentityNeed::Default)]);
    let error = plan(&database.sql, &wanted).await.unwrap_err();
    let SetupError::Problems(problems) = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 2, "{error}");
    assert!(error.to_string().contains("drop publication \"walcast\";"), "{error}");
}
