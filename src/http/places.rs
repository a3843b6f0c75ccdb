//! A number of places, of which one key may hold only so many: for what is in hand at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(super) struct Places<K: Eq + Hash> {
    total: usize,
    each: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// Free again when dropped.
#[derive(Debug)]
pub(super) struct Place<K: Eq + Hash> {
    places: Arc<Places<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Places<K> {
    pub(super) fn new(total: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { total, each, taken: Mutex::default() })
    }

    /// None: all are taken, or all that this key may have.
    pub(super) fn take(self: &Arc<Self>, key: &K) -> Option<Place<K>> {
        let mut taken = self.taken();
        let own = taken.get(key).copied().unwrap_or(0);
        if own >= self.each || taken.values().sum::<usize>() >= self.total {
            return None;
        }
        taken.insert(key.clone(), own + 1);
        Some(Place { places: Arc::clone(self), key: key.clone() })
    }
}

impl<K: Eq + Hash> Places<K> {
    fn taken(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(own) = taken.get_mut(&self.key) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_share_and_all_have_no_more_than_there_are() {
        let places = Places::new(3, 2);
        let first = places.take(&"a").unwrap();
        let _second = places.take(&"a").unwrap();
        assert!(places.take(&"a").is_none());
        let third = places.take(&"b").unwrap();
        assert!(places.take(&"c").is_none());
        drop(first);
        assert!(places.take(&"c").is_some());
        drop(third);
        assert_eq!(places.taken().len(), 1, "who holds none takes no memory");
    }
}
