//! The WAL source against a real server: nothing lost, nothing twice, whatever happens to the connection.

mod visibility;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use walcast::config;
use walcast::postgres::client::Client;
use walcast::postgres::dsn::Dsn;
use walcast::postgres::pgoutput::{Cell, OldTuple, Tuple};
use walcast::postgres::{Lsn, PgTimestamp};
use walcast::source::{
    Change, Changes, ErrorKind, Operation, ResetReason, SourceItem, Transaction, WalSource,
};

use crate::bench::{PATIENCE, eventually, server};

/// A database of its own.
pub(crate) struct TestDatabase {
    pub(crate) dsn: Dsn,
    pub(crate) sql: Client,
    pub(crate) slot: String,
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        server::clean_up(self.dsn.clone());
    }
}

impl TestDatabase {
    pub(crate) async fn create() -> Self {
        let dsn: Dsn = server::empty_database().await.parse().unwrap();
        let sql = server::session(&dsn).await;
        let slot = format!("walcast_{}", dsn.database);
        Self { dsn, sql, slot }
    }

    /// With a table `bays` and everything that a source of it needs.
    pub(crate) async fn with_bays() -> Self {
        let database = Self::create().await;
        database
            .run(
                "create table bays (id text primary key, site text, note text);
                 create publication walcast for table bays",
            )
            .await;
        database
            .run(&format!("select pg_create_logical_replication_slot('{}', 'pgoutput')", database.slot))
            .await;
        database
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub(crate) async fn text(&self, sql: &str) -> Option<String> {
        self.sql.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    pub(crate) fn source(&self) -> Source {
        self.source_with(config::Source::default(), config::Replay::default())
    }

    pub(crate) fn source_with(&self, source: config::Source, replay: config::Replay) -> Source {
        let source = config::Source { slot: Some(self.slot.clone()), ..source };
        // A status every third of it: what depends on them is seen soon.
        let dsn = Dsn { options: Some("-c wal_sender_timeout=3s".to_owned()), ..self.dsn.clone() };
        Source(WalSource::new(&source, &replay, dsn))
    }

    /// Returns once it is gone: told to end, it may still send what commits next.
    async fn terminate_walsender(&self) {
        let sql = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1";
        let told: bool = self.sql.query_one(sql, &[&self.slot]).await.unwrap().get(0);
        assert!(told);
        eventually("the slot is free", || async {
            let sql = "select active from pg_replication_slots where slot_name = $1";
            let active: bool = self.sql.query_one(sql, &[&self.slot]).await.unwrap().get(0);
            (!active).then_some(())
        })
        .await;
    }

    async fn drop_slot(&self) {
        self.run(&format!("select pg_drop_replication_slot('{}')", self.slot)).await;
    }

    async fn confirmed(&self) -> Lsn {
        let sql = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1";
        let text: String = self.sql.query_one(sql, &[&self.slot]).await.unwrap().get(0);
        text.parse().unwrap()
    }
}

/// A source under test: every wait has an end.
pub(crate) struct Source(pub(crate) WalSource);

impl Source {
    pub(crate) async fn item(&mut self) -> SourceItem {
        timeout(PATIENCE, self.0.next()).await.expect("the source yields in time").unwrap()
    }

    pub(crate) async fn connected(&mut self) -> Lsn {
        match self.item().await {
            SourceItem::Connected { start, .. } => start,
            other => panic!("{other:?} instead of Connected"),
        }
    }

    /// The next transaction, past positions. PostgreSQL 14 tells also of those that nothing published is in.
    pub(crate) async fn transaction(&mut self) -> Transaction {
        loop {
            match self.item().await {
                SourceItem::Transaction(transaction) if transaction.changes.is_empty() => {}
                SourceItem::Transaction(transaction) => return transaction,
                SourceItem::Position { .. } => {}
                other => panic!("{other:?} instead of a transaction"),
            }
        }
    }

    /// The next item that is neither data nor a position.
    async fn event(&mut self) -> SourceItem {
        loop {
            match self.item().await {
                SourceItem::Transaction(_) | SourceItem::Position { .. } => {}
                other => return other,
            }
        }
    }

    /// Calls and cancels `next`, as an application with other things to do, while nothing of interest comes.
    async fn idle_for(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            match timeout(Duration::from_millis(20), self.0.next()).await {
                Err(_) | Ok(Ok(SourceItem::Position { .. })) => {}
                Ok(Ok(SourceItem::Transaction(transaction))) if transaction.changes.is_empty() => {}
                Ok(other) => panic!("{other:?}"),
            }
        }
    }

    async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.extend(new_ids(&self.transaction().await));
        }
        ids
    }
}

fn new_ids(transaction: &Transaction) -> Vec<String> {
    let mut ids = Vec::new();
    let mut reader = transaction.reader().unwrap();
    while let Some(change) = reader.next().unwrap() {
        if let Change::Row(row) = change
            && let Some(new) = &row.new
        {
            ids.push(texts(new)[0].clone().unwrap());
        }
    }
    ids
}

fn texts(tuple: &Tuple) -> Vec<Option<String>> {
    tuple
        .cells()
        .map(|cell| match cell {
            Cell::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
            Cell::Null => None,
            Cell::Unchanged => Some("(unchanged)".to_owned()),
            Cell::Oversize { length, .. } => Some(format!("({length} bytes)")),
        })
        .collect()
}

fn insert(id: &str) -> String {
    format!("insert into bays values ('{id}', 'north', null)")
}

#[tokio::test]
async fn a_transaction_comes_whole_in_order_and_bound_to_its_relation() {
    let database = TestDatabase::with_bays().await;
    let mut source = database.source();
    source.connected().await;
    database
        .run(
            "begin;
             insert into bays values ('1', 'north', null);
             update bays set id = '2', note = 'moved';
             alter table bays add column extra int;
             update bays set extra = 7;
             delete from bays;
             truncate bays;
             select pg_logical_emit_message(true, 'walcast', 'ours');
             select pg_logical_emit_message(true, 'other', 'theirs');
             select pg_logical_emit_message(false, 'walcast', 'not of the transaction');
             commit",
        )
        .await;
    let transaction = source.transaction().await;
    let mut told = Vec::new();
    let mut reader = transaction.reader().unwrap();
    while let Some(change) = reader.next().unwrap() {
        told.push(match change {
            Change::Row(row) => {
                let old = row.old.as_ref().map(|old| match old {
                    OldTuple::Key(old) => texts(old)[0].clone().unwrap(),
                    OldTuple::Full(_) => panic!("the identity is the key"),
                });
                let new = row.new.as_ref().map(|new| texts(new).into_iter().flatten().collect::<Vec<_>>());
                format!("{:?} {} columns, {old:?} to {new:?}", row.operation, row.relation.columns.len())
            }
            Change::Truncate(relations) => format!("Truncate {}", relations[0].name),
            Change::Canary(_) => "Canary".to_owned(),
            Change::Emit(message) => format!("Emit {}", String::from_utf8_lossy(&message.content)),
        });
    }
    assert_eq!(
        told,
        [
            r#"Insert 3 columns, None to Some(["1", "north"])"#,
            r#"Update 3 columns, Some("1") to Some(["2", "north", "moved"])"#,
            r#"Update 4 columns, None to Some(["2", "north", "moved", "7"])"#,
            r#"Delete 4 columns, Some("2") to None"#,
            "Truncate bays",
            "Emit ours",
        ]
    );
    let millis = PgTimestamp::now().unix_millis() - transaction.commit_time.unix_millis();
    assert!((0..60_000).contains(&millis), "committed {millis} ms ago");
    assert!(transaction.end_lsn > transaction.commit_lsn);
}

#[tokio::test]
async fn a_rolled_back_transaction_is_never_seen() {
    let database = TestDatabase::with_bays().await;
    let mut source = database.source();
    source.connected().await;
    database.run(&format!("begin; {}; rollback; {}", insert("never"), insert("kept"))).await;
    assert_eq!(source.ids(1).await, ["kept"]);
}

#[tokio::test]
async fn a_burst_is_taken_without_waiting_and_in_order() {
    let database = TestDatabase::with_bays().await;
    for id in 0..200 {
        database.run(&insert(&id.to_string())).await;
    }
    let mut source = database.source();
    source.connected().await;
    let (mut ids, mut at_once) = (Vec::new(), 0);
    while ids.len() < 200 {
        ids.extend(new_ids(&source.transaction().await));
        while let Some(item) = source.0.try_next() {
            let SourceItem::Transaction(transaction) = item else { panic!("{item:?}") };
            ids.extend(new_ids(&transaction));
            at_once += 1;
        }
    }
    assert!(ids.into_iter().eq((0..200).map(|id: u32| id.to_string())));
    assert!(at_once > 0);
}

#[tokio::test]
async fn a_lost_connection_loses_nothing_and_repeats_nothing() {
    let database = TestDatabase::with_bays().await;
    let mut source = database.source();
    source.connected().await;
    let mut expected = Vec::new();
    let mut seen = Vec::new();
    for round in 0..4 {
        for row in 0..5 {
            let id = format!("{round}.{row}");
            database.run(&insert(&id)).await;
            expected.push(id);
        }
        seen.extend(source.ids(3).await);
        database.terminate_walsender().await;
        let SourceItem::Disconnected { kind, .. } = (loop {
            match source.item().await {
                SourceItem::Transaction(transaction) => seen.extend(new_ids(&transaction)),
                SourceItem::Position { .. } => {}
                other => break other,
            }
        }) else {
            panic!("a broken connection is told")
        };
        assert_eq!(kind, ErrorKind::Transient);
        source.connected().await;
    }
    seen.extend(source.ids(expected.len() - seen.len()).await);
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_new_process_reads_what_was_kept_again_at_the_same_positions() {
    let database = TestDatabase::with_bays().await;
    let mut first = database.source();
    first.connected().await;
    let mut seen = Vec::new();
    for id in ["a", "b", "c"] {
        database.run(&insert(id)).await;
        let transaction = first.transaction().await;
        seen.push((transaction.commit_lsn, transaction.end_lsn, transaction.xid));
    }
    first.0.retain(Some(seen[1].0));
    first.0.shutdown().await;

    let mut second = database.source();
    second.connected().await;
    let mut again = Vec::new();
    while again.last() != seen.last() {
        let transaction = second.transaction().await;
        again.push((transaction.commit_lsn, transaction.end_lsn, transaction.xid));
    }
    assert!(again.ends_with(&seen[1..]), "{again:?} after {seen:?}");
}

#[tokio::test]
async fn an_idle_slot_is_confirmed_up_to_the_head_of_max_age_ago_and_no_further_than_what_is_kept() {
    let database = TestDatabase::with_bays().await;
    let replay = config::Replay { max_age: Duration::from_millis(500), ..config::Replay::default() };
    let mut source = database.source_with(config::Source::default(), replay);
    source.connected().await;
    database.run(&insert("kept")).await;
    let kept = source.transaction().await;
    source.0.retain(Some(kept.commit_lsn));
    database.run(&insert("gone")).await;
    let gone = source.transaction().await;
    source.idle_for(Duration::from_secs(3)).await;
    assert!(source.0.confirmed() <= kept.commit_lsn && database.confirmed().await <= kept.commit_lsn);
    source.0.retain(None);
    let deadline = Instant::now() + PATIENCE;
    while database.confirmed().await < gone.end_lsn {
        assert!(Instant::now() < deadline, "confirmed only {}", database.confirmed().await);
        source.idle_for(Duration::from_millis(100)).await;
    }
    assert!(source.0.confirmed() >= gone.end_lsn);
}

#[tokio::test]
async fn a_slot_that_went_missing_is_made_again_and_history_begins_anew() {
    let database = TestDatabase::with_bays().await;
    let mut source = database.source();
    source.connected().await;
    database.run(&insert("before")).await;
    assert_eq!(source.ids(1).await, ["before"]);
    database.terminate_walsender().await;
    database.drop_slot().await;
    database.run(&insert("unseen")).await;
    assert!(matches!(source.event().await, SourceItem::Disconnected { .. }));
    let SourceItem::Reset { reason, start, .. } = source.event().await else { panic!("a reset is told") };
    assert_eq!(reason, ResetReason::SlotMissing);
    assert_eq!(source.connected().await, start);
    assert_eq!(source.0.confirmed(), start);
    database.run(&insert("after")).await;
    assert_eq!(source.ids(1).await, ["after"]);
}

#[tokio::test]
async fn a_slot_that_somebody_else_moved_on_is_a_reset() {
    let database = TestDatabase::with_bays().await;
    let mut source = database.source();
    source.connected().await;
    database.run(&insert("before")).await;
    assert_eq!(source.ids(1).await, ["before"]);
    database.terminate_walsender().await;
    database.run(&insert("stolen")).await;
    let stolen: Lsn =
        database.text("select pg_current_wal_insert_lsn()::text").await.unwrap().parse().unwrap();
    let advance =
        format!("select pg_replication_slot_advance('{}', pg_current_wal_insert_lsn())", database.slot);
    // Not before the walsender has left it, and no further than what is flushed: this cluster commits without waiting.
    eventually("the slot is moved on", || async {
        database.sql.batch_execute(&advance).await.ok()?;
        (database.confirmed().await >= stolen).then_some(())
    })
    .await;
    assert!(matches!(source.event().await, SourceItem::Disconnected { .. }));
    let SourceItem::Reset { reason, .. } = source.event().await else { panic!("a reset is told") };
    assert_eq!(reason, ResetReason::SlotAdvanced);
}

#[tokio::test]
async fn a_second_worker_waits_and_has_the_slot_within_a_second_of_its_release() {
    let database = TestDatabase::with_bays().await;
    let mut first = database.source();
    first.connected().await;
    let mut second = database.source();
    let SourceItem::Disconnected { kind, error, standby, .. } = second.item().await else {
        panic!("a busy slot is told")
    };
    assert_eq!((kind, standby), (ErrorKind::Transient, true));
    assert!(error.contains(&database.slot), "{error}");
    assert!(timeout(Duration::from_millis(1500), second.0.next()).await.is_err(), "told once");
    first.0.shutdown().await;
    let released = Instant::now();
    second.connected().await;
    let mut took = vec![released.elapsed()];
    for _ in 0..2 {
        let mut next = database.source();
        assert!(matches!(next.item().await, SourceItem::Disconnected { standby: true, .. }));
        second.0.shutdown().await;
        let released = Instant::now();
        next.connected().await;
        took.push(released.elapsed());
        second = next;
    }
    took.sort_unstable();
    // The machine may be held up once; a wait that is too long is so each time.
    assert!(took[1] < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_missing_publication_waits_for_the_operator() {
    let database = TestDatabase::with_bays().await;
    database.run("drop publication walcast").await;
    let mut source = database.source();
    let SourceItem::Disconnected { kind, error, .. } = source.item().await else { panic!("it is told") };
    assert_eq!(kind, ErrorKind::Operator);
    assert!(error.contains("walcast setup"), "{error}");
}

#[tokio::test]
async fn a_transaction_above_the_limit_is_spooled_and_reads_the_same_twice() {
    let database = TestDatabase::with_bays().await;
    let small = config::Source { max_transaction: config::ByteSize(64 << 10), ..config::Source::default() };
    let mut source = database.source_with(small, config::Replay::default());
    source.connected().await;
    database
        .run(
            "begin;
             insert into bays select n, 'site ' || n, repeat('x', 50) from generate_series(1, 5000) n;
             alter table bays add column extra int default 3;
             update bays set site = 'all' where id::int <= 100;
             commit",
        )
        .await;
    database.run(&insert("next")).await;
    let transaction = source.transaction().await;
    let Changes::Spooled(spool) = &transaction.changes else { panic!("it is above the limit") };
    assert!(spool.file_bytes() > 200_000);
    assert_eq!(transaction.changes.len(), 5100);
    for _ in 0..2 {
        let mut reader = transaction.reader().unwrap();
        let mut counts = BTreeMap::new();
        let mut ids = Vec::new();
        while let Some(change) = reader.next().unwrap() {
            let Change::Row(row) = change else { panic!("{change:?}") };
            *counts.entry((row.operation == Operation::Insert, row.relation.columns.len())).or_insert(0) += 1;
            if row.operation == Operation::Insert {
                ids.push(texts(row.new.as_ref().unwrap())[0].clone().unwrap().parse::<u32>().unwrap());
            }
        }
        assert_eq!(counts, BTreeMap::from([((true, 3), 5000), ((false, 4), 100)]));
        assert!(ids.into_iter().eq(1..=5000));
    }
    assert_eq!(source.ids(1).await, ["next"]);
}
