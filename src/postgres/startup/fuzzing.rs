//! What the fuzzers assert of a server that asks for authentication.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use memchr::memmem;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::task::yield_now;

use super::auth;
use crate::postgres::dsn::{ChannelBinding, Dsn};
use crate::postgres::fuzzing::{RUNTIME, connection};

const PASSWORD: &str = "the-password-of-the-fuzzer";

/// Parts what the server says: it waits for an answer there.
const WAIT: u8 = 0xFE;
/// Replaced by the client's nonce, which is as long.
const NONCE: &[u8] = b"%%%%%%%%%%%%%%%%%%%%%%%%";
/// AuthenticationCleartextPassword's kind.
const CLEARTEXT: &[u8] = &[0, 0, 0, 3];
/// Turns of the runtime after which an answer that did not come will not.
const PATIENCE: u32 = 12;
/// What a socket takes while nobody reads.
const MAX_SCRIPT: usize = 32 << 10;

/// Any bytes as those of a server that asks for a password. The password is sent as it is only where that is what was
/// asked for, and stands in no error; where a channel binding is required, nobody passes who does not know the
/// password.
pub fn authentication(data: &[u8]) {
    let Some((flags, script)) = data.split_first() else { return };
    let script = script.get(..MAX_SCRIPT).unwrap_or(script);
    let choice = ChannelBinding::ALL.get(usize::from(flags >> 1) % 3).copied().unwrap_or_default();
    let url = format!("postgres://ada:{PASSWORD}@db/app?channel_binding={}", choice.as_str());
    let dsn = Dsn::parse(&url).expect("a right URL");
    let host = dsn.hosts.first().expect("one host").clone();
    let binding = (flags & 1 == 1).then(|| vec![7; 32]);
    let (outcome, said) = RUNTIME.block_on(async {
        let (mut wire, server) = connection();
        let client = async {
            let outcome = auth::authenticate(&mut wire, &dsn, &host, binding).await;
            drop(wire);
            outcome
        };
        tokio::join!(client, serve(server, script))
    });
    let bound = choice == ChannelBinding::Require;
    match outcome {
        Ok(_) => assert!(!bound, "authenticated without a binding"),
        Err(error) => assert!(!format!("{error} {error:?}").contains(PASSWORD)),
    }
    let plainly = memmem::find(&said, PASSWORD.as_bytes()).is_some();
    let heard: Vec<u8> = script.iter().copied().filter(|byte| *byte != WAIT).collect();
    assert!(!plainly || (memmem::find(&heard, CLEARTEXT).is_some() && !bound), "the password was sent");
}

/// What the client said meanwhile.
async fn serve(mut server: UnixStream, script: &[u8]) -> Vec<u8> {
    let mut said = Vec::new();
    for part in script.split(|byte| *byte == WAIT) {
        if server.write_all(&with_nonce(part, &said)).await.is_err() {
            break;
        }
        for _ in 0..PATIENCE {
            yield_now().await;
            // Nothing yet, or the client has gone: both are seen at the next write.
            let _ = server.try_read_buf(&mut said);
        }
    }
    let _ = server.shutdown().await;
    while server.readable().await.is_ok() && server.try_read_buf(&mut said).is_ok_and(|read| read > 0) {}
    said
}

fn with_nonce(part: &[u8], said: &[u8]) -> Vec<u8> {
    let mut part = part.to_vec();
    let nonce = memmem::find(said, b"r=").and_then(|at| said.get(at + 2..)?.get(..NONCE.len()));
    if let (Some(at), Some(nonce)) = (memmem::find(&part, NONCE), nonce) {
        part.splice(at..at + NONCE.len(), nonce.iter().copied());
    }
    part
}
