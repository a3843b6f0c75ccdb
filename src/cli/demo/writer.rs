//! The demo's writer: lives the reference domain, a few transactions a second, for as long as it is let.

use std::time::Duration;

use anyhow::Context;
use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::deed::Deed;
use super::scene::{ORGANIZATIONS, Scene};
use crate::postgres::{Client, Dsn, client};

const WORLD: &str = include_str!("world.sql");

/// Between two deeds, at least and at most: three to four a second.
const PAUSE_MILLIS: std::ops::Range<u64> = 80..500;

/// How often what piled up is thinned out.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// Tables whose rows' end makes no event and that nobody reads again.
const PILES: [&str; 5] =
    ["device_telemetry", "gate_events", "activity_updates", "user_activity", "notifications"];

/// Waits for a lost database double from the first to the last.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const MAX_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Writer {
    dsn: Dsn,
    rng: Rng,
}

impl Writer {
    /// The same seed does the same deeds in the same order.
    pub(super) fn new(dsn: Dsn, seed: u64) -> Self {
        Self { dsn, rng: Rng::with_seed(seed) }
    }

    /// Puts the world there, if it is not.
    pub(super) async fn seed(&self) -> anyhow::Result<()> {
        let client = client::connect(&self.dsn).await?;
        let needs = "the demo's world needs the reference domain: walcast migrate --reference";
        client.batch_execute(WORLD).await.context(needs)
    }

    /// Writes until dropped; a database that goes away is waited for.
    pub(super) async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            let began = Instant::now();
            let Err(error) = self.live().await;
            if began.elapsed() > MAX_WAIT {
                wait = FIRST_WAIT;
            }
            tracing::warn!(wait_seconds = wait.as_secs_f64(), "the writer lost its database: {error:#}");
            sleep(wait).await;
            wait = wait.saturating_mul(2).min(MAX_WAIT);
        }
    }

    /// One connection's life.
    async fn live(&mut self) -> anyhow::Result<std::convert::Infallible> {
        let mut client = client::connect(&self.dsn).await?;
        let mut swept = Instant::now();
        loop {
            let deed = Deed::pick(&mut self.rng);
            self.act(&mut client, deed).await.with_context(|| format!("{deed:?}"))?;
            if swept.elapsed() > HOUSEKEEPING {
                sweep(&client).await.context("housekeeping")?;
                swept = Instant::now();
            }
            sleep(Duration::from_millis(self.rng.u64(PAUSE_MILLIS))).await;
        }
    }

    async fn act(&mut self, client: &mut Client, deed: Deed) -> Result<(), tokio_postgres::Error> {
        let organization = self.rng.usize(..ORGANIZATIONS.len());
        let transaction = client.transaction().await?;
        Scene { transaction: &transaction, rng: &mut self.rng, organization }.play(deed).await?;
        transaction.commit().await
    }
}

async fn sweep(client: &Client) -> Result<(), tokio_postgres::Error> {
    for pile in PILES {
        let sql = format!("delete from public.{pile} where created_at < now() - interval '1 hour'");
        client.execute(&sql, &[]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::cluster::{Cluster, ClusterOptions};
    use crate::cli::migrate;

    #[tokio::test]
    async fn every_deed_can_be_done_again_and_again() {
        let cluster =
            Cluster::start(ClusterOptions { durable: false, ..ClusterOptions::default() }).await.unwrap();
        let dsn = Dsn::parse(&cluster.dsn("postgres")).unwrap();
        migrate::run(&dsn, true).await.unwrap();
        let mut writer = Writer::new(dsn.clone(), 1);
        writer.seed().await.unwrap();
        writer.seed().await.unwrap();
        let mut client = client::connect(&dsn).await.unwrap();
        for _ in 0..6 {
            for (deed, _) in Deed::ALL {
                if let Err(error) = writer.act(&mut client, deed).await {
                    panic!("{deed:?}: {error:?}");
                }
            }
        }
        sweep(&client).await.unwrap();
        for (table, which) in [
            ("device_telemetry", "true"),
            ("devices", "status = 'OFFLINE'"),
            ("gate_events", "duration is not null"),
            ("lot_alerts", "status <> 'active'"),
            ("violations", "penalty = 24.50 * excess_vehicles"),
            ("activities", "assigned_to is not null"),
            ("activity_updates", "true"),
            ("issues", "assigned_to is not null"),
        ] {
            let sql = format!("select exists (select from public.{table} where {which})");
            assert!(client.query_one(&sql, &[]).await.unwrap().get::<_, bool>(0), "{table} {which}");
        }
    }
}
