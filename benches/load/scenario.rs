//! The works of DESIGN.md's table, each a module: it starts its servers, drives them, and adds what it measured.

pub mod fanout;
pub mod flat;
pub mod idle;
pub mod ingest;
pub mod latency;
pub mod many;
pub mod storm;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::marker;
use crate::peers::reader::Reader;
use crate::peers::{Kind, Peer};
use crate::process::Process;
use crate::report::WALCAST;
use crate::world::{Database, Worker};

/// Sizes of all works.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub rounds: u32,
    pub streams: usize,
    pub idle: usize,
    /// A second look at what idle streams cost, ours only.
    pub idle_most: usize,
    /// Events at 100 a second, and as fast as it goes.
    pub paced: u64,
    pub burst: u64,
    /// The same for peers that take a system call and more for each delivery.
    pub slow_burst: u64,
    /// Transactions of five changes.
    pub transactions: u64,
    pub giant: u64,
    pub latency: u64,
    pub storm_organizations: usize,
    pub storm_streams: usize,
    pub storm_history: u64,
    pub seconds: u64,
    pub flat: u64,
    pub peers: bool,
}

impl Scale {
    pub const FULL: Self = Self {
        rounds: 3,
        streams: 1000,
        idle: 10_000,
        idle_most: 18_000,
        paced: 1000,
        burst: 10_000,
        slow_burst: 300,
        transactions: 100_000,
        giant: 500_000,
        latency: 3000,
        storm_organizations: 500,
        storm_streams: 10_000,
        storm_history: 1000,
        seconds: 6,
        flat: 100_000,
        peers: true,
    };

    /// Proves that everything runs, nothing else.
    pub const SHORT: Self = Self {
        rounds: 1,
        streams: 50,
        idle: 200,
        idle_most: 0,
        paced: 50,
        burst: 200,
        slow_burst: 50,
        transactions: 500,
        giant: 5000,
        latency: 100,
        storm_organizations: 10,
        storm_streams: 200,
        storm_history: 100,
        seconds: 1,
        flat: 1000,
        peers: false,
    };

    /// The peers that are measured, of those asked for.
    pub fn peers(&self, kinds: &[Kind]) -> Vec<Kind> {
        let wanted = |kind: &&Kind| matches!(kind, Kind::Bare | Kind::Axum) || (self.peers && kind.is_here());
        kinds.iter().filter(wanted).copied().collect()
    }

    /// The peers that read a slot and are measured.
    pub fn readers(&self) -> impl Iterator<Item = Reader> {
        let peers = self.peers;
        Reader::ALL.into_iter().filter(move |reader| peers && reader.is_here())
    }
}

/// An event is a row.
const INSERT: &str = "insert into device_telemetry (organization_id, device_id, event_type)";

/// A server of numbered events: a peer, or the worker with its database.
pub enum Server<'a> {
    Peer(Peer),
    Walcast { database: &'a Database, worker: Worker, last: u64 },
}

impl Server<'_> {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Peer(peer) => peer.kind.name(),
            Self::Walcast { .. } => WALCAST,
        }
    }

    pub const fn address(&self) -> SocketAddr {
        match self {
            Self::Peer(peer) => peer.address,
            Self::Walcast { worker, .. } => worker.address,
        }
    }

    pub const fn process(&self) -> &Process {
        match self {
            Self::Peer(peer) => &peer.process,
            Self::Walcast { worker, .. } => &worker.process,
        }
    }

    pub fn request(&self) -> anyhow::Result<String> {
        match self {
            Self::Peer(peer) => Ok(peer.request()),
            Self::Walcast { database, .. } => database.request("o1", "", ""),
        }
    }

    /// Sends `count` events, `rate` a second, each a transaction.
    pub async fn pace(&mut self, rate: u64, count: u64) -> anyhow::Result<()> {
        let (database, last) = match self {
            Self::Peer(peer) => return peer.pace(rate, count).await,
            Self::Walcast { database, last, .. } => (database, last),
        };
        let insert = database.session.prepare(&format!("{INSERT} values ('o1', 'd1', $1)")).await?;
        pace(rate, count, async |_| {
            *last += 1;
            let text = marker::text_of_row(*last, marker::now_nanos());
            database.session.execute(&insert, &[&text]).await?;
            Ok(())
        })
        .await
    }

    /// Sends `count` events as fast as it can, a hundred in a transaction.
    pub async fn burst(&mut self, count: u64) -> anyhow::Result<()> {
        let (database, last) = match self {
            Self::Peer(peer) => return peer.burst(count).await,
            Self::Walcast { database, last, .. } => (database, last),
        };
        let end = *last + count;
        let text = marker::text_of_row(end, marker::now_nanos());
        let padding = ".".repeat(text.len() - text.trim_end_matches('.').len());
        while *last < end {
            let upto = (*last + 100).min(end);
            let (from, nanos) = (*last + 1, marker::now_nanos());
            database
                .sql(&format!(
                    "{INSERT} select 'o1', 'd1', '#' || n || '#{nanos}#{padding}'
                     from generate_series({from}, {upto}) n"
                ))
                .await?;
            *last = upto;
        }
        Ok(())
    }

    pub async fn end(self) {
        match self {
            Self::Peer(peer) => peer.process.terminate().await,
            Self::Walcast { worker, .. } => worker.process.kill().await,
        }
    }
}

/// Does something `count` times, `rate` times a second; late ones are not left out.
pub async fn pace(
    rate: u64,
    count: u64,
    mut work: impl AsyncFnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    for number in 0..count {
        sleep_until(begin + Duration::from_nanos(number * 1_000_000_000 / rate)).await;
        work(number).await?;
    }
    Ok(())
}

/// Whom a round begins with changes from round to round.
pub fn rotated<T: Copy>(items: &[T], round: u32) -> Vec<T> {
    let first = round as usize % items.len().max(1);
    items.iter().cycle().skip(first).take(items.len()).copied().collect()
}

pub fn micros(duration: Duration, count: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a figure")]
    let each = duration.as_secs_f64() * 1e6 / count as f64;
    each
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[allow(clippy::cast_precision_loss, reason = "a figure")]
pub const fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}
