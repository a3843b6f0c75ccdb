//! From the moment at which COMMIT is sent to the one at which the change is in somebody's hands: 500 transactions of
//! one row a second.
//!
//! The writer notes when it sends each COMMIT; who receives notes when it has the row: pg_recvlogical and peers at the
//! end of a pipe or in their callback, for nobody else; the worker's ten streams at the client's end of their sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Scale, millis, pace, rotated};
use crate::crowd::{Births, Crowd, Spec};
use crate::histogram::Histogram;
use crate::marker;
use crate::peers::reader::{Reader, node_is_here};
use crate::peers::scripts;
use crate::process::Process;
use crate::report::{Report, WALCAST};
use crate::world::{Database, World};

const RATE: u64 = 500;
const STREAMS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(30);
const WORK: &str = "commit to client, 500 transactions/s";

#[derive(Clone, Copy)]
enum Way {
    PgRecvlogical,
    Walcast,
    Notify,
    Peer(Reader),
}

pub async fn run(world: &World, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let database = world.database(|_| {}).await?;
    database.set_up().await?;
    let mut ways = vec![Way::PgRecvlogical, Way::Walcast];
    ways.extend((scale.peers && node_is_here()).then_some(Way::Notify));
    ways.extend(scale.readers().map(Way::Peer));
    let mut all = Histogram::default();
    for round in 0..scale.rounds {
        report.round = round;
        for way in rotated(&ways, round) {
            let (name, took) = match way {
                Way::PgRecvlogical => {
                    ("pg_recvlogical's receipt", pg_recvlogical(world, &database, scale).await?)
                }
                Way::Walcast => {
                    let took = walcast(&database, scale).await?;
                    all.merge(&took);
                    (WALCAST, took)
                }
                Way::Notify => ("NOTIFY to Node", notify(&database, scale).await?),
                Way::Peer(reader) => (reader.name(), peer(reader, &database, scale).await?),
            };
            report.add(WORK, name, "median ms", millis(took.quantile(0.5)));
            report.add(WORK, name, "p99 ms", millis(took.quantile(0.99)));
        }
    }
    report.note(WORK, format!("walcast, all rounds: {}", all.in_words()));
    Ok(())
}

fn births(scale: Scale) -> Births {
    Arc::new((0..=scale.latency).map(|_| AtomicU64::new(0)).collect())
}

/// Writes the rows; each is born when its COMMIT is sent.
async fn write(database: &Database, scale: Scale, births: &Births, notify: bool) -> anyhow::Result<()> {
    pace(RATE, scale.latency, async |number| {
        let sequence = number + 1;
        let also = if notify { format!("select pg_notify('bench', '#{sequence}#');") } else { String::new() };
        database
            .sql(&format!(
                "begin;
                 insert into device_telemetry (organization_id, device_id, event_type, temperature)
                   values ('o1', 'd1', '#{sequence}#0#', 20.5);
                 {also}"
            ))
            .await?;
        births[sequence as usize].store(marker::now_nanos(), Ordering::Release);
        database.sql("commit").await
    })
    .await
}

async fn walcast(database: &Database, scale: Scale) -> anyhow::Result<Histogram> {
    let worker = database.worker(&[]).await?;
    let births = births(scale);
    let crowd = Crowd::new(Some(births.clone()))?;
    let request = database.request("o1", "&channel=telemetry", "")?;
    crowd.open((0..STREAMS).map(|number| Spec::new(worker.address, number, request.clone()))).await?;
    write(database, scale, &births, false).await?;
    crowd.received(0, scale.latency * STREAMS as u64, PATIENCE).await?;
    worker.process.kill().await;
    Ok(crowd.latency(0))
}

async fn pg_recvlogical(world: &World, database: &Database, scale: Scale) -> anyhow::Result<Histogram> {
    let slot = database.slot("latency").await?;
    let mut child = Command::new(&world.pg_recvlogical)
        .args(["-d", &database.url, "--slot", &slot, "--start", "-f", "-", "--no-loop"])
        .args(["-o", "proto_version=1", "-o", "publication_names=walcast", "--fsync-interval=0"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut out = child.stdout.take().expect("piped");
    let (births, count) = (births(scale), scale.latency);
    let heard = births.clone();
    let receiving: JoinHandle<anyhow::Result<Histogram>> = tokio::spawn(async move {
        let (mut buffer, mut took) = (Vec::new(), Histogram::default());
        while took.total() < count {
            anyhow::ensure!(out.read_buf(&mut buffer).await? > 0, "pg_recvlogical ended");
            let now = marker::now_nanos();
            let left = marker::scan(&buffer, |sequence, _| {
                took.record(now.saturating_sub(heard[sequence as usize].load(Ordering::Acquire)));
            });
            buffer.drain(..buffer.len() - left);
        }
        Ok(took)
    });
    settle().await;
    write(database, scale, &births, false).await?;
    let took = timeout(PATIENCE, receiving).await???;
    child.kill().await?;
    database.drop_slot(&slot).await?;
    Ok(took)
}

async fn peer(reader: Reader, database: &Database, scale: Scale) -> anyhow::Result<Histogram> {
    let slot = database.slot("latency").await?;
    let took = heard(reader.follow(&database.url, &slot)?, database, scale, false).await?;
    database.drop_slot(&slot).await?;
    Ok(took)
}

async fn notify(database: &Database, scale: Scale) -> anyhow::Result<Histogram> {
    let mut command = Command::new("node");
    command.arg(scripts().join("notify.mjs")).args([&database.url, "bench"]);
    heard(Process::start(&mut command)?, database, scale, true).await
}

/// What a process hears. All is written twice, and counted the second time: a compiler in it may learn from the first.
async fn heard(
    mut process: Process,
    database: &Database,
    scale: Scale,
    notify: bool,
) -> anyhow::Result<Histogram> {
    while process.line().await? != "started" {}
    settle().await;
    let count = scale.latency;
    let receiving: JoinHandle<anyhow::Result<Vec<(u64, u64)>>> = tokio::spawn(async move {
        let mut heard = Vec::new();
        for expected in (1..=count).chain(1..=count) {
            let line = process.line().await?;
            let (sequence, nanos) = line.split_once(' ').unwrap_or_default();
            let sequence = sequence.parse()?;
            anyhow::ensure!(sequence == expected, "{sequence} came where {expected} was due");
            heard.push((sequence, nanos.parse()?));
        }
        process.kill().await;
        Ok(heard)
    });
    let births = births(scale);
    for _ in 0..2 {
        write(database, scale, &births, notify).await?;
    }
    let mut took = Histogram::default();
    for (sequence, nanos) in timeout(PATIENCE, receiving).await???.split_off(scale.latency as usize) {
        took.record(nanos.saturating_sub(births[sequence as usize].load(Ordering::Acquire)));
    }
    Ok(took)
}

/// A subscriber that says it has started is listened to a little later.
async fn settle() {
    sleep(Duration::from_millis(500)).await;
}
