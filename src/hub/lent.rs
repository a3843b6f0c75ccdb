//! What a stream that waits leaves in its seat, so that a courier can write for it.
//!
//! A stream that waits has read all and has nothing to do but to be called. It lends where it stands and the way to its
//! client; whoever finds it marked may bring it what is new, under the lock of what was lent. The stream takes it back
//! before it does anything itself, so only one of the two ever reads for it or writes to it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::stream::Stream;
use crate::catalog::event::Epoch;
use crate::journal::Place;

/// The way to one client, for who does not wait for it.
pub trait Outlet: Debug + Send + Sync {
    /// From this second since 1970 on nothing may be offered. It is asked whenever a stream begins to wait; what moves it
    /// later is told by [`StreamHandle::offer_until`](super::StreamHandle::offer_until).
    fn until(&self) -> u64;

    /// Writes of these whole frames what the client takes at once; how many bytes. None of them where the client is
    /// gone: the stream's own task then finds that out.
    fn offer(&self, frames: &[Bytes]) -> usize;
}

/// About now, read once for many streams: no more than a walk of a courier ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    /// Seconds since 1970 that are over.
    pub(super) second: u64,
}

impl Moment {
    pub(super) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), second: since.as_secs() }
    }
}

/// How far a stream is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) generation: u64,
    pub(super) epoch: Epoch,
    /// Everything up to here was sent, filtered out, or told to be lost.
    pub(super) after: Place,
    /// The id that the client was last given in a data frame, and when.
    pub(super) carried: Place,
    pub(super) carried_at: Instant,
}

impl Progress {
    pub(super) const fn give_id(&mut self, place: Place, at: Instant) {
        self.carried = place;
        self.carried_at = at;
    }
}

/// Frames of which the client took the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    pub frames: Vec<Bytes>,
    /// Bytes that were written, of all of them.
    pub written: usize,
}

#[derive(Debug)]
pub(super) struct Lent {
    pub(super) progress: Progress,
    pub(super) outlet: Arc<dyn Outlet>,
    /// The outlet's, kept at hand.
    pub(super) until: u64,
    /// What the stream has to write before anything else; nothing is brought to it meanwhile.
    pub(super) rest: Option<Box<Rest>>,
}

/// A stream that waits. Dropped, it has everything back.
pub(super) struct Waiting<'a>(&'a mut Stream);

impl<'a> Waiting<'a> {
    pub(super) fn new(stream: &'a mut Stream) -> Self {
        if let Some(outlet) = &stream.outlet {
            let mut place = stream.membership.seat.lent();
            // Asked under the lock: who moves it later finds it here.
            let (until, outlet) = (outlet.until(), outlet.clone());
            *place = Some(Lent { progress: stream.progress, outlet, until, rest: None });
        }
        Self(stream)
    }

    pub(super) const fn stream(&self) -> &Stream {
        self.0
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let lent = self.0.membership.seat.lent().take();
        if let Some(Lent { progress, rest, .. }) = lent {
            self.0.progress = progress;
            self.0.rest = rest;
        }
    }
}
