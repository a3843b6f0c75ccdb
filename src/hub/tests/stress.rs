//! Threads: no wake-up is lost, whoever comes first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;

use super::{ROOMY, names, subscription, tag};
use crate::hub::{Batch, Filter, Hub, Start};
use crate::journal::fixture::{Draft, commit, draft, journals};

const EVENTS: u64 = 3000;
const STREAMS: u64 = 24;

/// The filters of the streams, and what of the events passes each.
fn part(number: u64) -> (Filter, fn(u64) -> bool) {
    match number % 4 {
        0 => (Filter::default(), |_| true),
        1 => (tag(1, "7"), |lsn| lsn % 10 == 7),
        2 => (Filter { types: names(&["odd"]), ..Filter::default() }, |lsn| lsn % 2 == 1),
        _ => (Filter { channels: names(&["three"]), ..Filter::default() }, |lsn| lsn.is_multiple_of(3)),
    }
}

fn event(lsn: u64) -> Draft {
    Draft {
        tags: vec![(1, (lsn % 10).to_string())],
        event_type: if lsn % 2 == 1 { "odd" } else { "even" },
        channel: if lsn.is_multiple_of(3) { "three" } else { "other" },
        ..draft(if lsn.is_multiple_of(5) { "*" } else { "a" }, lsn, 1)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_waiting_stream_sees_every_event_of_a_busy_writer() {
    let journals = journals(ROOMY, 10);
    let hub = Hub::new(journals.clone());
    let mut readers = Vec::new();
    for number in 0..STREAMS {
        let (filter, passes) = part(number);
        let mut stream = hub.open(subscription("a", filter, Start::Earliest)).await;
        readers.push(tokio::spawn(async move {
            let expected: String =
                (20..20 + EVENTS).filter(|lsn| passes(*lsn)).map(|lsn| event(lsn).frame()).collect();
            let mut seen = String::new();
            while seen.len() < expected.len() {
                let Batch::Frames(frames) = stream.next().await else { panic!("no sync is due") };
                frames.iter().for_each(|frame| seen.push_str(std::str::from_utf8(frame).unwrap()));
                assert!(expected.starts_with(&seen));
            }
        }));
    }
    let done = Arc::new(AtomicBool::new(false));
    let meddler = {
        let (hub, done) = (hub.clone(), done.clone());
        // Streams that come, look and go, and roles that change, on the way of the publisher.
        std::thread::spawn(move || {
            let organization = crate::catalog::event::OrganizationId::new("a");
            while !done.load(Ordering::Relaxed) {
                hub.handles(&organization).iter().for_each(|handle| handle.set_role(None));
                std::thread::yield_now();
            }
        })
    };
    let writer = std::thread::spawn(move || {
        for lsn in 20..20 + EVENTS {
            commit(&journals, &[event(lsn)]);
            if lsn.is_multiple_of(50) {
                std::thread::yield_now();
            }
        }
    });
    let all = async {
        for reader in readers {
            reader.await.expect("a reader saw what it was to see");
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), all).await;
    done.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    meddler.join().unwrap();
    in_time.expect("no wake-up is lost");
}

#[test]
fn a_cursor_never_passes_what_is_still_to_come() {
    let journals = journals(ROOMY, 10);
    let hub = Hub::new(journals.clone());
    let subscription = subscription("a", tag(1, "7"), Start::Earliest);
    let mut stream = hub.open(subscription).now_or_never().expect("opens at once");
    // Many rooms to announce in make the moment between the head and the marks long.
    let others: Vec<_> = (0..200).map(|number| super::live_of(&hub, &number.to_string())).collect();
    let writer = std::thread::spawn(move || {
        for lsn in 20..20 + EVENTS {
            commit(&journals, &[Draft { organization: "*".to_owned(), ..event(lsn) }]);
        }
    });
    let mut seen = 0;
    while seen < EVENTS / 10 {
        let cursor = stream.cursor();
        for id in super::poll_ids(&mut stream) {
            assert!(cursor.place() < id.place(), "{cursor} was said before {id} was sent");
            seen += 1;
        }
    }
    writer.join().unwrap();
    drop(others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_that_is_about_to_wait_is_woken() {
    const ROUNDS: u64 = 5_000;
    let journals = journals(1 << 20, 10);
    let hub = Hub::new(journals.clone());
    let mut stream = super::live_of(&hub, "a");
    let seen = Arc::new(AtomicU64::new(20));
    let writer = {
        let seen = seen.clone();
        std::thread::spawn(move || {
            for lsn in 20..20 + ROUNDS {
                // The stream has what was before, and is on its way to wait.
                let mut spun = 0;
                while seen.load(Ordering::Acquire) < lsn {
                    std::hint::spin_loop();
                    spun += 1;
                    // On a busy machine it may wait for this very core.
                    if spun % 10_000 == 0 {
                        std::thread::yield_now();
                    }
                }
                commit(&journals, &[draft("a", lsn, 1)]);
            }
        })
    };
    let mut reader = tokio::spawn({
        let seen = seen.clone();
        async move {
            for lsn in 20..20 + ROUNDS {
                let Batch::Frames(frames) = stream.next().await else { panic!("no sync is due") };
                assert_eq!(frames.concat(), draft("a", lsn, 1).frame().into_bytes());
                seen.store(lsn + 1, Ordering::Release);
                // Sweeps the moment of waiting over the moment of publishing.
                (0..lsn * 7919 % 1000).for_each(|_| std::hint::spin_loop());
            }
        }
    });
    // Around the task, not in it: a time-out that polls the stream would do what a lost wake-up did not. Of progress and
    // not of the whole: a stream that missed a wake-up stands still for ever, one without a core goes on later.
    let outcome = loop {
        let before = seen.load(Ordering::Acquire);
        match tokio::time::timeout(Duration::from_secs(20), &mut reader).await {
            Ok(outcome) => break Some(outcome),
            Err(_) if seen.load(Ordering::Acquire) == before => break None,
            Err(_) => {}
        }
    };
    seen.store(u64::MAX, Ordering::Release);
    writer.join().unwrap();
    outcome.expect("no wake-up is lost").expect("every event arrives");
}
