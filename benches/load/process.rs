//! Child processes under measure: their CPU time, their memory, their end.

use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long a child may take to say its first line.
const START: Duration = Duration::from_secs(60);

/// A server that was started, and the processes that do its work.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    /// Beside the child itself.
    workers: Vec<u32>,
}

impl Process {
    /// Starts it; it dies with us. What it says on stderr is ours to hear.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| anyhow::anyhow!("{command:?}: {error}"))?;
        let stdout = child.stdout.take().expect("piped");
        Ok(Self {
            stdin: child.stdin.take(),
            lines: BufReader::new(stdout).lines(),
            child,
            workers: Vec::new(),
        })
    }

    /// The next line that it says.
    pub async fn line(&mut self) -> anyhow::Result<String> {
        let line = timeout(START, self.lines.next_line()).await??;
        line.ok_or_else(|| anyhow::anyhow!("the process ended"))
    }

    /// As [`line`](Self::line), for as long as it takes.
    pub async fn last_line(&mut self) -> anyhow::Result<String> {
        let line = self.lines.next_line().await?;
        line.ok_or_else(|| anyhow::anyhow!("the process ended"))
    }

    pub async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().expect("not closed");
        stdin.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(stdin.flush().await?)
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Counts its children as parts of it, once it has `count`.
    pub async fn adopt(&mut self, count: usize) -> anyhow::Result<()> {
        let pid = self.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let began = Instant::now();
        while self.workers.len() < count {
            ensure!(began.elapsed() < START, "{} of {count} children after {START:?}", self.workers.len());
            sleep(Duration::from_millis(10)).await;
            let children = std::fs::read_to_string(&path)?;
            self.workers = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        }
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.pid()).chain(self.workers.iter().copied())
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Duration {
        self.all().map(cpu).sum()
    }

    /// Resident bytes now.
    pub fn resident(&self) -> u64 {
        self.all().map(|pid| status(pid, "VmRSS:")).sum()
    }

    /// The most resident bytes that there have been since the start or [`forget_peak`](Self::forget_peak).
    pub fn peak(&self) -> u64 {
        self.all().map(|pid| status(pid, "VmHWM:")).sum()
    }

    /// Lets the peak start again from now.
    pub fn forget_peak(&self) {
        for pid in self.all() {
            let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(mut self) {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if timeout(Duration::from_secs(10), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// User and system time of all its threads, ended ones too.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime and stime are fields 14 and 15 of the line, in ticks of 1/100 s.
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
