//! What a stream of a live preset shows: a query's answer, at once, and after changes at most once an interval.
//!
//! ```text
//! changed ─► asked (when it is due) ─► answered ─► shown ─► rests for the interval ─► the next event ─► changed
//! ```
//!
//! While it waits for an answer, and until the next update is due, the stream takes no events: what commits meanwhile is
//! found by its cursor afterwards, so that the last change is always followed by an update. Its memory is one question.
//! An answer that is late for longer than it may be leaves old on the screen what was shown last: that is said too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::endpoint::Showing;
use crate::catalog::EventId;
use crate::hub::{Filter, StreamHandle};
use crate::live::{Answer, Live, Query, Question};
use crate::postgres::Lsn;

/// Longer than an answer takes.
const FAR: Duration = Duration::from_secs(86_400);

type Asked = Pin<Box<dyn Future<Output = Option<Answer>> + Send>>;

pub(super) struct View {
    live: Live,
    query: Arc<Query>,
    arguments: Arc<[u16]>,
    interval: Duration,
    handle: StreamHandle,
    /// By which it was asked last.
    filter: Arc<Filter>,
    /// What the answer has to show: every commit below it.
    position: Lsn,
    asked: Option<Asked>,
    answer: Option<Answer>,
    /// No update goes before.
    due: Instant,
    /// How late an answer may be.
    patience: Duration,
    late: Option<Late>,
}

/// Since when an answer is waited for that is not there.
struct Late {
    since: Instant,
    told: bool,
    timer: Pin<Box<Sleep>>,
}

impl View {
    /// An answer that is late by `patience` is told to be; zero: none is.
    pub(super) fn new(
        showing: &Showing,
        live: &Live,
        handle: StreamHandle,
        interval: Duration,
        patience: Duration,
    ) -> Box<Self> {
        Box::new(Self {
            live: live.clone(),
            query: Arc::clone(&showing.query),
            arguments: Arc::clone(&showing.arguments),
            interval,
            filter: handle.filter(),
            handle,
            position: Lsn::ZERO,
            asked: None,
            answer: None,
            due: Instant::now(),
            patience: if patience.is_zero() { FAR } else { patience },
            late: None,
        })
    }

    /// The answer may be another, by what lies up to `place`.
    pub(super) fn changed(&mut self, place: EventId) {
        // A position is below its commit, an event's id is not.
        let within = u64::from(place.ordinal > 0);
        self.position = Lsn::new(place.commit_lsn.as_u64().saturating_add(within));
        self.ask();
    }

    /// Until when the stream has no need of events.
    pub(super) fn rests_until(&self) -> Instant {
        if self.asked.is_some() { Instant::now() + FAR } else { self.due }
    }

    /// The answer that came; none: there is no news but that it is late.
    pub(super) fn take_answer(&mut self) -> Option<Answer> {
        self.answer.take()
    }

    /// An answer was sent; for how long it was late, where that was told.
    pub(super) fn shown(&mut self) -> Option<Duration> {
        self.due = self.live.next_turn(self.handle.organization().as_str(), Instant::now(), self.interval);
        let late = self.late();
        self.late = None;
        late
    }

    /// For how long the answer has been late; none: it is not, or not by so much that it is told.
    pub(super) fn late(&self) -> Option<Duration> {
        self.late.as_ref().filter(|late| late.told).map(|late| late.since.elapsed())
    }

    /// Ready when the answer is there, and when it has become late; a filter that was replaced asks anew.
    pub(super) fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !Arc::ptr_eq(&self.filter, &self.handle.filter()) {
            self.ask();
        }
        let Some(asked) = &mut self.asked else { return Poll::Pending };
        if let Poll::Ready(answer) = asked.as_mut().poll(context) {
            self.asked = None;
            // Without an answer nobody answers any more: the worker ends, and this stream with it.
            let Some(answer) = answer else { return Poll::Pending };
            self.answer = Some(answer);
            return Poll::Ready(());
        }
        let Some(late) = self.late.as_mut().filter(|late| !late.told) else { return Poll::Pending };
        ready!(late.timer.as_mut().poll(context));
        late.told = true;
        Poll::Ready(())
    }

    /// What was asked before is not waited for any more.
    fn ask(&mut self) {
        self.filter = self.handle.filter();
        let question = Question {
            query: Arc::clone(&self.query),
            organization: self.handle.organization().as_str().into(),
            arguments: self.arguments.iter().map(|tag| values(&self.filter, *tag)).collect(),
        };
        let (live, position, due) = (self.live.clone(), self.position, self.due);
        // Who is asked anew while an answer is awaited has waited since the first time.
        let (since, patience) = (due.max(Instant::now()), self.patience);
        self.late.get_or_insert_with(|| Late {
            since,
            told: false,
            timer: Box::pin(sleep_until(since + patience)),
        });
        self.asked = Some(Box::pin(async move {
            sleep_until(due).await;
            live.ask(question, position).await
        }));
    }
}

/// What the filter lets through of a tag; none: everything. No text in the database holds NUL, and a query that is told
/// of one fails.
fn values(filter: &Filter, tag: u16) -> Option<Vec<String>> {
    let (_, values) = filter.tags.iter().find(|(known, _)| *known == tag)?;
    let texts = values.iter().filter(|value| !value.contains(&0));
    Some(texts.map(|value| String::from_utf8_lossy(value).into_owned()).collect())
}
