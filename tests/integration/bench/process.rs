//! The worker as its users run it: the binary, in a process that can be killed.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::app::JWT_SECRET;
use super::http::Request;
use super::{PATIENCE, eventually};

/// `walcast run --reference`, as a child that dies with the test.
pub struct WorkerProcess {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

/// The binary with a test's database and secret in its environment.
pub fn command(url: &str) -> Command {
    // A measurement may be of another build than the tests' own.
    let program = std::env::var_os("TEST_WALCAST").unwrap_or_else(|| env!("CARGO_BIN_EXE_walcast").into());
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(
            std::env::vars().filter(|(name, _)| matches!(name.as_str(), "PATH" | "HOME" | "USER" | "TMPDIR")),
        )
        .env("DATABASE_URL", url)
        .env("WALCAST_ACCESS_JWT_SECRET", JWT_SECRET)
        .env("WALCAST_HTTP_LISTEN", "127.0.0.1:0")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

impl WorkerProcess {
    /// Starts it and waits until it lets streams in.
    pub async fn start(url: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = command(url);
        command.args(["run", "--reference"]).envs(environment.iter().copied());
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary");
        let stderr = child.stderr.take().expect("its log");
        let mut lines = BufReader::new(stderr).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let listening = async {
            while let Some(line) = lines.next_line().await.expect("a log line") {
                let address = serde_json::from_str::<serde_json::Value>(&line)
                    .ok()
                    .and_then(|line| line["address"].as_str()?.parse().ok());
                log.lock().expect("the log").push(line);
                if let Some(address) = address {
                    return address;
                }
            }
            panic!("the worker ended before it listened: {log:#?}");
        };
        let address = tokio::time::timeout(PATIENCE, listening).await.expect("the worker listens");
        tokio::spawn({
            let log = Arc::clone(&log);
            async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    log.lock().expect("the log").push(line);
                }
            }
        });
        let worker = Self { child, address, log };
        eventually("the worker is ready", || async {
            let word = Request::get("/readyz").fetch(address).await.body;
            matches!(word.trim(), "ready" | "degraded").then_some(())
        })
        .await;
        worker
    }

    /// SIGKILL: no farewell.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it was running");
    }

    /// SIGTERM, and how it ended.
    pub async fn terminate(mut self) -> ExitStatus {
        let id = self.child.id().expect("it is running").to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().await.expect("kill");
        assert!(sent.success());
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("a status")
    }

    /// What it has written so far, line by line.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it is running")
    }
}
