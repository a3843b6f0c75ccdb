//! What a stream of a live preset shows: a query's answer, at once, and after changes at most once an interval.
//!
//! ```text
//! changed ─► asked (when it is due) ─► answered ─► shown ─► rests for the interval ─► the next event ─► changed
//! ```
//!
//! While it waits for an answer, and until the next update is due, the stream takes no events: what commits meanwhile is
//! found by its cursor afterwards, so that the last change is always followed by an update. Its memory is one question.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

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
    /// No update goes before.
    due: Instant,
}

impl View {
    pub(super) fn new(showing: &Showing, live: &Live, handle: StreamHandle, interval: Duration) -> Box<Self> {
        Box::new(Self {
            live: live.clone(),
            query: Arc::clone(&showing.query),
            arguments: Arc::clone(&showing.arguments),
            interval,
            filter: handle.filter(),
            handle,
            position: Lsn::ZERO,
            asked: None,
            due: Instant::now(),
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

    /// The answer was sent.
    pub(super) fn shown(&mut self) {
        self.due = self.live.next_turn(Instant::now(), self.interval);
    }

    /// The answer, once there is one; a filter that was replaced asks anew.
    pub(super) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Answer> {
        if !Arc::ptr_eq(&self.filter, &self.handle.filter()) {
            self.ask();
        }
        let Some(asked) = &mut self.asked else { return Poll::Pending };
        let Poll::Ready(answer) = asked.as_mut().poll(context) else { return Poll::Pending };
        self.asked = None;
        // Without an answer nobody answers any more: the worker ends, and this stream with it.
        answer.map_or(Poll::Pending, Poll::Ready)
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
