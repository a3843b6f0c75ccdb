//! How many streams may be open, and how fast they may open. Per process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::catalog::OrganizationId;
use crate::config;

/// Who counts against which limit.
#[derive(Debug)]
pub(super) struct Limits {
    configured: config::Limits,
    counts: Mutex<Counts>,
    opens: Mutex<Bucket>,
}

type User = (OrganizationId, Arc<str>);

#[derive(Debug, Default)]
struct Counts {
    streams: u32,
    users: HashMap<User, u32>,
    addresses: HashMap<IpAddr, u32>,
}

/// A limit that is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    User,
    Address,
    Streams,
}

/// An open stream's place; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Permit {
    limits: Arc<Limits>,
    user: User,
    address: IpAddr,
}

impl Limits {
    pub(super) fn new(configured: config::Limits) -> Arc<Self> {
        let opens = Mutex::new(Bucket::new(configured.opens_per_second, Instant::now()));
        Arc::new(Self { configured, counts: Mutex::default(), opens })
    }

    /// Whether one more stream may open in this second.
    pub(super) fn may_open(&self, now: Instant) -> bool {
        self.opens.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }

    /// Takes a place; nothing is taken when one of the limits is met.
    pub(super) fn admit(
        self: &Arc<Self>,
        organization: &OrganizationId,
        user: &Arc<str>,
        address: IpAddr,
    ) -> Result<Permit, Full> {
        let user = (organization.clone(), Arc::clone(user));
        let mut counts = self.counts();
        let met = |count: u32, limit: u32| limit != 0 && count >= limit;
        if met(counts.users.get(&user).copied().unwrap_or(0), self.configured.streams_per_user) {
            return Err(Full::User);
        }
        if met(counts.addresses.get(&address).copied().unwrap_or(0), self.configured.streams_per_address) {
            return Err(Full::Address);
        }
        if met(counts.streams, self.configured.streams) {
            return Err(Full::Streams);
        }
        counts.streams += 1;
        *counts.users.entry(user.clone()).or_default() += 1;
        *counts.addresses.entry(address).or_default() += 1;
        Ok(Permit { limits: Arc::clone(self), user, address })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.limits.counts();
        counts.streams = counts.streams.saturating_sub(1);
        release(&mut counts.users, self.user.clone());
        release(&mut counts.addresses, self.address);
    }
}

/// Counts down; who has none left takes no memory.
fn release<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: K) {
    if let Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
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

    fn limits(user: u32, address: u32, streams: u32) -> Arc<Limits> {
        Limits::new(config::Limits {
            streams_per_user: user,
            streams_per_address: address,
            streams,
            opens_per_second: 3,
            ..config::Limits::default()
        })
    }

    fn admit(limits: &Arc<Limits>, organization: &str, user: &str, last: u8) -> Result<Permit, Full> {
        limits.admit(&OrganizationId::new(organization), &user.into(), IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn each_limit_is_met_by_its_own_count() {
        let limits = limits(1, 2, 3);
        let first = admit(&limits, "a", "u", 1).unwrap();
        assert_eq!(admit(&limits, "a", "u", 2).unwrap_err(), Full::User);
        let second = admit(&limits, "b", "u", 1).unwrap();
        assert_eq!(admit(&limits, "c", "u", 1).unwrap_err(), Full::Address);
        let third = admit(&limits, "c", "u", 2).unwrap();
        assert_eq!(admit(&limits, "d", "u", 3).unwrap_err(), Full::Streams);
        drop(first);
        let again = admit(&limits, "a", "u", 3).unwrap();
        drop((second, third, again));
        let counts = limits.counts();
        assert_eq!((counts.streams, counts.users.len(), counts.addresses.len()), (0, 0, 0));
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = limits(0, 0, 0);
        let permits: Vec<_> = (0..50).map(|_| admit(&limits, "a", "u", 1).unwrap()).collect();
        assert_eq!(limits.counts().streams, 50);
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
