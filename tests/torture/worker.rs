//! The program itself, as its users run it: the worker, and `walcast setup`.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use walcast::source::Kind;

/// Signs the tokens of the run.
const JWT_SECRET: &str = "a secret of the torture test, long enough for HS256";

/// The worker's role: it may do what `walcast setup --role` grants, and nothing else.
pub const ROLE: &str = "worker";

/// A member of every organization whom nobody touches: who looks on for the run itself.
pub const WITNESS: &str = "eve";

const SILENCE: Duration = Duration::from_secs(5);

/// How every worker of a run is started.
#[derive(Clone, Debug)]
pub struct Program {
    pub source: Kind,
    /// `replay.max_memory`.
    pub memory: &'static str,
}

impl Program {
    /// A worker: short windows, so that what falls out of them is part of the run.
    pub fn spawn(&self, url: &str, address: SocketAddr) -> Child {
        let log = std::env::var_os("WALCAST_TORTURE_LOG").map(|path| {
            std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the log can be written")
        });
        self.command(url)
            .args(["run", "--reference"])
            .env("WALCAST_ACCESS_JWT_SECRET", JWT_SECRET)
            .env("WALCAST_HTTP_LISTEN", address.to_string())
            .env("WALCAST_HTTP_DRAIN", "300ms")
            .env("WALCAST_HTTP_KEEPALIVE", "2s")
            .env("WALCAST_HTTP_WRITE_TIMEOUT", "3s")
            .env("WALCAST_REPLAY_MAX_AGE", "15s")
            .env("WALCAST_REPLAY_MAX_MEMORY", self.memory)
            .env("WALCAST_CANARY_INTERVAL", "500ms")
            .env("WALCAST_CANARY_STALE_AFTER", "2s")
            .env("WALCAST_LIMITS_STREAMS_PER_USER", "0")
            .env("WALCAST_LIMITS_STREAMS_PER_ADDRESS", "0")
            .env("NO_COLOR", "1")
            .stderr(log.map_or_else(Stdio::null, Stdio::from))
            .spawn()
            .expect("the worker's binary")
    }

    /// `walcast setup` by the superuser whose URL it is.
    pub async fn set_up(&self, url: &str) {
        let args = ["setup", "--reference", "--role", ROLE];
        let done = self.command(url).args(args).stderr(Stdio::piped()).output().await.expect("walcast");
        assert!(done.status.success(), "walcast setup: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn command(&self, url: &str) -> Command {
        let kept = ["PATH", "HOME", "USER", "TMPDIR"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_walcast"));
        command
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| kept.contains(&name.as_str())))
            .env("DATABASE_URL", url)
            .env("WALCAST_SOURCE_KIND", self.source.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

pub fn token(user: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
    let claims = json!({ "sub": user, "exp": now + 86_400 });
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")
}

/// An address that nobody listens on.
pub async fn free_address() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("its address")
}

pub async fn is_ready(address: SocketAddr) -> bool {
    let asked = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: torture\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(SILENCE, asked).await.ok().and_then(Result::ok).unwrap_or_default();
    answer.ends_with("ready") || answer.ends_with("degraded")
}

/// The epoch of a stream of the witness that begins now.
pub async fn epoch(address: SocketAddr) -> Option<String> {
    let found = timeout(SILENCE, async {
        let mut stream = Witness::open(address, "north", "").await.ok()?;
        while stream.more().await.ok()? > 0 {
            let text = String::from_utf8_lossy(&stream.seen);
            // The first frame, whole.
            let id = text.split_once("\nid: ").and_then(|(_, rest)| rest.split_once('\n'));
            if let Some((id, _)) = id {
                return id.split_once('.').map(|(epoch, _)| epoch.to_owned());
            }
        }
        None
    });
    found.await.ok().flatten()
}

/// Whether a stream of the witness shows this within that time; it looks back as far as it can.
pub async fn shows(address: SocketAddr, organization: &str, wanted: &str, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let shown = timeout(deadline - Instant::now(), search(address, organization, wanted)).await;
        if shown.is_ok_and(|shown| shown.unwrap_or(false)) {
            return true;
        }
        sleep(Duration::from_millis(200)).await;
    }
    false
}

async fn search(address: SocketAddr, organization: &str, wanted: &str) -> std::io::Result<bool> {
    let mut stream = Witness::open(address, organization, "&types=torture&since=earliest").await?;
    while stream.more().await? > 0 {
        if memchr::memmem::find(&stream.seen, wanted.as_bytes()).is_some() {
            return Ok(true);
        }
        stream.seen.drain(..stream.seen.len().saturating_sub(wanted.len()));
    }
    Ok(false)
}

struct Witness {
    socket: TcpStream,
    seen: Vec<u8>,
}

impl Witness {
    async fn open(address: SocketAddr, organization: &str, query: &str) -> std::io::Result<Self> {
        let mut socket = TcpStream::connect(address).await?;
        let request = format!(
            "GET /api/realtime/stream?organizationId={organization}{query} HTTP/1.1\r\nHost: torture\r\n\
             Accept: text/event-stream\r\nAuthorization: Bearer {}\r\n\r\n",
            token(WITNESS)
        );
        socket.write_all(request.as_bytes()).await?;
        Ok(Self { socket, seen: Vec::new() })
    }

    async fn more(&mut self) -> std::io::Result<usize> {
        self.socket.read_buf(&mut self.seen).await
    }
}
