//! Whether what streams show is current: said by the canary, told to every stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// How the canary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Young; it had grown so old the last time that it was not.
    Fresh { was: Duration },
    /// Older than it may be; it was so old when it was found to be.
    Stale { is: Duration },
}

/// Shared by who watches the canary and by the streams: clones are the same one. Fresh until told otherwise.
#[derive(Clone, Debug)]
pub struct Freshness(Arc<watch::Sender<Age>>);

impl Default for Freshness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Age::Fresh { was: Duration::ZERO })))
    }
}

impl Freshness {
    /// The canary is so old, and should not be. Streams are woken the first time; that it grows older is no news, but
    /// is what a stream that opens meanwhile is told.
    pub fn grow_stale(&self, is: Duration) {
        self.0.send_if_modified(|age| {
            let news = matches!(age, Age::Fresh { .. });
            *age = Age::Stale { is };
            news
        });
    }

    /// The canary is young, or nobody knows better.
    pub fn refresh(&self) {
        self.0.send_if_modified(|age| {
            let Age::Stale { is } = *age else { return false };
            *age = Age::Fresh { was: is };
            true
        });
    }

    /// Wakes when it grows stale, and when it is fresh again.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Age> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_wake_when_it_turns_and_not_while_it_ages() {
        let freshness = Freshness::default();
        let mut stream = freshness.subscribe();
        freshness.refresh();
        assert!(!stream.has_changed().unwrap());
        freshness.grow_stale(Duration::from_secs(30));
        assert_eq!(*stream.borrow_and_update(), Age::Stale { is: Duration::from_secs(30) });
        freshness.grow_stale(Duration::from_secs(31));
        assert!(!stream.has_changed().unwrap());
        freshness.refresh();
        assert!(stream.has_changed().unwrap());
        assert_eq!(*stream.borrow_and_update(), Age::Fresh { was: Duration::from_secs(31) });
    }
}
