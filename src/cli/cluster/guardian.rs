//! The shell that keeps a server: it does what the pipe says and stops the server when the pipe ends.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::ClusterError;
use super::binaries::Binaries;
use super::folder::{Folder, at};
use super::user::User;

/// `$1` the server's program, `$2` the folder; the rest is removed at the end. The server is the guardian's own child:
/// it is waited for, and no zombie keeps `postmaster.pid` alive where nobody reaps. It gets none of the guardian's
/// pipes: one held open by it would look like us still being there. `ready` is what pg_ctl looks for too. A killed
/// postmaster's children hold its shared memory for a moment, and a new one refuses to start beside them.
const SCRIPT: &str = r#"
postgres=$1 folder=$2 pid= killed=
shift 2
cd "$folder" || exit 1
once() {
    "$postgres" -D data </dev/null >>postgres.log 2>&1 &
    pid=$!
    until grep -q '^ready' data/postmaster.pid 2>/dev/null && grep -q "^$pid\$" data/postmaster.pid; do
        kill -0 "$pid" 2>/dev/null || { wait "$pid"; pid=; return 1; }
        sleep 0.05
    done
}
start() {
    tries=0
    until once; do
        tries=$((tries + 1))
        [ -n "$killed" ] && [ $tries -lt 100 ] || return 1
        sleep 0.1
    done
    killed=
}
end() {
    [ -n "$pid" ] || return 0
    kill "-$1" "$pid" 2>/dev/null
    wait "$pid"
    pid=
}
while read -r order; do
    case $order in
        start) start ;;
        fast) end INT ;;
        immediate) end QUIT ;;
        kill) killed=1; end KILL ;;
        keep) set -- ;;
    esac
    if [ $? = 0 ]; then echo done; else echo failed; fi
done
if [ $# -gt 0 ]; then end QUIT; else end INT; fi
cd /
[ $# = 0 ] || rm -rf -- "$@" 2>/dev/null
"#;

/// How much of the server's log a failed start tells.
const TOLD_LINES: usize = 12;

#[derive(Debug)]
pub(super) struct Guardian {
    child: Child,
    /// Taken when the guardian is to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
}

impl Guardian {
    pub(super) fn spawn(
        binaries: &Binaries,
        user: Option<&User>,
        folder: &Folder,
    ) -> Result<Self, ClusterError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "walcast-postgres"]);
        command.arg(binaries.program("postgres")).arg(&folder.path).args(&folder.doomed);
        if let Some(user) = user {
            user.apply(&mut command);
        }
        let mut child = command
            .current_dir("/")
            .env("LC_ALL", "C")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(at(&folder.path))?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take().ok_or(ClusterError::Gone)?);
        Ok(Self { child, orders, answers: BufReader::new(answers), folder: folder.path.clone() })
    }

    /// Sends one order and waits for it to be done.
    pub(super) fn ask(&mut self, request: &str) -> Result<(), ClusterError> {
        let orders = self.orders.as_mut().ok_or(ClusterError::Gone)?;
        writeln!(orders, "{request}").map_err(|_| ClusterError::Gone)?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(|_| ClusterError::Gone)?;
        match answer.trim_end() {
            "done" => Ok(()),
            "" => Err(ClusterError::Gone),
            _ => Err(ClusterError::Failed { what: "PostgreSQL", output: self.told() }),
        }
    }

    /// Takes the guardian's duty to remove the folder from it.
    pub(super) fn leave_files(&mut self) {
        let _ = self.ask("keep");
    }

    fn told(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("postgres.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.iter().skip(lines.len().saturating_sub(TOLD_LINES)).copied().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Guardian {
    /// Ends the pipe and waits: when this returns, no process is left.
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}
