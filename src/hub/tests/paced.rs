//! Streams that are sent their events at a pace.

use std::time::Duration;

use futures_util::FutureExt;

use super::{Count, ROOMY, hub, id, live, poll, poll_ids, sync};
use crate::catalog::event::{EventId, SyncReason};
use crate::hub::{Batch, EndReason, Filter, Pace, Stream};
use crate::journal::fixture::{EPOCH, commit, draft, journals};
use crate::postgres::Lsn;

/// So slow that a test meets the second event of it only when it does something wrong.
const CRAWL: u32 = 1;

fn crawling(stream: Stream) -> Stream {
    stream.paced(Pace::new(CRAWL, Duration::ZERO))
}

#[tokio::test]
async fn a_paced_stream_takes_no_more_than_its_turn_and_stands_where_it_stopped() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default()).paced(Pace::new(240, Duration::ZERO));
    commit(&journals, &(1..=9).map(|n| draft("a", 20, n)).collect::<Vec<_>>());
    assert_eq!(poll_ids(&mut stream), [id(20, 1), id(20, 2), id(20, 3), id(20, 4)], "a second's worth");
    assert_eq!(poll(&mut stream), None);
    assert_eq!(stream.cursor(), id(20, 4));
}

#[tokio::test]
async fn what_waits_comes_in_order_and_once() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default()).paced(Pace::new(6000, Duration::ZERO));
    let mut expected = Vec::new();
    for lsn in 20..60 {
        commit(&journals, &(1..=7).map(|n| draft("a", lsn, n)).collect::<Vec<_>>());
        expected.extend((1..=7).map(|n| id(lsn, n)));
    }
    let mut seen: Vec<EventId> = Vec::new();
    while seen.len() < expected.len() {
        let Batch::Frames(frames) = stream.next().await else { panic!("no frames") };
        let text = String::from_utf8(frames.concat()).expect("text");
        seen.extend(text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse::<EventId>().ok()));
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn its_end_and_a_new_history_do_not_wait_for_its_turn() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let (mut ended, mut reset) =
        (crawling(live(&hub, Filter::default())), crawling(live(&hub, Filter::default())));
    commit(&journals, &[draft("a", 20, 1), draft("a", 20, 2)]);
    assert_eq!((poll_ids(&mut ended), poll_ids(&mut reset)), (vec![id(20, 1)], vec![id(20, 1)]));
    let handle = ended.handle();
    let ending = async {
        assert!(ended.next().now_or_never().is_none());
        tokio::join!(ended.next(), async { handle.end(EndReason::Revoked) }).0
    };
    assert_eq!(ending.await, Batch::End(EndReason::Revoked));
    let resetting =
        async { tokio::join!(reset.next(), async { journals.reset(EPOCH, Lsn::new(500), i64::MIN) }).0 };
    assert_eq!(Some(resetting.await), sync(SyncReason::HistoryReset, id(500, 0)));
}

#[tokio::test]
async fn a_stream_that_waits_its_turn_is_not_woken_by_more_of_the_same() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = crawling(live(&hub, Filter::default()));
    commit(&journals, &[draft("a", 20, 1)]);
    let count = std::sync::Arc::<Count>::default();
    assert!(count.poll(&mut stream).is_some());
    assert_eq!(count.poll(&mut stream), None);
    for lsn in 21..200 {
        commit(&journals, &[draft("a", lsn, 1)]);
    }
    assert!(count.get() <= 1, "{}", count.get());
}

#[tokio::test]
async fn a_paced_stream_that_the_window_passes_is_told_so() {
    let journals = journals(1 << 20, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default()).paced(Pace::new(0, Duration::from_millis(10)));
    commit(&journals, &[draft("a", 20, 1)]);
    assert_eq!(poll_ids(&mut stream), [id(20, 1)]);
    for lsn in 21..60 {
        commit(&journals, &[draft("a", lsn, 1)]);
    }
    journals.evict_before(i64::MIN, Lsn::new(50));
    assert_eq!(Some(stream.next().await), sync(SyncReason::SlowConsumer, id(60, 0)));
}

#[tokio::test]
async fn a_stream_that_is_held_takes_nothing_loses_nothing_and_hears_of_its_end() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default());
    let (before, later) = (stream.cursor(), tokio::time::Instant::now() + Duration::from_secs(3600));
    stream.hold(later);
    let count = std::sync::Arc::<Count>::default();
    assert_eq!(count.poll(&mut stream), None);
    for lsn in 20..200 {
        commit(&journals, &[draft("a", lsn, 1)]);
    }
    assert!(count.get() <= 1, "{}", count.get());
    assert_eq!((count.poll(&mut stream), stream.cursor()), (None, before));
    stream.hold(tokio::time::Instant::now());
    assert_eq!(poll_ids(&mut stream), (20..200).map(|lsn| id(lsn, 1)).collect::<Vec<_>>());
    stream.hold(later);
    commit(&journals, &[draft("a", 200, 1)]);
    assert_eq!(poll(&mut stream), None);
    journals.reset(EPOCH, Lsn::new(500), i64::MIN);
    assert_eq!(poll(&mut stream), sync(SyncReason::HistoryReset, id(500, 0)));
    stream.handle().end(EndReason::Revoked);
    assert_eq!(poll(&mut stream), Some(Batch::End(EndReason::Revoked)));
}
