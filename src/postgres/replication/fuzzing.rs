//! What the fuzzers assert of a walsender's bytes: the stream, and the answers to commands.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use tokio::io::AsyncWriteExt;

use super::message::ReplicationMessage;
use super::query::simple_query;
use super::stream::ReplicationStream;
use crate::postgres::fuzzing::{RUNTIME, connection};
use crate::postgres::pgoutput::LongMessages;

/// Bytes above which a message is read as it arrives, and of one that is kept: few, so that both ways are met.
const LONG_BYTES: usize = 40;

/// What a socket takes while nobody reads.
const MAX_ANSWER: usize = 64 << 10;

/// Any bytes as a server's, after START_REPLICATION. The messages are the same however the bytes are cut: the first of
/// them says how.
pub fn frames(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    RUNTIME.block_on(async {
        let whole = read(bytes, bytes.len().max(1));
        assert_eq!(read(bytes, usize::from(*piece).max(1)), whole);
        // Lets the runtime forget the sockets.
        tokio::task::yield_now().await;
    });
}

/// Up to the first error.
fn read(bytes: &[u8], piece: usize) -> Vec<Result<ReplicationMessage, String>> {
    let (mut wire, _server) = connection();
    wire.set_authenticated();
    let keep = LongMessages { prefix: "walcast", max_bytes: LONG_BYTES };
    let mut stream = ReplicationStream::new(wire, keep).reading_above(LONG_BYTES);
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece) {
        stream.receive(piece);
        loop {
            match stream.try_next() {
                Ok(Some(message)) => messages.push(Ok(message)),
                Ok(None) => break,
                Err(error) => {
                    messages.push(Err(error.to_string()));
                    return messages;
                }
            }
        }
    }
    messages
}

/// Any bytes as the answer to a command: rows as wide as their description, or an error.
pub fn answers(data: &[u8]) {
    let data = data.get(..MAX_ANSWER).unwrap_or(data);
    RUNTIME.block_on(async {
        let (mut wire, mut server) = connection();
        wire.set_authenticated();
        server.write_all(data).await.expect("there is room");
        server.shutdown().await.expect("open until here");
        match simple_query(&mut wire, "IDENTIFY_SYSTEM").await {
            Ok(rows) => {
                for row in rows {
                    assert!(row.values().len() <= data.len());
                    assert!(row.get("systemid").is_none_or(|text| text.len() <= data.len()));
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}
