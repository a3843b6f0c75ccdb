//! How many streams an address may have open, and how fast streams may open. Per process.
//!
//! What users and all together may have open is the hub's to count: it knows every stream. Where the oldest makes room, a
//! place is given out beyond the limit, and the oldest is ended once the new stream is open: who fails to open one pushes
//! nobody out.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{self, WhenFull};
use crate::hub::{EndReason, StreamHandle};

/// Places of an address beyond its limit, for who is being let in while the oldest end.
const ENDING: u32 = 16;

/// Who counts against which limit; 0 is none.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) streams_per_address: u32,
    evict_oldest: bool,
    addresses: Mutex<HashMap<IpAddr, Places>>,
    opens: Mutex<Bucket>,
}

/// The address has as many streams open as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressFull;

/// What an address has.
#[derive(Debug, Default)]
struct Places {
    taken: u32,
    /// By age, those that would make room, where streams do.
    streams: BTreeMap<u64, StreamHandle>,
}

/// An open stream's place; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Permit {
    limits: Arc<Limits>,
    address: IpAddr,
    /// The number of its stream, once that may make room.
    stream: Option<u64>,
}

impl Limits {
    pub(super) fn new(configured: &config::Limits) -> Arc<Self> {
        Arc::new(Self {
            streams_per_address: configured.streams_per_address,
            evict_oldest: configured.when_full == WhenFull::EvictOldest,
            addresses: Mutex::default(),
            opens: Mutex::new(Bucket::new(configured.opens_per_second, Instant::now())),
        })
    }

    /// Whether one more stream may open in this second.
    pub(super) fn may_open(&self, now: Instant) -> bool {
        self.opens.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }

    /// Takes one of the address's places.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, AddressFull> {
        let mut addresses = self.addresses();
        let places = addresses.entry(address).or_default();
        let most = self.streams_per_address.saturating_add(if self.evict_oldest { ENDING } else { 0 });
        if self.streams_per_address != 0 && places.taken >= most {
            return Err(AddressFull);
        }
        places.taken += 1;
        Ok(Permit { limits: Arc::clone(self), address, stream: None })
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, Places>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.limits.addresses().entry(self.address) {
            let places = entry.get_mut();
            places.taken = places.taken.saturating_sub(1);
            if let Some(number) = self.stream {
                places.streams.remove(&number);
            }
            // Who has none left takes no memory.
            if places.taken == 0 {
                entry.remove();
            }
        }
    }
}

impl Permit {
    /// The place is this stream's. If the address has too many by now, its oldest end.
    pub(super) fn hold(&mut self, stream: &StreamHandle) {
        if !self.limits.evict_oldest || self.limits.streams_per_address == 0 {
            return;
        }
        let mut evicted = Vec::new();
        if let Some(places) = self.limits.addresses().get_mut(&self.address) {
            self.stream = Some(stream.number());
            places.streams.insert(stream.number(), stream.clone());
            let most = self.limits.streams_per_address as usize;
            if places.streams.len() > most {
                // Who is ending for another reason makes room too.
                places.streams.retain(|_, stream| !stream.is_ending());
            }
            while places.streams.len() > most {
                evicted.extend(places.streams.pop_first());
            }
        }
        for (_, oldest) in evicted {
            oldest.end(EndReason::Evicted);
        }
    }
}

/// A token bucket that holds one second's worth. Rate 0: everything passes.
#[derive(Debug)]
struct Bucket {
    rate: u32,
    /// When the bucket was, or would have been, empty.
    empty_at: Instant,
}

impl Bucket {
    fn new(rate: u32, now: Instant) -> Self {
        Self { rate, empty_at: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) }
    }

    fn take(&mut self, now: Instant) -> bool {
        if self.rate == 0 {
            return true;
        }
        let full = now.checked_sub(Duration::from_secs(1)).unwrap_or(self.empty_at);
        let after = self.empty_at.max(full) + Duration::from_secs(1) / self.rate;
        let taken = after <= now;
        if taken {
            self.empty_at = after;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(streams_per_address: u32) -> Arc<Limits> {
        Limits::new(&config::Limits { streams_per_address, ..config::Limits::default() })
    }

    #[test]
    fn an_address_has_its_places_and_gets_them_back() {
        let limits = limits(2);
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let first = limits.admit(address(1)).unwrap();
        let second = limits.admit(address(1)).unwrap();
        assert_eq!(limits.admit(address(1)).unwrap_err(), AddressFull);
        let other = limits.admit(address(2)).unwrap();
        drop(first);
        let again = limits.admit(address(1)).unwrap();
        assert_eq!(limits.admit(address(1)).unwrap_err(), AddressFull);
        drop((second, other, again));
        assert!(limits.addresses().is_empty());
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = limits(0);
        let permits: Vec<_> = (0..50).map(|_| limits.admit(IpAddr::from([10, 0, 0, 1])).unwrap()).collect();
        assert_eq!(limits.addresses().values().map(|places| places.taken).sum::<u32>(), 50);
        drop(permits);
        let mut bucket = Bucket::new(0, Instant::now());
        assert!((0..1000).all(|_| bucket.take(Instant::now())));
    }

    #[test]
    fn a_second_opens_no_more_than_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, start);
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!((0..5).filter(|_| bucket.take(start)).count(), 3);
        assert!(!bucket.take(at(300)));
        assert!(bucket.take(at(340)));
        assert!(!bucket.take(at(350)));
        assert_eq!((0..9).filter(|_| bucket.take(at(60_000))).count(), 3);
    }
}
