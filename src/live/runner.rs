//! The one task that runs questions: on a few sessions, as soon as what they are to show is visible.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout};

use super::health::{self, Finding, Health};
use super::queue::Queue;
use super::session::{self, Failure};
use super::{Answer, Flaw, Live, Query, Question, Questions, Waiter};
use crate::postgres::Dsn;
use crate::postgres::client::Client;
use crate::source::{Backoff, ErrorKind, Visibility};
use crate::telemetry::metrics::LiveRun;
use crate::telemetry::{Metrics, Readiness, Reason};

/// Queries at the same time, each on a session of its own.
const SESSIONS: usize = 4;

/// Answers that wait for the pipeline, at most.
const HELD: usize = 32;

/// How long an answer waits for the pipeline. One that is so far behind is not held up for: it would be old.
const PASSING: Duration = Duration::from_secs(30);

/// How long what is not visible yet is let be before it is looked for again; more after each time in vain.
const LOOK: Duration = Duration::from_millis(20);

/// A run that takes as long is slow: its organization leaves a session to the others.
const LONG: Duration = Duration::from_secs(1);

/// A session that nobody needed for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// Readiness's reason when there is no session.
const REASON: &str = "live";

/// Answers what comes in, for ever.
pub struct Runner {
    questions: Questions,
    queue: Queue,
    dsn: Dsn,
    visibility: Arc<Visibility>,
    readiness: Readiness,
    metrics: Metrics,
    /// Not in use, since when; the one used last is at the end.
    idle: Vec<(Client, Instant)>,
    running: usize,
    passing: usize,
    looking: bool,
    look_at: Instant,
    /// Looks in a row after which something was still not visible.
    looks: u32,
    work: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    /// Nothing is run before, since there was no session.
    not_before: Option<Instant>,
    backoff: Backoff,
    health: Health,
}

/// What a piece of work came to.
enum Done {
    Looked,
    Ran {
        question: Arc<Question>,
        waiters: Vec<Waiter>,
        outcome: Result<Answer, Failure>,
        client: Option<Client>,
        slow: bool,
    },
    Passed {
        question: Arc<Question>,
        waiters: Vec<Waiter>,
        answer: Answer,
        passed: bool,
    },
    Checked {
        findings: Vec<Finding>,
        client: Option<Client>,
    },
}

impl Runner {
    #[must_use]
    pub fn new(
        live: &Live,
        questions: Questions,
        dsn: Dsn,
        visibility: Arc<Visibility>,
        readiness: Readiness,
        metrics: Metrics,
    ) -> Self {
        let health = Health::new(live.queries().cloned(), readiness.clone());
        let now = Instant::now();
        Self {
            questions,
            queue: Queue::default(),
            dsn,
            visibility,
            readiness,
            metrics,
            idle: Vec::new(),
            running: 0,
            passing: 0,
            looking: false,
            look_at: now,
            looks: 0,
            work: FuturesUnordered::new(),
            not_before: None,
            backoff: Backoff::new(),
            health,
        }
    }

    /// Until nobody can ask any more.
    pub async fn run(mut self) {
        loop {
            let now = Instant::now();
            self.queue.due(now);
            self.begin(now);
            let wake = self.next_wake();
            let timer = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                // What is done makes room for what comes.
                biased;
                Some(done) = self.work.next() => self.finish(done),
                asked = self.questions.recv() => match asked {
                    Some((question, waiter)) => self.queue.add(question, waiter),
                    None => return,
                },
                () = timer => {}
            }
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let look = (self.queue.has_unseen() && !self.looking).then_some(self.look_at);
        let idle = self.idle.first().map(|(_, since)| *since + IDLE);
        let health = self.health.next_wake();
        [look, health, idle, self.queue.next_due(), self.not_before].into_iter().flatten().min()
    }

    /// Begins what can be begun.
    fn begin(&mut self, now: Instant) {
        self.idle.retain(|(client, since)| !client.is_closed() && now < *since + IDLE);
        self.health.forget(now);
        if self.queue.has_unseen() && !self.looking && self.look_at <= now {
            self.looking = true;
            let visibility = Arc::clone(&self.visibility);
            self.work.push(Box::pin(async move {
                visibility.visible().await;
                Done::Looked
            }));
        }
        if self.not_before.is_some_and(|until| now < until) {
            return;
        }
        self.not_before = None;
        if self.running < SESSIONS
            && let Some(queries) = self.health.due(now)
        {
            self.running += 1;
            let (kept, dsn) = (self.take_idle(), self.dsn.clone());
            self.work.push(Box::pin(async move { check(kept, &dsn, queries).await }));
        }
        while self.running < SESSIONS && self.running + self.passing < HELD {
            let Some((question, waiters)) = self.queue.next(self.visibility.known()) else { return };
            self.running += 1;
            let (client, dsn) = (self.take_idle(), self.dsn.clone());
            self.work.push(Box::pin(async move {
                let (client, outcome) = ask(client, &dsn, &question).await;
                Done::Ran { question, waiters, outcome, client, slow: now.elapsed() >= LONG }
            }));
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Looked => {
                self.looking = false;
                self.looks =
                    if self.queue.is_unseen_at(self.visibility.known()) { self.looks + 1 } else { 0 };
                self.look_at = Instant::now() + LOOK * 2u32.pow(self.looks.min(5));
                self.queue.seen();
            }
            Done::Ran { question, waiters, outcome, client, slow } => {
                self.running -= 1;
                self.queue.finished(&question.organization, slow);
                self.put_back(client);
                match outcome {
                    Ok(answer) => self.pass(question, waiters, answer),
                    Err(failure) => self.fail(question, waiters, failure),
                }
            }
            Done::Passed { question, waiters, answer, passed } => {
                self.passing -= 1;
                if !passed {
                    tracing::debug!("an answer was not handed out: the worker is behind");
                    return self.queue.defer(question, waiters, Instant::now() + LOOK);
                }
                for waiter in waiters {
                    // Who has gone needs no answer.
                    let _ = waiter.answer.send(answer.clone());
                }
            }
            Done::Checked { findings, client } => {
                self.running -= 1;
                self.put_back(client);
                self.health.found(findings);
            }
        }
    }

    /// Holds the answer back until the pipeline has dealt with what it shows.
    fn pass(&mut self, question: Arc<Question>, waiters: Vec<Waiter>, answer: Answer) {
        self.backoff = Backoff::new();
        self.readiness.mend(REASON);
        self.health.works(&question.query);
        self.metrics.ran_live(match answer {
            Answer::Rows(_) => LiveRun::answered,
            Answer::Oversize(_) => LiveRun::oversize,
        });
        self.passing += 1;
        let visibility = Arc::clone(&self.visibility);
        self.work.push(Box::pin(async move {
            let passed = timeout(PASSING, visibility.passed()).await.unwrap_or(false);
            Done::Passed { question, waiters, answer, passed }
        }));
    }

    /// The question stays, to be asked again.
    fn fail(&mut self, question: Arc<Question>, waiters: Vec<Waiter>, failure: Failure) {
        self.metrics.ran_live(LiveRun::failed);
        let now = Instant::now();
        let delay = match failure {
            Failure::Away(why) => {
                let delay = self.backoff.delay(ErrorKind::Transient);
                self.readiness.degrade(REASON, Reason::new(format!("live queries can't be asked: {why}")));
                self.not_before = Some(now + delay);
                delay
            }
            Failure::Flaw(flaw) => {
                self.health.fails(&question.query, &flaw);
                Backoff::new().delay(ErrorKind::Operator)
            }
        };
        self.queue.defer(question, waiters, now + delay);
    }

    fn take_idle(&mut self) -> Option<Client> {
        self.idle.pop().map(|(client, _)| client)
    }

    fn put_back(&mut self, client: Option<Client>) {
        if let Some(client) = client.filter(|client| !client.is_closed()) {
            self.idle.push((client, Instant::now()));
        }
    }
}

/// Asks on the session that there is, and, when that turns out to be gone, on a new one; it comes back while it is good.
async fn ask(
    kept: Option<Client>,
    dsn: &Dsn,
    question: &Question,
) -> (Option<Client>, Result<Answer, Failure>) {
    if let Some(client) = kept {
        match session::ask(&client, question).await {
            Err(Failure::Away(_)) => {}
            outcome => return (Some(client), outcome),
        }
    }
    let client = match session::open(dsn).await {
        Ok(client) => client,
        Err(failure) => return (None, Err(failure)),
    };
    match session::ask(&client, question).await {
        Err(Failure::Away(why)) => (None, Err(Failure::Away(why))),
        outcome => (Some(client), outcome),
    }
}

/// What is wrong with each query, in this database.
///
/// # Errors
/// The database could not be asked.
pub async fn check_all(live: &Live, dsn: &Dsn) -> Result<Vec<Flaw>, String> {
    let mut flaws = Vec::new();
    let mut client = None;
    for query in live.queries() {
        let client = match &client {
            Some(client) => client,
            None => client.insert(session::open(dsn).await.map_err(|failure| failure.to_string())?),
        };
        match query.check(client).await {
            Ok(()) => {}
            Err(Ok(flaw)) => flaws.push(flaw),
            Err(Err(error)) => return Err(error.to_string()),
        }
    }
    Ok(flaws)
}

async fn check(kept: Option<Client>, dsn: &Dsn, queries: Vec<Arc<Query>>) -> Done {
    let client = match kept {
        Some(client) => client,
        None => match session::open(dsn).await {
            Ok(client) => client,
            Err(_) => return Done::Checked { findings: Vec::new(), client: None },
        },
    };
    let findings = health::check(&client, queries).await;
    Done::Checked { findings, client: Some(client) }
}
