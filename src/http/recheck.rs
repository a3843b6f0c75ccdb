//! Streams that a session opened: the session is asked about again for as long as its stream is open.
//!
//! ```text
//! watch ─► due, by time ─ run: whose time has come, some at a time ─► Authenticator::review
//!  drop ───────┘ ▲                                                      │ over: the stream ends
//!                └────────────────────── again ◄────────────────────────┴ good: until when it is by now
//! ```
//!
//! Each is asked about once within `access.session_recheck`, at a time of its own, so that a crowd that came together is
//! not asked about together. One batch is under way at a time, on one connection: of more sessions than the database
//! answers for in that time, each is asked about less often. What can't be asked proves nothing, and the stream goes on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::expiry::Expiry;
use super::state::State;
use crate::access::{Review, Session};
use crate::hub::{EndReason, StreamHandle};

/// Sessions in one batch.
const AT_ONCE: usize = 32;

/// After a batch that could not be asked about.
const PAUSE: Duration = Duration::from_secs(1);

/// The sessions of open streams.
#[derive(Debug)]
pub(super) struct Recheck {
    /// Zero: nothing is watched.
    interval: Duration,
    watched: Mutex<Watched>,
    /// Somebody is due before all others.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Watched {
    due: BTreeMap<(Instant, u64), Arc<Stream>>,
    /// When each stream is due; none while it is asked about.
    streams: HashMap<u64, Option<Instant>>,
}

#[derive(Debug)]
struct Stream {
    session: Session,
    handle: StreamHandle,
    expiry: Arc<Expiry>,
}

/// A stream is watched until this is dropped, or it was renewed by something else.
#[derive(Debug)]
pub(super) struct Watching {
    recheck: Arc<Recheck>,
    number: u64,
}

impl Recheck {
    pub(super) fn new(interval: Duration) -> Arc<Self> {
        Arc::new(Self { interval, watched: Mutex::default(), sooner: Notify::new() })
    }

    /// The stream ends with the session. None: nothing is watched.
    pub(super) fn watch(
        self: &Arc<Self>,
        session: Session,
        handle: StreamHandle,
        expiry: Arc<Expiry>,
    ) -> Option<Watching> {
        if self.interval.is_zero() {
            return None;
        }
        let number = handle.number();
        self.watched().streams.insert(number, None);
        self.put(Arc::new(Stream { session, handle, expiry }));
        Some(Watching { recheck: Arc::clone(self), number })
    }

    /// The stream goes on by something else than the session.
    pub(super) fn forget(&self, number: u64) {
        let mut watched = self.watched();
        let forgotten = match watched.streams.remove(&number) {
            Some(Some(at)) => watched.due.remove(&(at, number)),
            Some(None) | None => None,
        };
        drop(watched);
        drop(forgotten);
    }

    /// In line again, unless it was forgotten.
    fn put(&self, stream: Arc<Stream>) {
        let number = stream.handle.number();
        let at = Instant::now() + self.interval.mul_f64(0.75 + fastrand::f64() / 4.0);
        let mut watched = self.watched();
        let Some(due) = watched.streams.get_mut(&number) else { return };
        *due = Some(at);
        watched.due.insert((at, number), stream);
        let is_first = watched.due.first_key_value().is_some_and(|(first, _)| *first == (at, number));
        drop(watched);
        if is_first {
            self.sooner.notify_one();
        }
    }

    /// Waits until somebody is due.
    async fn due(&self) {
        loop {
            let next = self.watched().due.first_key_value().map(|((at, _), _)| *at);
            match next {
                None => self.sooner.notified().await,
                Some(at) if at <= Instant::now() => return,
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.sooner.notified() => {}
                },
            }
        }
    }

    /// Those who are due, some at most.
    fn take(&self) -> Vec<Arc<Stream>> {
        let now = Instant::now();
        let mut watched = self.watched();
        let mut taken = Vec::new();
        while taken.len() < AT_ONCE
            && let Some(((at, number), stream)) = watched.due.pop_first()
        {
            if at > now {
                watched.due.insert((at, number), stream);
                break;
            }
            if let Some(due) = watched.streams.get_mut(&number) {
                *due = None;
                taken.push(stream);
            }
        }
        taken
    }

    fn is_watched(&self, stream: &Stream) -> bool {
        self.watched().streams.contains_key(&stream.handle.number())
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.recheck.forget(self.number);
    }
}

impl Stream {
    fn apply(&self, review: &Review) {
        match review {
            Review::Good(principal) if principal.subject == *self.handle.user() => {
                if self.expiry.at() != principal.expires_at {
                    self.expiry.set(principal.expires_at);
                    self.handle.offer_until(principal.expires_at);
                }
            }
            Review::Good(_) | Review::Over => self.handle.end(EndReason::Expired),
            Review::Unknown => {}
        }
    }
}

/// Asks, for ever.
pub(super) async fn run(state: Arc<State>) {
    let recheck = &state.recheck;
    loop {
        recheck.due().await;
        let streams = recheck.take();
        // A user's tabs have one session.
        let mut sessions: Vec<&Session> = Vec::new();
        let mut places = Vec::new();
        for stream in &streams {
            let known = sessions.iter().position(|session| **session == stream.session);
            places.push(known.unwrap_or(sessions.len()));
            if known.is_none() {
                sessions.push(&stream.session);
            }
        }
        let reviews = state.services.authenticator.review(&sessions).await;
        for (stream, place) in streams.iter().zip(places) {
            if let Some(review) = reviews.get(place)
                && recheck.is_watched(stream)
            {
                stream.apply(review);
            }
        }
        let nothing_known = reviews.iter().all(|review| *review == Review::Unknown);
        streams.into_iter().for_each(|stream| recheck.put(stream));
        if nothing_known {
            sleep(PAUSE).await;
        }
    }
}
