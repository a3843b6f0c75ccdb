//! Programs that a test needs and a machine may not have. A test without its program says so where it is seen, and passes.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::process::Command;

/// Below the ports that the kernel hands out, so that one can be left and taken again.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;

/// The program's path, when this machine has it.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian's place for servers, which is not in everybody's PATH.
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    places.map(|place| place.join(name)).find(|file| file.is_file())
}

/// Says on the terminal that a test was not run: past the capture of a test's output, which a passing test never shows.
pub fn skipped(test: &str, why: &str) {
    // On a line of its own: the dots of a quiet run have none.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED {test}: {why}");
}

/// What the program says of its version, without what it was built from.
pub async fn version(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output().await.expect("it runs");
    // nginx tells it on standard error.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    let line = line.split_once(" (").map_or(line, |(words, _)| words);
    line.split_once(" built on ").map_or(line, |(words, _)| words).trim().to_owned()
}

/// A child that ends with the test.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A port of loopback that nobody has now, and that the kernel gives to nobody else.
pub fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id() % u32::from(PORTS)).unwrap_or_default();
    for _ in 0..PORTS {
        let offset = (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT + offset));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port");
}

/// A certificate for 127.0.0.1 that nobody signed but itself: `cert.pem` and `key.pem` in the folder.
pub fn certificate(folder: &Path) {
    let made = std::process::Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout key.pem -out cert.pem".split(' '))
        .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
        .current_dir(folder)
        .stderr(Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "openssl makes a certificate");
}
