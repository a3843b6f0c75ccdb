//! Streams that all come back at once, each with an id of 1,000 events ago, while events go on.
//!
//! Group 0 stayed, one stream an organization; group 1 comes back. Both go on to follow what is new.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep};

use super::{Scale, kib, millis, pace};
use crate::crowd::{Crowd, Spec};
use crate::marker;
use crate::peers::listening;
use crate::report::{Report, WALCAST};
use crate::world::{Database, Worker, World};

/// Transactions a second, and events of each, every one for another organization.
const RATE: u64 = 100;
const EVENTS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(90);

pub async fn run(world: &World, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let Scale { storm_organizations: organizations, storm_streams: streams, storm_history: history, .. } =
        scale;
    let work =
        format!("{streams} streams come back {history} events behind, {} events/s go on", RATE * EVENTS);
    let each = (streams / organizations) as u64;
    let database = world.database(|_| {}).await?;
    database.set_up().await?;
    database.organizations(organizations).await?;
    let worker = database.worker(&[]).await?;
    let start = position(&database, &worker).await?;
    let padding = ".".repeat(40);
    database
        .sql(&format!(
            "do $$ begin
               for n in 1..{history} loop
                 insert into device_telemetry (organization_id, device_id, event_type)
                   select 'o' || o, 'd', '#' || n || '#0#{padding}' from generate_series(1, {organizations}) o;
                 commit;
               end loop;
             end $$"
        ))
        .await?;
    let mut written = vec![history; organizations];
    while worker.metric("walcast_events_total").await?
        < f64::from(u32::try_from(history * organizations as u64)?)
    {
        sleep(Duration::from_millis(50)).await;
    }
    for round in 0..scale.rounds {
        report.round = round;
        let crowd = Crowd::new(None)?;
        let request = |number: usize, headers: &str| {
            database.request(&format!("o{}", 1 + number % organizations), "&channel=telemetry", headers)
        };
        let mut stay = Vec::new();
        for (number, &after) in written.iter().enumerate() {
            let spec = Spec::new(worker.address, number, request(number, "")?);
            stay.push(Spec { after, ..spec });
        }
        crowd.open(stay).await?;
        let mut back = Vec::new();
        for number in 0..streams {
            let spec =
                Spec::new(worker.address, number, request(number, &format!("Last-Event-ID: {start}\r\n"))?);
            back.push(Spec { group: 1, ..spec });
        }

        let before: u64 = written.iter().sum();
        live(&database, scale.seconds, &mut written).await?;
        let quiet = crowd.latency(0);
        worker.process.forget_peak();
        let began = (Instant::now(), marker::now_nanos());
        let count = crowd.begin(back)?;
        let writing = live(&database, scale.seconds, &mut written);
        let watching = async {
            crowd.opened(count).await?;
            let replayed = before * each;
            while crowd.count(1) < replayed {
                crowd.check()?;
                anyhow::ensure!(began.0.elapsed() < PATIENCE, "{} of {replayed} replayed", crowd.count(1));
                sleep(Duration::from_millis(2)).await;
            }
            Ok(began.0.elapsed())
        };
        let (caught_up, ()) = tokio::try_join!(watching, writing)?;
        let total: u64 = written.iter().sum();
        crowd.received(1, total * each, PATIENCE).await?;
        crowd.received(0, total - before, PATIENCE).await?;
        let opened = Duration::from_nanos(crowd.opened_at().saturating_sub(began.1));
        let stormy = crowd.latency(0);
        report.add(&work, WALCAST, "s until all are open", opened.as_secs_f64());
        report.add(&work, WALCAST, "s until all have caught up", caught_up.as_secs_f64());
        report.add(&work, WALCAST, "MiB resident at most", kib(worker.process.peak()) / 1024.0);
        report.add(&work, WALCAST, "median ms of those that stayed, before", millis(quiet.quantile(0.5)));
        report.add(&work, WALCAST, "median ms meanwhile", millis(stormy.quantile(0.5)));
        report.add(&work, WALCAST, "p99 ms meanwhile", millis(stormy.quantile(0.99)));
        drop(crowd);
        // Until the worker has seen that they left.
        while worker.metric("walcast_streams").await? > 0.0 {
            sleep(Duration::from_millis(20)).await;
        }
    }
    worker.process.kill().await;
    Ok(())
}

/// Events go on for some seconds.
async fn live(database: &Database, seconds: u64, written: &mut [u64]) -> anyhow::Result<()> {
    let mut next = 0;
    pace(RATE, RATE * seconds, async |_| {
        let nanos = marker::now_nanos();
        let rows: Vec<_> = (0..EVENTS)
            .map(|_| {
                let organization = next % written.len();
                next += 1;
                written[organization] += 1;
                format!("('o{}', 'd', '#{}#{nanos}#')", organization + 1, written[organization])
            })
            .collect();
        let rows = rows.join(", ");
        database
            .sql(&format!(
                "insert into device_telemetry (organization_id, device_id, event_type) values {rows}"
            ))
            .await
    })
    .await
}

/// The id that a stream which opens now starts after.
async fn position(database: &Database, worker: &Worker) -> anyhow::Result<String> {
    let mut socket = listening(worker.address).await?;
    socket.write_all(database.request("o1", "", "")?.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        anyhow::ensure!(socket.read_buf(&mut answer).await? > 0, "no stream");
        let text = String::from_utf8_lossy(&answer);
        if let Some((_, rest)) = text.split_once("\nid: ")
            && let Some((id, _)) = rest.split_once('\n')
        {
            return Ok(id.to_owned());
        }
    }
}
