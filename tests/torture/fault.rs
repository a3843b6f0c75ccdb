//! Faults on purpose, one after the other, each mended before the next.

mod log;
mod outbox;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use walcast::cli::cluster::{Cluster, StopMode};
use walcast::postgres::dsn::Dsn;
use walcast::source::Kind;

use super::deed::ORGANIZATIONS;
use super::order::{Lost, Order};
use super::proxy::Proxy;
use super::worker::{self, Program, ROLE};
use super::writer::{self, Ledger};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillWorker,
    StopWorker,
    SessionTerminated,
    RestartFast,
    RestartImmediate,
    CutNetwork,
    BlackHole,
    SecondWorker,
    RightsRevoked,
    Promotion,
    Flood,
    SlotDropped,
    SlotInvalidated,
    PublicationRemade,
    OutboxEmptied,
    OutboxFull,
    TriggersOff,
}

const OF_BOTH: [Fault; 11] = [
    Fault::KillWorker,
    Fault::StopWorker,
    Fault::SessionTerminated,
    Fault::RestartFast,
    Fault::RestartImmediate,
    Fault::CutNetwork,
    Fault::BlackHole,
    Fault::SecondWorker,
    Fault::RightsRevoked,
    Fault::Promotion,
    Fault::Flood,
];

/// What can be done to a worker of this source.
pub fn all(source: Kind) -> Vec<Fault> {
    let own: &[Fault] = match source {
        Kind::Wal => &[Fault::SlotDropped, Fault::SlotInvalidated, Fault::PublicationRemade],
        Kind::Outbox => &[Fault::OutboxEmptied, Fault::OutboxFull, Fault::TriggersOff],
    };
    [&OF_BOTH, own].concat()
}

/// How long the worker may take to begin a new history, once it can.
const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// How long a flood may take through a busy machine.
const FLOODED_WITHIN: Duration = Duration::from_secs(40);

/// What faults are done to.
pub struct Victims {
    pub cluster: Cluster,
    pub dsn: Dsn,
    pub program: Program,
    /// Of the database, past the proxy: its superuser's, and the worker's role's.
    pub url: String,
    pub direct: String,
    pub proxy: Proxy,
    /// Of the database, through the proxy.
    pub proxied: String,
    pub address: SocketAddr,
    pub worker: Child,
    pub ledger: Arc<Ledger>,
    pub order: Order,
    /// While it is true, readers that stand still are to be left behind.
    pub pressure: watch::Sender<bool>,
    /// Where histories were broken and began anew, and where an organization's window was flooded.
    pub resets: Vec<RangeInclusive<u64>>,
    pub floods: Vec<(&'static str, RangeInclusive<u64>)>,
    pub lost: Vec<Lost>,
}

impl Victims {
    pub async fn strike(&mut self, fault: Fault, rng: &mut fastrand::Rng) {
        let pause = Duration::from_millis(rng.u64(100..2500));
        match fault {
            Fault::KillWorker => {
                self.worker.kill().await.expect("it runs");
                sleep(pause).await;
                self.worker = self.program.spawn(&self.proxied, self.address);
            }
            Fault::StopWorker => {
                let id = self.worker.id().expect("it runs").to_string();
                Command::new("kill").args(["-TERM", &id]).status().await.expect("kill");
                let status = self.worker.wait().await.expect("a status");
                assert!(status.success(), "a worker that is told to stop exits 0: {status}");
                sleep(pause).await;
                self.worker = self.program.spawn(&self.proxied, self.address);
            }
            Fault::SessionTerminated => {
                let sql = format!("select pg_terminate_backend(pid) from ({}) reader", self.reader_sql());
                let _ = writer::connect(&self.dsn).await.batch_execute(&sql).await;
            }
            Fault::RestartFast => self.cluster.restart(StopMode::Fast).await.expect("a restart"),
            Fault::RestartImmediate => self.cluster.restart(StopMode::Immediate).await.expect("a restart"),
            Fault::CutNetwork => {
                self.proxy.cut();
                sleep(pause).await;
                self.proxy.restore();
            }
            Fault::BlackHole => {
                self.proxy.black_hole();
                sleep(2 * pause).await;
                // Some holes are noticed by silence alone; over the outbox that takes a minute.
                let noticed = if self.program.source == Kind::Wal { rng.bool() } else { rng.u8(..6) > 0 };
                if noticed {
                    self.proxy.cut();
                    sleep(Duration::from_millis(100)).await;
                }
                self.proxy.restore();
            }
            Fault::SecondWorker => self.second_worker(pause).await,
            Fault::RightsRevoked => {
                let (revoke, grant) = self.rights();
                self.sql(&revoke).await;
                sleep(pause).await;
                self.sql(&grant).await;
            }
            Fault::Promotion => {
                let start = self.head().await;
                self.promote().await;
                self.healed(start).await;
            }
            Fault::Flood => self.flood(rng).await,
            Fault::SlotDropped => self.slot_dropped(pause).await,
            Fault::SlotInvalidated => self.slot_invalidated(pause).await,
            Fault::PublicationRemade => self.publication_remade(pause).await,
            Fault::OutboxEmptied => self.outbox_emptied(rng).await,
            Fault::OutboxFull => self.outbox_full(rng).await,
            Fault::TriggersOff => self.triggers_off(rng).await,
        }
    }

    /// A worker that takes what the first one reads, while that is away, and is killed with it.
    async fn second_worker(&mut self, pause: Duration) {
        self.proxy.cut();
        let other = worker::free_address().await;
        let mut thief = self.program.spawn(&self.direct, other);
        let patience = Instant::now() + Duration::from_secs(5);
        sleep(Duration::from_millis(300)).await;
        while self.readers().await == 0 && Instant::now() < patience {
            sleep(Duration::from_millis(50)).await;
        }
        self.proxy.restore();
        sleep(pause).await;
        thief.kill().await.expect("it runs");
    }

    fn rights(&self) -> (String, String) {
        match self.program.source {
            Kind::Wal => (
                format!(
                    "alter role {ROLE} noreplication;
                     select pg_terminate_backend(active_pid) from pg_replication_slots where active"
                ),
                format!("alter role {ROLE} replication"),
            ),
            Kind::Outbox => (
                format!("revoke execute on function walcast.number_outbox() from {ROLE}"),
                format!("grant execute on function walcast.number_outbox() to {ROLE}"),
            ),
        }
    }

    /// More than the window holds, while some readers stand still until all of it has passed.
    async fn flood(&mut self, rng: &mut fastrand::Rng) {
        let organization = rng.choice(ORGANIZATIONS).unwrap_or("north");
        let start = self.head().await;
        self.pressure.send_replace(true);
        // Readers look every half second.
        sleep(Duration::from_millis(600)).await;
        let last = writer::flood(self.dsn.clone(), self.ledger.clone(), organization).await;
        worker::shows(self.address, organization, &last, FLOODED_WITHIN).await;
        self.pressure.send_replace(false);
        self.floods.push((organization, start..=self.head().await));
    }

    async fn sql(&self, sql: &str) {
        writer::connect(&self.dsn)
            .await
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn text(&self, sql: &str) -> String {
        let session = writer::connect(&self.dsn).await;
        session.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    /// The end of the history.
    async fn head(&self) -> u64 {
        let sql = match self.program.source {
            Kind::Wal => "select (pg_current_wal_insert_lsn() - '0/0')::bigint::text",
            Kind::Outbox => "select head::text from walcast.outbox_state",
        };
        self.text(sql).await.parse().expect("a position")
    }

    /// A query of the process that serves a worker which reads.
    const fn reader_sql(&self) -> &'static str {
        match self.program.source {
            Kind::Wal => {
                "select active_pid as pid from pg_replication_slots where slot_name like 'walcast%' and active"
            }
            Kind::Outbox => {
                "select pid from pg_locks
                  where locktype = 'advisory' and classid = 2002874371 and objid = 1 and granted"
            }
        }
    }

    async fn readers(&self) -> usize {
        let session = writer::connect(&self.dsn).await;
        session.query(self.reader_sql(), &[]).await.map_or(0, |rows| rows.len())
    }

    /// As a standby that had everything and is promoted: a new timeline, the same system, no slots.
    async fn promote(&mut self) {
        let ledger = self.ledger.clone();
        let _nobody_writes = ledger.gate.write().await;
        self.order.read(&self.dsn).await;
        self.cluster.stop(StopMode::Fast).await.expect("it stops");
        let slots = self.cluster.data_dir().join("pg_replslot");
        for slot in std::fs::read_dir(slots).expect("its slots") {
            std::fs::remove_dir_all(slot.expect("a slot").path()).expect("a folder of ours");
        }
        std::fs::write(self.cluster.data_dir().join("standby.signal"), "").expect("a folder of ours");
        self.cluster.resume().await.expect("a standby");
        self.sql("select pg_promote()").await;
        self.order.go_on(&self.dsn).await;
    }

    /// Waits until the worker has begun a new history after what broke the old one at `start`.
    async fn healed(&mut self, start: u64) {
        let deadline = Instant::now() + HEALED_WITHIN;
        // Reads for two looks in a row: what was about to fail has failed.
        let mut good = 0;
        while good < 2 {
            assert!(Instant::now() < deadline, "the worker did not begin a new history");
            sleep(Duration::from_millis(700)).await;
            let up = self.readers().await == 1 && worker::is_ready(self.address).await;
            good = if up { good + 1 } else { 0 };
        }
        self.resets.push(start..=self.head().await);
    }
}
