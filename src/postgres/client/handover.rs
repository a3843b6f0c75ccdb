//! A session that we started, as tokio-postgres expects to start it.
//!
//! tokio-postgres speaks no verify-full, and will not take over an authenticated session. So it is given a stream on
//! which its startup message goes nowhere and the answers are those that our own startup got.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::postgres::socket::Socket;
use crate::postgres::startup::Session;

#[derive(Debug)]
pub(super) struct Handover {
    socket: Socket,
    /// AuthenticationOk to ReadyForQuery, and whatever was read beyond.
    replay: Bytes,
    startup: Startup,
}

/// How much of the startup message has been swallowed.
#[derive(Debug)]
enum Startup {
    /// Its length field, as far as it was seen.
    Length {
        bytes: [u8; 4],
        seen: usize,
    },
    Body {
        missing: usize,
    },
    Done,
}

impl Handover {
    pub(super) fn new(session: Session) -> Self {
        let (socket, unread) = session.wire.into_parts();
        let mut replay: BytesMut = session.prelude;
        replay.extend_from_slice(&unread);
        Self { socket, replay: replay.freeze(), startup: Startup::Length { bytes: [0; 4], seen: 0 } }
    }
}

impl Startup {
    /// How many of these bytes belong to the startup message.
    fn swallow(&mut self, mut buf: &[u8]) -> usize {
        let given = buf.len();
        if let Self::Length { bytes, seen } = self {
            while let (Some(slot), Some((byte, rest))) = (bytes.get_mut(*seen), buf.split_first()) {
                *slot = *byte;
                *seen += 1;
                buf = rest;
            }
            if *seen == bytes.len() {
                // The length counts itself.
                let length = usize::try_from(u32::from_be_bytes(*bytes)).unwrap_or(usize::MAX);
                *self = Self::Body { missing: length.saturating_sub(bytes.len()) };
            }
        }
        if let Self::Body { missing } = self {
            let taken = buf.len().min(*missing);
            *missing -= taken;
            buf.advance(taken);
            if *missing == 0 {
                *self = Self::Done;
            }
        }
        given - buf.len()
    }
}

impl AsyncRead for Handover {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.replay.is_empty() {
            return Pin::new(&mut this.socket).poll_read(cx, buf);
        }
        let given = this.replay.split_to(this.replay.len().min(buf.remaining()));
        buf.put_slice(&given);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Handover {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.startup {
            Startup::Done => Pin::new(&mut this.socket).poll_write(cx, buf),
            _ => Poll::Ready(Ok(this.startup.swallow(buf))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn startup_message_is_swallowed_whatever_its_pieces() {
        let message = [&[0, 0, 0, 9][..], b"hello", b"Query"].concat();
        for piece in 1..=message.len() {
            let mut startup = Startup::Length { bytes: [0; 4], seen: 0 };
            let (mut swallowed, mut rest) = (0, &message[..]);
            while !matches!(startup, Startup::Done) {
                let taken = startup.swallow(&rest[..piece.min(rest.len())]);
                assert!(taken > 0);
                swallowed += taken;
                rest = &rest[taken..];
            }
            assert_eq!((swallowed, rest), (9, &b"Query"[..]), "pieces of {piece}");
        }
    }
}
