//! Faults on purpose, one after the other, each mended before the next.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use walcast::cli::cluster::{Cluster, StopMode};
use walcast::postgres::dsn::Dsn;

use super::proxy::Proxy;
use super::{JWT_SECRET, writer};

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
}

pub const ALL: [Fault; 8] = [
    Fault::KillWorker,
    Fault::StopWorker,
    Fault::TerminateWalsender,
    Fault::RestartFast,
    Fault::RestartImmediate,
    Fault::CutNetwork,
    Fault::BlackHole,
    Fault::SlotBusy,
];

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
        }
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
