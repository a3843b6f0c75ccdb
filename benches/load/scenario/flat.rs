//! Cost as work grows: the worker's CPU time a change, while one measure grows and the rest stays.
//!
//! Flat lines are the claim; `--plot` draws them.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Scale, micros};
use crate::crowd::{Crowd, Spec};
use crate::report::{Report, WALCAST};
use crate::world::{Database, Worker, World};

const WORK: &str = "µs of CPU a change, as work grows";
const PATIENCE: Duration = Duration::from_secs(120);

/// One line of the plot.
pub struct Series {
    pub name: &'static str,
    /// How much of it there was, and microseconds of CPU a change.
    pub points: Vec<(u64, f64)>,
}

pub async fn run(world: &World, scale: Scale, report: &mut Report) -> anyhow::Result<Vec<Series>> {
    report.round = 0;
    let database = world.database(|_| {}).await?;
    database.set_up().await?;
    let worker = database.worker(&[]).await?;
    let most = scale.flat;
    let steps = |from: u64, upto: u64| {
        std::iter::successors(Some(from), |n| Some(n * 10)).take_while(move |n| *n <= upto)
    };
    let mut all = Vec::new();

    let mut series = Series { name: "changes in a transaction", points: Vec::new() };
    for size in steps(1, most * 10) {
        // Small transactions cost the writer more than the worker: fewer of them tell as much.
        let changes = if size == 1 { most / 5 } else { most.max(size) };
        series.points.push((size, cost(&database, &worker, changes, size, 1).await?));
    }
    all.push(series);

    let mut series = Series { name: "organizations", points: Vec::new() };
    for count in steps(1, most / 10) {
        database.organizations(count as usize).await?;
        series.points.push((count, cost(&database, &worker, most, 100, count).await?));
    }
    all.push(series);

    let mut series = Series { name: "streams that it does not concern", points: Vec::new() };
    for count in steps(10, scale.idle as u64) {
        series.points.push((count, unconcerned(&database, &worker, most, count as usize).await?));
    }
    all.push(series);
    worker.process.kill().await;

    let mut series = Series { name: "tables in the catalog", points: Vec::new() };
    for count in [1, 10, 50, 200] {
        series.points.push((count, tables(world, most, count).await?));
    }
    all.push(series);

    for series in &all {
        let points: Vec<_> = series.points.iter().map(|(n, cost)| format!("{n}: {cost:.2}")).collect();
        report.note(WORK, format!("- {}: {}", series.name, points.join(", ")));
        if let Some((_, cost)) = series.points.last() {
            report.add(WORK, WALCAST, series.name, *cost);
        }
    }
    Ok(all)
}

async fn unconcerned(
    database: &Database,
    worker: &Worker,
    changes: u64,
    streams: usize,
) -> anyhow::Result<f64> {
    let crowd = Crowd::new(None)?;
    let specs = (0..streams).map(|number| {
        let request = database.request("o1", &format!("&channel=telemetry&deviceId=other{number}"), "")?;
        Ok(Spec::new(worker.address, number, request))
    });
    crowd.open(specs.collect::<anyhow::Result<Vec<_>>>()?).await?;
    let cost = cost(database, worker, changes, 100, 1).await?;
    crowd.check()?;
    Ok(cost)
}

/// Changes in transactions of a size, spread over organizations.
async fn cost(
    database: &Database,
    worker: &Worker,
    changes: u64,
    size: u64,
    organizations: u64,
) -> anyhow::Result<f64> {
    let transactions = changes / size;
    let sql = format!(
        "do $$ begin
           for n in 0..{transactions} - 1 loop
             insert into device_telemetry (organization_id, device_id, event_type, temperature, humidity, battery)
               select 'o' || 1 + (n * {size} + k) % {organizations}, 'd', 'reading', 20, 40, 90
               from generate_series(0, {size} - 1) k;
             commit;
           end loop;
         end $$"
    );
    measured(database, worker, &sql, transactions * size).await
}

async fn measured(database: &Database, worker: &Worker, sql: &str, changes: u64) -> anyhow::Result<f64> {
    let (seen, cpu) = (worker.metric("walcast_changes_total").await?, worker.process.cpu());
    database.sql(sql).await?;
    #[allow(clippy::cast_precision_loss, reason = "a count that f64 holds")]
    let end = seen + changes as f64;
    let deadline = Instant::now() + PATIENCE;
    while worker.metric("walcast_changes_total").await? < end {
        anyhow::ensure!(Instant::now() < deadline, "the changes are not there after {PATIENCE:?}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(micros(worker.process.cpu() - cpu, changes))
}

/// A catalog of so many tables of eight columns, all written to in turn.
async fn tables(world: &World, changes: u64, count: u64) -> anyhow::Result<f64> {
    let (mut ddl, mut toml) = (String::new(), String::new());
    for n in 1..=count {
        write!(
            ddl,
            "create table t{n} (id bigint generated always as identity primary key, organization_id text not null,
             name text, a int, b int, c float8, d timestamptz default now(), e text);"
        )?;
        write!(
            toml,
            "[tables.t{n}]\norganization = \"organization_id\"\nchannel = \"c{n}\"\ntags = {{ name = \"name\" }}\n\
             [[tables.t{n}.events]]\ntype = \"t{n}\"\non = [\"insert\", \"update\"]\n[tables.t{n}.events.data]\n\
             id = \"id\"\nname = \"name\"\na = \"a\"\nb = \"b\"\nc = \"c\"\nd = \"d\"\ne = \"e\"\n"
        )?;
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("catalog.toml");
    std::fs::write(&path, toml)?;
    let database = world
        .database(|config| {
            config.catalog.path = Some(path.clone());
            config.presets.clear();
            config.access.memberships = None;
            config.access.organizations = None;
        })
        .await?;
    database.sql(&ddl).await?;
    database.set_up().await?;
    let path = path.to_string_lossy();
    let worker = database.worker_of_a_catalog(&path).await?;
    let sql = format!(
        "do $$ begin
           for n in 0..{changes} / 100 - 1 loop
             execute 'insert into t' || 1 + n % {count} || ' (organization_id, name, a, b, c, e)
               select ''o1'', ''n'' || k, k, k, k / 3.0, ''some text'' from generate_series(1, 100) k';
             commit;
           end loop;
         end $$"
    );
    let cost = measured(&database, &worker, &sql, changes / 100 * 100).await?;
    worker.process.kill().await;
    Ok(cost)
}
