//! Open streams by the ids that their clients know them by.
//!
//! An id names its node, which is this process: behind a load balancer a request may come to another, which says so.
//! The rest is random, so that an id can't be guessed; who has it still has to be the stream's user.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::endpoint::Endpoint;
use super::expiry::Expiry;
use super::recheck::Watching;
use crate::hub::StreamHandle;
use crate::presence::Present;

/// `<node>-<number>`: 16 and 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId {
    node: u64,
    number: u128,
}

/// Not of the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidConnectionId;

/// What an id stands for.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) handle: StreamHandle,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) expiry: Arc<Expiry>,
    /// Ends with the stream, as does what follows.
    pub(super) present: Present,
    /// Where a session opened it.
    pub(super) _watching: Option<Watching>,
}

/// Why an id stands for nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotHere {
    Unknown,
    OtherNode,
}

/// The open streams of this process.
#[derive(Debug)]
pub(super) struct Registry {
    node: u64,
    streams: Mutex<HashMap<u128, Arc<Entry>>>,
}

/// A stream's place in the registry, until dropped.
#[derive(Debug)]
pub(super) struct Registered {
    registry: Arc<Registry>,
    number: u128,
}

impl Registry {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { node: u64::from_ne_bytes(random()), streams: Mutex::default() })
    }

    pub(super) fn new_id(&self) -> ConnectionId {
        ConnectionId { node: self.node, number: u128::from_ne_bytes(random()) }
    }

    pub(super) fn register(self: &Arc<Self>, id: ConnectionId, entry: Entry) -> Registered {
        self.streams().insert(id.number, Arc::new(entry));
        Registered { registry: self.clone(), number: id.number }
    }

    pub(super) fn find(&self, id: &str) -> Result<Arc<Entry>, NotHere> {
        let id: ConnectionId = id.parse().map_err(|InvalidConnectionId| NotHere::Unknown)?;
        if id.node != self.node {
            return Err(NotHere::OtherNode);
        }
        self.streams().get(&id.number).cloned().ok_or(NotHere::Unknown)
    }

    /// The id stands for nothing from now on.
    pub(super) fn forget(&self, id: &str) {
        if let Ok(ConnectionId { number, .. }) = id.parse() {
            let entry = self.streams().remove(&number);
            drop(entry);
        }
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u128, Arc<Entry>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let entry = self.registry.streams().remove(&self.number);
        // What it holds is dropped without the lock.
        drop(entry);
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:032x}", self.node, self.number)
    }
}

impl FromStr for ConnectionId {
    type Err = InvalidConnectionId;

    fn from_str(text: &str) -> Result<Self, InvalidConnectionId> {
        let digits = |text: &str, count: usize| {
            text.len() == count && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let (node, number) = text.split_once('-').ok_or(InvalidConnectionId)?;
        if !digits(node, 16) || !digits(number, 32) {
            return Err(InvalidConnectionId);
        }
        let node = u64::from_str_radix(node, 16).map_err(|_| InvalidConnectionId)?;
        let number = u128::from_str_radix(number, 16).map_err(|_| InvalidConnectionId)?;
        Ok(Self { node, number })
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // aws-lc aborts rather than hand out bytes that are not random.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_and_nothing_else_is_read() {
        let registry = Registry::new();
        let id = registry.new_id();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_ne!(registry.new_id(), id);
        let text = id.to_string();
        let upper = text.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A");
        for wrong in
            ["", "-", "x", &text[1..], &text[..48], &format!("{text}0"), &format!("+{}", &text[1..]), &upper]
        {
            assert_eq!(wrong.parse::<ConnectionId>(), Err(InvalidConnectionId), "{wrong}");
        }
    }

    #[test]
    fn an_id_tells_its_node_from_another() {
        let (one, other) = (Registry::new(), Registry::new());
        assert_eq!(one.find(&one.new_id().to_string()).unwrap_err(), NotHere::Unknown);
        assert_eq!(one.find(&other.new_id().to_string()).unwrap_err(), NotHere::OtherNode);
        assert_eq!(one.find("none").unwrap_err(), NotHere::Unknown);
    }
}
