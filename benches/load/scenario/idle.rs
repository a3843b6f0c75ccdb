//! What open streams cost while nothing happens: resident memory, the kernel's own for sockets aside.

use std::time::Duration;

use tokio::time::sleep;

use super::fanout::start;
use super::{Scale, kib, rotated};
use crate::crowd::{Crowd, Spec};
use crate::peers::Kind;
use crate::report::Report;
use crate::world::{Database, World};

/// Until what opening took has been given back.
const SETTLE: Duration = Duration::from_secs(2);

pub async fn run(world: &World, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let database = world.database(|_| {}).await?;
    database.set_up().await?;
    for round in 0..scale.rounds {
        report.round = round;
        let peers = scale.peers(&[Kind::Bare, Kind::Axum, Kind::Nchan, Kind::Node, Kind::BetterSse]);
        let mut all: Vec<Option<Kind>> = peers.into_iter().map(Some).collect();
        all.insert(1, None);
        for kind in rotated(&all, round) {
            one(kind, &database, scale.idle, report).await?;
        }
    }
    if scale.idle_most > 0 {
        report.round = 0;
        one(None, &database, scale.idle_most, report).await?;
    }
    Ok(())
}

async fn one(
    kind: Option<Kind>,
    database: &Database,
    streams: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let work = format!("{streams} idle streams");
    let server = start(kind, database).await?;
    let crowd = Crowd::new(None)?;
    let (request, address) = (server.request()?, server.address());
    // What the first request of a process sets up is not the streams'.
    crowd.open([Spec::new(address, 0, request.clone())]).await?;
    let before = server.process().resident();
    crowd.open((1..streams).map(|number| Spec::new(address, number, request.clone()))).await?;
    sleep(SETTLE).await;
    crowd.check()?;
    let grown = server.process().resident().saturating_sub(before);
    report.add(&work, server.name(), "KiB resident a stream", kib(grown) / (streams - 1) as f64);
    report.add(&work, server.name(), "MiB resident in all", kib(server.process().resident()) / 1024.0);
    drop(crowd);
    server.end().await;
    Ok(())
}
