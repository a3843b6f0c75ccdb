//! Writers: transactions of several deeds, with savepoints and rollbacks among them, whose outcome is always known.
//!
//! A transaction leaves its number and its id in a table of the run's own. When a connection breaks inside `commit`,
//! that table knows what the server made of it.
//!
//! Beside those that write rows there is one that takes memberships and roles, and gives them back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use walcast::postgres::client::{self, Client};
use walcast::postgres::dsn::Dsn;

use serde_json::json;
use tokio::sync::RwLock;

use walcast::source::Kind;

use super::deed::{self, Author, Deed, Expected, ORGANIZATIONS, Rows};
use super::reader::{Micros, now};

/// One in so many transactions takes a table as a whole.
const WHOLE_TABLES: u32 = 250;

/// One in so many stands still for a while with what it has written: it commits long after others that began later.
const LONG: u32 = 60;

/// One in so many is of megabytes, and handed out in parts as it comes.
const BULKY: u32 = 80;

/// What makes it so: events that nobody signed.
const BULK: &str =
    "select count(pg_logical_emit_message(true, 'walcast', repeat('x', 40000))) from generate_series(1, 60);";

/// Who has a role in an organization from a transaction on; none: is no member any more.
#[derive(Clone, Debug)]
pub struct Standing {
    pub organization: &'static str,
    pub user: &'static str,
    pub role: Option<&'static str>,
}

/// What a committed transaction did.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub events: Vec<Expected>,
    pub standing: Option<Standing>,
    /// From before it was sent, to when its commit was known of.
    pub during: Option<(Micros, Micros)>,
}

impl Done {
    pub fn of(events: Vec<Expected>) -> Self {
        Self { events, ..Self::default() }
    }

    /// Whether it makes anything that a worker has to tell, or to know.
    pub const fn says_something(&self) -> bool {
        !self.events.is_empty() || self.standing.is_some()
    }
}

/// What all writers share.
pub struct Ledger {
    pub source: Kind,
    next: AtomicU64,
    pub stop: AtomicBool,
    /// Held to write: nobody else does.
    pub gate: RwLock<()>,
    /// Committed transactions by their number.
    pub committed: Mutex<HashMap<u64, Done>>,
    pub rolled_back: AtomicU64,
    pub savepoints: AtomicU64,
    pub in_doubt: AtomicU64,
    pub long: AtomicU64,
    pub bulky: AtomicU64,
}

impl Ledger {
    pub fn new(source: Kind) -> Arc<Self> {
        Arc::new(Self {
            source,
            next: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            gate: RwLock::new(()),
            committed: Mutex::default(),
            rolled_back: AtomicU64::new(0),
            savepoints: AtomicU64::new(0),
            in_doubt: AtomicU64::new(0),
            long: AtomicU64::new(0),
            bulky: AtomicU64::new(0),
        })
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// A writer's session, and how its transactions come out.
pub struct Hand {
    dsn: Dsn,
    ledger: Arc<Ledger>,
    session: Option<Client>,
}

impl Hand {
    pub const fn new(dsn: Dsn, ledger: Arc<Ledger>) -> Self {
        Self { dsn, ledger, session: None }
    }

    /// One transaction; whether it committed.
    pub async fn write(&mut self, number: u64, sql: &str, done: Done, rolled_back: bool) -> bool {
        let ledger = self.ledger.clone();
        let _gate = ledger.gate.read().await;
        self.put(number, sql, done, rolled_back).await
    }

    /// As [`Hand::write`], for who holds the gate.
    pub async fn put(&mut self, number: u64, sql: &str, mut done: Done, rolled_back: bool) -> bool {
        let end = if rolled_back { "rollback" } else { "commit" };
        let sql = format!(
            "begin; {sql} insert into torture.ledger values ({number}, pg_current_xact_id()::text); {end};"
        );
        let began = now();
        let client = match self.session.take() {
            Some(client) => client,
            None => connect(&self.dsn).await,
        };
        let committed = match client.batch_execute(&sql).await {
            Ok(()) => {
                self.session = Some(client);
                !rolled_back
            }
            // A deed that the server refuses is a mistake of the test.
            Err(error) if refused(&error) => panic!("{error:?} in {sql}"),
            Err(_) => {
                self.ledger.in_doubt.fetch_add(1, Ordering::Relaxed);
                outcome(&self.dsn, number).await
            }
        };
        done.during = Some((began, now()));
        if committed {
            self.ledger.committed.lock().expect("no writer panicked").insert(number, done);
        } else {
            self.ledger.rolled_back.fetch_add(1, Ordering::Relaxed);
        }
        committed
    }

    /// One transaction of this one thing, again and again until it has committed.
    async fn insist(&mut self, sql: &str, done: &Done) {
        while !self.write(self.ledger.number(), sql, done.clone(), false).await {}
    }
}

/// Writes until told to stop.
pub async fn run(dsn: Dsn, ledger: Arc<Ledger>, writer: usize, mut rng: fastrand::Rng) {
    let mut rows = Rows::default();
    let mut hand = Hand::new(dsn, ledger.clone());
    while !ledger.stop.load(Ordering::Relaxed) {
        let number = ledger.number();
        let (sql, events, after) = compose(&ledger, &rows, writer, number, &mut rng);
        let rolled_back = rng.u8(..10) == 0;
        if hand.write(number, &sql, Done::of(events), rolled_back).await {
            rows = after;
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(10..90))).await;
    }
}

/// Takes memberships of the readers' users and gives them back, and changes their roles, until told to stop; then
/// everybody is a member.
pub async fn warden(dsn: Dsn, ledger: Arc<Ledger>, mut rng: fastrand::Rng) {
    let mut hand = Hand::new(dsn, ledger.clone());
    while !ledger.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(rng.u64(500..2500))).await;
        let organization = rng.choice(ORGANIZATIONS).unwrap_or("north");
        let user = rng.choice(["ann", "ben"]).unwrap_or("ann");
        let role = rng.choice(["admin", "manager", "employee", "member"]).unwrap_or("member");
        let place = format!("organization_id = '{organization}' and user_id = '{user}'");
        let done = |role, event_type: Option<&'static str>| Done {
            events: event_type
                .map(|event_type| membership(event_type, organization, user))
                .into_iter()
                .collect(),
            standing: Some(Standing { organization, user, role }),
            during: None,
        };
        if rng.u8(..3) == 0 {
            hand.insist(
                &format!("delete from memberships where {place};"),
                &done(None, Some("member.leave")),
            )
            .await;
            tokio::time::sleep(Duration::from_millis(rng.u64(100..4000))).await;
            let back = format!(
                "insert into memberships (organization_id, user_id, role) values ('{organization}', '{user}', '{role}');"
            );
            hand.insist(&back, &done(Some(role), Some("member.join"))).await;
        } else {
            let change = format!("update memberships set role = '{role}' where {place};");
            hand.insist(&change, &done(Some(role), None)).await;
        }
    }
}

fn membership(event_type: &'static str, organization: &'static str, user: &str) -> Expected {
    Expected {
        organization,
        channel: "members",
        event_type,
        key: format!("{event_type} {user}"),
        tags: Vec::new(),
        only: None,
        data: json!({}),
    }
}

/// More than the window holds, of one organization, at once. The last event's marker.
pub async fn flood(dsn: Dsn, ledger: Arc<Ledger>, organization: &'static str) -> String {
    /// Near `journal.max_event`, and together twice `replay.max_memory`.
    const EVENT_BYTES: usize = 800_000;
    const EVENTS: usize = 20;
    let mut hand = Hand::new(dsn, ledger.clone());
    let mut last = String::new();
    for _ in 0..EVENTS {
        let number = ledger.number();
        last = format!("t{number}-flood");
        let deed = deed::emit_long(organization, &last, EVENT_BYTES);
        hand.write(number, &deed.sql, Done::of(deed.events), false).await;
    }
    last
}

/// A deed by who holds the gate.
pub async fn aside(dsn: Dsn, ledger: Arc<Ledger>, deed: Deed) {
    let mut hand = Hand::new(dsn, ledger.clone());
    hand.put(ledger.number(), &deed.sql, Done::of(deed.events), false).await;
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
    if rng.u32(..WHOLE_TABLES) == 0 {
        let deed = Author { rng, rows: &mut rows, writer, number, count: 0, touched: Vec::new() }
            .of_a_table(ledger.source);
        return (deed.sql, deed.events, rows);
    }
    let deeds = rng.u32(1..7);
    let bulk = (rng.u32(..BULKY) == 0).then(|| rng.u32(..deeds));
    let (mut count, mut touched) = (0, Vec::new());
    for place in 0..deeds {
        if bulk == Some(place) {
            ledger.bulky.fetch_add(1, Ordering::Relaxed);
            sql += BULK;
        }
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
    if rng.u32(..LONG) == 0 {
        ledger.long.fetch_add(1, Ordering::Relaxed);
        sql += &format!("select pg_sleep({});", f64::from(rng.u32(5..30)) / 10.0);
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
