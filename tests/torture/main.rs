//! The torture test: writers, streams and faults, and a judge that knows what had to come.
//!
//! ```text
//! writers ─ SQL ─► Postgres ─ proxy ─► worker ─► readers ─┐
//!    │               │    ▲ faults ▲      ▲               ├─► check: missed, duplicated, reordered, foreign, untold
//!    └ expectations ─┼────────────────────┘               │
//!                    └─ order: what the judge itself sees of the order of commits
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
mod stage;
mod worker;
mod writer;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use walcast::source::Kind;

use check::{Facts, Ids, Verdict};
use fault::Fault;
use reader::{Place, Reader};
use report::Report;
use worker::Program;
use writer::Ledger;

const WRITERS: usize = 6;
const READERS: usize = 32;

/// How long a stream may take to its end once nothing is broken any more.
const PATIENCE: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    check::proof::prove();
    order::prove();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(String::as_str)
    };
    // Started by `cargo test` among all others: minutes of faults are asked for by name.
    let Some(seconds) = value("--seconds").and_then(|seconds| seconds.parse().ok()) else {
        println!("the judge judges; the torture test itself is run by scripts/torture");
        return ExitCode::SUCCESS;
    };
    let seed = value("--seed").and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(1..1_000_000));
    let source = if value("--source") == Some("outbox") { Kind::Outbox } else { Kind::Wal };
    println!("torture: source {source}, {seconds} s, seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(run(source, seed, Duration::from_secs(seconds)));
    println!("{report}");
    if report.verdict.holds() {
        ExitCode::SUCCESS
    } else {
        println!("FAILED; again with: scripts/torture --source {source} --seconds {seconds} --seed {seed}");
        ExitCode::FAILURE
    }
}

async fn run(source: Kind, seed: u64, length: Duration) -> Report {
    let mut rng = fastrand::Rng::with_seed(seed);
    let ledger = Ledger::new(source);
    // In every third seed the window is bounded by memory more than by age.
    let tight = seed.is_multiple_of(3);
    let program = Program { source, memory: if tight { "2MiB" } else { "8MiB" } };
    let mut victims = stage::prepare(program, ledger.clone()).await;
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
            let spec = stage::spec(at);
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
            round = fault::all(source);
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
    let (history, facts) = victims.order.history(&victims.dsn, &ledger, &victims.lost).await;
    let facts = Facts { resets: victims.resets.clone(), floods: victims.floods.clone(), tight, ..facts };
    let mut verdict = Verdict::default();
    check::judge_order(&facts.acknowledged, &mut verdict);
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
        source,
        seed,
        tight,
        length,
        transactions,
        events: history.len() as u64,
        rolled_back: ledger.rolled_back.load(Ordering::Relaxed),
        savepoints: ledger.savepoints.load(Ordering::Relaxed),
        in_doubt: ledger.in_doubt.load(Ordering::Relaxed),
        long: ledger.long.load(Ordering::Relaxed),
        bulky: ledger.bulky.load(Ordering::Relaxed),
        standings: facts.placed.len() as u64,
        readers: READERS as u64,
        opened,
        resumes,
        stalls,
        faults,
        verdict,
    }
}
