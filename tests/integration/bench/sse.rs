//! An SSE client that keeps every byte, so that tests assert whole frames.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;
use super::http::{Head, Request};

/// An open stream.
pub struct Stream {
    socket: TcpStream,
    pub head: Head,
    buffer: Vec<u8>,
    ended: bool,
}

/// One block of the stream, up to its blank line.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// As it came, the blank line included.
    pub raw: String,
    pub id: Option<String>,
    pub retry: Option<u64>,
    pub data: Option<String>,
}

impl Frame {
    fn parse(raw: String) -> Self {
        let field = |name: &str| {
            raw.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
        };
        let data = field("data");
        let many = raw.lines().filter(|line| line.starts_with("data")).count();
        assert!(many <= 1, "one data line a frame: {raw:?}");
        Self { id: field("id"), retry: field("retry").and_then(|r| r.parse().ok()), data, raw }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_else(|| panic!("no data in {:?}", self.raw));
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {data:?}"))
    }

    pub fn event_type(&self) -> Option<String> {
        let data: Value = serde_json::from_str(self.data.as_deref()?).ok()?;
        Some(data.get("type")?.as_str()?.to_owned())
    }

    pub fn is_comment(&self) -> bool {
        self.raw.starts_with(':')
    }
}

impl Stream {
    /// Sends the request and reads the head; whatever the status is.
    pub async fn open(address: SocketAddr, request: Request) -> Self {
        let (socket, head, buffer) = request.send(address).await;
        Self { socket, head, buffer, ended: false }
    }

    /// The next block, comments included; `None` when the stream has ended.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let rest = self.buffer.split_off(end + 2);
                let raw = std::mem::replace(&mut self.buffer, rest);
                return Some(Frame::parse(String::from_utf8(raw).expect("a stream is UTF-8")));
            }
            if self.ended {
                assert!(self.buffer.is_empty(), "the stream ended inside a frame: {:?}", self.buffer);
                return None;
            }
            let read = timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await;
            let read = read.unwrap_or_else(|_| panic!("no frame within {PATIENCE:?}"));
            // A worker killed on purpose resets the connection: the same end to a reader.
            self.ended = read.unwrap_or(0) == 0;
        }
    }

    /// What follows the head of an answer that is no stream.
    pub async fn body(&mut self) -> String {
        let length = self.head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while !self.ended && self.buffer.len() < length {
            let read = timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await.expect("a body");
            self.ended = read.unwrap_or(0) == 0;
        }
        String::from_utf8(std::mem::take(&mut self.buffer)).expect("a body of UTF-8")
    }

    /// The next block with data; comments and bare `retry:` blocks are passed over.
    #[track_caller]
    pub fn data(&mut self) -> impl Future<Output = Frame> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            loop {
                match self.frame().await {
                    Some(frame) if frame.data.is_some() => return frame,
                    Some(_) => {}
                    None => panic!("the stream ended while data was awaited at {caller}"),
                }
            }
        }
    }

    /// The next event of a row: `connected`, presence, keepalives, comments and how old it all is (on a busy machine)
    /// are passed over, `data.sync` is not.
    #[track_caller]
    pub fn event(&mut self) -> impl Future<Output = Frame> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            loop {
                match self.frame().await {
                    Some(frame) => match frame.event_type().as_deref() {
                        None
                        | Some(
                            "connected" | "keepalive" | "heartbeat" | "ping" | "stale" | "fresh"
                            | "presence_updated",
                        ) => {}
                        Some(_) => return frame,
                    },
                    None => panic!("the stream ended while an event was awaited at {caller}"),
                }
            }
        }
    }

    /// Events up to and including the one that `last` recognises.
    pub async fn events_until(&mut self, mut last: impl FnMut(&Frame) -> bool) -> Vec<Frame> {
        let mut events = Vec::new();
        loop {
            let event = self.event().await;
            let done = last(&event);
            events.push(event);
            if done {
                return events;
            }
        }
    }

    /// Reads to the end of the stream and returns what came.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            frames.push(frame);
        }
        frames
    }
}
