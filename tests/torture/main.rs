//! The torture test: writers, streams and faults, and a judge that knows what had to come.
//!
//! ```text
//! writers ─ SQL ─► Postgres ─ proxy ─► worker ─► readers ─┐
//!    │               │    ▲ faults ▲      ▲               ├─► check: missed, duplicated, reordered, foreign, untold
//!    └ expectations ─┼────────────────────┘               │
//!                    └─ order: the judge's own slot, the order of commits
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
mod order;
#[allow(dead_code, reason = "each test binary uses its part of the bench")]
#[path = "../integration/bench/proxy.rs"]
mod proxy;
mod reader;
mod report;
mod writer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use walcast::cli::cluster::{Cluster, ClusterOptions};
use walcast::config::Config;
use walcast::postgres::dsn::Dsn;

use check::{Facts, Ids, Verdict};
use deed::ORGANIZATIONS;
use fault::{Fault, Victims};
use order::Order;
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
    let ledger = Ledger::new();
    let mut victims = prepare(ledger.clone()).await;
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|at| {
            tokio::spawn(writer::run(
                victims.dsn.clone(),
                ledger.clone(),
                at,
                fastrand::Rng::with_seed(rng.u64(..)),
            ))
        })
        .collect();
    let warden = writer::warden(victims.dsn.clone(), ledger.clone(), fastrand::Rng::with_seed(rng.u64(..)));
    writers.push(tokio::spawn(warden));
    let readers: Vec<_> = (0..READERS)
        .map(|at| {
            let spec = spec(at);
            let (finish, told) = watch::channel(None);
            let own = fastrand::Rng::with_seed(rng.u64(..));
            let reader = Reader::new(spec.clone(), victims.address, own, victims.pressure.subscribe());
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
    let (history, facts) = victims.order.history(&victims.dsn, &ledger).await;
    let facts = Facts { resets: victims.resets.clone(), floods: victims.floods.clone(), ..facts };
    let mut verdict = Verdict::default();
    let mut ids = Ids::default();
    let (mut opened, mut resumes, mut stalls) = (0, 0, 0);
    let mut running = Vec::new();
    for (spec, finish, task) in readers {
        // What no role at the end is shown can't be waited for.
        let role = facts.all_roles(&spec).last().copied();
        let sees = |event| spec.selects(event) && spec.admits(event, role);
        let last = history.iter().rev().find(|committed| sees(&committed.event));
        finish.send_replace(Some(last.map_or((0, 0), |committed| -> Place { (committed.lsn, 0) })));
        running.push((finish, task));
    }
    for (_finish, task) in running {
        let reader = task.await.expect("a reader");
        check::judge(&reader, &history, &facts, &mut ids, &mut verdict);
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
        standings: facts.placed.len() as u64,
        readers: READERS as u64,
        opened,
        resumes,
        stalls,
        faults,
        verdict,
    }
}

/// A cluster of the run's own, the domain in it, its rows, the judge's slot, a proxy, the worker.
async fn prepare(ledger: Arc<Ledger>) -> Victims {
    let settings =
        [("max_connections", "100"), ("max_wal_size", "4GB"), ("fsync", "off"), ("wal_writer_delay", "10ms")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let cluster =
        Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() }).await.expect("a cluster");
    let url = cluster.dsn("postgres");
    let dsn = Dsn::parse(&url).expect("its URL");
    walcast::cli::migrate::run(&dsn, true).await.expect("migrations");
    walcast::cli::setup::apply(&Config::reference(), &dsn).await.expect("setup");
    let mut rows = String::from("insert into users (id, name) values ('ann', 'Ann'), ('ben', 'Ben');");
    for organization in ORGANIZATIONS {
        rows += &format!(
            "insert into organizations (id, name) values ('{organization}', '{organization}');
             insert into memberships (organization_id, user_id, role)
               values ('{organization}', 'ann', '{}'), ('{organization}', 'ben', '{}');
             insert into devices (id, organization_id, name, status)
               values ('fixed-{organization}', '{organization}', 'Fixed', 'ONLINE');",
            Facts::first_role("ann"),
            Facts::first_role("ben"),
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
    session.batch_execute(order::LEDGER).await.expect("the ledger");
    session.batch_execute(order::SLOT).await.expect("the judge's slot");
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], cluster.port()))).await;
    let address = fault::free_address().await;
    // Short, so that a network that swallows everything is noticed within the run.
    let proxied = format!(
        "postgres://postgres@{}/postgres?sslmode=disable&options=-c%20wal_sender_timeout%3D3s",
        proxy.address
    );
    let worker = fault::spawn(&proxied, address);
    Victims {
        cluster,
        dsn,
        url,
        proxy,
        proxied,
        address,
        worker,
        ledger,
        order: Order::default(),
        pressure: watch::Sender::new(0),
        resets: Vec::new(),
        floods: Vec::new(),
    }
}

/// What the reader of this number asks for.
fn spec(at: usize) -> Spec {
    let organization = ORGANIZATIONS[at % ORGANIZATIONS.len()];
    let user = if at.is_multiple_of(3) { "ann" } else { "ben" };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
    let claims = json!({ "sub": user, "exp": now + 86_400 });
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token");
    let native = "/api/realtime/stream";
    let plain = Spec {
        organization,
        user,
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
