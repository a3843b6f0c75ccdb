//! The canary: a heartbeat that is written as rows are and comes back as they do.
//!
//! ```text
//! sing ─ SQL ─► WAL or outbox ─► source ─► catalog ─► journal's publish ─► heard ─► age ─► readiness, metric, streams
//! ```
//!
//! Its age is how long ago the newest one that came through was written: the one measure that grows whatever is
//! broken between a commit and the journals, a pipeline that hangs included. So it is judged by a task of its own.
//! A canary carries a number that only this process knows, which keeps those of other workers, and what anybody else
//! writes under its prefix, from being taken for its own.
//!
//! One message and its commit are some 150 bytes of log; a row of the outbox, with its place, some hundreds more. They also make an otherwise idle server take its timed
//! checkpoints and, with `archive_timeout`, archive its segments: who minds sets `canary.interval` higher, or 0.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_postgres::error::SqlState;

use super::prepare::{chain, query_kind};
use crate::config;
use crate::postgres::client::{self, Client};
use crate::postgres::dsn::Dsn;
use crate::source::{ErrorKind, Kind, SourceError};
use crate::telemetry::{Freshness, Metrics, Readiness, Reason, State};

/// The key of readiness's reason.
const CANARY: &str = "canary";

/// A server that takes longer to commit one message does not answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the age is judged: at most a tenth of `canary.stale_after` late.
const JUDGE_AT_LEAST: Duration = Duration::from_secs(1);
const JUDGE_AT_MOST: Duration = Duration::from_millis(20);

/// What the pipeline tells, and the age that follows from it.
#[derive(Debug)]
pub(super) struct Canary {
    /// Of this process alone, in hexadecimal.
    nonce: String,
    began: Instant,
    /// When the newest that came through was written, in milliseconds since `began`.
    heard_millis: AtomicU64,
    /// When the pipeline last got on with anything, likewise.
    moved_millis: AtomicU64,
}

impl Canary {
    pub(super) fn new() -> Self {
        Self {
            nonce: format!("{:032x}", fastrand::u128(..)),
            began: Instant::now(),
            heard_millis: AtomicU64::new(0),
            moved_millis: AtomicU64::new(0),
        }
    }

    /// A canary of some transaction has come through: what it was committed with is published.
    pub(super) fn hear(&self, content: &[u8]) {
        let written = std::str::from_utf8(content)
            .ok()
            .and_then(|text| text.strip_prefix(&self.nonce)?.strip_prefix('.')?.parse().ok());
        if let Some(millis) = written {
            self.heard_millis.fetch_max(millis, Ordering::Relaxed);
        }
    }

    /// The pipeline got on with something, a backlog for instance.
    pub(super) fn moved(&self) {
        self.moved_millis.fetch_max(self.millis(), Ordering::Relaxed);
    }

    /// Counts from now on: before, nobody was let in.
    fn hatch(&self) {
        self.heard_millis.fetch_max(self.millis(), Ordering::Relaxed);
    }

    fn content(&self) -> String {
        format!("{}.{}", self.nonce, self.millis())
    }

    fn age(&self) -> Duration {
        self.since(&self.heard_millis)
    }

    fn since(&self, millis: &AtomicU64) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(millis.load(Ordering::Relaxed)))
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What came of the last attempt to write.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Voice {
    Written,
    /// The server can't be reached, or does not answer.
    Unanswered,
    /// It answers, and will never write this: the reason, and what mends it.
    Mute(Reason),
}

/// Writes the canary, and judges its age.
pub(super) struct Keeper {
    pub(super) canary: Arc<Canary>,
    pub(super) source: Kind,
    pub(super) dsn: Dsn,
    pub(super) config: config::Canary,
    pub(super) readiness: Readiness,
    pub(super) freshness: Freshness,
    pub(super) metrics: Metrics,
}

impl Keeper {
    /// For as long as the worker lives; from the moment on when streams are let in.
    pub(super) async fn run(self) {
        if self.config.interval.is_zero() {
            return;
        }
        self.readiness.wait_for(State::is_admitting).await;
        self.canary.hatch();
        let voice = Mutex::new(Voice::Written);
        tokio::join!(self.sing(&voice), self.judge(&voice));
    }

    async fn sing(&self, voice: &Mutex<Voice>) {
        let mut session = None;
        let mut beat = interval(self.config.interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let sung = match timeout(WRITE_TIMEOUT, self.write(session.take())).await {
                Ok(Ok(client)) => {
                    session = Some(client);
                    Voice::Written
                }
                Ok(Err(error)) => {
                    tracing::debug!(error = chain(&error), "the canary was not written");
                    error.voice(&self.dsn.user)
                }
                Err(_) => Voice::Unanswered,
            };
            *voice.lock().unwrap_or_else(PoisonError::into_inner) = sung;
        }
    }

    /// On the session that there is, or on a new one.
    async fn write(&self, session: Option<Client>) -> Result<Client, WriteError> {
        let session = match session {
            Some(session) if !session.is_closed() => session,
            _ => {
                let session = client::connect(&self.dsn).await.map_err(SourceError::from)?;
                // A standby that must confirm and is away holds up what applications commit, and not the canary: what
                // it measures is the way from the log to the journals.
                session.batch_execute("set synchronous_commit = local").await?;
                session
            }
        };
        let sql = self.source.heartbeat_sql(&self.canary.content());
        let row = match session.query_one(&sql, &[]).await {
            Ok(row) => row,
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                let function =
                    session.query_one(self.source.heartbeat_function_sql(), &[]).await?.try_get(0)?;
                return Err(WriteError::Forbidden { function, error });
            }
            Err(error) => return Err(error.into()),
        };
        if row.try_get(0)? { Err(WriteError::Recovery) } else { Ok(session) }
    }

    async fn judge(&self, voice: &Mutex<Voice>) {
        let mut beat = interval((self.config.stale_after / 10).clamp(JUDGE_AT_MOST, JUDGE_AT_LEAST));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let voice = voice.lock().unwrap_or_else(PoisonError::into_inner).clone();
            self.tell(voice);
        }
    }

    fn tell(&self, voice: Voice) {
        // Without a canary, the source's absence is all that is known.
        let away = || self.readiness.snapshot().source_away().unwrap_or_default();
        let mute = matches!(voice, Voice::Mute(_));
        let age = if mute { away() } else { self.canary.age() };
        self.metrics.canary_age((!mute).then_some(age));
        let stale = age >= self.config.stale_after;
        let reason = match voice {
            Voice::Mute(reason) => Some(reason),
            voice => stale.then(|| self.stale(&voice)),
        };
        match reason {
            Some(reason) => self.readiness.degrade(CANARY, reason),
            None => drop(self.readiness.mend(CANARY)),
        }
        if stale { self.freshness.grow_stale(age) } else { self.freshness.refresh() }
    }

    /// No text has a number that grows: a reason that changes is logged.
    fn stale(&self, voice: &Voice) -> Reason {
        let moving =
            self.canary.since(&self.canary.moved_millis) < 2 * self.config.interval.max(JUDGE_AT_LEAST);
        let seconds = self.config.stale_after.as_secs_f64();
        Reason::new(if *voice == Voice::Unanswered {
            format!("stopped: the database takes no canary; what streams show is over {seconds} s old")
        } else if moving {
            format!("slow: streams show what was committed over {seconds} s ago; the worker is catching up")
        } else {
            format!("stopped: what is committed does not reach the worker, for over {seconds} s")
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Connect(#[from] SourceError),
    #[error("the database refused the canary")]
    Query(#[from] tokio_postgres::Error),
    /// As GRANT takes its name.
    #[error("the database refused the canary")]
    Forbidden {
        function: String,
        #[source]
        error: tokio_postgres::Error,
    },
    #[error("the database is a hot standby")]
    Recovery,
}

impl WriteError {
    fn voice(&self, user: &str) -> Voice {
        let kind = match self {
            Self::Connect(error) => error.kind(),
            Self::Query(error) => query_kind(error),
            Self::Forbidden { .. } | Self::Recovery => ErrorKind::Operator,
        };
        if kind == ErrorKind::Transient {
            return Voice::Unanswered;
        }
        let reason = Reason::new(format!(
            "the canary can't be written, so nobody knows how old what streams show is (canary.interval = 0 does \
             without): {}",
            chain(self)
        ));
        Voice::Mute(if let Self::Forbidden { function, .. } = self {
            let role = user.replace('"', "\"\"");
            reason.mended_by(format!("GRANT EXECUTE ON FUNCTION {function} TO \"{role}\";"))
        } else {
            reason
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aged(canary: &Canary) -> bool {
        canary.heard_millis.load(Ordering::Relaxed) == 0
    }

    #[test]
    fn only_its_own_song_makes_it_young() {
        let canary = Canary::new();
        let other = Canary::new();
        for song in
            [other.content(), format!("{}7", canary.nonce), format!("{}.x", canary.nonce), String::new()]
        {
            canary.hear(song.as_bytes());
            assert!(aged(&canary), "{song}");
        }
        canary.hear(b"\xff");
        assert!(aged(&canary));
        canary.hear(format!("{}.7", canary.nonce).as_bytes());
        assert_eq!(canary.heard_millis.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_hot_standby_and_a_missing_right_are_told_and_a_lost_server_only_ages() {
        let Voice::Mute(reason) = WriteError::Recovery.voice("w") else { panic!("a standby never writes") };
        assert!(reason.text.ends_with("the database is a hot standby"), "{}", reason.text);
        assert_eq!(reason.sql, None);
        let lost = SourceError::Silent { seconds: 60 };
        assert_eq!(WriteError::Connect(lost).voice("w"), Voice::Unanswered);
    }

    #[test]
    fn an_older_one_that_comes_late_does_not_age_it() {
        let canary = Canary::new();
        canary.hear(format!("{}.900", canary.nonce).as_bytes());
        canary.hear(format!("{}.100", canary.nonce).as_bytes());
        assert_eq!(canary.heard_millis.load(Ordering::Relaxed), 900);
    }
}
