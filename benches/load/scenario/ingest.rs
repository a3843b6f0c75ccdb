//! A backlog of the log, read to its end: many small transactions, and one large one.
//!
//! pg_recvlogical throws away what it reads, and pg-logical-replication decodes it; the worker has every frame in its
//! journal when it says that it is ready, its start included. Every round reads the same log, through a slot of its
//! own; the worker's slot stays behind because its window is larger than the backlog.

use std::time::Duration;

use anyhow::ensure;
use tokio::process::Command;
use tokio::time::Instant;

use super::{Scale, kib, micros, rotated};
use crate::peers::{program, scripts};
use crate::process::Process;
use crate::report::{Report, WALCAST};
use crate::world::{Database, World};

/// A window that the log does not leave, for as long as the rounds take. Its memory is bounded as ever.
const WINDOW: [(&str, &str); 2] = [("WALCAST_REPLAY_MAX_WAL", "16GiB"), ("WALCAST_REPLAY_MAX_AGE", "3h")];

#[derive(Clone, Copy)]
enum Reader {
    PgRecvlogical,
    Walcast,
    Node,
}

impl Reader {
    const fn name(self) -> &'static str {
        match self {
            Self::PgRecvlogical => "pg_recvlogical",
            Self::Walcast => WALCAST,
            Self::Node => "Node pg-logical-replication",
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
    database.set_up().await?;
    let mut slots = Vec::new();
    for round in 0..scale.rounds {
        slots.push((
            database.slot(&format!("recvlogical_{round}")).await?,
            database.slot(&format!("node_{round}")).await?,
        ));
    }
    database
        .sql(
            "insert into devices (id, organization_id, name, model, status)
               select 'd' || n, 'o1', 'Device ' || n, 'M', 'ONLINE' from generate_series(1, 1000) n",
        )
        .await?;
    database.sql(sql).await?;
    let end = database.text("pg_current_wal_insert_lsn()").await?;
    // Decoding stops at the end of the last whole page that was flushed.
    database.sql("select pg_switch_wal()").await?;

    let node = scale.peers && program("node").is_some() && scripts().join("node_modules/pg").exists();
    let mut readers = vec![Reader::PgRecvlogical, Reader::Walcast];
    readers.extend(node.then_some(Reader::Node));
    for (round, (recvlogical, node)) in (0..).zip(&slots) {
        report.round = round;
        for reader in rotated(&readers, round) {
            let (took, cpu) = match reader {
                Reader::PgRecvlogical => (pg_recvlogical(world, &database, recvlogical, &end).await?, None),
                Reader::Walcast => {
                    let Drained { took, cpu, peak } = walcast(&database, changes).await?;
                    report.add(work, WALCAST, "MiB resident at most", kib(peak) / 1024.0);
                    (took, Some(cpu))
                }
                Reader::Node => {
                    let (took, cpu) = pg_logical_replication(&database, node, changes).await?;
                    (took, Some(cpu))
                }
            };
            #[allow(clippy::cast_precision_loss, reason = "a figure")]
            report.add(work, reader.name(), "changes/s", changes as f64 / took.as_secs_f64());
            if let Some(cpu) = cpu {
                report.add(work, reader.name(), "µs of CPU a change", micros(cpu, changes));
            }
        }
        // What is read stays in the server until nobody can want it.
        database.drop_slot(recvlogical).await?;
        database.drop_slot(node).await?;
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
    Ok(began.elapsed())
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

async fn pg_logical_replication(
    database: &Database,
    slot: &str,
    rows: u64,
) -> anyhow::Result<(Duration, Duration)> {
    let began = Instant::now();
    let mut command = Command::new("node");
    command.arg(scripts().join("wal.mjs")).args([&database.url, slot, "drain"]).arg(rows.to_string());
    let mut process = Process::start(&mut command)?;
    let mut line = process.last_line().await?;
    while line != "done" {
        line = process.last_line().await?;
    }
    let (took, cpu) = (began.elapsed(), process.cpu());
    process.kill().await;
    Ok((took, cpu))
}
