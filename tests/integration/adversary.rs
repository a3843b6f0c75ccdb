//! Somebody who means harm: forged credentials, odd requests, strange names, rows that were written to break frames.
//!
//! docs/security.md names, for each threat, the test that shows its answer.

mod emit;
mod frames;
mod page;
mod parameters;
mod requests;
mod tenants;
mod tickets;
mod tokens;

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bench::PATIENCE;
use crate::bench::http::{Request, Response};

fn native(parameters: &str) -> Request {
    Request::get(format!("/api/realtime/stream?{parameters}"))
}

/// What an answer says, but for the time at which it was given.
fn told(response: &Response) -> (u16, Vec<(String, String)>, String) {
    let timeless = response.head.headers.iter().filter(|(name, _)| name != "date").cloned();
    (response.head.status, timeless.collect(), response.body.clone())
}

/// Sends bytes as they are, and nothing more; what came back until the end of the connection.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.expect("the worker listens");
    // It may hang up before it has read everything.
    let _ = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection ends after {:.80?}", String::from_utf8_lossy(bytes));
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of the answers in what came back.
fn statuses(answer: &str) -> Vec<u16> {
    let heads = answer.split("HTTP/1.1 ").skip(1);
    heads.map(|head| head.get(..3).and_then(|status| status.parse().ok()).expect("a status")).collect()
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
