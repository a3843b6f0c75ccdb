//! Live streams: woken, filtered, merged, and what they owe.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;

use super::{Count, ROOMY, hub, id, live, names, open, poll, poll_ids, subscription, sync, tag};
use crate::catalog::event::{Epoch, EventId, SyncReason};
use crate::hub::{Batch, Filter, Start, Stream};
use crate::journal::fixture::{Draft, commit, draft, journals};
use crate::journal::{Listener, Touched};
use crate::postgres::Lsn;

fn frames(stream: &mut Stream) -> Vec<bytes::Bytes> {
    match poll(stream) {
        Some(Batch::Frames(frames)) => frames,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_published_reaches_every_stream_of_the_organization_and_no_other() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let (mut one, mut two) = (live(&hub, Filter::default()), live(&hub, Filter::default()));
    let mut other = open(&hub, subscription("b", Filter::default(), Start::Earliest));
    assert_eq!(poll(&mut one), None);
    commit(&journals, &[draft("a", 20, 1), draft("a", 20, 2)]);
    assert_eq!(poll_ids(&mut one), [id(20, 1), id(20, 2)]);
    assert_eq!(poll_ids(&mut two), [id(20, 1), id(20, 2)]);
    assert_eq!(poll(&mut one), None);
    assert_eq!(poll(&mut other), None);
    assert_eq!((one.cursor(), other.cursor()), (id(21, 0), id(21, 0)));
}

#[test]
fn a_signal_goes_before_the_next_batch_and_a_wake_lets_a_waiting_stream_see_it() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default());
    let handle = stream.handle();
    let raised = AtomicBool::new(false);
    let count = Arc::<Count>::default();
    let waker = Waker::from(count.clone());
    let wakes: [&dyn Fn(); 2] = [&|| hub.wake_all(), &|| handle.wake()];
    for (lsn, wake) in (20..).zip(wakes) {
        let woken = count.get();
        raised.store(false, Ordering::SeqCst);
        {
            let mut next =
                std::pin::pin!(stream.next_unless(|| raised.load(Ordering::SeqCst).then_some("now")));
            let mut poll = || next.as_mut().poll(&mut Context::from_waker(&waker));
            assert_eq!(poll(), Poll::Pending);
            raised.store(true, Ordering::SeqCst);
            wake();
            assert_eq!(count.get(), woken + 1);
            commit(&journals, &[draft("a", lsn, 1)]);
            assert_eq!(poll(), Poll::Ready(Err("now")));
        }
        assert_eq!(poll_ids(&mut stream), [id(lsn, 1)]);
    }
}

#[test]
fn streams_that_see_everything_share_the_same_bytes() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let (mut one, mut two) =
        (live(&hub, Filter::default()), live(&hub, Filter { channels: names(&["c"]), ..Filter::default() }));
    commit(&journals, &[draft("a", 20, 1), draft("a", 20, 2)]);
    let (one, two) = (frames(&mut one), frames(&mut two));
    assert_eq!((one.len(), two.len()), (1, 1));
    assert_eq!(one[0].as_ptr(), two[0].as_ptr());
}

#[test]
fn matching_neighbours_go_out_as_one_slice_of_the_shared_bytes() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let (mut all, mut some) =
        (live(&hub, Filter::default()), live(&hub, Filter { types: names(&["u"]), ..Filter::default() }));
    let large = |ordinal, event_type| Draft { event_type, size: 2000, ..draft("a", 20, ordinal) };
    commit(&journals, &[large(1, "t"), large(2, "u"), large(3, "u"), large(4, "t"), large(5, "u")]);
    let (all, some) = (frames(&mut all), frames(&mut some));
    assert_eq!((all.len(), some.len()), (1, 2));
    let first = large(1, "t").frame().len();
    assert_eq!(some[0].as_ptr(), all[0][first..].as_ptr());
    assert_eq!(
        some.concat(),
        [large(2, "u").frame(), large(3, "u").frame(), large(5, "u").frame()].concat().into_bytes()
    );
}

#[test]
fn tiny_frames_that_lie_apart_are_gathered_into_one_piece() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter { types: names(&["u"]), ..Filter::default() });
    let event = |ordinal, event_type| Draft { event_type, ..draft("a", 20, ordinal) };
    commit(&journals, &[event(1, "u"), event(2, "t"), event(3, "u"), event(4, "t"), event(5, "u")]);
    let frames = frames(&mut stream);
    assert_eq!(frames.len(), 1);
    assert_eq!(
        frames.concat(),
        [event(1, "u").frame(), event(3, "u").frame(), event(5, "u").frame()].concat().into_bytes()
    );
}

#[test]
fn a_batch_is_bounded_unless_one_frame_alone_is_larger() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default());
    let sizes = [100_000, 100_000, 100_000, 1_000_000, 10];
    for (ordinal, size) in (1..).zip(sizes) {
        assert!(Draft { size, ..draft("a", 20, ordinal) }.append(&journals));
    }
    journals.publish(Lsn::new(21));
    let batches: Vec<_> =
        std::iter::repeat_with(|| poll_ids(&mut stream)).take_while(|ids| !ids.is_empty()).collect();
    assert_eq!(batches, [vec![id(20, 1), id(20, 2)], vec![id(20, 3)], vec![id(20, 4)], vec![id(20, 5)]]);
}

#[test]
fn a_sync_of_the_journal_comes_in_order_with_its_own_id_to_its_channels() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let (mut all, mut other) =
        (live(&hub, tag(1, "x")), live(&hub, Filter { channels: names(&["other"]), ..Filter::default() }));
    let x = |lsn| Draft { tags: vec![(1, "x".to_owned())], ..draft("a", lsn, 1) };
    commit(&journals, &[x(20)]);
    commit(&journals, &[Draft { sync: true, ..draft("*", 30, 1) }]);
    commit(&journals, &[x(40)]);
    assert_eq!(poll_ids(&mut all), [id(20, 1)]);
    assert_eq!(poll(&mut all), sync(SyncReason::Truncated, id(30, 1)));
    assert_eq!(all.cursor(), id(30, 1));
    assert_eq!(poll_ids(&mut all), [id(40, 1)]);
    assert_eq!(poll(&mut other), None);
}

#[test]
fn a_stream_that_fell_out_of_the_window_is_told_and_goes_on_at_what_is_visible() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let (mut slow, mut slower) = (live(&hub, Filter::default()), live(&hub, Filter::default()));
    (20..30).for_each(|lsn| commit(&journals, &[draft("a", lsn, 1)]));
    journals.evict_before(25, Lsn::ZERO);
    assert_eq!(poll(&mut slow), sync(SyncReason::SlowConsumer, id(30, 0)));
    assert_eq!(poll(&mut slow), None);
    journals.set_visible(Lsn::new(27));
    assert_eq!(poll(&mut slower), sync(SyncReason::SlowConsumer, id(27, 0)));
    assert_eq!(poll_ids(&mut slower), [id(27, 1), id(28, 1), id(29, 1)]);
}

#[test]
fn a_quiet_stream_does_not_fall_out_of_the_window_by_what_does_not_concern_it() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, tag(1, "d1"));
    assert_eq!(poll(&mut stream), None);
    (20..30).for_each(|lsn| commit(&journals, &[draft("a", lsn, 1)]));
    journals.evict_before(1000, Lsn::ZERO);
    assert_eq!(stream.cursor(), id(30, 0));
    commit(&journals, &[Draft { tags: vec![(1, "d1".to_owned())], ..draft("a", 40, 1) }]);
    assert_eq!(poll_ids(&mut stream), [id(40, 1)]);
}

#[test]
fn a_reset_is_told_to_every_stream_before_anything_else() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let (mut idle, mut behind) = (live(&hub, tag(1, "none")), live(&hub, Filter::default()));
    let count = Arc::<Count>::default();
    assert_eq!(count.poll(&mut idle), None);
    commit(&journals, &[draft("a", 20, 1)]);
    let epoch = Epoch::new(9);
    journals.reset(epoch, Lsn::new(5), i64::MIN);
    assert_eq!(count.get(), 1);
    let event = Draft { epoch, ..draft("a", 7, 1) };
    commit(&journals, std::slice::from_ref(&event));
    for stream in [&mut idle, &mut behind] {
        assert_eq!(poll(stream), sync(SyncReason::HistoryReset, EventId::position(epoch, Lsn::new(8))));
        assert_eq!(poll(stream), None);
    }
    commit(&journals, &[Draft { epoch, ..draft("a", 9, 1) }]);
    assert_eq!(poll_ids(&mut behind), [EventId { epoch, commit_lsn: Lsn::new(9), ordinal: 1 }]);
}

#[test]
fn a_cancelled_wait_loses_nothing() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default());
    assert!(stream.next().now_or_never().is_none());
    commit(&journals, &[draft("a", 20, 1)]);
    drop(stream.next());
    assert_eq!(poll_ids(&mut stream), [id(20, 1)]);
}

#[test]
fn a_stream_owes_an_id_when_a_quarter_of_the_window_has_passed() {
    let journals = journals(ROOMY, 1000);
    let hub = hub(&journals);
    let hour = Duration::from_secs(3600);
    journals.publish(Lsn::new(2000));
    let mut stream = live(&hub, tag(1, "d1"));
    assert_eq!(poll(&mut stream), None);
    assert!(!stream.owes_id(hour));
    assert!(stream.owes_id(Duration::ZERO), "by its age");
    journals.publish(Lsn::new(2400));
    assert!(!stream.owes_id(hour), "all of history is still kept");
    journals.evict_before(0, Lsn::new(1001));
    assert!(stream.owes_id(hour), "400 of 1399");
    stream.carried(stream.cursor());
    assert!(!stream.owes_id(hour));
    journals.publish(Lsn::new(2500));
    assert!(!stream.owes_id(hour));
    journals.evict_before(0, Lsn::new(2300));
    assert!(stream.owes_id(hour), "100 of 200");
}

/// Meddles after the head has moved and before the hub hears of it.
struct Between(Mutex<Box<dyn FnMut() + Send>>);

impl Listener for Between {
    fn published(&self, _: Lsn, _: Lsn, _: &[Touched]) {
        self.0.lock().unwrap()();
    }

    fn reset(&self, _: Lsn) {}
}

#[test]
fn a_stream_that_looks_while_a_publish_is_announced_skips_nothing() {
    let journals = journals(ROOMY, 10);
    let meddle: Arc<Mutex<Box<dyn FnMut() + Send>>> = Arc::new(Mutex::new(Box::new(|| {})));
    let between = Arc::new(Between(Mutex::new({
        let meddle = meddle.clone();
        Box::new(move || meddle.lock().unwrap()())
    })));
    let listener: Weak<dyn Listener> = Arc::<Between>::downgrade(&between);
    journals.listen(listener);
    let hub = hub(&journals);
    let stream = Arc::new(Mutex::new(live(&hub, tag(1, "d1"))));
    assert_eq!(poll(&mut stream.lock().unwrap()), None);
    let seen = Arc::new(Mutex::new(Vec::new()));
    *meddle.lock().unwrap() = Box::new({
        let (stream, seen) = (stream.clone(), seen.clone());
        move || {
            let mut stream = stream.lock().unwrap();
            assert!(stream.cursor().place() < id(20, 1).place(), "what is not announced is not behind it");
            stream.handle().set_role(None);
            seen.lock().unwrap().extend(poll_ids(&mut stream));
        }
    });
    commit(&journals, &[Draft { tags: vec![(1, "d1".to_owned())], ..draft("a", 20, 1) }]);
    *meddle.lock().unwrap() = Box::new(|| {});
    assert_eq!(*seen.lock().unwrap(), [id(20, 1)]);
    assert_eq!(poll(&mut stream.lock().unwrap()), None, "not twice");
}
