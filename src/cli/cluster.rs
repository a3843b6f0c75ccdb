//! A private PostgreSQL cluster: made, started, stopped, and gone when this process is.
//!
//! ```text
//! Cluster ─ pipe ─► sh (the guardian) ─► postgres
//! ```
//!
//! The guardian is told what to do through a pipe and answers a line each. When the pipe ends, whatever ended us
//! (return, panic, kill -9), it stops the server and, if the folder is temporary, removes it. It lives in a process
//! group of its own, so that a terminal's Ctrl-C reaches us and not it. PostgreSQL refuses to run as root: where we
//! are root, guardian and server run as `postgres` or `nobody`, whom the folder is given to.

mod binaries;
mod folder;
mod guardian;
mod user;

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use binaries::{Binaries, BinariesError};

use folder::Folder;
use guardian::Guardian;
use user::User;

use crate::config::Secret;

/// The superuser of every cluster made here.
const SUPERUSER: &str = "postgres";

/// Below the ports that kernels hand out to outgoing connections, so that none of those takes it in between.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How often another port is tried when somebody was faster.
const ATTEMPTS: usize = 5;

/// What a cluster is made from.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Where the server's programs are, if they are not to be searched.
    pub binaries: Option<PathBuf>,
    /// Kept when the cluster ends, and used again. None: a temporary folder that ends with the cluster.
    pub data_dir: Option<PathBuf>,
    /// None: a free one.
    pub port: Option<u16>,
    /// Lines of postgresql.conf, beside `wal_level = logical`.
    pub settings: Vec<(String, String)>,
    /// Of the superuser over TCP. None: everybody on this machine is trusted.
    pub password: Option<Secret>,
    /// Survives a power cut; without, everything is a little faster.
    pub durable: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            binaries: None,
            data_dir: None,
            port: None,
            settings: Vec::new(),
            password: None,
            durable: true,
        }
    }
}

/// How a server is stopped, as pg_ctl has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Ends sessions, writes a checkpoint.
    Fast,
    /// Drops everything; the next start recovers.
    Immediate,
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    #[error("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")]
    NoUser,
    #[error("the user {user} can't reach {path}: choose a folder whose parents everybody may enter", path = path.display())]
    Unreachable { user: String, path: PathBuf },
    #[error("{what} failed:\n{output}")]
    Failed { what: &'static str, output: String },
    #[error("no port between 20000 and 32000 is free")]
    NoPort,
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the process that keeps PostgreSQL is gone")]
    Gone,
}

/// A running (or stopped) cluster. Its end is the server's.
#[derive(Debug)]
pub struct Cluster {
    guardian: Arc<Mutex<Guardian>>,
    port: u16,
    password: Option<Secret>,
    socket_dir: PathBuf,
    data_dir: PathBuf,
}

impl Cluster {
    /// Makes the cluster if there is none in the folder, and starts it.
    ///
    /// # Errors
    /// No server programs, no user to run it as, a folder that can't be used, or what initdb or the server said.
    pub async fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        match tokio::task::spawn_blocking(move || Self::start_blocking(&options)).await {
            Ok(started) => started,
            Err(_) => Err(ClusterError::Gone),
        }
    }

    /// [`Cluster::start`] for callers without a runtime.
    ///
    /// # Errors
    /// As there.
    pub fn start_blocking(options: &ClusterOptions) -> Result<Self, ClusterError> {
        let binaries = Binaries::find(options.binaries.as_deref())?;
        let user = User::for_server()?;
        let folder = Folder::make(options.data_dir.as_deref(), user.as_ref())?;
        let data_dir = folder.data();
        if !data_dir.exists() {
            folder.initialize(&binaries, user.as_ref(), options)?;
        }
        let mut failure = ClusterError::NoPort;
        for _ in 0..ATTEMPTS {
            let port = options.port.or_else(free_port).ok_or(ClusterError::NoPort)?;
            folder.configure(user.as_ref(), port, options)?;
            let mut guardian = Guardian::spawn(&binaries, user.as_ref(), &folder)?;
            match guardian.ask("start") {
                Ok(()) => {
                    let guardian = Arc::new(Mutex::new(guardian));
                    let (password, socket_dir) = (options.password.clone(), folder.sockets.clone());
                    folder.keep();
                    return Ok(Self { guardian, port, password, socket_dir, data_dir });
                }
                Err(error) => failure = error,
            }
            guardian.leave_files();
            drop(guardian);
            if options.port.is_some() || TcpListener::bind(("127.0.0.1", port)).is_ok() {
                break;
            }
        }
        Err(failure)
    }

    /// A URL of the database over TCP, for the superuser.
    #[must_use]
    pub fn dsn(&self, database: &str) -> String {
        let password =
            self.password.as_ref().map_or_else(String::new, |password| format!(":{}", password.expose()));
        format!("postgres://{SUPERUSER}{password}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// A URL of the database over the unix socket, which only our own user can reach.
    #[must_use]
    pub fn socket_dsn(&self, database: &str) -> String {
        let dir = percent_encoding::utf8_percent_encode(
            &self.socket_dir.to_string_lossy(),
            percent_encoding::NON_ALPHANUMERIC,
        )
        .to_string();
        format!("postgres://{SUPERUSER}@{dir}:{}/{database}", self.port)
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The server's log so far.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn log(&self) -> io::Result<String> {
        fs::read_to_string(self.data_dir.with_file_name("postgres.log"))
    }

    /// Stops the server; the cluster stays, to be started again.
    ///
    /// # Errors
    /// When the guardian is gone.
    pub async fn stop(&self, mode: StopMode) -> Result<(), ClusterError> {
        self.ask(match mode {
            StopMode::Fast => "fast",
            StopMode::Immediate => "immediate",
        })
        .await
    }

    /// Starts a stopped server, on the same port.
    ///
    /// # Errors
    /// What the server said.
    pub async fn resume(&self) -> Result<(), ClusterError> {
        self.ask("start").await
    }

    /// # Errors
    /// As [`Cluster::stop`] and [`Cluster::resume`].
    pub async fn restart(&self, mode: StopMode) -> Result<(), ClusterError> {
        self.stop(mode).await?;
        self.resume().await
    }

    /// Kills the postmaster with SIGKILL, as a crash would; its children follow by themselves.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_now(&self) -> Result<(), ClusterError> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner).ask("kill")
    }

    async fn ask(&self, request: &'static str) -> Result<(), ClusterError> {
        let guardian = Arc::clone(&self.guardian);
        let asked = tokio::task::spawn_blocking(move || {
            guardian.lock().unwrap_or_else(PoisonError::into_inner).ask(request)
        });
        asked.await.unwrap_or(Err(ClusterError::Gone))
    }
}

/// A port that nobody listens on at this moment.
fn free_port() -> Option<u16> {
    (0..200).map(|_| fastrand::u16(PORTS)).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
}

#[cfg(test)]
mod tests;
