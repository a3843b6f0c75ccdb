//! What a fuzzer is given of this module: bytes as a server would send them, in pieces.

use super::super::pgoutput::{self, LongMessages};
use super::super::socket::Socket;
use super::super::wire::Wire;
use super::{ReplicationMessage, ReplicationStream};

/// Reads messages from `bytes`, which come in pieces of `piece` bytes, until they end or are refused.
///
/// # Panics
/// Outside of a runtime.
#[expect(clippy::unwrap_used, reason = "a pair of sockets is made of nothing that could fail")]
pub fn read_stream(bytes: &[u8], piece: usize, long_bytes: usize) {
    let (socket, _server) = tokio::net::UnixStream::pair().unwrap();
    let mut wire = Wire::new(Socket::Unix(socket));
    wire.set_authenticated();
    let keep = LongMessages { prefix: "walcast", max_bytes: long_bytes };
    let mut stream = ReplicationStream { wire, keep, long: None, long_above: long_bytes };
    for piece in bytes.chunks(piece.max(1)) {
        stream.wire.input().extend_from_slice(piece);
        loop {
            match stream.try_next() {
                Ok(Some(ReplicationMessage::XLogData(data))) => drop(pgoutput::decode(data.data)),
                Ok(Some(ReplicationMessage::Keepalive(_))) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}
