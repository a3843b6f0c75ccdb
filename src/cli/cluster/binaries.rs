//! Where PostgreSQL's server programs are on this machine.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a cluster needs.
const PROGRAMS: [&str; 2] = ["initdb", "postgres"];

/// The oldest release that walcast speaks to.
const OLDEST_MAJOR: u32 = 14;

/// Folders with a version in their name, marked `*`, where packages put the server.
const PLACES: [&str; 7] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/opt/homebrew/opt/postgresql/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/pgsql/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    #[error(
        "no PostgreSQL server (initdb, postgres; version {OLDEST_MAJOR} or newer) is on this machine. Install one:\n  \
         Debian, Ubuntu:  apt-get install postgresql\n  \
         Fedora, RHEL:    dnf install postgresql-server\n  \
         macOS:           brew install postgresql@17\n\
         or set WALCAST_PG_BIN to the folder that holds both"
    )]
    None,
    #[error("{path} holds no PostgreSQL server: initdb and postgres must be there", path = .0.display())]
    NotThere(PathBuf),
    #[error("{path} holds PostgreSQL {major}; walcast needs {OLDEST_MAJOR} or newer", path = path.display())]
    Old { path: PathBuf, major: u32 },
}

/// A folder with all the programs of one release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
    major: u32,
}

impl Binaries {
    /// The `given` folder, else the first with a server in it: of PATH, of pg_config, of where packages put it
    /// (newest first).
    ///
    /// # Errors
    /// None found, saying how to install one; or none in the given folder, or too old.
    pub fn find(given: Option<&Path>) -> Result<Self, BinariesError> {
        if let Some(folder) = given {
            let found = Self::at(folder).ok_or_else(|| BinariesError::NotThere(folder.to_owned()))?;
            let Self { folder, major } = &found;
            if *major < OLDEST_MAJOR {
                return Err(BinariesError::Old { path: folder.clone(), major: *major });
            }
            return Ok(found);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(from_pg_config())
            .filter_map(|folder| Self::at(&folder))
            .find(|found| found.major >= OLDEST_MAJOR)
            .or_else(|| {
                let places = PLACES.iter().flat_map(|place| expand(place));
                let mut found: Vec<Self> = places.filter_map(|folder| Self::at(&folder)).collect();
                found.retain(|found| found.major >= OLDEST_MAJOR);
                found.sort_by_key(|found| Reverse(found.major));
                found.into_iter().next()
            })
            .ok_or(BinariesError::None)
    }

    fn at(folder: &Path) -> Option<Self> {
        if !PROGRAMS.iter().all(|program| folder.join(program).is_file()) {
            return None;
        }
        let output =
            Command::new(folder.join("postgres")).arg("--version").stdin(Stdio::null()).output().ok()?;
        let major = read_major(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self { folder: folder.to_owned(), major })
    }

    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    #[must_use]
    pub const fn major(&self) -> u32 {
        self.major
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian …)`, `postgres (PostgreSQL) 19beta1`.
fn read_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL)")?.1.trim_start();
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn from_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    (!folder.trim().is_empty()).then(|| PathBuf::from(folder.trim()))
}

/// The folders that a pattern with one `*` stands for.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![pattern.into()];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(if parent.is_empty() { "/" } else { parent }) else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with(prefix))
        .map(|name| PathBuf::from(format!("{parent}/{name}{after}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_packages_print_it() {
        assert_eq!(read_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(read_major("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(read_major("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(read_major("psql 15"), None);
    }

    #[test]
    fn a_pattern_finds_the_folders_it_stands_for() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["pgsql-15", "pgsql-9.6", "other"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let mut found = expand(&format!("{}/pgsql-*/bin", folder.path().display()));
        found.sort();
        assert_eq!(found, [folder.path().join("pgsql-15/bin"), folder.path().join("pgsql-9.6/bin")]);
    }

    #[test]
    fn a_folder_without_a_server_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = Binaries::find(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        assert!(BinariesError::None.to_string().contains("apt-get install postgresql"));
    }
}
