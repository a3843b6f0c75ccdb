//! Connections that are not a stream: how many there may be, and which one makes room for a new one.
//!
//! A guest waits (for a request's head, or for the next request) or is busy (being answered). With a full address, the
//! longest waiting of that address goes: whoever opens connections and says nothing pushes out their own. With a full
//! lobby the longest waiting of all goes, but not before they had a moment to say something: until then, and while
//! everybody is busy, nobody is let in, and who comes stands in the system's queue. A stream has left the lobby: it
//! counts against the limits of streams.
//!
//! Who has said something takes a desk until the first answer. There are few, because what HTTP takes for a connection in
//! the making is many times what a stream takes, and a crowd that is served at once leaves all of it in the allocator. A
//! desk saves memory and judges nobody: it is kept for a moment at most, and waited for no longer.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, sleep_until, timeout};

/// Guests at most: each costs up to its head's buffer.
pub(super) const MOST: usize = 4096;

/// The share of one address.
const OF_ADDRESS: usize = MOST / 4;

/// A request that was sent at once has been read after so long, also of one among thousands that came together.
const A_MOMENT: Duration = Duration::from_secs(1);

/// Enough for any number of cores: an answer that waits for nothing takes less than a millisecond.
const DESKS: usize = 64;

/// For how long a desk is kept, and waited for, at most.
pub(super) const AT_A_DESK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Lobby {
    most: usize,
    of_address: usize,
    moment: Duration,
    state: Mutex<State>,
    /// Somebody left.
    left: Notify,
    desks: Arc<Semaphore>,
}

/// Why nobody can be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// The address has its share, and all of it is busy.
    Address,
    /// All of it is busy, or may still say something until then.
    Lobby(Option<Instant>),
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    /// Counts up: the lower, the longer somebody has waited.
    next_turn: u64,
    waiting: BTreeMap<u64, Waiting>,
    addresses: HashMap<IpAddr, Crowd>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    address: Option<IpAddr>,
    leave: Arc<Notify>,
}

/// The guests of one address.
#[derive(Debug, Default)]
struct Crowd {
    open: usize,
    waiting: BTreeSet<u64>,
}

/// A connection in the lobby, until dropped.
#[derive(Debug)]
pub(super) struct Guest {
    lobby: Arc<Lobby>,
    address: Option<IpAddr>,
    leave: Arc<Notify>,
    /// None while busy.
    turn: Mutex<Option<u64>>,
    desk: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Lobby {
    /// `by_address`: one may have its share only.
    pub(super) fn new(most: usize, by_address: bool) -> Arc<Self> {
        Self::sized(most, if by_address { OF_ADDRESS.min(most) } else { usize::MAX }, A_MOMENT)
    }

    fn sized(most: usize, of_address: usize, moment: Duration) -> Arc<Self> {
        let desks = Arc::new(Semaphore::new(DESKS));
        Arc::new(Self { most, of_address, moment, state: Mutex::default(), left: Notify::new(), desks })
    }

    /// As [`enter`](Self::enter), once there is room. None: the address is full of its own.
    pub(super) async fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Guest> {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // Before looking: who leaves in between is not missed.
            left.as_mut().enable();
            match self.enter(address) {
                Ok(guest) => return Some(guest),
                Err(Full::Address) => return None,
                Err(Full::Lobby(None)) => left.await,
                Err(Full::Lobby(Some(until))) => tokio::select! {
                    () = left => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }

    /// Lets somebody in, who begins by waiting. `address` is none for those whose address says nothing, such as a
    /// proxy's.
    fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Guest, Full> {
        let mut state = self.state();
        if let Some(crowd) = address.and_then(|address| state.addresses.get(&address))
            && crowd.open >= self.of_address
        {
            let longest = crowd.waiting.first().copied().ok_or(Full::Address)?;
            state.send_away(longest);
        }
        if state.open >= self.most {
            let (longest, waiting) = state.waiting.first_key_value().ok_or(Full::Lobby(None))?;
            let (longest, until) = (*longest, waiting.since + self.moment);
            if until > Instant::now() {
                return Err(Full::Lobby(Some(until)));
            }
            state.send_away(longest);
        }
        state.open += 1;
        if let Some(address) = address {
            state.addresses.entry(address).or_default().open += 1;
        }
        let leave = Arc::new(Notify::new());
        let turn = Mutex::new(Some(state.wait(address, Arc::clone(&leave))));
        drop(state);
        Ok(Guest { lobby: Arc::clone(self), address, leave, turn, desk: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, address: Option<IpAddr>, leave: Arc<Notify>) -> u64 {
        self.next_turn += 1;
        let turn = self.next_turn;
        self.waiting.insert(turn, Waiting { since: Instant::now(), address, leave });
        if let Some(crowd) = address.and_then(|address| self.addresses.get_mut(&address)) {
            crowd.waiting.insert(turn);
        }
        turn
    }

    /// False: it was sent away before.
    fn stop_waiting(&mut self, turn: u64) -> bool {
        let Some(waiting) = self.waiting.remove(&turn) else { return false };
        if let Some(crowd) = waiting.address.and_then(|address| self.addresses.get_mut(&address)) {
            crowd.waiting.remove(&turn);
        }
        true
    }

    /// Its place is free from now on, however long its task takes to end.
    fn send_away(&mut self, turn: u64) {
        let Some((address, leave)) = self.waiting.get(&turn).map(|w| (w.address, Arc::clone(&w.leave)))
        else {
            return;
        };
        self.stop_waiting(turn);
        self.free(address);
        leave.notify_one();
    }

    fn free(&mut self, address: Option<IpAddr>) {
        self.open = self.open.saturating_sub(1);
        let Some(address) = address else { return };
        if let Some(crowd) = self.addresses.get_mut(&address) {
            crowd.open = crowd.open.saturating_sub(1);
            if crowd.open == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}

impl Guest {
    /// A request has come: it is answered before this guest may be sent away.
    pub(super) fn busy(&self) {
        let mut own = self.turn();
        // Sent away already: it keeps its turn, by which its drop knows that nothing is left to free.
        if own.is_some_and(|turn| self.lobby.state().stop_waiting(turn)) {
            *own = None;
        }
    }

    /// Waits for a desk, and goes on without one where all are taken for long.
    pub(super) async fn take_desk(&self) {
        let desks = &self.lobby.desks;
        let desk = match Arc::clone(desks).try_acquire_owned() {
            Ok(desk) => Some(desk),
            Err(_) => timeout(AT_A_DESK, Arc::clone(desks).acquire_owned()).await.ok().and_then(Result::ok),
        };
        *self.desk() = desk;
    }

    pub(super) fn leave_desk(&self) {
        self.desk().take();
    }

    /// The request is answered.
    pub(super) fn waits(&self) {
        self.leave_desk();
        let mut own = self.turn();
        if own.is_none() {
            *own = Some(self.lobby.state().wait(self.address, Arc::clone(&self.leave)));
        }
    }

    /// Resolves when it has to make room.
    pub(super) async fn sent_away(&self) {
        self.leave.notified().await;
    }

    fn desk(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> MutexGuard<'_, Option<u64>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let turn = *self.turn();
        let mut state = self.lobby.state();
        if turn.is_none_or(|turn| state.stop_waiting(turn)) {
            state.free(self.address);
            drop(state);
            self.lobby.left.notify_one();
        }
    }
}
