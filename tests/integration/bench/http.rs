//! Requests as bytes: what is sent and what comes back is asserted whole.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// A request to be sent over a connection of its own.
#[derive(Clone, Debug)]
pub struct Request {
    method: &'static str,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// A response's head.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    pub head: Head,
    pub body: String,
}

impl Request {
    pub fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    pub fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: Vec::new(), body: String::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// A JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json").body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("Content-Length", &length)
    }

    /// Sends it and reads the head; what followed the head is returned beside it.
    pub async fn send(self, address: SocketAddr) -> (TcpStream, Head, Vec<u8>) {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {address}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(&self.body);
        let mut socket = TcpStream::connect(address).await.expect("the worker listens");
        socket.write_all(text.as_bytes()).await.expect("the request is taken");
        let mut buffer = Vec::new();
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            let read = timeout(PATIENCE, socket.read_buf(&mut buffer)).await;
            let read = read.unwrap_or_else(|_| panic!("no head within {PATIENCE:?} for {text:?}"));
            assert!(read.expect("a head") > 0, "the connection ended inside the head: {buffer:?}");
        };
        let body = buffer.split_off(end);
        (socket, Head::parse(&buffer), body)
    }

    /// Sends it and reads the whole answer.
    pub async fn fetch(self, address: SocketAddr) -> Response {
        let method = self.method;
        let (mut socket, head, mut body) = self.header("Connection", "close").send(address).await;
        let bodyless = method == "HEAD" || head.status == 204;
        if !bodyless {
            let all = timeout(PATIENCE, socket.read_to_end(&mut body)).await;
            all.expect("a whole body").expect("a readable body");
        }
        Response { head, body: String::from_utf8(body).expect("a body of UTF-8") }
    }
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).expect("a head of UTF-8");
        let mut lines = text.trim_end().split("\r\n");
        let status_line = lines.next().expect("a status line");
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("a header: {line:?}"));
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self {
            status: status.unwrap_or_else(|| panic!("a status: {status_line:?}")),
            headers: lines.map(header).collect(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Response {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// Status and the stable code of an error.
    #[track_caller]
    pub fn error(&self) -> (u16, String) {
        let body = self.json();
        let code = body["error"].as_str().unwrap_or_else(|| panic!("an error: {body}"));
        assert!(body["message"].is_string(), "an error has a message: {body}");
        (self.head.status, code.to_owned())
    }
}
