//! Presence: who has a stream open in an organization, told to that organization's streams.
//!
//! ```text
//! stream opens ─► Present ─► Attendance ─ run: at once, then at most every TICK ─► Hub::tell ─► streams
//!         drop ──────┘           └── online: who is there, for the first frame of a stream
//! ```
//!
//! A user is online from their first stream until `presence.grace` after their last, on this node. What is said of
//! them has no id and is never replayed; of a user who comes and goes, only the newest is said. It yields to data: a
//! stream takes it when it has read its journal, streams are woken for it some at a time, and how often and how much
//! is told goes by how many are. So a crowd that connects is announced over a while.
//!
//! Invariant: a stream that was told who is online sees every change of that, but not of its own user. Both are said
//! under one lock: what the list does not show yet comes after it.
//!
//! Presence knows neither HTTP nor why a user has a stream.

mod attendance;
mod roll;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::catalog::OrganizationId;
use crate::hub::{Hub, Notice, NoticeKind, StreamHandle};
use attendance::{Attendance, Change};

/// The channel that presence is told on.
pub const CHANNEL: &str = "presence";

const EVENT_TYPE: &str = "presence_updated";

/// Changes are collected for so long at least, but for the first after a quiet while.
const TICK: Duration = Duration::from_millis(250);

/// And for so long a stream that is told: a write costs a fifteenth of that.
const TICK_A_STREAM: Duration = Duration::from_micros(100);

const MAX_TICK: Duration = Duration::from_secs(5);

/// Frames that are delivered in a [`TICK`] to all streams together, at most: some 50 ms of a core.
const BUDGET: usize = 250_000;

/// Streams that are woken at a time, and the pause after them: what is published meanwhile waits for no more of them.
const AT_A_TIME: usize = 256;
const BREATH: Duration = Duration::from_millis(2);

static KIND: LazyLock<NoticeKind> = LazyLock::new(|| NoticeKind::new(CHANNEL, EVENT_TYPE));

/// Who is online on this node.
#[derive(Debug)]
pub struct Presence {
    hub: Arc<Hub>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    attendance: Attendance,
    /// The node stops: its streams end, and their users move on to another.
    closed: bool,
}

/// A stream's part in its user's presence, until it is dropped.
#[derive(Debug)]
pub struct Present {
    presence: Arc<Presence>,
    organization: OrganizationId,
    user: Arc<str>,
}

impl Presence {
    #[must_use]
    pub fn new(hub: Arc<Hub>, grace: Duration) -> Arc<Self> {
        let state = State { attendance: Attendance::new(grace), closed: false };
        Arc::new(Self { hub, state: Mutex::new(state), changed: Notify::new() })
    }

    /// A stream was opened.
    #[must_use]
    pub fn enter(self: &Arc<Self>, stream: &StreamHandle) -> Present {
        let (organization, user) = (stream.organization().clone(), stream.user().clone());
        let mut state = self.state();
        state.attendance.arrive(&organization, &user);
        if stream.is_ending() {
            // Who ended it dismissed the user before they had arrived.
            state.attendance.dismiss(&organization, &user);
        }
        drop(state);
        self.changed.notify_one();
        Present { presence: self.clone(), organization, user }
    }

    /// Whether the user has a stream, or had one within the grace.
    #[must_use]
    pub fn is_online(&self, organization: &OrganizationId, user: &str) -> bool {
        self.state().attendance.is_online(organization, user)
    }

    /// The user is no member any more: gone at once. Their streams were told to end before.
    pub fn dismiss(&self, organization: &OrganizationId, user: &Arc<str>) {
        self.state().attendance.dismiss(organization, user);
        self.changed.notify_one();
    }

    /// From now on nobody's departure is told: the users of a node that stops go to another.
    pub fn close(&self) {
        self.state().closed = true;
    }

    /// Tells what changes, for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            let due = self.state().attendance.next_due();
            let grace_over = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = grace_over => {}
            }
            let mut tick = TICK;
            loop {
                let ticks = usize::try_from(tick.as_millis() / TICK.as_millis()).unwrap_or(1);
                let Told { wakers, more } = self.tell(Instant::now(), BUDGET.saturating_mul(ticks));
                let streams = u32::try_from(wakers.len()).unwrap_or(u32::MAX);
                tick = TICK_A_STREAM.saturating_mul(streams).clamp(TICK, MAX_TICK);
                wake(wakers).await;
                sleep(tick).await;
                if !more {
                    break;
                }
            }
        }
    }

    /// Tells what is due.
    fn tell(&self, now: Instant, budget: usize) -> Told {
        let mut wakers = Vec::new();
        let mut state = self.state();
        if state.closed {
            return Told { wakers, more: false };
        }
        state.attendance.settle(now);
        let hub = &self.hub;
        for (organization, changes) in state.attendance.announce(budget, |id| hub.streams_of(id)) {
            let notices = changes.into_iter().map(|change| encode(&organization, change));
            hub.tell(&organization, &KIND, notices, &mut wakers);
        }
        Told { wakers, more: state.attendance.is_anybody_in_line() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is to be woken once no lock is held, and whether somebody waits for the next tick.
struct Told {
    wakers: Vec<Waker>,
    more: bool,
}

async fn wake(wakers: Vec<Waker>) {
    let mut wakers = wakers.into_iter().peekable();
    while wakers.peek().is_some() {
        wakers.by_ref().take(AT_A_TIME).for_each(Waker::wake);
        if wakers.peek().is_some() {
            sleep(BREATH).await;
        }
    }
}

impl Present {
    /// Who is online, as a JSON array of user ids in pieces, for a stream's first frame. The stream is told what changes
    /// after.
    #[must_use]
    pub fn online(&self, stream: &StreamHandle) -> [Bytes; 2] {
        let mut state = self.presence.state();
        stream.skip_notices();
        state.attendance.online(&self.organization)
    }

    /// As [`online`](Self::online), for a stream that listens already, told by another way. Nothing is skipped: which of
    /// the two comes first is open, and the list with what the stream was told since it listens put over it is right.
    #[must_use]
    pub fn online_meanwhile(&self) -> [Bytes; 2] {
        self.presence.state().attendance.online(&self.organization)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut state = self.presence.state();
        state.attendance.leave(&self.organization, &self.user, Instant::now());
        drop(state);
        self.presence.changed.notify_one();
    }
}

/// An envelope without an id; its time is now.
fn encode(organization: &OrganizationId, change: Change) -> Notice {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope<'a> {
        r#type: &'static str,
        timestamp: u64,
        organization_id: &'a str,
        channel: &'static str,
        data: Data<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Data<'a> {
        user_id: &'a str,
        is_online: bool,
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let body = Envelope {
        r#type: EVENT_TYPE,
        timestamp: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        organization_id: organization.as_str(),
        channel: CHANNEL,
        data: Data { user_id: &change.user, is_online: change.is_online },
    };
    let mut frame = b"data: ".to_vec();
    // Its keys are strings, and a Vec takes every write.
    let _ = serde_json::to_writer(&mut frame, &body);
    frame.extend_from_slice(b"\n\n");
    Notice { about: change.user, frame }
}
