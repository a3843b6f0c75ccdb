//! When a stream's token runs out, and the way to move that while the stream is open.
//!
//! The deadline is kept in seconds of the wall clock, as tokens say it, and is read anew at every use: a timer does not
//! see a machine that slept or whose clock was set. Whoever waits for it is told when it was moved, so that it holds
//! from that moment on, be it later or sooner, also for a stream whose socket takes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::refusal::Refusal;
use super::state::State;
use crate::hub::StreamHandle;

/// The longest sleep: a token may be good for ages, a timer not.
const FAR: Duration = Duration::from_secs(86_400);

/// Shared by a stream and by who may renew it.
#[derive(Debug)]
pub(super) struct Expiry {
    /// Seconds since 1970.
    at: AtomicU64,
    moved: Notify,
}

impl Expiry {
    /// `at` is in seconds since 1970.
    pub(super) fn new(at: u64) -> Arc<Self> {
        Arc::new(Self { at: AtomicU64::new(at), moved: Notify::new() })
    }

    /// In seconds since 1970.
    pub(super) fn at(&self) -> u64 {
        self.at.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, at: u64) {
        self.at.store(at, Ordering::Release);
        self.moved.notify_one();
    }

    /// How long the token is still good; at most a day, after which one has to ask again.
    pub(super) fn remaining(&self) -> Duration {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(self.at()).saturating_sub(now).min(FAR)
    }

    /// The moment until which [`remaining`](Self::remaining) lasts.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.remaining()
    }

    /// Waits until it is moved; a move that nobody waited for counts. For one waiter: the stream, while its socket
    /// takes nothing.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }
}

/// Lets a stream go on by a new token of its user: from now on it ends by that one. Where tokens say who is a member,
/// the new one has to say it of the stream's organization too, and its role holds.
pub(super) async fn renew(
    state: &State,
    token: &str,
    stream: &StreamHandle,
    expiry: &Expiry,
) -> Result<(), Refusal> {
    let principal = state.authenticate_token(token).await?;
    if *principal.subject != **stream.user() {
        return Err(Refusal::FORBIDDEN);
    }
    let memberships = state.memberships()?;
    let organization = stream.organization().as_str();
    let membership = memberships.role_of(organization, &principal).ok_or(Refusal::FORBIDDEN)?;
    // Where a table says it, the role follows the table.
    if memberships.standing_of(organization, &principal.subject).is_none() {
        stream.set_role(membership.role);
    }
    state.recheck.forget(stream.number());
    expiry.set(principal.expires_at);
    stream.offer_until(principal.expires_at);
    Ok(())
}
