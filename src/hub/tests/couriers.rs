//! Streams that wait are written to by couriers, and what a courier can't do comes to the stream's own task.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{Count, ROOMY, hub, id, live, open, subscription, sync, tag};
use crate::catalog::event::{Audience, EventId, SyncReason};
use crate::hub::courier::TURN;
use crate::hub::{Batch, EndReason, Filter, Hub, Outlet, Rest, Start, Stream};
use crate::journal::Journals;
use crate::journal::fixture::{Draft, commit, draft, journals};
use crate::postgres::Lsn;
use crate::telemetry::{Metrics, Readiness};

/// A client that takes so many bytes.
#[derive(Debug)]
pub(super) struct Client {
    taken: Mutex<Vec<u8>>,
    room: Mutex<usize>,
    until: Mutex<u64>,
}

impl Client {
    pub(super) fn new(room: usize) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), room: Mutex::new(room), until: Mutex::new(u64::MAX) })
    }

    fn roomy() -> Arc<Self> {
        Self::new(usize::MAX)
    }

    pub(super) fn make_room(&self, room: usize) {
        *self.room.lock().unwrap() = room;
    }

    pub(super) fn set_until(&self, second: u64) {
        *self.until.lock().unwrap() = second;
    }

    /// What the stream's own task writes.
    pub(super) fn write(&self, bytes: &[u8]) {
        self.taken.lock().unwrap().extend_from_slice(bytes);
    }

    pub(super) fn taken(&self) -> String {
        String::from_utf8(self.taken.lock().unwrap().clone()).unwrap()
    }
}

impl Outlet for Client {
    fn until(&self) -> u64 {
        *self.until.lock().unwrap()
    }

    fn offer(&self, frames: &[Bytes]) -> usize {
        let (all, mut room) = (frames.concat(), self.room.lock().unwrap());
        let written = all.len().min(*room);
        *room -= written;
        self.write(&all[..written]);
        written
    }
}

fn metrics() -> Metrics {
    Metrics::new(&Readiness::new())
}

/// Polls until nothing wakes it.
fn settle(future: std::pin::Pin<&mut impl Future<Output = ()>>) {
    let mut future = future;
    for _ in 0..100 {
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
}

/// A journal, its hub, a waiting stream of it with this client, and a courier. What `publish` does is carried; then the
/// stream's next batch, if it was woken, and its cursor.
fn carried(
    filter: Filter,
    client: &Arc<Client>,
    publish: impl FnOnce(&Arc<Journals>, &Arc<Hub>, &crate::hub::StreamHandle),
) -> (Option<Batch>, EventId) {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, filter).through(client.clone());
    let handle = stream.handle();
    let count = Arc::<Count>::default();
    let waker = Waker::from(count.clone());
    let batch = {
        let mut courier = pin!(hub.courier(metrics()));
        settle(courier.as_mut());
        let mut next = pin!(stream.next());
        assert_eq!(next.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
        publish(&journals, &hub, &handle);
        settle(courier);
        if count.get() == 0 {
            None
        } else {
            match next.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(batch) => Some(batch),
                Poll::Pending => panic!("woken in vain"),
            }
        }
    };
    (batch, stream.cursor())
}

fn frames(drafts: &[Draft]) -> String {
    drafts.iter().map(Draft::frame).collect()
}

fn bytes(frames: &str) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(frames.as_bytes())]
}

#[test]
fn a_waiting_stream_is_written_to_without_being_woken() {
    let client = Client::roomy();
    let events = [draft("a", 20, 1), draft("*", 30, 1), draft("a", 30, 2)];
    let (batch, cursor) = carried(Filter::default(), &client, |journals, _, _| {
        commit(journals, &events[..1]);
        commit(journals, &events[1..]);
    });
    assert_eq!(batch, None);
    assert_eq!(client.taken(), frames(&events));
    assert_eq!(cursor, id(31, 0), "at the head");
}

#[test]
fn a_courier_brings_what_the_filter_lets_through() {
    let client = Client::roomy();
    let tagged = |lsn, value: &str| Draft { tags: vec![(1, value.to_owned())], ..draft("a", lsn, 1) };
    let (batch, cursor) = carried(tag(1, "7"), &client, |journals, _, _| {
        [tagged(20, "7"), tagged(30, "8"), tagged(40, "7")].into_iter().for_each(|e| commit(journals, &[e]));
    });
    assert_eq!(batch, None);
    assert_eq!(client.taken(), frames(&[tagged(20, "7"), tagged(40, "7")]));
    assert!(cursor.place() > id(40, 1).place());
}

#[test]
fn a_courier_brings_nothing_that_the_streams_role_may_not_see() {
    let client = Client::roomy();
    let admins = Audience { roles: vec!["admin".into()], user: None };
    let secret = Draft { audience: Some(Arc::new(admins)), ..draft("a", 20, 1) };
    let (batch, _) = carried(Filter::default(), &client, |journals, _, _| {
        commit(journals, &[secret, draft("a", 20, 2)]);
    });
    assert_eq!(batch, None);
    assert_eq!(client.taken(), frames(&[draft("a", 20, 2)]));
}

#[test]
fn streams_that_take_everything_are_given_the_same_bytes() {
    /// Where the bytes are that it was offered.
    #[derive(Debug, Default)]
    struct Place(Mutex<Vec<usize>>);
    impl Outlet for Place {
        fn until(&self) -> u64 {
            u64::MAX
        }
        fn offer(&self, frames: &[Bytes]) -> usize {
            self.0.lock().unwrap().extend(frames.iter().map(|frame| frame.as_ptr() as usize));
            frames.iter().map(Bytes::len).sum()
        }
    }
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let places = [Arc::<Place>::default(), Arc::default()];
    let mut streams: Vec<Stream> =
        places.iter().map(|place| live(&hub, Filter::default()).through(place.clone())).collect();
    let mut courier = pin!(hub.courier(metrics()));
    settle(courier.as_mut());
    let mut waiting: Vec<_> = streams.iter_mut().map(|stream| Box::pin(stream.next())).collect();
    for next in &mut waiting {
        assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    commit(&journals, &[draft("a", 20, 1)]);
    settle(courier);
    let [one, other] = places.map(|place| place.0.lock().unwrap().clone());
    assert!(one.len() == 1 && one == other, "{one:?} {other:?}");
}

#[test]
fn what_the_client_did_not_take_is_left_to_the_stream() {
    let event = draft("a", 20, 1);
    let client = Client::new(5);
    let (batch, cursor) = carried(Filter::default(), &client, |journals, _, _| {
        commit(journals, std::slice::from_ref(&event));
        commit(journals, &[draft("a", 30, 1)]);
    });
    let rest = Rest { frames: bytes(&event.frame()), written: 5 };
    // Both, if they were carried together.
    let both = Rest { frames: bytes(&frames(&[event.clone(), draft("a", 30, 1)])), written: 5 };
    assert!(batch == Some(Batch::Rest(rest)) || batch == Some(Batch::Rest(both)), "{batch:?}");
    assert_eq!(client.taken(), event.frame()[..5]);
    assert!(cursor.place() >= event.id().place(), "it counts as sent");
}

#[test]
fn a_stream_whose_client_takes_nothing_has_to_write_itself() {
    let event = draft("a", 20, 1);
    let (batch, cursor) = carried(Filter::default(), &Client::new(0), |journals, _, _| {
        commit(journals, std::slice::from_ref(&event));
    });
    assert_eq!(batch, Some(Batch::Frames(bytes(&event.frame()))));
    assert_eq!(cursor, id(21, 0));
}

#[test]
fn a_courier_brings_nothing_from_the_second_on_that_ends_the_streams_token() {
    let (now, event) =
        (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(), || draft("a", 20, 1));
    let left_to_the_stream = Some(Batch::Frames(bytes(&event().frame())));
    let until = |second: u64| {
        let client = Client::roomy();
        client.set_until(second);
        client
    };
    let over = until(now);
    let (batch, _) = carried(Filter::default(), &over, |journals, _, _| commit(journals, &[event()]));
    assert_eq!((batch, over.taken()), (left_to_the_stream.clone(), String::new()));
    let good = until(now + 3600);
    let (batch, _) = carried(Filter::default(), &good, |journals, _, _| commit(journals, &[event()]));
    assert_eq!((batch, good.taken()), (None, event().frame()));
    // Moved while it waits: at once, before its own task has heard of it.
    let (batch, _) = carried(Filter::default(), &good, |journals, _, handle| {
        handle.offer_until(now);
        commit(journals, &[event()]);
    });
    assert_eq!((batch, good.taken()), (left_to_the_stream, event().frame()), "nothing more was brought");
}

#[test]
fn a_stream_with_much_to_catch_up_with_does_so_itself() {
    let large = Draft { size: 100_000, ..draft("a", 20, 1) };
    let client = Client::roomy();
    let (batch, _) = carried(Filter::default(), &client, |journals, _, _| {
        commit(journals, std::slice::from_ref(&large));
    });
    assert_eq!(batch, Some(Batch::Frames(bytes(&large.frame()))));
    assert_eq!(client.taken(), "");
}

#[test]
fn what_concerns_a_stream_beside_events_comes_before_them() {
    let event = || draft("a", 20, 1);
    let client = Client::roomy();
    let ended = carried(Filter::default(), &client, |journals, _, handle| {
        handle.end(EndReason::Revoked);
        commit(journals, &[event()]);
    });
    assert_eq!(ended.0, Some(Batch::End(EndReason::Revoked)));
    let truncated = carried(Filter::default(), &client, |journals, _, _| {
        commit(journals, &[Draft { sync: true, ..event() }]);
    });
    assert_eq!(truncated.0, sync(SyncReason::Truncated, id(20, 1)));
    let reset = carried(Filter::default(), &client, |journals, _, _| {
        journals.reset(crate::journal::fixture::EPOCH, Lsn::new(50), i64::MIN);
    });
    assert_eq!(reset.0, sync(SyncReason::HistoryReset, id(50, 0)));
    let narrowed = carried(Filter::default(), &client, |journals, _, handle| {
        commit(journals, &[event()]);
        handle.set_filter(tag(1, "7"));
        commit(journals, &[draft("a", 30, 1)]);
    });
    assert_eq!(narrowed.0, Some(Batch::Frames(bytes(&event().frame()))), "what is not of the new filter");
    assert_eq!(client.taken(), "", "nothing was brought past any of it");
}

#[test]
fn without_a_courier_streams_are_woken() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let client = Client::roomy();
    let mut stream = live(&hub, Filter::default()).through(client.clone());
    let count = Arc::<Count>::default();
    assert_eq!(count.poll(&mut stream), None);
    commit(&journals, &[draft("a", 20, 1)]);
    assert_eq!(count.poll(&mut stream), Some(Batch::Frames(bytes(&draft("a", 20, 1).frame()))));
    // One that is gone before it did what it was called for.
    let waker = Waker::from(count.clone());
    let mut courier = Box::pin(hub.courier(metrics()));
    settle(courier.as_mut());
    let mut next = pin!(stream.next());
    assert_eq!(next.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    let before = count.get();
    commit(&journals, &[draft("a", 30, 1)]);
    assert_eq!(count.get(), before, "a courier is called");
    drop(courier);
    assert_eq!(count.get(), before + 1, "the stream is");
    let batch = next.as_mut().poll(&mut Context::from_waker(&waker));
    assert_eq!(batch, Poll::Ready(Batch::Frames(bytes(&draft("a", 30, 1).frame()))));
    assert_eq!(client.taken(), "");
}

#[test]
fn the_few_are_served_before_the_many() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    /// Notes the order in which it was offered something.
    #[derive(Debug)]
    struct Turn(&'static str, Arc<Mutex<Vec<&'static str>>>);
    impl Outlet for Turn {
        fn until(&self) -> u64 {
            u64::MAX
        }
        fn offer(&self, frames: &[Bytes]) -> usize {
            self.1.lock().unwrap().push(self.0);
            frames.iter().map(Bytes::len).sum()
        }
    }
    let turns = Arc::<Mutex<Vec<&'static str>>>::default();
    let mut streams: Vec<_> = std::iter::repeat_n("many", 400)
        .chain(["few"])
        .map(|organization| {
            let start = Start::Now(journals.head());
            let stream = open(&hub, subscription(organization, Filter::default(), start));
            stream.through(Arc::new(Turn(organization, turns.clone())))
        })
        .collect();
    let mut courier = pin!(hub.courier(metrics()));
    settle(courier.as_mut());
    let mut waiting: Vec<_> = streams.iter_mut().map(|stream| Box::pin(stream.next())).collect();
    for next in &mut waiting {
        assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    commit(&journals, &[draft("many", 20, 1)]);
    // One turn along the many.
    assert!(courier.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    commit(&journals, &[draft("few", 30, 1)]);
    settle(courier);
    let turns = turns.lock().unwrap();
    assert_eq!(turns.len(), 401);
    let few = turns.iter().position(|turn| *turn == "few").unwrap();
    assert!(few < 400 && few > 0, "after one turn, not after all: {few}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_client_gets_every_event_once_and_in_order_whoever_writes_it() {
    stress(24, 3000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn so_do_streams_of_which_couriers_serve_some_while_others_are_being_marked() {
    stress(TURN as u64 * 3, 200).await;
}

async fn stress(streams: u64, events: u64) {
    let journals = journals(ROOMY, 10);
    let hub = Hub::new(journals.clone());
    let mut couriers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let hub = hub.clone();
        couriers.spawn(async move { hub.courier(metrics()).await });
    }
    let event = |lsn: u64| Draft {
        tags: vec![(1, (lsn % 10).to_string())],
        ..draft(if lsn.is_multiple_of(5) { "*" } else { "a" }, lsn, 1)
    };
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..streams {
        let filtered = number % 3 == 1;
        let filter = if filtered { tag(1, "7") } else { Filter::default() };
        // Some take little at a time, some nothing.
        let client = Client::new([usize::MAX, 5_000, 0][usize::try_from(number / 3 % 3).unwrap()]);
        let stream = hub.open(subscription("a", filter, Start::Earliest)).await;
        let (mut stream, hub) = (stream.through(client.clone()), hub.clone());
        readers.spawn(async move {
            let wanted = (20..20 + events).filter(|lsn| !filtered || lsn % 10 == 7);
            let expected: String = wanted.map(|lsn| event(lsn).frame()).collect();
            while client.taken().len() < expected.len() {
                tokio::select! {
                    // What was begun must be finished before anything else is written, by whomever.
                    batch = stream.next() => match batch {
                        Batch::Frames(frames) => client.write(&frames.concat()),
                        Batch::Rest(Rest { frames, written }) => {
                            tokio::task::yield_now().await;
                            client.write(&frames.concat()[written..]);
                        }
                        other => panic!("{other:?}"),
                    },
                    () = tokio::time::sleep(Duration::from_millis(number % 4 + 1)) => {
                        let cursor = stream.cursor();
                        if let Some(Rest { frames, written }) = stream.take_rest() {
                            client.write(&frames.concat()[written..]);
                        }
                        let taken = client.taken();
                        let last = taken.lines().rev().find_map(|line| line.strip_prefix("id: "));
                        let last: Option<EventId> = last.map(|id| id.parse().unwrap());
                        assert!(last.is_none_or(|last| last.place() <= cursor.place()), "{cursor} {last:?}");
                        client.make_room(if number % 2 == 0 { 7_000 } else { usize::MAX });
                        hub.wake_all();
                    }
                }
                assert!(expected.starts_with(&client.taken()));
            }
        });
    }
    let writer = tokio::spawn(async move {
        for lsn in 20..20 + events {
            commit(&journals, &[event(lsn)]);
            // Long enough for some streams to wait again.
            if lsn.is_multiple_of(20) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let all = async {
        while let Some(reader) = readers.join_next().await {
            reader.expect("a client got what it was to get");
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), all).await;
    in_time.expect("nobody is forgotten");
    writer.await.expect("it writes all");
}
