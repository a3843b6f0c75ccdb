//! A stream's socket: vectored writes that end when the client takes nothing, and input that is dropped.

use std::io::{self, ErrorKind, IoSlice};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::state::{Phase, State};
use crate::telemetry::metrics::End;

/// Pieces handed to one write call; the kernel takes up to 1024.
const MAX_PIECES: usize = 64;

#[derive(Debug)]
pub(super) struct Sink {
    socket: TcpStream,
    last_write: Instant,
}

impl Sink {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, last_write: Instant::now() }
    }

    pub(super) const fn last_write(&self) -> Instant {
        self.last_write
    }

    /// Writes all of it. A client that takes nothing for `http.write_timeout`, or to whom nothing may be sent any
    /// more because its token ran out meanwhile, is given up where it stands.
    pub(super) async fn write(
        &mut self,
        state: &State,
        mut frames: Vec<Bytes>,
        expires: Instant,
    ) -> Result<(), End> {
        let metrics = &state.services.metrics;
        let mut first = 0;
        let mut progress = Instant::now();
        while first < frames.len() {
            match write_some(&self.socket, frames.get(first..).unwrap_or_default()) {
                Ok(written) => {
                    metrics.writes.inc();
                    metrics.bytes_written.inc_by(u64::try_from(written).unwrap_or(u64::MAX));
                    progress = Instant::now();
                    advance(&mut frames, &mut first, written);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable(state, progress + state.http.write_timeout, expires).await?;
                }
                Err(error) => return Err(broken(&error)),
            }
        }
        self.last_write = progress;
        Ok(())
    }

    async fn writable(&self, state: &State, given_up: Instant, expires: Instant) -> Result<(), End> {
        let mut phase = state.phase.subscribe();
        tokio::select! {
            biased;
            writable = self.socket.writable() => writable.map_err(|error| broken(&error)),
            () = sleep_until(given_up.min(expires)) => {
                Err(if expires < given_up { End::expired } else { End::write_timeout })
            }
            _ = phase.wait_for(|phase| *phase == Phase::Closed) => Err(End::drained),
        }
    }

    /// Says that nothing more comes.
    pub(super) async fn close(&mut self) {
        let _ = self.socket.shutdown().await;
    }

    /// Waits until there is input, which may be its end.
    pub(super) async fn readable(&self) {
        // An error is found by the read that follows.
        let _ = self.socket.readable().await;
    }

    /// Drops what was sent, and says how much it was.
    pub(super) fn discard(&self) -> Result<usize, End> {
        let mut input = [0; 1024];
        match self.socket.try_read(&mut input) {
            Ok(0) => Err(End::client_closed),
            Ok(read) => Ok(read),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(broken(&error)),
        }
    }
}

/// What a socket's error means. The kernel gives a client up after `http.write_timeout` too (`TCP_USER_TIMEOUT`), and
/// may be first.
fn broken(error: &io::Error) -> End {
    if error.kind() == ErrorKind::TimedOut { End::write_timeout } else { End::client_closed }
}

/// One write call over as many pieces as it takes.
fn write_some(socket: &TcpStream, frames: &[Bytes]) -> io::Result<usize> {
    if let [frame] = frames {
        return socket.try_write(frame);
    }
    let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
    for (piece, frame) in pieces.iter_mut().zip(frames) {
        *piece = IoSlice::new(frame);
    }
    socket.try_write_vectored(pieces.get(..frames.len().min(MAX_PIECES)).unwrap_or(&pieces))
}

/// Moves past `written` bytes; frames that are written let go of their memory.
fn advance(frames: &mut [Bytes], first: &mut usize, mut written: usize) {
    while let Some(frame) = frames.get_mut(*first) {
        if written < frame.len() {
            frame.advance(written);
            return;
        }
        written -= frame.len();
        *frame = Bytes::new();
        *first += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_write_goes_on_where_it_stopped() {
        let mut frames: Vec<Bytes> = ["ab", "cde", "", "f"].map(Bytes::from).into();
        let mut first = 0;
        advance(&mut frames, &mut first, 3);
        assert_eq!((first, &frames[1][..]), (1, &b"de"[..]));
        advance(&mut frames, &mut first, 2);
        assert_eq!(first, 3);
        advance(&mut frames, &mut first, 1);
        assert_eq!(first, 4);
    }
}
