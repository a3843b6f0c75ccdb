//! What is told beside the journal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::{Count, ROOMY, hub, live, names, open, poll, poll_ids, subscription, tag};
use crate::catalog::event::OrganizationId;
use crate::hub::notices::Notices;
use crate::hub::{Batch, EndReason, Filter, Hub, Notice, NoticeKind, Start};
use crate::journal::fixture::{commit, draft, journals};

fn kind() -> NoticeKind {
    NoticeKind::new("news", "told")
}

fn about(user: &str, text: &str) -> Notice {
    Notice { about: user.into(), frame: format!("data: {user} {text}\n\n").into_bytes() }
}

fn tell(hub: &Arc<Hub>, notices: &[(&str, &str)]) {
    let mut wakers = Vec::new();
    let notices = notices.iter().map(|(user, text)| about(user, text));
    hub.tell(&OrganizationId::new("a"), &kind(), notices, &mut wakers);
    wakers.into_iter().for_each(std::task::Waker::wake);
}

/// The text of a batch of notices.
fn told(batch: Option<Batch>) -> String {
    match batch {
        Some(Batch::Notices(frames)) => String::from_utf8(frames.concat()).unwrap(),
        None => String::new(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_notice_reaches_the_streams_of_its_organization_whose_filters_let_it_through() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let filters = [
        (Filter::default(), true),
        (Filter { channels: names(&["news", "c"]), ..Filter::default() }, true),
        (Filter { types: names(&["told"]), ..Filter::default() }, true),
        (Filter { channels: names(&["c"]), ..Filter::default() }, false),
        (Filter { channels: names(&["c"]), types: names(&["told"]), ..Filter::default() }, false),
        (Filter { types: names(&["t"]), channels: names(&["news"]), ..Filter::default() }, false),
        (tag(1, "x"), false),
    ];
    let mut streams: Vec<_> =
        filters.map(|(filter, gets)| (live(&hub, filter), Arc::<Count>::default(), gets)).into();
    let mut other = open(&hub, subscription("b", Filter::default(), Start::Earliest));
    for (stream, count, _) in &mut streams {
        assert_eq!(count.poll(stream), None);
    }
    tell(&hub, &[("bob", "1"), ("eve", "1")]);
    for (stream, count, gets) in &mut streams {
        let expected = if *gets { "data: bob 1\n\ndata: eve 1\n\n" } else { "" };
        assert!(count.get() == usize::from(*gets) || !*gets, "{}", count.get());
        let batch = count.poll(stream);
        if let Some(Batch::Notices(frames)) = &batch {
            assert_eq!(frames.len(), 1, "what was told together is one piece");
        }
        assert_eq!(told(batch), expected);
        assert_eq!(count.poll(stream), None, "each once");
    }
    assert_eq!(poll(&mut other), None);
}

#[test]
fn who_comes_later_is_not_told_what_was_told_before() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let _first = live(&hub, Filter::default());
    tell(&hub, &[("bob", "1")]);
    let mut later = live(&hub, Filter::default());
    assert_eq!(poll(&mut later), None);
    tell(&hub, &[("eve", "1")]);
    assert_eq!(told(poll(&mut later)), "data: eve 1\n\n");
}

#[test]
fn only_the_newest_about_a_user_is_told_and_nothing_to_the_user() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    // Its user is ann.
    let mut stream = live(&hub, Filter::default());
    for text in ["1", "2", "3"] {
        tell(&hub, &[("bob", text), ("ann", text), ("eve", text)]);
    }
    tell(&hub, &[("bob", "4")]);
    assert_eq!(told(poll(&mut stream)), "data: eve 3\n\ndata: bob 4\n\n");
    tell(&hub, &[("ann", "5")]);
    assert_eq!(poll(&mut stream), None);
}

#[test]
fn notices_yield_to_the_journal_and_are_not_kept_waiting_by_it() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default());
    commit(&journals, &[draft("a", 20, 1)]);
    tell(&hub, &[("bob", "1")]);
    assert_eq!(poll_ids(&mut stream).len(), 1);
    // The writer does not pause.
    commit(&journals, &[draft("a", 30, 1)]);
    assert_eq!(told(poll(&mut stream)), "data: bob 1\n\n");
    assert_eq!(poll_ids(&mut stream).len(), 1);
}

#[test]
fn a_stream_that_begins_to_listen_is_told_from_then_on() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter { channels: names(&["c"]), ..Filter::default() });
    let handle = stream.handle();
    tell(&hub, &[("bob", "1")]);
    handle.set_filter(Filter::default());
    assert_eq!(poll(&mut stream), None);
    tell(&hub, &[("eve", "1")]);
    // A change that leaves it listening loses nothing that waits.
    handle.set_filter(Filter { channels: names(&["news"]), ..Filter::default() });
    assert_eq!(told(poll(&mut stream)), "data: eve 1\n\n");
    tell(&hub, &[("bob", "2")]);
    handle.skip_notices();
    assert_eq!(poll(&mut stream), None);
    tell(&hub, &[("bob", "3")]);
    handle.set_filter(tag(1, "x"));
    assert_eq!(poll(&mut stream), None);
    handle.set_filter(Filter::default());
    assert_eq!(poll(&mut stream), None);
}

#[test]
fn an_ended_stream_is_told_nothing_more() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default());
    commit(&journals, &[draft("a", 20, 1)]);
    assert_eq!(poll_ids(&mut stream).len(), 1);
    tell(&hub, &[("bob", "1")]);
    stream.handle().end(EndReason::Revoked);
    assert_eq!(poll(&mut stream), Some(Batch::End(EndReason::Revoked)));
    assert_eq!(poll(&mut stream), Some(Batch::End(EndReason::Revoked)));
}

#[test]
fn more_than_a_batch_is_told_in_several() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default());
    let long = "x".repeat(100_000);
    let users = ["b1", "b2", "b3", "b4", "b5"];
    tell(&hub, &users.map(|user| (user, long.as_str())));
    let count = Arc::<Count>::default();
    let mut seen = String::new();
    for _ in 0..3 {
        let part = told(count.poll(&mut stream));
        assert!(part.len() <= 256 * 1024);
        seen.push_str(&part);
    }
    let all: String = users.iter().map(|user| format!("data: {user} {long}\n\n")).collect();
    assert!(seen == all, "each once, in order: {} of {}", seen.len(), all.len());
    assert_eq!(count.poll(&mut stream), None);
}

#[test]
fn what_is_kept_is_bounded_and_who_missed_it_is_lost() {
    let mut notices = Notices::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    notices.add(&kind(), [about("bob", "1")].into_iter(), at(0));
    notices.add(&kind(), [about("eve", "1")].into_iter(), at(60));
    notices.add(&kind(), [about("eve", "2")].into_iter(), at(121));
    // Bob's was dropped for its age; Eve's first for her second, which tells as much.
    assert!(notices.after(0, "ann").is_err());
    assert_eq!(notices.after(1, "ann").unwrap().frames.concat(), b"data: eve 2\n\n");
    let crowd = (0..70_000).map(|number| about(&format!("u{number}"), ""));
    notices.add(&kind(), crowd, at(122));
    assert!(notices.after(3, "ann").is_err());
    let frames = notices.after(70_003 - (1 << 16), "ann").unwrap();
    assert!(frames.more && frames.frames.len() == 1);
}

#[test]
fn a_stream_that_is_lost_ends() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default());
    let mut wakers = Vec::new();
    let crowd = (0..70_000).map(|number| about(&format!("u{number}"), ""));
    hub.tell(&OrganizationId::new("a"), &kind(), crowd, &mut wakers);
    assert_eq!(poll(&mut stream), Some(Batch::End(EndReason::Lagging)));
    assert_eq!(poll(&mut stream), Some(Batch::End(EndReason::Lagging)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn every_waiting_stream_is_told_the_newest_whatever_is_published_meanwhile() {
    const ROUNDS: u64 = 3000;
    let journals = journals(ROOMY, 10);
    let hub = Hub::new(journals.clone());
    let mut readers = Vec::new();
    for _ in 0..8 {
        let mut stream = hub.open(subscription("a", Filter::default(), Start::Earliest)).await;
        readers.push(tokio::spawn(async move {
            let last = [format!("data: bob {}\n\n", ROUNDS - 1), format!("data: eve {}\n\n", ROUNDS - 1)];
            let (mut missing, mut frames) = (2, 0);
            while missing > 0 || frames < ROUNDS {
                match stream.next().await {
                    Batch::Notices(pieces) => {
                        let text = String::from_utf8(pieces.concat()).unwrap();
                        missing -= last.iter().filter(|last| text.contains(last.as_str())).count();
                    }
                    Batch::Frames(pieces) => {
                        frames += pieces.concat().windows(2).filter(|pair| pair == b"\n\n").count() as u64;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    let teller = std::thread::spawn({
        let hub = hub.clone();
        move || (0..ROUNDS).for_each(|n| tell(&hub, &[("bob", &n.to_string()), ("eve", &n.to_string())]))
    });
    let writer = std::thread::spawn(move || {
        (0..ROUNDS).for_each(|n| commit(&journals, &[draft("a", 20 + n, 1)]));
    });
    let all = async {
        for reader in readers {
            reader.await.expect("a reader was told");
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), all).await;
    teller.join().unwrap();
    writer.join().unwrap();
    in_time.expect("no wake-up is lost");
    assert!(hub.open(subscription("a", Filter::default(), Start::Earliest)).now_or_never().is_some());
}

#[tokio::test]
async fn a_stream_that_waits_for_its_turn_is_told_at_once() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default()).paced(crate::hub::Pace::new(1, Duration::ZERO));
    commit(&journals, &[draft("a", 20, 1), draft("a", 20, 2)]);
    assert_eq!(poll_ids(&mut stream).len(), 1);
    assert!(poll(&mut stream).is_none());
    let telling = async {
        let (batch, ()) = tokio::join!(stream.next(), async { tell(&hub, &[("bob", "1")]) });
        batch
    };
    assert_eq!(told(Some(telling.await)), "data: bob 1\n\n");
    assert!(poll(&mut stream).is_none(), "its turn has not come by that");
}
