//! A stream's socket: vectored writes that end when the client takes nothing, and input that is dropped.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::expiry::Expiry;
use super::state::{Phase, State};
use crate::hub::{self, Outlet, Stream};
use crate::telemetry::metrics::End;

/// Pieces handed to one write call; the kernel takes up to 1024.
const MAX_PIECES: usize = 64;

/// The end of a line and an empty line.
const FRAME_END: &[u8] = b"\n\n";

/// The way to a client, until its token runs out.
#[derive(Debug)]
pub(super) struct Client {
    socket: TcpStream,
    expiry: Arc<Expiry>,
}

impl Client {
    pub(super) fn new(socket: TcpStream, expiry: Arc<Expiry>) -> Arc<Self> {
        Arc::new(Self { socket, expiry })
    }

    pub(super) fn expiry(&self) -> &Expiry {
        &self.expiry
    }
}

impl Outlet for Client {
    fn until(&self) -> u64 {
        self.expiry.at()
    }

    fn offer(&self, frames: &[Bytes]) -> usize {
        // Past tokio, which would look up in another place whether the socket was ready last time. An error, or a full
        // socket, is found by the stream's own write.
        let one = |piece: &[u8]| Ok(send(&self.socket, piece, SendFlags::empty())?);
        let many = |pieces: &[IoSlice<'_>]| {
            Ok(sendmsg(&self.socket, pieces, &mut SendAncillaryBuffer::default(), SendFlags::empty())?)
        };
        write_some(frames, 0, one, many).unwrap_or(0)
    }
}

#[derive(Debug)]
pub(super) struct Sink {
    client: Arc<Client>,
    last_write: Instant,
}

impl Sink {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client, last_write: Instant::now() }
    }

    pub(super) fn expiry(&self) -> &Expiry {
        self.client.expiry()
    }

    pub(super) const fn last_write(&self) -> Instant {
        self.last_write
    }

    /// Writes all of it, the last piece ending with a frame. A client that takes nothing for `http.write_timeout`, or to
    /// whom nothing may be sent any more because its token ran out meanwhile, is given up where it stands. When the
    /// stream is ended meanwhile, what is left is the rest of the frame that was begun.
    pub(super) async fn write(
        &mut self,
        state: &State,
        frames: Vec<Bytes>,
        stream: Option<&Stream>,
    ) -> Result<(), End> {
        self.write_rest(state, Remaining::new(frames), stream).await
    }

    /// As [`write`](Self::write), of frames whose beginning was written by a courier; `cut`, only to the end of the one
    /// that was begun.
    pub(super) async fn go_on(
        &mut self,
        state: &State,
        rest: hub::Rest,
        cut: bool,
        stream: &Stream,
    ) -> Result<(), End> {
        let hub::Rest { frames, written } = rest;
        let mut rest = Remaining::new(frames);
        rest.advance(written);
        if cut || stream.handle().is_ending() {
            rest.cut();
        }
        self.write_rest(state, rest, Some(stream)).await
    }

    async fn write_rest(
        &mut self,
        state: &State,
        mut rest: Remaining,
        mut stream: Option<&Stream>,
    ) -> Result<(), End> {
        let metrics = &state.services.metrics;
        // Since when it has been taking nothing.
        let mut stuck = None;
        while let Some(pieces) = rest.pieces() {
            let socket = &self.client.socket;
            let one = |piece: &[u8]| socket.try_write(piece);
            let many = |pieces: &[IoSlice<'_>]| socket.try_write_vectored(pieces);
            match write_some(pieces, rest.written, one, many) {
                Ok(written) => {
                    metrics.writes.inc();
                    metrics.bytes_written.inc_by(u64::try_from(written).unwrap_or(u64::MAX));
                    stuck = None;
                    rest.advance(written);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let given_up = *stuck.get_or_insert_with(Instant::now) + state.http.write_timeout;
                    // Apart: few streams are stuck at a time, and those that are not need no room for it.
                    let writable = Box::pin(self.writable(state, given_up, stream));
                    if let Wait::Ended = writable.await? {
                        rest.cut();
                        stream = None;
                    }
                }
                Err(error) => return Err(broken(&error)),
            }
        }
        self.last_write = Instant::now();
        Ok(())
    }

    async fn writable(&self, state: &State, given_up: Instant, stream: Option<&Stream>) -> Result<Wait, End> {
        let expiry = self.expiry();
        let ended = async {
            match stream {
                Some(stream) => stream.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(ended);
        let mut phase = state.phase.subscribe();
        loop {
            let expires = expiry.deadline();
            tokio::select! {
                // What ends the stream first: a client that takes bytes again must not be given more of them.
                biased;
                _ = &mut ended => return Ok(Wait::Ended),
                () = sleep_until(given_up.min(expires)) => {
                    if given_up <= Instant::now() {
                        return Err(End::write_timeout);
                    }
                    if expiry.remaining().is_zero() {
                        return Err(End::expired);
                    }
                }
                () = expiry.moved() => {}
                writable = self.client.socket.writable() => {
                    return writable.map(|()| Wait::Writable).map_err(|error| broken(&error));
                }
                _ = phase.wait_for(|phase| *phase == Phase::Closed) => return Err(End::drained),
            }
        }
    }

    /// Says that nothing more comes.
    pub(super) fn close(&self) {
        let _ = socket2::SockRef::from(&self.client.socket).shutdown(Shutdown::Write);
    }

    /// Waits until there is input, which may be its end.
    pub(super) async fn readable(&self) {
        // An error is found by the read that follows. (Not by `readable`: what polled the socket before would be kept as
        // long as its waker is, in the place that this takes.)
        let _ = poll_fn(|context| self.client.socket.poll_read_ready(context)).await;
    }

    /// Drops what was sent, and says how much it was.
    pub(super) fn discard(&self) -> Result<usize, End> {
        let mut input = [0; 1024];
        match self.client.socket.try_read(&mut input) {
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

/// What a full socket was waited for.
enum Wait {
    Writable,
    Ended,
}

/// What is left of a write.
struct Remaining {
    frames: Vec<Bytes>,
    /// The piece that is being written, and how much of it was.
    first: usize,
    written: usize,
    /// The last piece that was written ends inside a frame.
    open: bool,
}

impl Remaining {
    const fn new(frames: Vec<Bytes>) -> Self {
        Self { frames, first: 0, written: 0, open: false }
    }

    fn pieces(&self) -> Option<&[Bytes]> {
        self.frames.get(self.first..).filter(|pieces| !pieces.is_empty())
    }

    /// Moves past `written` bytes; pieces that are written let go of their memory.
    fn advance(&mut self, written: usize) {
        self.written += written;
        while let Some(piece) = self.frames.get_mut(self.first) {
            if self.written < piece.len() {
                return;
            }
            self.written -= piece.len();
            if !piece.is_empty() {
                self.open = !piece.ends_with(FRAME_END);
            }
            *piece = Bytes::new();
            self.first += 1;
        }
    }

    /// Leaves out all that does not belong to the frame that was begun, which may go on in the next pieces.
    fn cut(&mut self) {
        let mut begun = self.open || self.written > 0;
        // A frame ends with an empty line; one that ended just here begins two bytes before.
        let mut from = self.written.saturating_sub(FRAME_END.len());
        let mut kept = self.first;
        while let Some(piece) = self.frames.get_mut(kept).filter(|_| begun) {
            if let Some(end) = piece.get(from..).and_then(|rest| memmem::find(rest, FRAME_END)) {
                piece.truncate(from + end + FRAME_END.len());
                begun = false;
            }
            from = 0;
            kept += 1;
        }
        self.frames.truncate(kept);
        self.advance(0);
    }
}

/// One write call over as many pieces as it takes, of which `written` bytes of the first are: `one` where there is one,
/// else `many`.
fn write_some(
    pieces: &[Bytes],
    written: usize,
    one: impl FnOnce(&[u8]) -> io::Result<usize>,
    many: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
) -> io::Result<usize> {
    let rest_of_first = pieces.first().and_then(|first| first.get(written..)).unwrap_or_default();
    if pieces.len() == 1 {
        return one(rest_of_first);
    }
    let mut slices = [IoSlice::new(&[]); MAX_PIECES];
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        *slice = IoSlice::new(piece);
    }
    if let Some(first) = slices.first_mut() {
        *first = IoSlice::new(rest_of_first);
    }
    many(slices.get(..pieces.len().min(MAX_PIECES)).unwrap_or(&slices))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(pieces: &[&'static str]) -> Remaining {
        Remaining::new(pieces.iter().copied().map(Bytes::from).collect())
    }

    #[test]
    fn a_partial_write_goes_on_where_it_stopped() {
        let mut rest = rest(&["ab", "cde", "", "f"]);
        rest.advance(3);
        assert_eq!((rest.first, rest.written), (1, 1));
        rest.advance(2);
        assert_eq!((rest.first, rest.written), (3, 0));
        rest.advance(1);
        assert!(rest.pieces().is_none());
    }

    #[test]
    fn a_write_that_is_cut_short_ends_with_the_frame_that_was_begun() {
        let apart = ["data: a\n\ndata: b\n\n", "data: c\n\ndata: d\n\n"];
        let across = ["data: a\n\nda", "ta", ": b\n\n", "data: c\n\n"];
        let cases = [&apart[..], &across[..]];
        for (pieces, written) in
            cases.iter().flat_map(|p| (0..p.concat().len()).map(move |written| (*p, written)))
        {
            let mut rest = rest(pieces);
            rest.advance(written);
            rest.cut();
            let left: usize = rest.pieces().unwrap_or_default().iter().map(Bytes::len).sum();
            let left = left.saturating_sub(rest.written);
            // Frames here are nine bytes long.
            assert_eq!(left, written.next_multiple_of(9) - written, "after {written}");
        }
    }
}
