//! Where a cluster lives on disk: `data`, `postgres.log`, `settings.conf`, and its socket.
//!
//! Everything in it belongs to the server's user and is closed to all others.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::binaries::Binaries;
use super::user::User;
use super::{ClusterError, ClusterOptions, SUPERUSER};

/// A socket's path fits in 107 bytes (sockaddr_un), `/.s.PGSQL.12345` included; macOS takes 103.
const MAX_SOCKET_DIR: usize = 85;

/// Where a cluster lives: `data`, `postgres.log`, `settings.conf`, and the socket.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) sockets: PathBuf,
    /// Removed when dropped, until the guardian takes that over.
    temporary: Vec<tempfile::TempDir>,
    /// What the guardian removes at its end.
    pub(super) doomed: Vec<PathBuf>,
}

impl Folder {
    pub(super) fn make(wanted: Option<&Path>, user: Option<&User>) -> Result<Self, ClusterError> {
        let mut temporary = Vec::new();
        let mut fresh = || -> Result<PathBuf, ClusterError> {
            let parent = std::env::temp_dir();
            let folder =
                tempfile::Builder::new().prefix("walcast-").tempdir_in(&parent).map_err(at(&parent))?;
            let path = folder.path().to_owned();
            temporary.push(folder);
            Ok(path)
        };
        let path = match wanted {
            Some(path) => {
                fs::create_dir_all(path).map_err(at(path))?;
                fs::canonicalize(path).map_err(at(path))?
            }
            None => fresh()?,
        };
        let sockets = if path.as_os_str().len() <= MAX_SOCKET_DIR { path.clone() } else { fresh()? };
        for folder in [&path, &sockets] {
            private(folder, 0o700, user)?;
            if let Some(user) = user {
                user.check_reach(folder)?;
            }
        }
        let doomed = temporary.iter().map(|folder| folder.path().to_owned()).collect();
        Ok(Self { path, sockets, temporary, doomed })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Makes the cluster, under another name until it is whole: an initdb that was killed leaves nothing to trip over.
    pub(super) fn initialize(
        &self,
        binaries: &Binaries,
        user: Option<&User>,
        options: &ClusterOptions,
    ) -> Result<(), ClusterError> {
        let data = self.path.join("data.new");
        if data.exists() {
            fs::remove_dir_all(&data).map_err(at(&data))?;
        }
        let mut command = Command::new(binaries.program("initdb"));
        command.arg("-D").arg(&data).args([
            "-U",
            SUPERUSER,
            "--encoding=UTF8",
            "--locale=C",
            "--auth-local=trust",
        ]);
        let password_file = self.path.join("password");
        if let Some(password) = &options.password {
            fs::write(&password_file, password.expose()).map_err(at(&password_file))?;
            private(&password_file, 0o600, user)?;
            command.arg("--auth-host=scram-sha-256").arg(format!("--pwfile={}", password_file.display()));
        } else {
            command.arg("--auth-host=trust");
        }
        if !options.durable {
            command.arg("--no-sync");
        }
        let made = run(command, user, &self.path, "initdb");
        if options.password.is_some() {
            fs::remove_file(&password_file).map_err(at(&password_file))?;
        }
        made?;
        let configuration = data.join("postgresql.conf");
        let include = format!("\ninclude '{}'\n", quoted(&self.path.join("settings.conf").to_string_lossy()));
        let mut text = fs::read_to_string(&configuration).map_err(at(&configuration))?;
        text.push_str(&include);
        fs::write(&configuration, text).map_err(at(&configuration))?;
        fs::rename(&data, self.data()).map_err(at(&data))
    }

    /// Writes `settings.conf` anew.
    pub(super) fn configure(
        &self,
        user: Option<&User>,
        port: u16,
        options: &ClusterOptions,
    ) -> Result<(), ClusterError> {
        let mut settings = vec![
            ("port".to_owned(), port.to_string()),
            ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
            ("unix_socket_directories".to_owned(), self.sockets.to_string_lossy().into_owned()),
            ("wal_level".to_owned(), "logical".to_owned()),
            ("log_destination".to_owned(), "stderr".to_owned()),
            ("logging_collector".to_owned(), "off".to_owned()),
            ("timezone".to_owned(), "UTC".to_owned()),
        ];
        if !options.durable {
            let off = ["fsync", "full_page_writes", "synchronous_commit"];
            settings.extend(off.map(|name| (name.to_owned(), "off".to_owned())));
        }
        settings.extend(options.settings.iter().cloned());
        let lines: String =
            settings.iter().map(|(name, value)| format!("{name} = '{}'\n", quoted(value))).collect();
        let path = self.path.join("settings.conf");
        fs::write(&path, lines).map_err(at(&path))?;
        private(&path, 0o600, user)
    }

    /// Leaves the removal to the guardian.
    pub(super) fn keep(self) {
        for folder in self.temporary {
            let _ = folder.keep();
        }
    }
}

/// Gives the file or folder to the server's user, and closes it to everybody else.
fn private(path: &Path, mode: u32, user: Option<&User>) -> Result<(), ClusterError> {
    if let Some(user) = user {
        chown(path, Some(user.uid), Some(user.gid)).map_err(at(path))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(at(path))
}

/// For postgresql.conf: a quote is doubled, a backslash too.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "''")
}

fn run(
    mut command: Command,
    user: Option<&User>,
    folder: &Path,
    what: &'static str,
) -> Result<(), ClusterError> {
    if let Some(user) = user {
        user.apply(&mut command);
    }
    let output = command.current_dir(folder).stdin(Stdio::null()).output().map_err(at(folder))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(ClusterError::Failed { what, output: String::from_utf8_lossy(&said).trim().to_owned() })
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> ClusterError {
    let path = path.to_owned();
    move |source| ClusterError::Io { path, source }
}
