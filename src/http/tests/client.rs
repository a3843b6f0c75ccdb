//! A client that hides nothing: what it sends is written out, what it got is text.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing that is awaited takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Client {
    pub(super) socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self { socket: TcpStream::connect(address).await.unwrap(), buffer: Vec::new() }
    }

    pub(super) async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            request.push_str("host: walcast.example.com\r\n");
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.send_raw(request.as_bytes()).await;
    }

    pub(super) async fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// What comes up to and with `end`.
    pub(super) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, end.as_bytes()) {
                let rest = self.buffer.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.buffer, rest)).unwrap();
            }
            let read = timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await;
            let read = read.unwrap_or_else(|_| panic!("no {end:?} in {:?}", self.buffered()));
            assert_ne!(read.unwrap(), 0, "ended without {end:?}: {:?}", self.buffered());
        }
    }

    /// Everything until the server closes.
    pub(super) async fn rest(&mut self) -> String {
        let read = timeout(PATIENCE, self.socket.read_to_end(&mut self.buffer)).await;
        read.unwrap_or_else(|_| panic!("not closed after {:?}", self.buffered())).unwrap();
        String::from_utf8(std::mem::take(&mut self.buffer)).unwrap()
    }

    /// The next block, its clock and jitter as 0.
    pub(super) async fn frame(&mut self) -> String {
        timeless(&self.until("\n\n").await)
    }

    /// Reads the first frame.
    pub(super) async fn connected(&mut self) -> String {
        let frame = self.frame().await;
        assert!(frame.contains("\"type\":\"connected\""), "{frame}");
        frame
    }

    fn buffered(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

pub(super) fn timeless(text: &str) -> String {
    let text = zeroed(text, "\"timestamp\":");
    zeroed(&text, "\"delayMs\":")
}

/// `text` with the digits after each `name` as 0.
pub(super) fn zeroed(text: &str, name: &str) -> String {
    let mut parts = text.split(name);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        out.push_str(name);
        out.push_str(if rest.len() < part.len() { "0" } else { "" });
        out.push_str(rest);
    }
    out
}

pub(super) fn dateless(answer: &str) -> String {
    let lines = answer.split("\r\n").map(|line| if line.starts_with("date: ") { "date: D" } else { line });
    lines.collect::<Vec<_>>().join("\r\n")
}
