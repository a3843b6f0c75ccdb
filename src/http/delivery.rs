//! An open stream: from the hub's batches to one socket, until either side ends it.
//!
//! The socket was taken from the HTTP server after the head of the request, so an idle stream is a cursor, a timer
//! and a socket. Everything that waits is one write. While a write is stuck nothing is taken from the hub: how far a
//! slow client may fall behind is the journal's window, and costs nothing here.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use memchr::memchr_iter;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::expiry::Expiry;
use super::frames;
use super::keepalive::Keepalive;
use super::limits::Permit;
use super::live::Guard;
use super::registry::Registered;
use super::sink::{Client, Sink};
use super::state::{Phase, State};
use super::view::View;
use crate::catalog::SyncReason;
use crate::hub::{Batch, EndReason, Rest, Stream};
use crate::telemetry::Age;
use crate::telemetry::metrics::End;

/// Bytes that a client may send after its request; they are read to notice its end, and dropped.
const MAX_INPUT: usize = 64 << 10;

/// Milliseconds after which the streams of a stopping worker come back.
const DRAIN_RETRY_MILLIS: std::ops::RangeInclusive<u64> = 1000..=5000;

/// Lines of an event's frame: its id, its data, an empty one.
const FRAME_LINES: usize = 3;

/// Lines of a notice's frame, which has no id.
const NOTICE_LINES: usize = 2;

/// A day: what a stream waits before it comes back that was evicted, or closed on purpose.
const STAY_AWAY_MILLIS: u64 = 86_400_000;

/// A stream that was let in.
pub(super) struct Admitted {
    /// The answer's head and the frame `connected`.
    pub(super) first: Vec<Bytes>,
    pub(super) stream: Stream,
    pub(super) expiry: Arc<Expiry>,
    pub(super) keepalive: Arc<Keepalive>,
    pub(super) permit: Permit,
    pub(super) registered: Registered,
    /// Of a live preset.
    pub(super) view: Option<Box<View>>,
}

/// Serves the stream until it ends. The future's size is what an idle stream costs.
pub(super) fn run(
    state: Arc<State>,
    socket: TcpStream,
    admitted: Admitted,
) -> impl Future<Output = ()> + Send {
    let Admitted { first, stream, expiry, keepalive, permit, registered, view } = admitted;
    let client = Client::new(socket, expiry);
    let open = state.streams.enter();
    let mut delivery = Delivery {
        state,
        // What is shown of a view is not its events.
        stream: if view.is_none() { stream.through(client.clone()) } else { stream },
        view,
        sink: Sink::new(client),
        keepalive,
        drain_at: None,
        behind: false,
        told_stale: false,
        _held: Box::new((registered, permit, open)),
    };
    async move {
        delivery.state.services.metrics.streams.inc();
        let end = match delivery.deliver(first).await {
            Err(end) | Ok(end) => end,
        };
        delivery.sink.close();
        delivery.state.services.metrics.streams.dec();
        delivery.state.services.metrics.ended(end);
        tracing::debug!(reason = ?end, "stream ended");
    }
}

/// What goes before the next batch.
#[derive(Clone, Copy)]
enum Signal {
    Phase,
    Expiry,
    Age,
}

struct Delivery {
    state: Arc<State>,
    sink: Sink,
    stream: Stream,
    /// What is shown instead of the stream's events.
    view: Option<Box<View>>,
    keepalive: Arc<Keepalive>,
    /// When this one of a stopping worker's streams ends.
    drain_at: Option<Instant>,
    /// The worker is: what it sends is old.
    behind: bool,
    /// The client was told that what it sees is old.
    told_stale: bool,
    /// Its place in the registry, under the limits and among what is waited for, until it ends.
    _held: Box<(Registered, Permit, Guard)>,
}

impl Delivery {
    /// Both sides of the result are the end: the one said to the client, the other not.
    async fn deliver(&mut self, first: Vec<Bytes>) -> Result<End, End> {
        let mut phase = self.state.phase.subscribe();
        // A stream that was admitted while the server began to stop has to see it too.
        phase.mark_changed();
        let mut freshness = self.state.services.freshness.subscribe();
        // So does one that opens while the worker is behind.
        freshness.mark_changed();
        self.write(first).await?;
        if let Some(view) = &mut self.view {
            view.changed(self.stream.cursor());
        }
        let mut expires_at = self.sink.expiry().at();
        let timer = sleep_until(self.next_due());
        tokio::pin!(timer);
        let mut input = 0;
        loop {
            if let Some(view) = &self.view {
                self.stream.hold(view.rests_until());
            }
            let expiry = self.sink.expiry();
            let signal = || {
                // What ends a stream first: one that always has something to send must end too.
                if phase.has_changed().unwrap_or(false) {
                    Some(Signal::Phase)
                } else if expiry.at() != expires_at {
                    Some(Signal::Expiry)
                } else {
                    freshness.has_changed().unwrap_or(false).then_some(Signal::Age)
                }
            };
            tokio::select! {
                biased;
                () = timer.as_mut() => {
                    if let Some(end) = self.on_timer().await? {
                        return Ok(end);
                    }
                    timer.as_mut().reset(self.next_due());
                }
                next = self.stream.next_unless(signal) => match next {
                    Err(Signal::Phase) => {
                        let now = *phase.borrow_and_update();
                        match now {
                            Phase::Serving => {}
                            Phase::Draining { until } => self.drain_at = Some(spread(until)),
                            // Its moment to be told did not come.
                            Phase::Closed => return self.on_end(EndReason::Draining).await,
                        }
                        timer.as_mut().reset(self.next_due());
                    }
                    Err(Signal::Expiry) => {
                        expires_at = self.sink.expiry().at();
                        timer.as_mut().reset(self.next_due());
                    }
                    Err(Signal::Age) => {
                        let age = *freshness.borrow_and_update();
                        self.on_age(age).await?;
                    }
                    Ok(batch) => {
                        if let Some(end) = self.on_batch(batch).await? {
                            return Ok(end);
                        }
                    }
                },
                // After the stream, whose end may be a membership's that the answer was not for.
                () = poll_fn(|context| {
                    self.view.as_mut().map_or(Poll::Pending, |view| view.poll_news(context))
                }) => self.on_news().await?,
                // Last, since a client that has gone also fails the next write.
                () = self.sink.readable() => {
                    input += self.sink.discard()?;
                    if input > MAX_INPUT {
                        return Ok(End::failed);
                    }
                }
            }
        }
    }

    /// Of the view.
    async fn on_news(&mut self) -> Result<(), End> {
        let late = match self.view.as_mut().and_then(|view| view.take_answer()) {
            None => self.view.as_ref().and_then(|view| view.late()),
            Some(answer) => {
                self.state.services.metrics.frames_written.inc();
                self.state.services.metrics.live_updates.inc();
                self.write(frames::update(answer)).await?;
                self.view.as_mut().and_then(|view| view.shown())
            }
        };
        match late {
            Some(by) => self.tell_age(by).await,
            None => Ok(()),
        }
    }

    async fn on_batch(&mut self, batch: Batch) -> Result<Option<End>, End> {
        let batch = match (&mut self.view, batch) {
            (Some(view), batch @ (Batch::Frames(_) | Batch::Notices(_) | Batch::Sync { .. })) => {
                view.changed(self.stream.cursor());
                match batch {
                    // That it stood still was no fault of the client's, who misses nothing: the answer is whole.
                    Batch::Sync { reason, .. } if reason != SyncReason::SlowConsumer => batch,
                    _ => return Ok(None),
                }
            }
            (_, batch) => batch,
        };
        let frames = match batch {
            Batch::Frames(frames) => {
                self.count(&frames, FRAME_LINES);
                frames
            }
            Batch::Notices(frames) => {
                self.count(&frames, NOTICE_LINES);
                frames
            }
            // Counted by who began it.
            Batch::Rest(rest) => return self.go_on(rest, false).await.map(|()| None),
            Batch::Sync { reason, id } => {
                self.state.services.metrics.synced(reason.as_str());
                vec![frames::sync(id, self.stream.organization().as_str(), reason).into()]
            }
            Batch::End(reason) => return self.on_end(reason).await.map(Some),
        };
        self.write(frames).await?;
        Ok(None)
    }

    fn count(&self, frames: &[Bytes], lines_a_frame: usize) {
        let lines: usize = frames.iter().map(|piece| memchr_iter(b'\n', piece).count()).sum();
        let count = u64::try_from(lines / lines_a_frame).unwrap_or(u64::MAX);
        self.state.services.metrics.frames_written.inc_by(count);
    }

    async fn on_age(&mut self, age: Age) -> Result<(), End> {
        let (Age::Stale { is: old } | Age::Fresh { was: old }) = age;
        self.behind = matches!(age, Age::Stale { .. });
        self.tell_age(old).await
    }

    /// Says that what the client sees has become `old`, or that it is current again; nothing twice.
    async fn tell_age(&mut self, old: Duration) -> Result<(), End> {
        let stale = self.behind || self.view.as_ref().is_some_and(|view| view.late().is_some());
        if std::mem::replace(&mut self.told_stale, stale) == stale {
            return Ok(());
        }
        let name = if stale { "stale" } else { "fresh" };
        // Apart, as what goes on after a courier.
        Box::pin(self.write(vec![frames::age(name, old.as_secs()).into()])).await
    }

    /// The timer is set once and not at every write, so it may find nothing due.
    async fn on_timer(&mut self) -> Result<Option<End>, End> {
        let now = Instant::now();
        let ended = if self.sink.expiry().remaining().is_zero() {
            Some(EndReason::Expired)
        } else {
            self.drain_at.filter(|at| *at <= now).map(|_| EndReason::Draining)
        };
        if let Some(reason) = ended {
            return self.on_end(reason).await.map(Some);
        }
        if self.keepalive_due() <= now {
            // What a query answers is not resumed.
            let carry = self.view.is_none() && self.stream.owes_id(self.state.max_age);
            let cursor = self.stream.cursor();
            self.write(vec![self.keepalive.encode(cursor, carry).into()]).await?;
            if carry || *self.keepalive != Keepalive::Comment {
                self.stream.carried(cursor);
            }
        }
        Ok(None)
    }

    /// Says why, where there is something to say.
    async fn on_end(&mut self, reason: EndReason) -> Result<End, End> {
        let (last, end) = match reason {
            EndReason::Expired => (frames::last("token.expired", None), End::expired),
            EndReason::Revoked => (frames::last("access.revoked", None), End::revoked),
            // It would only push out another: the browser is to stay away.
            EndReason::Evicted => (frames::last("stream.evicted", Some(STAY_AWAY_MILLIS)), End::evicted),
            EndReason::Draining => (frames::retry(fastrand::u64(DRAIN_RETRY_MILLIS)), End::drained),
            EndReason::Lagging => (frames::retry(fastrand::u64(DRAIN_RETRY_MILLIS)), End::lagging),
            // An EventSource would open it again.
            EndReason::Closed => (frames::retry(STAY_AWAY_MILLIS), End::client_closed),
        };
        self.finish(true).await?;
        self.sink.write(&self.state, vec![last.into()], None).await?;
        Ok(end)
    }

    /// Writes what a courier began: all of it, or only the frame that was begun.
    async fn finish(&mut self, cut: bool) -> Result<(), End> {
        match self.stream.take_rest() {
            Some(rest) => self.go_on(rest, cut).await,
            None => Ok(()),
        }
    }

    async fn go_on(&mut self, rest: Rest, cut: bool) -> Result<(), End> {
        // Apart: it is rare, and an idle stream has no room for it.
        Box::pin(self.sink.go_on(&self.state, rest, cut, &self.stream)).await
    }

    async fn write(&mut self, frames: Vec<Bytes>) -> Result<(), End> {
        self.finish(false).await?;
        self.sink.write(&self.state, frames, Some(&self.stream)).await
    }

    fn next_due(&self) -> Instant {
        let due = self.keepalive_due().min(self.sink.expiry().deadline());
        self.drain_at.map_or(due, |drain| due.min(drain))
    }

    fn keepalive_due(&self) -> Instant {
        let last = self.sink.last_write().max(self.stream.carried_at().into());
        last + self.state.http.keepalive
    }
}

/// A moment from now until nearly then, so that the last have time to be told.
fn spread(until: Instant) -> Instant {
    let now = Instant::now();
    now + until.saturating_duration_since(now).mul_f64(fastrand::f64() * 0.9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<A, B, C, Output>(_: impl Fn(A, B, C) -> Output) -> usize {
        size_of::<Output>()
    }

    #[test]
    fn an_open_stream_is_a_small_future() {
        let bytes = size_of_output(run);
        assert!(bytes <= 960, "{bytes} bytes");
    }
}
