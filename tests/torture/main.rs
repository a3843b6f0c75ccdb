//! The torture test: writers, streams and faults, and a judge that knows what had to come.
//!
//! ```text
//! writers ─ SQL ─► Postgres ─ proxy ─► worker ─► readers ─┐
//!    │               │    ▲ faults ▲      ▲               ├─► check: missed, duplicated, reordered, foreign, untold
//!    └ expectations ─┼────────────────────┘               │
//!                    └─ a slot of the judge's own: the order of commits
//! ```
//!
//! Run by `scripts/torture`; docs/torture.md says what it shows. Decisions follow the seed, their timing the machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: it stops where it can't go on"
)]
#![allow(unreachable_pub, reason = "nothing is outside of this binary")]

mod check;
mod deed;
mod fault;
#[path = "../integration/bench/proxy.rs"]
mod proxy;
mod reader;
mod report;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use walcast::cli::cluster::{Cluster, ClusterOptions};
use walcast::config::Config;
use walcast::postgres::dsn::Dsn;

use check::{Committed, Ids, Verdict};
use deed::ORGANIZATIONS;
use fault::{Fault, Victims};
use proxy::Proxy;
use reader::{Place, Reader, Spec};
use report::Report;
use writer::Ledger;

/// Signs the tokens of the run.
const JWT_SECRET: &str = "a secret of the torture test, long enough for HS256";

const WRITERS: usize = 6;
const READERS: usize = 32;

/// How long a stream may take to its end once nothing is broken any more.
const PATIENCE: Duration = Duration::from_secs(90);

/// The judge's slot: binary messages, of which only `Begin` is read (position of the commit, time, transaction).
const ORDER: &str =
    "select encode(substring(data from 2 for 8), 'hex'), encode(substring(data from 18 for 4), 'hex')
     from pg_logical_slot_get_binary_changes('torture', null, null, 'proto_version', '1',
       'publication_names', 'walcast', 'messages', 'true')
     where get_byte(data, 0) = ascii('B')";

fn main() -> ExitCode {
    check::proof::prove();
    let mut arguments = std::env::args().skip(1);
    let mut options = BTreeMap::new();
    while let (Some(name), value) = (arguments.next(), arguments.next()) {
        options.insert(name, value.and_then(|value| value.parse::<u64>().ok()));
    }
    // Started by `cargo test` among all others: minutes of faults are asked for by name.
    let Some(seconds) = options.get("--seconds").copied().flatten() else {
        println!("the judge judges; the torture test itself is run by scripts/torture");
        return ExitCode::SUCCESS;
    };
    let seed = options.get("--seed").copied().flatten().unwrap_or_else(|| fastrand::u64(1..1_000_000));
    println!("torture: {seconds} s, seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(run(seed, Duration::from_secs(seconds)));
    println!("{report}");
    if report.verdict.holds() {
        ExitCode::SUCCESS
    } else {
        println!("FAILED; again with: scripts/torture --seconds {seconds} --seed {seed}");
        ExitCode::FAILURE
    }
}

async fn run(seed: u64, length: Duration) -> Report {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut victims = prepare().await;
    let ledger = Ledger::new();
    let writers: Vec<_> = (0..WRITERS)
        .map(|at| {
            tokio::spawn(writer::run(
                victims.dsn.clone(),
                ledger.clone(),
                at,
                fastrand::Rng::with_seed(rng.u64(..)),
            ))
        })
        .collect();
    let readers: Vec<_> = (0..READERS)
        .map(|at| {
            let spec = spec(at);
            let (finish, told) = watch::channel(None);
            let reader = Reader::new(spec.clone(), victims.address, fastrand::Rng::with_seed(rng.u64(..)));
            (spec, finish, tokio::spawn(reader.run(told, PATIENCE)))
        })
        .collect();

    let mut faults: BTreeMap<Fault, u64> = BTreeMap::new();
    let end = Instant::now() + length;
    // Every kind once in each round, in an order of the seed's.
    let mut round = Vec::new();
    while Instant::now() < end {
        sleep(Duration::from_millis(rng.u64(300..2500))).await;
        if round.is_empty() {
            round = fault::ALL.to_vec();
            rng.shuffle(&mut round);
        }
        let fault = round.pop().expect("not empty");
        victims.strike(fault, &mut rng).await;
        *faults.entry(fault).or_default() += 1;
    }

    ledger.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    let history = history(&victims.dsn, &ledger).await;
    let mut verdict = Verdict::default();
    let mut ids = Ids::default();
    let (mut opened, mut resumes, mut stalls) = (0, 0, 0);
    let mut running = Vec::new();
    for (spec, finish, task) in readers {
        let last = history.iter().rev().find(|committed| spec.sees(&committed.event));
        finish.send_replace(Some(last.map_or((0, 0), |committed| -> Place { (committed.lsn, 0) })));
        running.push((finish, task));
    }
    for (_finish, task) in running {
        let reader = task.await.expect("a reader");
        check::judge(&reader, &history, &mut ids, &mut verdict);
        opened += reader.opened;
        resumes += reader.resumes;
        stalls += reader.stalls;
    }
    let transactions = ledger.committed.lock().expect("no writer panicked").len() as u64;
    Report {
        seed,
        length,
        transactions,
        events: history.len() as u64,
        rolled_back: ledger.rolled_back.load(Ordering::Relaxed),
        savepoints: ledger.savepoints.load(Ordering::Relaxed),
        in_doubt: ledger.in_doubt.load(Ordering::Relaxed),
        readers: READERS as u64,
        opened,
        resumes,
        stalls,
        faults,
        verdict,
    }
}

/// A cluster of the run's own, the domain in it, its rows, the judge's slot, a proxy, the worker.
async fn prepare() -> Victims {
    let settings =
        [("max_connections", "100"), ("max_wal_size", "4GB"), ("fsync", "off"), ("wal_writer_delay", "10ms")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let cluster =
        Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() }).await.expect("a cluster");
    let url = cluster.dsn("postgres");
    let dsn = Dsn::parse(&url).expect("its URL");
    walcast::cli::migrate::run(&dsn, true).await.expect("migrations");
    walcast::cli::setup::apply(&Config::reference(), &dsn).await.expect("setup");
    let mut rows = String::from(
        "create schema torture; create table torture.ledger (number bigint primary key, xid text not null);
         insert into users (id, name) values ('ann', 'Ann'), ('ben', 'Ben');",
    );
    for organization in ORGANIZATIONS {
        rows += &format!(
            "insert into organizations (id, name) values ('{organization}', '{organization}');
             insert into memberships (organization_id, user_id, role)
               values ('{organization}', 'ann', 'employee'), ('{organization}', 'ben', 'admin');
             insert into devices (id, organization_id, name, status)
               values ('fixed-{organization}', '{organization}', 'Fixed', 'ONLINE');"
        );
        for writer in 0..WRITERS {
            let lot = deed::lot(organization, writer);
            rows += &format!(
                "insert into lots (id, organization_id, name, total_slots, occupied)
                 values ('{lot}', '{organization}', 'L', 1, 0);"
            );
        }
    }
    let session = writer::connect(&dsn).await;
    session.batch_execute(&rows).await.expect("rows");
    let slot = "select pg_create_logical_replication_slot('torture', 'pgoutput')";
    session.batch_execute(slot).await.expect("the judge's slot");
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], cluster.port()))).await;
    let address = fault::free_address().await;
    // Short, so that a network that swallows everything is noticed within the run.
    let proxied = format!(
        "postgres://postgres@{}/postgres?sslmode=disable&options=-c%20wal_sender_timeout%3D3s",
        proxy.address
    );
    let worker = fault::spawn(&proxied, address);
    Victims { cluster, dsn, url, proxy, proxied, address, worker }
}

/// What the reader of this number asks for.
fn spec(at: usize) -> Spec {
    let organization = ORGANIZATIONS[at % ORGANIZATIONS.len()];
    let (user, role) = if at.is_multiple_of(3) { ("ann", "employee") } else { ("ben", "admin") };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
    let claims = json!({ "sub": user, "exp": now + 86_400 });
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token");
    let native = "/api/realtime/stream";
    let plain = Spec {
        organization,
        user,
        role,
        path: native,
        query: String::new(),
        channels: None,
        types: None,
        tag: None,
        token,
    };
    match at / ORGANIZATIONS.len() {
        0 | 1 => plain,
        2 => {
            Spec { query: "&channel=lots,system".to_owned(), channels: Some(vec!["lots", "system"]), ..plain }
        }
        3 => Spec {
            query: "&types=issue:resolved,issue:deleted,torture".to_owned(),
            types: Some(vec!["issue:resolved", "issue:deleted", "torture"]),
            ..plain
        },
        4 => Spec { query: "&status=open".to_owned(), tag: Some(("status", vec!["open"])), ..plain },
        5 => Spec {
            path: "/api/realtime/issues/stream",
            query: "&priorities=high,critical".to_owned(),
            channels: Some(vec!["issues"]),
            tag: Some(("priority", vec!["high", "critical"])),
            ..plain
        },
        6 => Spec { path: "/api/realtime", channels: Some(vec!["devices", "telemetry", "custom"]), ..plain },
        _ => Spec {
            path: "/api/sse/dashboard",
            channels: Some(vec!["lots", "alerts", "violations", "custom"]),
            ..plain
        },
    }
}

/// All events that committed, in the order of their commits as the judge's slot has them.
async fn history(dsn: &Dsn, ledger: &Ledger) -> Vec<Committed> {
    let session = writer::connect(dsn).await;
    let rows = session.query("select number, xid from torture.ledger", &[]).await.expect("the ledger");
    let numbers: HashMap<u64, u64> = rows
        .iter()
        .map(|row| {
            let (number, xid): (i64, String) = (row.get(0), row.get(1));
            (xid.parse().expect("an id"), u64::try_from(number).expect("a number"))
        })
        .collect();
    let mut committed = std::mem::take(&mut *ledger.committed.lock().expect("no writer panicked"));
    let total = committed.clone();
    let mut history = Vec::new();
    for row in session.query(ORDER, &[]).await.expect("the order of commits") {
        let hexadecimal = |at| u64::from_str_radix(row.get(at), 16).expect("a number");
        let (lsn, xid) = (hexadecimal(0), hexadecimal(1));
        let events = numbers.get(&xid).and_then(|number| committed.remove(number));
        history.extend(events.into_iter().flatten().map(|event| Committed { lsn, event }));
    }
    committed.retain(|_, events| !events.is_empty());
    assert!(committed.is_empty(), "committed, and not decoded by the server itself: {committed:?}");
    *ledger.committed.lock().expect("no writer panicked") = total;
    history
}
