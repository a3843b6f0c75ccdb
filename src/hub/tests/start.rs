//! Where a stream starts.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{ROOMY, hub, id, open, poll, poll_ids, subscription, sync};
use crate::catalog::event::{Epoch, EventId, SyncReason};
use crate::hub::{Filter, Hub, Start, Stream};
use crate::journal::Journals;
use crate::journal::fixture::{Draft, EPOCH, commit, draft, journals};
use crate::postgres::Lsn;

fn start(hub: &Arc<Hub>, start: Start) -> Stream {
    open(hub, subscription("a", Filter::default(), start))
}

/// 20.1, 25.1 of `*`, 30.1 and 30.2, and 40.1 of another organization.
fn history() -> (Arc<Journals>, Arc<Hub>) {
    let journals = journals(ROOMY, 10);
    commit(&journals, &[draft("a", 20, 1)]);
    commit(&journals, &[draft("*", 25, 1)]);
    commit(&journals, &[draft("a", 30, 1), draft("a", 30, 2)]);
    commit(&journals, &[draft("b", 40, 1)]);
    let hub = hub(&journals);
    (journals, hub)
}

#[test]
fn after_an_id_everything_later_follows() {
    let (_, hub) = history();
    for (after, expected) in [
        (id(10, 0), vec![id(20, 1), id(25, 1), id(30, 1), id(30, 2)]),
        (id(20, 1), vec![id(25, 1), id(30, 1), id(30, 2)]),
        (id(25, 1), vec![id(30, 1), id(30, 2)]),
        (id(27, 0), vec![id(30, 1), id(30, 2)]),
        (id(30, 1), vec![id(30, 2)]),
        (id(41, 0), vec![]),
    ] {
        let mut stream = start(&hub, Start::After(after));
        assert!(stream.resumed(), "{after}");
        assert_eq!(stream.cursor(), after);
        assert_eq!(poll_ids(&mut stream), expected, "{after}");
    }
}

#[test]
fn an_id_that_names_no_transaction_here_is_history_reset() {
    let (_, hub) = history();
    let foreign = EventId { epoch: Epoch::new(1), ..id(20, 1) };
    for wrong in [id(22, 1), id(40, 1), foreign] {
        let mut stream = start(&hub, Start::After(wrong));
        assert!(!stream.resumed(), "{wrong}");
        assert_eq!(stream.cursor(), id(0, 0), "before everything, until it is told");
        assert_eq!(poll(&mut stream), sync(SyncReason::HistoryReset, id(41, 0)), "{wrong}");
        assert_eq!(poll(&mut stream), None);
        assert_eq!(stream.cursor(), id(41, 0));
    }
    assert_eq!(poll(&mut start(&hub, Start::Unreadable)), sync(SyncReason::HistoryReset, id(41, 0)));
}

#[test]
fn an_id_below_either_floor_is_history_expired_and_one_at_it_is_not() {
    let (journals, hub) = history();
    journals.evict_before(22, Lsn::ZERO);
    assert!(start(&hub, Start::After(id(20, 1))).resumed());
    let mut stream = start(&hub, Start::After(id(20, 0)));
    assert!(!stream.resumed());
    assert_eq!(poll(&mut stream), sync(SyncReason::HistoryExpired, id(41, 0)));
    journals.evict_before(27, Lsn::ZERO);
    assert_eq!(poll(&mut start(&hub, Start::After(id(20, 1)))), sync(SyncReason::HistoryExpired, id(41, 0)));
    assert!(start(&hub, Start::After(id(25, 1))).resumed(), "the floor of `*`");
}

#[test]
fn earliest_is_all_that_is_kept_and_now_is_what_comes() {
    let (journals, hub) = history();
    journals.evict_before(22, Lsn::ZERO);
    let mut earliest = start(&hub, Start::Earliest);
    assert_eq!((earliest.cursor(), earliest.resumed()), (id(20, 1), false));
    assert_eq!(poll_ids(&mut earliest), [id(25, 1), id(30, 1), id(30, 2)]);
    assert_eq!(poll_ids(&mut start(&hub, Start::Now(Lsn::new(26)))), [id(30, 1), id(30, 2)]);
    let mut ahead = start(&hub, Start::Now(Lsn::new(50)));
    assert_eq!((ahead.cursor(), poll(&mut ahead)), (id(50, 0), None));
    commit(&journals, &[draft("a", 45, 1)]);
    commit(&journals, &[draft("a", 50, 1)]);
    assert_eq!(poll_ids(&mut ahead), [id(50, 1)]);
    let mut evicted = start(&hub, Start::Now(Lsn::new(15)));
    assert_eq!(poll(&mut evicted), sync(SyncReason::HistoryExpired, id(51, 0)));
}

fn millis_ago(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap() - seconds * 1000
}

fn draft_ago(organization: &str, lsn: u64, seconds: i64) -> Draft {
    Draft { millis: millis_ago(seconds), ..draft(organization, lsn, 1) }
}

#[test]
fn since_a_time_starts_with_the_first_event_that_committed_then_or_later() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    commit(&journals, &[draft_ago("a", 20, 500)]);
    commit(&journals, &[draft_ago("*", 30, 400)]);
    commit(&journals, &[draft_ago("a", 40, 300)]);
    let since = |seconds| start(&hub, Start::Since(Duration::from_secs(seconds)));
    assert_eq!(poll_ids(&mut since(1000)), [id(20, 1), id(30, 1), id(40, 1)]);
    assert_eq!(poll_ids(&mut since(450)), [id(30, 1), id(40, 1)]);
    assert_eq!(poll_ids(&mut since(350)), [id(40, 1)]);
    assert_eq!(since(100).cursor(), id(41, 0));
    journals.evict_before(millis_ago(450), Lsn::ZERO);
    assert_eq!(poll_ids(&mut since(450)), [id(30, 1), id(40, 1)]);
    let mut more = since(1000);
    assert_eq!(poll(&mut more), sync(SyncReason::HistoryExpired, id(30, 0)));
    assert_eq!(poll_ids(&mut more), [id(30, 1), id(40, 1)]);
}

#[test]
fn since_a_time_tells_of_what_an_organization_lost_that_has_nothing_left() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    commit(&journals, &[draft_ago("a", 20, 500)]);
    commit(&journals, &[draft_ago("b", 30, 300)]);
    // By the log's budget, not by age.
    journals.evict_before(i64::MIN, Lsn::new(25));
    let since = |seconds| start(&hub, Start::Since(Duration::from_secs(seconds)));
    assert_eq!(poll(&mut since(1000)), sync(SyncReason::HistoryExpired, id(31, 0)));
    assert_eq!(since(400).cursor(), id(31, 0));
    assert_eq!(poll(&mut since(400)), None);
}

#[test]
fn since_a_time_before_history_began_or_beyond_the_window_is_history_expired() {
    let journals = Journals::new(ROOMY);
    let hub = hub(&journals);
    journals.reset(EPOCH, Lsn::new(10), millis_ago(100));
    commit(&journals, &[draft_ago("a", 20, 50)]);
    let since = |seconds| start(&hub, Start::Since(Duration::from_secs(seconds)));
    assert_eq!(poll_ids(&mut since(90)), [id(20, 1)]);
    let mut before = since(110);
    assert_eq!(poll(&mut before), sync(SyncReason::HistoryExpired, id(20, 0)));
    assert_eq!(poll_ids(&mut before), [id(20, 1)]);
    // Nothing was lost, but what is so old would have been.
    journals.evict_before(millis_ago(70), Lsn::ZERO);
    assert_eq!(poll_ids(&mut since(60)), [id(20, 1)]);
    assert_eq!(poll(&mut since(80)), sync(SyncReason::HistoryExpired, id(20, 0)));
}

#[tokio::test]
async fn an_id_ahead_of_this_node_is_waited_for() {
    let (journals, _) = history();
    let hub = Hub::with_patience(journals.clone(), Duration::from_secs(60));
    let opening = hub.open(subscription("a", Filter::default(), Start::After(id(50, 1))));
    let come = async {
        assert_eq!(hub.streams(), 1, "it is counted while it waits");
        commit(&journals, &[draft("a", 45, 1)]);
        tokio::task::yield_now().await;
        commit(&journals, &[draft("a", 50, 1), draft("a", 50, 2)]);
    };
    let (mut stream, ()) = tokio::join!(biased; opening, come);
    assert!(stream.resumed());
    assert_eq!(poll_ids(&mut stream), [id(50, 2)]);
}

#[tokio::test]
async fn an_id_that_stays_ahead_is_history_reset() {
    let (_, hub) = history();
    for ahead in [id(41, 1), id(50, 0)] {
        let mut stream = hub.open(subscription("a", Filter::default(), Start::After(ahead))).await;
        assert_eq!(poll(&mut stream), sync(SyncReason::HistoryReset, id(41, 0)));
    }
}
