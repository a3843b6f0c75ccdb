//! The replication stream: every kind of change, cancelled reads, giant values, and every way to end.

use std::time::Duration;

use tokio::time::timeout;
use walcast::postgres::error::StreamError;
use walcast::postgres::pgoutput::{self, Cell, LogicalMessage, LongMessages, OldTuple, Tuple};
use walcast::postgres::{Lsn, ReplicationConnection, ReplicationMessage, ReplicationStream};

use super::cluster::{PASSWORD, TlsCluster};

/// Of long messages, what most tests want: everything.
const KEEP: LongMessages = LongMessages { prefix: "ours", max_bytes: 64 << 20 };

/// A stream from a new slot over everything that is published.
async fn stream(cluster: &TlsCluster) -> ReplicationStream {
    let dsn = cluster.dsn(
        "scram_user",
        PASSWORD,
        "localhost",
        &format!("sslmode=verify-full&{}", cluster.trusting()),
    );
    let mut connection = ReplicationConnection::connect(&dsn).await.expect("a replication connection");
    assert!(connection.server_version() >= 140_000);
    let identity = connection.identify_system().await.expect("an identity");
    assert_eq!(identity.database, "postgres");
    for (name, code) in [("Not allowed!", "42602"), ("a\" LOGICAL pgoutput", "42601")] {
        let error = connection.create_slot(name).await.expect_err("a bad name");
        assert_eq!(error.sqlstate().map(|code| code.code()), Some(code), "{error}");
    }
    let point = connection.create_slot("mine").await.expect("a slot");
    assert!(point >= Lsn::new(1) && identity.system_id.parse::<u64>().is_ok());
    connection.start("mine", point, "all \"tables\"", KEEP).await.expect("a stream")
}

/// Logical messages up to and including the next commit.
async fn transaction(stream: &mut ReplicationStream) -> Vec<LogicalMessage> {
    let mut messages = Vec::new();
    loop {
        let next =
            timeout(Duration::from_secs(60), stream.next()).await.expect("a message").expect("no error");
        let ReplicationMessage::XLogData(data) = next else {
            continue;
        };
        let message = pgoutput::decode(data.data).expect("a readable message");
        let is_last = matches!(message, LogicalMessage::Commit(_));
        messages.push(message);
        if is_last {
            return messages;
        }
    }
}

fn texts(tuple: &Tuple) -> Vec<Option<String>> {
    tuple
        .cells()
        .map(|cell| match cell {
            Cell::Null => None,
            Cell::Unchanged => Some("unchanged".to_owned()),
            Cell::Oversize { length, .. } => Some(format!("{length} bytes")),
            Cell::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        })
        .collect()
}

fn row(cells: &[Option<&str>]) -> Vec<Option<String>> {
    cells.iter().map(|cell| cell.map(str::to_owned)).collect()
}

const TABLES: &str = r#"
CREATE TYPE mood AS ENUM ('fine');
CREATE TABLE plain (id int PRIMARY KEY, body text, mood mood);
CREATE TABLE whole (id int PRIMARY KEY, body text);
ALTER TABLE whole REPLICA IDENTITY FULL;
ALTER TABLE plain ALTER body SET STORAGE EXTERNAL;
CREATE PUBLICATION "all ""tables""" FOR ALL TABLES;
"#;

#[tokio::test]
async fn every_kind_of_change_comes_through_the_stream() {
    let cluster = TlsCluster::start().await;
    let admin = cluster.admin().await;
    admin.batch_execute(TABLES).await.expect("tables");
    let mut stream = stream(&cluster).await;

    admin
        .batch_execute("INSERT INTO plain VALUES (1, repeat('x', 9000), 'fine'), (2, NULL, NULL)")
        .await
        .expect("insert");
    let messages = transaction(&mut stream).await;
    let [
        LogicalMessage::Begin(begin),
        LogicalMessage::Type(mood),
        LogicalMessage::Relation(relation),
        LogicalMessage::Insert { relation: first_relation, new: first },
        LogicalMessage::Insert { new: second, .. },
        LogicalMessage::Commit(commit),
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!((begin.final_lsn, begin.commit_time), (commit.commit_lsn, commit.commit_time));
    assert!(commit.end_lsn > commit.commit_lsn);
    assert_eq!((mood.namespace.as_str(), mood.name.as_str()), ("public", "mood"));
    assert_eq!(
        relation.columns.iter().map(|c| (c.name.as_str(), c.is_key)).collect::<Vec<_>>(),
        [("id", true), ("body", false), ("mood", false)]
    );
    assert_eq!(relation.columns[2].type_oid, mood.oid);
    assert_eq!(*first_relation, relation.id);
    assert_eq!(texts(first), row(&[Some("1"), Some(&"x".repeat(9000)), Some("fine")]));
    assert_eq!(texts(second), row(&[Some("2"), None, None]));

    admin
        .batch_execute(
            "BEGIN; UPDATE plain SET mood = NULL WHERE id = 1; UPDATE plain SET id = 3 WHERE id = 2;
             DELETE FROM plain WHERE id = 3; COMMIT",
        )
        .await
        .expect("changes");
    let messages = transaction(&mut stream).await;
    let [
        LogicalMessage::Begin(_),
        LogicalMessage::Update { old: None, new: kept, .. },
        LogicalMessage::Update { old: Some(OldTuple::Key(old_key)), new: renamed, .. },
        LogicalMessage::Delete { old: OldTuple::Key(deleted), .. },
        LogicalMessage::Commit(_),
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!(texts(kept), row(&[Some("1"), Some("unchanged"), None]));
    assert_eq!(texts(old_key), row(&[Some("2"), None, None]));
    assert_eq!(texts(renamed), row(&[Some("3"), None, None]));
    assert_eq!(texts(deleted), row(&[Some("3"), None, None]));

    admin
        .batch_execute(
            "BEGIN; INSERT INTO whole VALUES (1, 'a'); UPDATE whole SET body = 'b';
             SELECT pg_logical_emit_message(true, 'prefix', 'content'::bytea);
             TRUNCATE plain, whole RESTART IDENTITY CASCADE; COMMIT",
        )
        .await
        .expect("changes");
    // A table is described again whenever the server thinks that it may have changed.
    let mut messages = transaction(&mut stream).await;
    messages.retain(|message| !matches!(message, LogicalMessage::Relation(_) | LogicalMessage::Type(_)));
    let [
        LogicalMessage::Begin(_),
        LogicalMessage::Insert { relation: whole, .. },
        LogicalMessage::Update { old: Some(OldTuple::Full(old)), new, .. },
        LogicalMessage::Message(emitted),
        LogicalMessage::Truncate { relations, cascade: true, restart_identity: true },
        LogicalMessage::Commit(last),
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!((texts(old), texts(new)), (row(&[Some("1"), Some("a")]), row(&[Some("1"), Some("b")])));
    assert_eq!(
        (emitted.transactional, emitted.prefix.as_str(), &emitted.content[..]),
        (true, "prefix", &b"content"[..])
    );
    assert_eq!(relations.len(), 2);
    assert!(relations.contains(whole) && relations.contains(&relation.id));

    stream.status(last.end_lsn, last.end_lsn, last.end_lsn, false).await.expect("a status");
    stream.finish().await.expect("an orderly end");
    let slot = admin
        .query_one(
            "SELECT confirmed_flush_lsn::text, active FROM pg_replication_slots WHERE slot_name = 'mine'",
            &[],
        )
        .await
        .expect("the slot");
    assert_eq!((slot.get::<_, String>(0), slot.get::<_, bool>(1)), (last.end_lsn.to_string(), false));
}

#[tokio::test]
async fn cancelled_reads_lose_nothing() {
    let cluster = TlsCluster::start().await;
    let admin = cluster.admin().await;
    admin.batch_execute(TABLES).await.expect("tables");
    let mut stream = stream(&cluster).await;
    admin
        .batch_execute(
            "INSERT INTO whole SELECT n, repeat(md5(n::text), n % 50) FROM generate_series(1, 20000) n",
        )
        .await
        .expect("rows");
    let (mut expected, mut cancelled) = (1, 0);
    while expected <= 20_000 {
        let next = match stream.try_next().expect("no error") {
            Some(message) => message,
            None => match timeout(Duration::from_micros(20), stream.next()).await {
                Ok(message) => message.expect("no error"),
                Err(_) => {
                    cancelled += 1;
                    stream
                        .status(Lsn::ZERO, Lsn::ZERO, Lsn::ZERO, cancelled % 7 == 0)
                        .await
                        .expect("a status");
                    continue;
                }
            },
        };
        let ReplicationMessage::XLogData(data) = next else {
            continue;
        };
        if let LogicalMessage::Insert { new, .. } = pgoutput::decode(data.data).expect("a readable message") {
            assert_eq!(texts(&new).first().cloned().flatten(), Some(expected.to_string()));
            expected += 1;
        }
    }
    assert!(cancelled > 0, "nothing was cancelled");
}

#[tokio::test]
async fn giant_values_come_whole() {
    let cluster = TlsCluster::start().await;
    let admin = cluster.admin().await;
    admin.batch_execute(TABLES).await.expect("tables");
    let mut stream = stream(&cluster).await;
    admin.batch_execute("INSERT INTO whole VALUES (1, repeat('é', 30000000))").await.expect("a row");
    let messages = transaction(&mut stream).await;
    let [.., LogicalMessage::Insert { new, .. }, LogicalMessage::Commit(_)] = &messages[..] else {
        panic!("no row")
    };
    assert_eq!(new.size(), 1 + 4 + 1 + 1 + 4 + 60_000_000);
}

#[tokio::test]
async fn of_longer_values_and_strangers_messages_only_the_traces_come() {
    let cluster = TlsCluster::start().await;
    let admin = cluster.admin().await;
    admin.batch_execute(TABLES).await.expect("tables");
    let mut stream = stream(&cluster).await;
    admin
        .batch_execute(
            "BEGIN;
             SELECT pg_logical_emit_message(true, 'theirs', repeat('x', 80000000));
             SELECT pg_logical_emit_message(true, 'ours', repeat('x', 80000000));
             SELECT pg_logical_emit_message(true, 'ours', repeat('x', 2000000));
             INSERT INTO whole VALUES (1, repeat('x', 80000000));
             UPDATE whole SET id = 2;
             COMMIT",
        )
        .await
        .expect("long ones");
    let messages = transaction(&mut stream).await;
    let [
        LogicalMessage::Begin(_),
        LogicalMessage::Message(emptied),
        LogicalMessage::Message(kept),
        LogicalMessage::Relation(_),
        LogicalMessage::Insert { new: inserted, .. },
        LogicalMessage::Update { old: Some(OldTuple::Full(old)), new, .. },
        LogicalMessage::Commit(_),
    ] = &messages[..]
    else {
        panic!("{} messages", messages.len())
    };
    assert_eq!((emptied.prefix.as_str(), emptied.content.len()), ("ours", 0));
    assert_eq!((kept.prefix.as_str(), kept.content.len()), ("ours", 2_000_000));
    assert_eq!(texts(inserted), row(&[Some("1"), Some("80000000 bytes")]));
    assert_eq!(texts(new), row(&[Some("2"), Some("unchanged")]));
    assert_eq!(old, inserted, "equal values have equal traces");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_errors_keep_their_sqlstate_and_an_end_is_told_from_a_break() {
    let cluster = TlsCluster::start().await;
    let admin = cluster.admin().await;
    admin.batch_execute(TABLES).await.expect("tables");
    let dsn = cluster.unix_dsn("trust_user");
    let mut connection = ReplicationConnection::connect(&dsn).await.expect("a connection");
    let error = connection.simple_query("SELECT 1 AS one; SELECT 1/0").await.expect_err("a division by zero");
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("22012"));
    let rows = connection.simple_query("SELECT 1 AS one; SELECT 2 AS two").await.expect("still usable");
    assert_eq!(
        rows.iter().map(|row| (row.get("one"), row.get("two"))).collect::<Vec<_>>(),
        [(Some("1"), None), (None, Some("2"))]
    );
    let error = connection.start("absent", Lsn::ZERO, "p", KEEP).await.expect_err("no such slot");
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("42704"));

    let mut running = stream(&cluster).await;
    let busy = ReplicationConnection::connect(&dsn).await.expect("a connection");
    let error = busy.start("mine", Lsn::ZERO, "p", KEEP).await.expect_err("a slot in use");
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("55006"));

    let terminate =
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'mine'";
    admin.batch_execute(terminate).await.expect("a termination");
    let error = until_error(&mut running).await;
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("57P01"), "{error}");

    // The error comes before the slot is released.
    let inactive = "SELECT active FROM pg_replication_slots WHERE slot_name = 'mine'";
    let released = async { while admin.query_one(inactive, &[]).await.expect("the slot").get(0) {} };
    timeout(Duration::from_secs(60), released).await.expect("the slot to be released");
    let connection = ReplicationConnection::connect(&dsn).await.expect("a connection");
    let mut running = connection.start("mine", Lsn::ZERO, "all \"tables\"", KEEP).await.expect("a stream");
    let until_end = tokio::spawn(async move { until_error(&mut running).await });
    cluster.restart().await;
    let error = until_end.await.expect("an end");
    // 57P01 where the server stopped before it knew this one for a walsender.
    let told = error.sqlstate().is_some_and(|code| code.code() == "57P01");
    assert!(told || matches!(error, StreamError::Ended | StreamError::Closed), "{error:?}");
}

async fn until_error(stream: &mut ReplicationStream) -> StreamError {
    loop {
        match timeout(Duration::from_secs(60), stream.next()).await.expect("an end") {
            Ok(ReplicationMessage::Keepalive(keepalive)) => {
                let end = keepalive.wal_end;
                if let Err(error) = stream.status(end, end, end, false).await {
                    return error;
                }
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}
