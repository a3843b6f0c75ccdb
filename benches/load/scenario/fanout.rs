//! 1,000 streams of one organization: 100 events a second, then as many as go.

use std::time::Duration;

use super::{Scale, Server, micros, millis, rotated};
use crate::crowd::{Crowd, Spec};
use crate::peers::{Kind, Peer};
use crate::report::Report;
use crate::world::{Database, World};

const RATE: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(90);

pub async fn run(world: &World, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let database = world.database(|_| {}).await?;
    database.set_up().await?;
    for round in 0..scale.rounds {
        report.round = round;
        let peers = scale.peers(&[Kind::Bare, Kind::Axum, Kind::Nchan, Kind::Node, Kind::BetterSse]);
        let mut all: Vec<Option<Kind>> = peers.into_iter().map(Some).collect();
        all.insert(1, None);
        for kind in rotated(&all, round) {
            let mut server = start(kind, &database).await?;
            one(&mut server, scale, report).await.map_err(|error| error.context(server.name()))?;
            server.end().await;
        }
    }
    Ok(())
}

/// A peer, or the worker.
pub async fn start<'a>(kind: Option<Kind>, database: &'a Database) -> anyhow::Result<Server<'a>> {
    Ok(match kind {
        Some(kind) => Server::Peer(Peer::start(kind).await?),
        None => Server::Walcast { database, worker: database.worker(&[]).await?, last: 0 },
    })
}

async fn one(server: &mut Server<'_>, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let crowd = Crowd::new(None)?;
    let (request, address, streams) = (server.request()?, server.address(), scale.streams);
    crowd.open((0..streams).map(|number| Spec::new(address, number, request.clone()))).await?;
    let each = streams as u64;
    // What takes a system call and more for each delivery is measured with fewer of them.
    let slow = matches!(server, Server::Peer(peer) if !matches!(peer.kind, Kind::Bare | Kind::Axum));
    let (events, count) = if slow { (scale.paced / 2, scale.slow_burst) } else { (scale.paced, scale.burst) };

    let paced = format!("{streams} streams, {RATE} events/s");
    let before = server.process().cpu();
    server.pace(RATE, events).await?;
    crowd.received(0, each * events, PATIENCE).await?;
    let latency = crowd.latency(0);
    report.add(&paced, server.name(), "median ms", millis(latency.quantile(0.5)));
    report.add(&paced, server.name(), "p99 ms", millis(latency.quantile(0.99)));
    let took = server.process().cpu() - before;
    report.add(&paced, server.name(), "µs of CPU a delivery", micros(took, each * events));

    let saturated = format!("{streams} streams, as fast as it goes");
    let (before, began) = (server.process().cpu(), crate::marker::now_nanos());
    server.burst(count).await?;
    crowd.received(0, each * (events + count), PATIENCE).await?;
    let took = Duration::from_nanos(crowd.last_at().saturating_sub(began));
    #[allow(clippy::cast_precision_loss, reason = "a figure")]
    let rate = (each * count) as f64 / took.as_secs_f64();
    report.add(
        &saturated,
        server.name(),
        "µs of CPU a delivery",
        micros(server.process().cpu() - before, each * count),
    );
    report.add(&saturated, server.name(), "deliveries/s", rate);
    Ok(())
}
