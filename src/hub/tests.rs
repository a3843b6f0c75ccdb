mod couriers;
mod filters;
mod live;
mod model;
mod notices;
mod paced;
mod standing;
mod start;
mod stress;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;

use super::{Batch, EndReason, Filter, Hub, Start, Stream, Subscription};
use crate::catalog::event::{EventId, OrganizationId, SyncReason};
use crate::journal::Journals;
use crate::journal::fixture::EPOCH;
use crate::postgres::Lsn;

const ROOMY: u64 = 1 << 30;

fn hub(journals: &Arc<Journals>) -> Arc<Hub> {
    Hub::with_patience(journals.clone(), Duration::from_millis(20))
}

fn subscription(organization: &str, filter: Filter, start: Start) -> Subscription {
    let organization = OrganizationId::new(organization);
    Subscription { organization, user: "ann".to_owned(), role: None, filter, start }
}

/// Opens where nothing must be waited for.
fn open(hub: &Arc<Hub>, subscription: Subscription) -> Stream {
    hub.open(subscription).now_or_never().expect("opens at once")
}

/// A stream of organization `a` from the head on.
fn live(hub: &Arc<Hub>, filter: Filter) -> Stream {
    let head = hub.journals().head();
    open(hub, subscription("a", filter, Start::Now(head)))
}

/// A stream of this organization that sees everything there is.
fn live_of(hub: &Arc<Hub>, organization: &str) -> Stream {
    open(hub, subscription(organization, Filter::default(), Start::Earliest))
}

fn names(names: &[&str]) -> Option<BTreeSet<Arc<str>>> {
    Some(names.iter().map(|&name| name.into()).collect())
}

fn tag(name: u16, value: &str) -> Filter {
    Filter { tags: vec![(name, vec![value.as_bytes().into()])], ..Filter::default() }
}

fn id(lsn: u64, ordinal: u32) -> EventId {
    EventId { epoch: EPOCH, commit_lsn: Lsn::new(lsn), ordinal }
}

fn sync(reason: SyncReason, id: EventId) -> Option<Batch> {
    Some(Batch::Sync { reason, id })
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Polls once more than it is woken by that.
    fn poll(self: &Arc<Self>, stream: &mut Stream) -> Option<Batch> {
        let waker = Waker::from(self.clone());
        let mut next = std::pin::pin!(stream.next());
        loop {
            let woken = self.get();
            match next.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(batch) => return Some(batch),
                Poll::Pending if self.get() == woken => return None,
                Poll::Pending => {}
            }
        }
    }

    /// Whether the stream is to end.
    fn poll_ended(self: &Arc<Self>, stream: &Stream) -> Option<EndReason> {
        let waker = Waker::from(self.clone());
        match std::pin::pin!(stream.ended()).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(reason) => Some(reason),
            Poll::Pending => None,
        }
    }
}

/// The next batch, or none when nothing is there.
fn poll(stream: &mut Stream) -> Option<Batch> {
    Arc::<Count>::default().poll(stream)
}

/// The ids of the next batch of frames.
fn poll_ids(stream: &mut Stream) -> Vec<EventId> {
    match poll(stream) {
        Some(Batch::Frames(frames)) => {
            let text = String::from_utf8(frames.concat()).expect("text");
            let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
            ids.map(|id| id.parse().expect("an id")).collect()
        }
        None => Vec::new(),
        other => panic!("{other:?}"),
    }
}
