//! What must not matter: that there are many streams which an event does not concern, many organizations, or one
//! stream that reads nothing.

use std::time::Duration;

use super::{Scale, micros, millis, pace};
use crate::crowd::{Crowd, Spec};
use crate::marker;
use crate::report::{Report, WALCAST};
use crate::world::{Worker, World};

/// Transactions a second, and events of each.
const RATE: u64 = 100;
const EVENTS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// Streams of one organization, each filtered to a device of its own, while telemetry comes for some of the devices.
/// The same events, with ten times the streams.
pub async fn filtered(world: &World, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let database = world.database(|_| {}).await?;
    database.set_up().await?;
    let most = scale.idle as u64;
    for round in 0..scale.rounds {
        report.round = round;
        for streams in [most / 10, most] {
            let work = format!("streams filtered to a device each, {} events/s", RATE * EVENTS);
            let worker = database.worker(&[]).await?;
            let crowd = Crowd::new(None)?;
            let specs = (0..streams).map(|number| {
                let request =
                    database.request("o1", &format!("&channel=telemetry&deviceId=d{number}"), "")?;
                Ok(Spec::new(worker.address, number as usize, request))
            });
            crowd.open(specs.collect::<anyhow::Result<Vec<_>>>()?).await?;
            let devices = most / 10;
            let before = worker.process.cpu();
            // Each event concerns one stream, however many there are.
            pace(RATE, RATE * scale.seconds, async |number| {
                let nanos = marker::now_nanos();
                let (from, upto) = (number * EVENTS, number * EVENTS + EVENTS - 1);
                database
                    .sql(&format!(
                        "insert into device_telemetry (organization_id, device_id, event_type, temperature)
                         select 'o1', 'd' || n % {devices}, '#' || 1 + n / {devices} || '#{nanos}#', 20.5
                         from generate_series({from}, {upto}) n"
                    ))
                    .await
            })
            .await?;
            let events = RATE * scale.seconds * EVENTS;
            crowd.received(0, events, PATIENCE).await?;
            let who = format!("{WALCAST}, {streams} streams");
            tell(report, &work, &who, &worker, before, &crowd, events);
            drop(crowd);
            worker.process.kill().await;
        }
    }
    Ok(())
}

/// 1,000 organizations of 10 streams, events spread evenly.
pub async fn organizations(world: &World, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let count = (scale.idle / 10) as u64;
    let work = format!("{count} organizations of 10 streams, {} events/s", RATE * EVENTS);
    let database = world.database(|_| {}).await?;
    database.set_up().await?;
    database.organizations(count as usize).await?;
    for round in 0..scale.rounds {
        report.round = round;
        let worker = database.worker(&[]).await?;
        let crowd = Crowd::new(None)?;
        let specs = (0..count * 10).map(|number| {
            let request = database.request(&format!("o{}", 1 + number / 10), "", "")?;
            Ok(Spec::new(worker.address, number as usize, request))
        });
        crowd.open(specs.collect::<anyhow::Result<Vec<_>>>()?).await?;
        let before = worker.process.cpu();
        pace(RATE, RATE * scale.seconds, async |number| {
            let (nanos, padding) = (marker::now_nanos(), ".".repeat(100));
            let (from, upto) = (number * EVENTS, number * EVENTS + EVENTS - 1);
            database
                .sql(&format!(
                    "select count(walcast.emit('o' || 1 + n % {count}, 'tick',
                                               to_jsonb('#' || 1 + n / {count} || '#{nanos}#{padding}')))
                     from generate_series({from}, {upto}) n"
                ))
                .await
        })
        .await?;
        let deliveries = RATE * scale.seconds * EVENTS * 10;
        crowd.received(0, deliveries, PATIENCE).await?;
        tell(report, &work, WALCAST, &worker, before, &crowd, deliveries);
        drop(crowd);
        worker.process.kill().await;
    }
    Ok(())
}

/// 1,000 streams at 100 events of 2 KiB a second, without and with one that takes nothing.
pub async fn slow_reader(world: &World, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let work = format!("{} streams, {RATE} events/s of 2 KiB, one reads nothing", scale.streams);
    let database = world.database(|_| {}).await?;
    database.set_up().await?;
    for round in 0..scale.rounds {
        report.round = round;
        for deaf in [0, 1] {
            let worker = database.worker(&[]).await?;
            let crowd = Crowd::new(None)?;
            let request = database.request("o1", "", "")?;
            let spec = |number| Spec::new(worker.address, number, request.clone());
            crowd.open((0..deaf).map(|number| Spec { reading: false, group: 1, ..spec(number) })).await?;
            crowd.open((0..scale.streams).map(spec)).await?;
            let before = worker.process.cpu();
            let count = scale.seconds * RATE;
            let padding = ".".repeat(1800);
            pace(RATE, count, async |number| {
                let text = format!("#{}#{}#{padding}", number + 1, marker::now_nanos());
                database.sql(&format!("select walcast.emit('o1', 'tick', to_jsonb('{text}'::text))")).await
            })
            .await?;
            let deliveries = count * scale.streams as u64;
            crowd.received(0, deliveries, PATIENCE).await?;
            let who = if deaf == 0 { "walcast, all read" } else { "walcast, one reads nothing" };
            tell(report, &work, who, &worker, before, &crowd, deliveries);
            drop(crowd);
            worker.process.kill().await;
        }
    }
    Ok(())
}

fn tell(
    report: &mut Report,
    work: &str,
    who: &str,
    worker: &Worker,
    before: Duration,
    crowd: &Crowd,
    deliveries: u64,
) {
    let latency = crowd.latency(0);
    report.add(work, who, "median ms", millis(latency.quantile(0.5)));
    report.add(work, who, "p99 ms", millis(latency.quantile(0.99)));
    report.add(work, who, "µs of CPU a delivery", micros(worker.process.cpu() - before, deliveries));
}
