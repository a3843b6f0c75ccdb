//! Keys that somebody else publishes: fetched, kept, and fetched again.
//!
//! ```text
//! requests ─► find(kid) ─► keys at hand ──────────────────────────────► key
//!                 └─ unknown: wanted ─► keep(): one fetch at a time ─► published to all who wait
//! ```
//!
//! One task fetches, so that a thousand requests cost one fetch; a request waits for it a moment and no longer. What is
//! asked for by requests is fetched at most once in [`Pace::asked`]: whoever invents key ids learns that they are
//! unknown, and makes no traffic. When the endpoint is away the keys at hand are good for [`Pace::stale`] from the last
//! fetch that succeeded, and readiness says so; after that nobody can be judged by them.

mod document;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod place;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::authenticator::TokenError;
use super::keys::{Key, KeyError};
use crate::config::Algorithm;
use crate::telemetry::{Readiness, Reason};
use document::KeySet;
use place::{FetchError, Fetched, Place};

/// The reason under which readiness tells that keys can't be fetched.
const REASON: &str = "jwks";

/// How often, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two fetches that requests ask for.
    asked: Duration,
    /// Bounds of how long a document is taken to hold, whatever it says.
    least: Duration,
    most: Duration,
    /// Where it says nothing.
    usual: Duration,
    /// Between attempts while they fail: doubled from the first to the second.
    failing: (Duration, Duration),
    /// How long keys are good without a fetch that succeeds.
    stale: Duration,
    /// How long a request waits for a fetch.
    patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let (second, minute, hour) =
            (Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(3600));
        Self {
            asked: 10 * second,
            least: minute,
            most: hour,
            usual: 10 * minute,
            failing: (second, minute),
            stale: 24 * hour,
            patience: 6 * second,
        }
    }
}

/// The keys of one key set.
#[derive(Debug)]
pub(super) struct Jwks {
    place: Place,
    pace: Pace,
    known: watch::Sender<Known>,
    wanted: Notify,
}

/// What is known by now.
#[derive(Clone, Debug, Default)]
struct Known {
    keys: Arc<[Arc<Key>]>,
    fetched_at: Option<Instant>,
    /// When the last attempt ended, however it did.
    tried_at: Option<Instant>,
    failed: bool,
    attempts: u64,
}

impl Jwks {
    pub(super) fn new(place: &str) -> Result<Arc<Self>, KeyError> {
        Self::with(place, Pace::default())
    }

    fn with(place: &str, pace: Pace) -> Result<Arc<Self>, KeyError> {
        let place = Place::new(place).map_err(KeyError::Place)?;
        Ok(Arc::new(Self { place, pace, known: watch::Sender::default(), wanted: Notify::new() }))
    }

    /// The keys that a token of this header may be verified with: by its key id, or where it names none all of the
    /// algorithm.
    pub(super) async fn find(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<Vec<Arc<Key>>, TokenError> {
        let mut watched = self.known.subscribe();
        let known = watched.borrow().clone();
        let found = self.among(&known, algorithm, id);
        if !found.is_empty() || !self.may_ask(&known) {
            return Self::answer(&known, found);
        }
        self.wanted.notify_one();
        let fetched = watched.wait_for(|now| now.attempts > known.attempts);
        let known = match timeout(self.pace.patience, fetched).await {
            Ok(Ok(now)) => now.clone(),
            // Nobody fetches, or not within a client's patience.
            Ok(Err(_)) | Err(_) => return Err(TokenError::Unavailable("keys")),
        };
        let found = self.among(&known, algorithm, id);
        Self::answer(&known, found)
    }

    fn among(&self, known: &Known, algorithm: Algorithm, id: Option<&str>) -> Vec<Arc<Key>> {
        if known.fetched_at.is_none_or(|at| at.elapsed() > self.pace.stale) {
            return Vec::new();
        }
        let fits =
            |key: &&Arc<Key>| key.algorithm == algorithm && id.is_none_or(|id| key.id.as_deref() == Some(id));
        known.keys.iter().filter(fits).cloned().collect()
    }

    fn may_ask(&self, known: &Known) -> bool {
        known.tried_at.is_none_or(|at| at.elapsed() >= self.pace.asked)
    }

    /// That a key is unknown is proven by a fetch that succeeded; while they fail, nobody knows.
    fn answer(known: &Known, found: Vec<Arc<Key>>) -> Result<Vec<Arc<Key>>, TokenError> {
        if found.is_empty() && (known.failed || known.fetched_at.is_none()) {
            return Err(TokenError::Unavailable("keys"));
        }
        Ok(found)
    }

    /// Fetches, for ever: when what is known has grown old, or somebody wants a key that is not known.
    pub(super) async fn keep(self: Arc<Self>, readiness: Readiness) {
        let mut tag = None;
        let mut wait = self.pace.failing.0;
        loop {
            let next = match self.refresh(&mut tag).await {
                Ok(holds) => {
                    self.tell(&readiness);
                    wait = self.pace.failing.0;
                    holds.unwrap_or(self.pace.usual).clamp(self.pace.least, self.pace.most)
                }
                Err(error) => {
                    readiness.degrade(REASON, self.reason(&error));
                    let next = wait.mul_f64(0.5 + fastrand::f64() / 2.0);
                    wait = (wait * 2).min(self.pace.failing.1);
                    next
                }
            };
            let now = Instant::now();
            let asked = async {
                sleep_until(now + self.pace.asked).await;
                self.wanted.notified().await;
            };
            tokio::select! {
                biased;
                () = sleep_until(now + next) => {}
                () = asked => {}
            }
        }
    }

    async fn refresh(
        &self,
        tag: &mut Option<reqwest::header::HeaderValue>,
    ) -> Result<Option<Duration>, FetchError> {
        let outcome = self.place.fetch(tag.as_ref()).await.and_then(|fetched| match fetched {
            Fetched::Unchanged { holds } => Ok((None, holds)),
            Fetched::Document { json, tag: new, holds } => {
                let set = KeySet::read(&json).ok_or(FetchError::NoKeySet)?;
                *tag = new;
                Ok((Some(set), holds))
            }
        });
        let now = Instant::now();
        let (outcome, keys) = match outcome {
            Ok((set, holds)) => (Ok(holds), set),
            Err(error) => (Err(error), None),
        };
        if let Some(set) = &keys {
            tracing::debug!(keys = set.keys.len(), passed_over = set.passed_over, "key set fetched");
        }
        // In one step: who waits for the attempt finds its keys.
        self.known.send_modify(|known| {
            known.attempts += 1;
            known.tried_at = Some(now);
            known.failed = outcome.is_err();
            if outcome.is_ok() {
                known.fetched_at = Some(now);
            }
            if let Some(set) = keys {
                known.keys = set.keys.into_iter().map(Arc::new).collect();
            }
        });
        outcome
    }

    fn tell(&self, readiness: &Readiness) {
        if self.known.borrow().keys.is_empty() {
            let text = "the key set of access.jwks_url holds no key for RS256, ES256 or EdDSA: tokens that need one are refused";
            readiness.degrade(REASON, Reason::new(text));
        } else {
            readiness.mend(REASON);
        }
    }

    fn reason(&self, error: &FetchError) -> Reason {
        let age = self.known.borrow().fetched_at.map(|at| at.elapsed());
        let then = match age {
            None => "tokens that need them can't be judged".to_owned(),
            Some(age) if age > self.pace.stale => {
                "those at hand are too old to judge by, so tokens that need them are put off".to_owned()
            }
            Some(_) => format!("those at hand are used for up to {} h", self.pace.stale.as_secs() / 3600),
        };
        Reason::new(format!("the keys of access.jwks_url can't be fetched: {error}; {then}"))
    }
}

#[cfg(test)]
mod tests;
