//! Faults on purpose, one after the other, each mended before the next.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use walcast::cli::cluster::{Cluster, StopMode};
use walcast::config::Config;
use walcast::postgres::dsn::Dsn;

use super::JWT_SECRET;
use super::deed::ORGANIZATIONS;
use super::order::{self, Order};
use super::proxy::Proxy;
use super::writer::{self, Ledger};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillWorker,
    StopWorker,
    TerminateWalsender,
    RestartFast,
    RestartImmediate,
    CutNetwork,
    BlackHole,
    SlotBusy,
    SlotDropped,
    SlotInvalidated,
    PublicationRemade,
    Promotion,
    Flood,
}

pub const ALL: [Fault; 13] = [
    Fault::KillWorker,
    Fault::StopWorker,
    Fault::TerminateWalsender,
    Fault::RestartFast,
    Fault::RestartImmediate,
    Fault::CutNetwork,
    Fault::BlackHole,
    Fault::SlotBusy,
    Fault::SlotDropped,
    Fault::SlotInvalidated,
    Fault::PublicationRemade,
    Fault::Promotion,
    Fault::Flood,
];

/// How long the worker may take to begin a new history, once it can.
const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// What the run's slots may keep, in MiB, while one is to be lost.
const KEEP_MIB: u32 = 64;

/// What faults are done to.
pub struct Victims {
    pub cluster: Cluster,
    pub dsn: Dsn,
    /// Of the database, past the proxy.
    pub url: String,
    pub proxy: Proxy,
    /// Of the database, through the proxy.
    pub proxied: String,
    pub address: SocketAddr,
    pub worker: Child,
    pub ledger: Arc<Ledger>,
    pub order: Order,
    /// Readers that stand still at a flood see this grow.
    pub pressure: watch::Sender<u64>,
    /// Where histories were broken and began anew, and where an organization's window was flooded.
    pub resets: Vec<RangeInclusive<u64>>,
    pub floods: Vec<(&'static str, RangeInclusive<u64>)>,
}

impl Victims {
    pub async fn strike(&mut self, fault: Fault, rng: &mut fastrand::Rng) {
        let pause = Duration::from_millis(rng.u64(100..2500));
        match fault {
            Fault::KillWorker => {
                self.worker.kill().await.expect("it runs");
                sleep(pause).await;
                self.worker = spawn(&self.proxied, self.address);
            }
            Fault::StopWorker => {
                let id = self.worker.id().expect("it runs").to_string();
                Command::new("kill").args(["-TERM", &id]).status().await.expect("kill");
                let status = self.worker.wait().await.expect("a status");
                assert!(status.success(), "a worker that is told to stop exits 0: {status}");
                sleep(pause).await;
                self.worker = spawn(&self.proxied, self.address);
            }
            Fault::TerminateWalsender => {
                let sql = "select pg_terminate_backend(active_pid) from pg_replication_slots where active";
                let _ = writer::connect(&self.dsn).await.batch_execute(sql).await;
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
                // Half of the holes are noticed by silence alone.
                if rng.bool() {
                    self.proxy.cut();
                    sleep(Duration::from_millis(100)).await;
                }
                self.proxy.restore();
            }
            Fault::SlotBusy => {
                self.proxy.cut();
                let other = free_address().await;
                let mut thief = spawn(&self.url, other);
                let held = "select 1 from pg_replication_slots where slot_name like 'walcast%' and active";
                let patience = Instant::now() + Duration::from_secs(5);
                let session = writer::connect(&self.dsn).await;
                sleep(Duration::from_millis(300)).await;
                while session.query_opt(held, &[]).await.is_ok_and(|row| row.is_none())
                    && Instant::now() < patience
                {
                    sleep(Duration::from_millis(50)).await;
                }
                self.proxy.restore();
                sleep(pause).await;
                thief.kill().await.expect("it runs");
            }
            Fault::SlotDropped => {
                let start = self.head().await;
                self.proxy.cut();
                self.drop_slot().await;
                sleep(pause).await;
                self.proxy.restore();
                self.healed(start).await;
            }
            Fault::SlotInvalidated => {
                let start = self.head().await;
                self.proxy.cut();
                self.invalidate().await;
                sleep(pause).await;
                self.proxy.restore();
                self.healed(start).await;
            }
            Fault::PublicationRemade => {
                let start = self.head().await;
                self.sql("drop publication walcast").await;
                sleep(pause).await;
                walcast::cli::setup::apply(&Config::reference(), &self.dsn).await.expect("setup");
                self.healed(start).await;
            }
            Fault::Promotion => {
                let start = self.head().await;
                self.promote().await;
                self.healed(start).await;
            }
            Fault::Flood => {
                let organization = rng.choice(ORGANIZATIONS).unwrap_or("north");
                let start = self.head().await;
                self.pressure.send_modify(|floods| *floods += 1);
                // Readers look every half second.
                sleep(Duration::from_millis(600)).await;
                writer::flood(self.dsn.clone(), self.ledger.clone(), organization).await;
                self.floods.push((organization, start..=self.head().await));
            }
        }
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

    /// The log's end.
    async fn head(&self) -> u64 {
        let lsn = self.text("select (pg_current_wal_insert_lsn() - '0/0')::bigint::text").await;
        lsn.parse().expect("a position")
    }

    async fn drop_slot(&self) {
        let sql = "select pg_terminate_backend(active_pid) from pg_replication_slots
                    where slot_name like 'walcast%' and active;
                   select pg_drop_replication_slot(slot_name) from pg_replication_slots
                    where slot_name like 'walcast%'";
        let session = writer::connect(&self.dsn).await;
        // A walsender takes a moment to end.
        while session.batch_execute(sql).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Writes more than the worker's slot may keep, while the judge's own goes along.
    async fn invalidate(&mut self) {
        let terminate = "select pg_terminate_backend(active_pid) from pg_replication_slots where active";
        let status = "select coalesce(max(wal_status), 'none') from pg_replication_slots where slot_name like 'walcast%'";
        let mine = "select (coalesce(pg_current_wal_insert_lsn() - restart_lsn, 0) / 1048576)::int::text
                      from pg_replication_slots where slot_name = 'torture'";
        let flood = format!(
            "select pg_logical_emit_message(false, 'x', repeat('x', 1048576)) from generate_series(1, {})",
            2 * KEEP_MIB
        );
        self.sql(terminate).await;
        self.sql(&flood).await;
        loop {
            // It logs who writes; read beyond that, the judge's slot keeps nothing from before.
            self.sql("checkpoint").await;
            self.order.read(&self.dsn).await;
            if self.text(mine).await.parse::<u32>().expect("a number") < KEEP_MIB / 2 {
                break;
            }
        }
        self.sql(&format!("alter system set max_slot_wal_keep_size = '{KEEP_MIB}MB'")).await;
        self.sql("select pg_reload_conf()").await;
        while self.text("show max_slot_wal_keep_size").await == "-1" {
            sleep(Duration::from_millis(20)).await;
        }
        self.sql("checkpoint").await;
        assert_eq!(self.text(status).await, "lost", "the worker's slot");
        self.sql("alter system reset max_slot_wal_keep_size").await;
        self.sql("select pg_reload_conf()").await;
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
        self.sql(order::SLOT).await;
    }

    /// Waits until the worker has begun a new history after what broke the old one at `start`.
    async fn healed(&mut self, start: u64) {
        let streams =
            "select count(*)::text from pg_replication_slots where slot_name like 'walcast%' and active";
        let deadline = Instant::now() + HEALED_WITHIN;
        // Streams for two looks in a row: what was about to fail has failed.
        let mut good = 0;
        while good < 2 {
            assert!(Instant::now() < deadline, "the worker did not begin a new history");
            sleep(Duration::from_millis(700)).await;
            let up = self.text(streams).await == "1" && self.is_ready().await;
            good = if up { good + 1 } else { 0 };
        }
        self.resets.push(start..=self.head().await);
    }

    async fn is_ready(&self) -> bool {
        let asked = async {
            let mut socket = TcpStream::connect(self.address).await?;
            socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: torture\r\nConnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        asked.await.is_ok_and(|answer| answer.ends_with("ready") || answer.ends_with("degraded"))
    }
}

/// The worker, as its users run it: short windows, so that what falls out of them is part of the run.
pub fn spawn(url: &str, address: SocketAddr) -> Child {
    let kept = ["PATH", "HOME", "USER", "TMPDIR"];
    let log = std::env::var_os("WALCAST_TORTURE_LOG").map(|path| {
        std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the log can be written")
    });
    Command::new(env!("CARGO_BIN_EXE_walcast"))
        .args(["run", "--reference"])
        .env_clear()
        .envs(std::env::vars().filter(|(name, _)| kept.contains(&name.as_str())))
        .env("DATABASE_URL", url)
        .env("WALCAST_ACCESS_JWT_SECRET", JWT_SECRET)
        .env("WALCAST_HTTP_LISTEN", address.to_string())
        .env("WALCAST_HTTP_DRAIN", "300ms")
        .env("WALCAST_HTTP_KEEPALIVE", "2s")
        .env("WALCAST_HTTP_WRITE_TIMEOUT", "3s")
        .env("WALCAST_REPLAY_MAX_AGE", "15s")
        .env("WALCAST_REPLAY_MAX_MEMORY", "8MiB")
        .env("WALCAST_CANARY_INTERVAL", "500ms")
        .env("WALCAST_CANARY_STALE_AFTER", "2s")
        .env("WALCAST_LIMITS_STREAMS_PER_USER", "0")
        .env("WALCAST_LIMITS_STREAMS_PER_ADDRESS", "0")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.map_or_else(Stdio::null, Stdio::from))
        .kill_on_drop(true)
        .spawn()
        .expect("the worker's binary")
}

/// An address that nobody listens on.
pub async fn free_address() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("its address")
}
