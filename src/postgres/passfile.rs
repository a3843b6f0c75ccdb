//! The password file: `host:port:database:user:password` a line, the first that matches counts
//! (PostgreSQL documentation, 34.16 "The Password File").

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::dsn::Host;
use crate::config::Secret;

/// Socket directories that a line names as `localhost`.
const DEFAULT_SOCKET_DIRS: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

/// Whose password is looked for.
pub(super) struct Wanted<'a> {
    pub(super) host: &'a Host,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// As libpq: no file is no password, and one that others can read is not used (but said so).
pub(super) fn lookup(path: &Path, wanted: &Wanted<'_>) -> Option<Secret> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() {
        tracing::warn!(path = %path.display(), "the password file is not a plain file and is not used");
        return None;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the password file is open to group or world and is not used: chmod 0600");
        return None;
    }
    match std::fs::read_to_string(path) {
        Ok(text) => find(&text, wanted),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the password file can't be read");
            None
        }
    }
}

pub(super) fn find(text: &str, wanted: &Wanted<'_>) -> Option<Secret> {
    let port = wanted.host.port().to_string();
    let dir;
    let host = match wanted.host {
        Host::Tcp { host, .. } => host.as_str(),
        Host::Unix { dir, .. } if DEFAULT_SOCKET_DIRS.iter().any(|default| dir == Path::new(default)) => {
            "localhost"
        }
        Host::Unix { dir: other, .. } => {
            dir = other.to_string_lossy();
            &dir
        }
    };
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for field in [host, &port, wanted.database, wanted.user] {
            rest = after_field(rest, field)?;
        }
        let (password, _) = unescape_until_colon(rest);
        (!password.is_empty()).then(|| Secret::new(password))
    })
}

/// What stands behind the line's next field, when that field is `*` or this text.
fn after_field<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let (field, rest) = unescape_until_colon(line);
    if field == wanted { rest } else { None }
}

/// A field, `\:` and `\\` undone, and what follows its colon. A password ends at an unescaped colon too.
fn unescape_until_colon(text: &str) -> (String, Option<&str>) {
    let mut field = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => field.extend(chars.next().map(|(_, escaped)| escaped)),
            ':' => return (field, text.get(at + 1..)),
            _ => field.push(c),
        }
    }
    (field, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str, host: &Host) -> Option<String> {
        find(text, &Wanted { host, database: "app", user: "ada" }).map(|secret| secret.expose().to_owned())
    }

    fn tcp(host: &str) -> Host {
        Host::Tcp { host: host.to_owned(), port: 5432 }
    }

    #[test]
    fn first_matching_line_counts() {
        let file =
            "# comment\n\nother:5432:app:ada:no\ndb:5433:app:ada:no\ndb:5432:*:ada:yes\n*:*:*:*:late\n";
        assert_eq!(password(file, &tcp("db")).as_deref(), Some("yes"));
        assert_eq!(password(file, &tcp("elsewhere")).as_deref(), Some("late"));
        assert_eq!(password("db:5432:app:bob:no", &tcp("db")), None);
    }

    #[test]
    fn escapes_hold_colons_and_backslashes() {
        assert_eq!(password(r"\:\:1:5432:app:ada:a\:b\\c:rest", &tcp("::1")).as_deref(), Some(r"a:b\c"));
        assert_eq!(password(r"*:*:*:*:ends\", &tcp("db")).as_deref(), Some("ends"));
    }

    #[test]
    fn default_socket_directories_are_localhost() {
        let line = "localhost:5432:app:ada:yes";
        let unix = |dir: &str| Host::Unix { dir: dir.into(), port: 5432 };
        assert_eq!(password(line, &unix("/var/run/postgresql")).as_deref(), Some("yes"));
        assert_eq!(password(line, &unix("/srv/pg")), None);
        assert_eq!(password("/srv/pg:5432:app:ada:own", &unix("/srv/pg")).as_deref(), Some("own"));
    }

    #[test]
    fn incomplete_lines_match_nothing() {
        for line in ["", ":", "*", "*:*:*:*", "*:*:*:*:", "db:5432:app:ada"] {
            assert_eq!(password(line, &tcp("db")), None, "{line:?}");
        }
    }

    #[test]
    fn file_open_to_others_is_not_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "*:*:*:*:secret\n").unwrap();
        let host = tcp("db");
        let wanted = Wanted { host: &host, database: "app", user: "ada" };
        for (mode, used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(lookup(file.path(), &wanted).is_some(), used, "{mode:o}");
        }
        assert!(lookup(Path::new("/nonexistent/pgpass"), &wanted).is_none());
    }
}
