//! Writers: transactions of several deeds, with savepoints and rollbacks among them, whose outcome is always known.
//!
//! A transaction leaves its number and its id in a table of the run's own. When a connection breaks inside `commit`,
//! that table knows what the server made of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use walcast::postgres::client::{self, Client};
use walcast::postgres::dsn::Dsn;

use super::deed::{Author, Expected, Rows};

/// What all writers share.
pub struct Ledger {
    next: AtomicU64,
    pub stop: AtomicBool,
    /// Events of committed transactions, by the number of the transaction.
    pub committed: Mutex<HashMap<u64, Vec<Expected>>>,
    pub rolled_back: AtomicU64,
    pub savepoints: AtomicU64,
    pub in_doubt: AtomicU64,
}

impl Ledger {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            next: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            committed: Mutex::default(),
            rolled_back: AtomicU64::new(0),
            savepoints: AtomicU64::new(0),
            in_doubt: AtomicU64::new(0),
        })
    }
}

/// Writes until told to stop.
pub async fn run(dsn: Dsn, ledger: Arc<Ledger>, writer: usize, mut rng: fastrand::Rng) {
    let mut rows = Rows::default();
    let mut session = None;
    while !ledger.stop.load(Ordering::Relaxed) {
        let number = ledger.next.fetch_add(1, Ordering::Relaxed);
        let (sql, events, after) = compose(&ledger, &rows, writer, number, &mut rng);
        let rolled_back = rng.u8(..10) == 0;
        let end = if rolled_back { "rollback" } else { "commit" };
        let sql = format!(
            "begin; {sql} insert into torture.ledger values ({number}, pg_current_xact_id()::text); {end};"
        );
        let client = match session.take() {
            Some(client) => client,
            None => connect(&dsn).await,
        };
        let committed = match client.batch_execute(&sql).await {
            Ok(()) => {
                session = Some(client);
                !rolled_back
            }
            // A deed that the server refuses is a mistake of the test.
            Err(error) if refused(&error) => panic!("{error:?} in {sql}"),
            Err(_) => {
                ledger.in_doubt.fetch_add(1, Ordering::Relaxed);
                outcome(&dsn, number).await
            }
        };
        if committed {
            rows = after;
            ledger.committed.lock().expect("no writer panicked").insert(number, events);
        } else {
            ledger.rolled_back.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(10..90))).await;
    }
}

/// Several deeds; some of them inside savepoints that are rolled back, which leave nothing.
fn compose(
    ledger: &Ledger,
    before: &Rows,
    writer: usize,
    number: u64,
    rng: &mut fastrand::Rng,
) -> (String, Vec<Expected>, Rows) {
    let (mut sql, mut events, mut rows) = (String::new(), Vec::new(), before.clone());
    let deeds = rng.u32(1..7);
    let (mut count, mut touched) = (0, Vec::new());
    for _ in 0..deeds {
        let undone = rng.u8(..6) == 0;
        let mut kept = rows.clone();
        let mut author = Author { rng, rows: &mut kept, writer, number, count, touched };
        let deed = author.any();
        (count, touched) = (author.count, author.touched);
        if undone {
            ledger.savepoints.fetch_add(1, Ordering::Relaxed);
            sql += &format!("savepoint s; {} rollback to savepoint s; ", deed.sql);
        } else {
            sql += &deed.sql;
            events.extend(deed.events);
            rows = kept;
        }
    }
    (sql, events, rows)
}

/// Of class 57 (shutdown), 08 (connection), or none at all are failures of the server; the rest are refusals.
fn refused(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|state| !state.code().starts_with("57") && !state.code().starts_with("08"))
}

async fn outcome(dsn: &Dsn, number: u64) -> bool {
    loop {
        let client = connect(dsn).await;
        let asked = "select exists (select from torture.ledger where number = $1)";
        if let Ok(row) = client.query_one(asked, &[&i64::try_from(number).expect("a small number")]).await {
            return row.get(0);
        }
    }
}

/// Tries until the server is back.
pub async fn connect(dsn: &Dsn) -> Client {
    loop {
        match client::connect(dsn).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
