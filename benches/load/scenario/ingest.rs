//! A backlog of the log, read to its end: many small transactions, and one large one.
//!
//! pg_recvlogical throws away what it reads, and peers decode it; the worker has every frame in its journal when it
//! says that it is ready. Everybody's start is included. Every round reads the same log, through a slot of its own;
//! the worker's slot stays behind because its window is larger than the backlog.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::{Scale, kib, micros, rotated};
use crate::peers::reader::Reader;
use crate::report::{Report, WALCAST};
use crate::world::{Database, World};

/// A window that the log does not leave, for as long as the rounds take. Its memory is bounded as ever.
const WINDOW: [(&str, &str); 2] = [("WALCAST_REPLAY_MAX_WAL", "16GiB"), ("WALCAST_REPLAY_MAX_AGE", "3h")];

/// How long a peer may take for all of it.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy)]
enum Way {
    PgRecvlogical,
    Walcast,
    Peer(Reader),
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::PgRecvlogical => "pg_recvlogical",
            Self::Walcast => WALCAST,
            Self::Peer(reader) => reader.name(),
        }
    }
}

pub async fn small(world: &World, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let transactions = scale.transactions;
    let work = format!("drain {transactions} transactions of 5 changes");
    let sql = format!(
        "do $$ begin
           for n in 1..{transactions} loop
             insert into device_telemetry (organization_id, device_id, event_type, temperature, humidity, battery)
               select 'o1', 'd' || (1 + (n * 5 + k) % 1000), 'reading', 20 + k, 40 + k, 90 from generate_series(0, 4) k;
             commit;
           end loop;
         end $$"
    );
    run(world, scale, report, &work, &sql, transactions * 5).await
}

pub async fn giant(world: &World, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let rows = scale.giant;
    let work = format!("one transaction of {rows} rows");
    let sql = format!(
        "insert into device_telemetry (organization_id, device_id, event_type, temperature, humidity, battery)
           select 'o1', 'd' || (1 + n % 1000), 'reading', 20 + n % 5, 40 + n % 5, 90 from generate_series(1, {rows}) n"
    );
    run(world, scale, report, &work, &sql, rows).await
}

async fn run(
    world: &World,
    scale: Scale,
    report: &mut Report,
    work: &str,
    sql: &str,
    changes: u64,
) -> anyhow::Result<()> {
    let database = world.database(|_| {}).await?;
    // Before there is a slot: who counts inserted rows counts those of the work.
    database
        .sql(
            "insert into devices (id, organization_id, name, model, status)
               select 'd' || n, 'o1', 'Device ' || n, 'M', 'ONLINE' from generate_series(1, 1000) n",
        )
        .await?;
    database.set_up().await?;
    let mut ways = vec![Way::PgRecvlogical, Way::Walcast];
    ways.extend(scale.readers().map(Way::Peer));
    let mut slots = Vec::new();
    // The worker has one of its own.
    for number in 0..scale.rounds as usize * (ways.len() - 1) {
        slots.push(database.slot(&format!("drain_{number}")).await?);
    }
    database.sql(sql).await?;
    let end = database.text("pg_current_wal_insert_lsn()").await?;
    // Decoding stops at the end of the last whole page that was flushed.
    database.sql("select pg_switch_wal()").await?;

    let mut slot = || slots.pop().context("a slot for each reader and round");
    for round in 0..scale.rounds {
        report.round = round;
        for way in rotated(&ways, round) {
            let (took, cpu) = match way {
                Way::PgRecvlogical => (pg_recvlogical(world, &database, &slot()?, &end).await?, None),
                Way::Walcast => {
                    let Drained { took, cpu, peak } = walcast(&database, changes).await?;
                    report.add(work, WALCAST, "MiB resident at most", kib(peak) / 1024.0);
                    (took, Some(cpu))
                }
                Way::Peer(reader) => {
                    let (took, cpu) = peer(reader, &database, &slot()?, changes).await?;
                    (took, Some(cpu))
                }
            };
            #[allow(clippy::cast_precision_loss, reason = "a figure")]
            report.add(work, way.name(), "changes/s", changes as f64 / took.as_secs_f64());
            if let Some(cpu) = cpu {
                report.add(work, way.name(), "µs of CPU a change", micros(cpu, changes));
            }
        }
    }
    let slot = database.text("'walcast_' || current_database()").await?;
    database.drop_slot(&slot).await
}

async fn pg_recvlogical(
    world: &World,
    database: &Database,
    slot: &str,
    end: &str,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let status = Command::new(&world.pg_recvlogical)
        .args(["-d", &database.url, "--slot", slot, "--start", "-f", "/dev/null", "--no-loop"])
        .args(["-o", "proto_version=1", "-o", "publication_names=walcast", "--endpos", end])
        .args(["--fsync-interval=0", "--status-interval=3600"])
        .kill_on_drop(true)
        .status()
        .await?;
    ensure!(status.success(), "pg_recvlogical: {status}");
    let took = began.elapsed();
    database.drop_slot(slot).await?;
    Ok(took)
}

struct Drained {
    took: Duration,
    cpu: Duration,
    peak: u64,
}

async fn walcast(database: &Database, changes: u64) -> anyhow::Result<Drained> {
    let worker = database.worker(&WINDOW).await?;
    let (cpu, seen) = (worker.process.cpu(), worker.metric("walcast_changes_total").await?);
    #[allow(clippy::cast_precision_loss, reason = "a count that f64 holds")]
    let all = seen >= changes as f64;
    ensure!(all, "the worker was ready after {seen} of {changes} changes");
    let drained = Drained { took: worker.starting, cpu, peak: worker.process.peak() };
    worker.process.kill().await;
    Ok(drained)
}

async fn peer(
    reader: Reader,
    database: &Database,
    slot: &str,
    rows: u64,
) -> anyhow::Result<(Duration, Duration)> {
    let began = Instant::now();
    let mut process = reader.drain(&database.url, slot, rows)?;
    let done = async {
        while process.last_line().await? != "done" {}
        anyhow::Ok(began.elapsed())
    };
    let took = timeout(PATIENCE, done).await.with_context(|| reader.name())??;
    let cpu = process.cpu();
    process.kill().await;
    database.drop_slot(slot).await?;
    Ok((took, cpu))
}
