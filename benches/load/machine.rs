//! What the figures were made on, and what the machine must allow.

use std::process::Command;

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that the largest crowd and its servers need in one process.
const FILES: u64 = 18_500;

/// Raises the limit of open files as far as it goes; servers inherit it.
pub fn raise_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(FILES * 2);
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })?;
    ensure!(wanted >= FILES, "{wanted} open files are allowed, {FILES} are needed: ulimit -Hn");
    Ok(())
}

/// One line.
pub fn description(postgres: &str) -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches(['\t', ' ', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let mut parts = vec![
        format!("{cores} cores ({model})"),
        format!("Linux {}", kernel.trim()),
        postgres.to_owned(),
        format!("walcast {} ({profile})", env!("CARGO_PKG_VERSION")),
        said("rustc", &["--version"]),
        said("node", &["--version"]).replacen('v', "Node ", 1),
        said("java", &["--version"]),
        said("/usr/sbin/nginx", &["-v"]).replace("nginx version: nginx/", "nginx "),
    ];
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

/// The first line of what a program says of itself; empty where it is missing.
fn said(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}
