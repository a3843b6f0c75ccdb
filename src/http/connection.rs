//! One connection: HTTP until a stream is admitted on it, from then on the stream alone.
//!
//! ```text
//! accept ─► hyper http1 ─► router ─► handler admits ─► Handover ─┐
//!              └─ dropped ◄── socket taken back ◄─────────────────┘─► delivery, a task of its own
//! ```
//!
//! A stream's handler never answers: it hands over and waits. hyper has then written nothing for this request, so the
//! answer's head is the stream's to write, and all that hyper and the router hold for the connection is freed.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tower::Service as _;

use super::delivery::{self, Admitted};
use super::lobby::{AT_A_DESK, Guest};
use super::state::{Phase, State};

/// How long a client may be silent at first and between two requests, and how long it may take for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request's head, at most.
const MAX_HEAD: usize = 16 << 10;

const MAX_HEADERS: usize = 64;

/// Who is on the other end, as the socket says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The way by which a handler gives its connection to a stream.
#[derive(Clone)]
pub(super) struct Handover(Arc<Mutex<Option<oneshot::Sender<Admitted>>>>);

impl Handover {
    /// Never returns when the connection takes the stream: it drops this future.
    pub(super) async fn hand_over(&self, admitted: Admitted) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if sender.is_some_and(|sender| sender.send(admitted).is_ok()) {
            pending::<()>().await;
        }
    }
}

/// Serves the connection until it ends or has become a stream.
pub(super) async fn serve(
    state: Arc<State>,
    router: Router,
    socket: TcpStream,
    peer: SocketAddr,
    guest: Guest,
) {
    let _open = state.connections.enter();
    if says_something(&state, &socket, &guest).await {
        guest.take_desk().await;
        // Only now, and apart: hyper has buffers and the router a good deal of state for whoever they serve, which would
        // lie between the streams that are opened meanwhile.
        Box::pin(answer(state, router, socket, peer, guest)).await;
    }
}

/// Waits until there is something to read, which may be the connection's end.
async fn says_something(state: &State, socket: &TcpStream, guest: &Guest) -> bool {
    let mut phase = state.phase.subscribe();
    tokio::select! {
        biased;
        readable = socket.readable() => readable.is_ok(),
        _ = phase.wait_for(|phase| *phase == Phase::Closed) => false,
        () = guest.sent_away() => false,
        () = sleep(HEAD_TIMEOUT) => false,
    }
}

async fn answer(state: Arc<State>, router: Router, socket: TcpStream, peer: SocketAddr, guest: Guest) {
    let guest = Arc::new(guest);
    let host = Arc::clone(&guest);
    let (sender, mut admitted) = oneshot::channel();
    let handover = Handover(Arc::new(Mutex::new(Some(sender))));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(handover.clone());
        let answer = router.clone().call(request.map(Body::new));
        let guest = Arc::clone(&host);
        let answer = async move {
            guest.busy();
            let answer = answer.await;
            guest.waits();
            answer
        };
        Box::pin(answer) as Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Taken { socket, stuck: false }), service);
    let mut phase = state.phase.subscribe();
    let mut closing = false;
    let desk = sleep(AT_A_DESK);
    tokio::pin!(desk);
    let mut at_desk = true;
    let admitted = loop {
        tokio::select! {
            biased;
            // The handler waits for this, and nothing else moves the connection on.
            Ok(admitted) = &mut admitted => break admitted,
            _ = phase.wait_for(|phase| *phase == Phase::Closed), if !closing => {
                closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = guest.sent_away() => return,
            () = &mut desk, if at_desk => {
                at_desk = false;
                guest.leave_desk();
            }
            outcome = &mut connection => {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "connection failed");
                }
                return;
            }
        }
    };
    let Taken { socket, stuck } = connection.into_parts().io.into_inner();
    if stuck {
        // An answer to an earlier, pipelined request is still in buffers that are gone: what follows would not fit.
        return;
    }
    tokio::spawn(delivery::run(state, socket, admitted));
}

/// A socket that remembers whether its last write was taken whole.
struct Taken {
    socket: TcpStream,
    stuck: bool,
}

impl Taken {
    fn noted(&mut self, asked: usize, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.stuck = !matches!(outcome, Poll::Ready(Ok(written)) if written == asked);
        outcome
    }
}

impl AsyncRead for Taken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, into)
    }
}

impl AsyncWrite for Taken {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.noted(bytes.len(), outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(cx, pieces);
        self.noted(pieces.iter().map(|piece| piece.len()).sum(), outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
