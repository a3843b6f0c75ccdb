//! Servers to compare with: each is a process that opens streams at a path and sends numbered events when told.
//!
//! Bare, axum and Node make the events themselves, when a line on stdin says how many; nginx is handed them over HTTP.
//! What has no database in it has no work for one either: that is to their advantage.

pub mod axum;
pub mod bare;
mod nchan;
pub mod reader;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until};

use crate::crowd::localhost;
use crate::marker;
use crate::process::Process;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Bare,
    Axum,
    Nchan,
    Node,
    BetterSse,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare write loop",
            Self::Axum => "axum Sse + broadcast",
            Self::Nchan => "nginx + nchan",
            Self::Node => "Node",
            Self::BetterSse => "Node better-sse",
        }
    }

    /// Whether what it needs is installed.
    pub fn is_here(self) -> bool {
        match self {
            Self::Bare | Self::Axum => true,
            Self::Nchan => nchan::is_here(),
            Self::Node => program("node").is_some(),
            Self::BetterSse => {
                program("node").is_some() && scripts().join("node_modules/better-sse").exists()
            }
        }
    }
}

pub struct Peer {
    pub kind: Kind,
    pub process: Process,
    pub address: SocketAddr,
    publisher: Option<TcpStream>,
    /// The number of the last event.
    last: u64,
    /// Of nginx's configuration.
    _folder: Option<tempfile::TempDir>,
}

impl Peer {
    pub async fn start(kind: Kind) -> anyhow::Result<Self> {
        if kind == Kind::Nchan {
            return nchan::start().await;
        }
        let mut command = match kind {
            Kind::Node | Kind::BetterSse => {
                let mut command = Command::new("node");
                command.arg(scripts().join("fanout.mjs")).arg(if kind == Kind::Node {
                    "plain"
                } else {
                    "better-sse"
                });
                command
            }
            _ => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(if kind == Kind::Bare { "serve-bare" } else { "serve-axum" });
                command
            }
        };
        let mut process = Process::start(&mut command)?;
        let port = process.line().await?.parse().context("a port")?;
        Ok(Self { kind, process, address: localhost(port), publisher: None, last: 0, _folder: None })
    }

    #[allow(clippy::unused_self, reason = "asked like the worker, whose requests differ")]
    pub fn request(&self) -> String {
        "GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".to_owned()
    }

    /// Sends `count` events, `rate` a second.
    pub async fn pace(&mut self, rate: u64, count: u64) -> anyhow::Result<()> {
        if self.publisher.is_none() {
            self.last += count;
            return self.process.tell(&format!("pace {rate} {count}")).await;
        }
        let begin = Instant::now();
        for number in 0..count {
            sleep_until(begin + Duration::from_secs(number) / u32::try_from(rate)?).await;
            self.publish().await?;
        }
        Ok(())
    }

    /// Sends `count` events as fast as it can.
    pub async fn burst(&mut self, count: u64) -> anyhow::Result<()> {
        if self.publisher.is_none() {
            self.last += count;
            return self.process.tell(&format!("burst {count}")).await;
        }
        for _ in 0..count {
            self.publish().await?;
        }
        Ok(())
    }

    async fn publish(&mut self) -> anyhow::Result<()> {
        self.last += 1;
        let payload = marker::payload(self.last, marker::now_nanos());
        let publisher = self.publisher.as_mut().context("it makes its own events")?;
        nchan::publish(publisher, &payload).await
    }
}

/// Where the peers' scripts are.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

/// A program in the PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Waits until somebody listens.
pub async fn listening(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context(format!("nobody listens at {address}"));
            }
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A port that nobody listens at, below those of outgoing connections.
pub fn free_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| fastrand::u16(20_000..32_000));
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("endless")
}
