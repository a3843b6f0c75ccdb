//! Which queries work, as readiness tells it.
//!
//! A query that can't be run is a reason until it is; one that is not known to work is tried though nobody waits for it.
//! What fails for what it was asked, which anybody who may ask can bring about, is a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::query::{Flaw, Query};
use crate::postgres::client::Client;
use crate::telemetry::Readiness;

/// How often a query that is not known to work is tried.
const SUSPECT: Duration = Duration::from_secs(10);

/// How long trying one may take.
const TRY: Duration = Duration::from_secs(30);

/// What failed for what it was asked is asked again within seconds: after so long without, all of it works.
const TROUBLED: Duration = Duration::from_secs(60);

pub(super) struct Health {
    readiness: Readiness,
    /// Not known to work.
    suspects: BTreeSet<Arc<Query>>,
    suspects_at: Instant,
    /// Paths of those that failed for what they were asked, and when last.
    troubled: BTreeMap<String, Instant>,
}

/// What a query was found to be; nothing, when the database could not be asked.
pub(super) type Finding = (Arc<Query>, Option<Result<(), Flaw>>);

impl Health {
    pub(super) fn new(queries: impl Iterator<Item = Arc<Query>>, readiness: Readiness) -> Self {
        Self {
            readiness,
            suspects: queries.collect(),
            suspects_at: Instant::now(),
            troubled: BTreeMap::new(),
        }
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        let suspects = (!self.suspects.is_empty()).then_some(self.suspects_at);
        let troubled = self.troubled.values().min().map(|last| *last + TROUBLED);
        suspects.into_iter().chain(troubled).min()
    }

    /// Takes back what has not been so for long.
    pub(super) fn forget(&mut self, now: Instant) {
        for (path, _) in self.troubled.extract_if(.., |_, last| *last + TROUBLED <= now) {
            self.readiness.mend(&trouble_key(&path));
        }
    }

    /// Those that are to be tried now.
    pub(super) fn due(&mut self, now: Instant) -> Option<Vec<Arc<Query>>> {
        if self.suspects.is_empty() || now < self.suspects_at {
            return None;
        }
        self.suspects_at = now + SUSPECT;
        Some(self.suspects.iter().cloned().collect())
    }

    pub(super) fn works(&mut self, query: &Arc<Query>) {
        self.suspects.remove(query);
        self.readiness.mend(&query.reason_key());
    }

    pub(super) fn fails(&mut self, query: &Arc<Query>, flaw: &Flaw) {
        if flaw.of_question {
            self.readiness.warn(trouble_key(&query.path), flaw.reason());
            self.troubled.insert(query.path.clone(), Instant::now());
        } else {
            self.readiness.degrade(query.reason_key(), flaw.reason());
            self.suspects.insert(Arc::clone(query));
        }
    }

    pub(super) fn found(&mut self, findings: Vec<Finding>) {
        for (query, finding) in findings {
            match finding {
                Some(Ok(())) => self.works(&query),
                Some(Err(flaw)) => self.fails(&query, &flaw),
                None => {}
            }
        }
    }
}

/// Tries each.
pub(super) async fn check(client: &Client, queries: Vec<Arc<Query>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for query in queries {
        let finding = match timeout(TRY, query.check(client)).await {
            Ok(Ok(())) => Some(Ok(())),
            Ok(Err(Ok(flaw))) => Some(Err(flaw)),
            Ok(Err(Err(_))) | Err(_) => None,
        };
        findings.push((query, finding));
    }
    findings
}

/// The key of readiness's warning.
fn trouble_key(path: &str) -> String {
    format!("live {path} questions")
}
