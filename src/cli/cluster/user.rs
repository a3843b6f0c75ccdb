//! Whom a server runs as.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::ClusterError;

/// Looked for in this order.
const NAMES: [&str; 2] = ["postgres", "nobody"];

/// An account that is not root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl User {
    /// None: we are not root, and the server runs as we do.
    pub(super) fn for_server() -> Result<Option<Self>, ClusterError> {
        // Whoever makes a file owns it: our effective user, without a system call that needs `unsafe`.
        let ours = tempfile::tempfile().and_then(|file| file.metadata());
        if ours.is_ok_and(|file| file.uid() != 0) {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        NAMES.iter().find_map(|name| Self::read(&accounts, name)).map(Some).ok_or(ClusterError::NoUser)
    }

    /// One line of passwd(5): `name:password:uid:gid:…`.
    fn read(accounts: &str, name: &str) -> Option<Self> {
        accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next()? == name;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            (found && uid != 0).then(|| Self { name: name.to_owned(), uid, gid })
        })
    }

    /// Lets the command run as this user, without root's groups.
    pub(super) fn apply(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Whether every parent of the folder lets this user through.
    pub(super) fn check_reach(&self, folder: &Path) -> Result<(), ClusterError> {
        let mut command = Command::new("/bin/sh");
        self.apply(&mut command);
        command.args(["-c", "cd -- \"$1\"", "sh"]).arg(folder).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if command.status().is_ok_and(|status| status.success()) {
            return Ok(());
        }
        Err(ClusterError::Unreachable { user: self.name.clone(), path: folder.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_from_passwd_and_root_is_none() {
        let accounts =
            "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\nnobody:x:65534:65533:nobody:/:/bin/false\n";
        let nobody = User { name: "nobody".to_owned(), uid: 65534, gid: 65533 };
        assert_eq!(User::read(accounts, "nobody"), Some(nobody));
        assert_eq!(User::read(accounts, "postgres"), None);
        assert_eq!(User::read(accounts, "toor"), None);
        assert_eq!(User::read("nobody", "nobody"), None);
    }
}
