//! Filters that change under a writing load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{ROOMY, names, subscription, tag};
use crate::catalog::event::EventId;
use crate::hub::{Batch, Filter, Hub, Start};
use crate::journal::Place;
use crate::journal::fixture::{Draft, commit, draft, journals};
use crate::postgres::Lsn;

const COMMITS: u64 = 20_000;

/// Filters that a writer's events are told apart by, each by another index.
fn filter(number: usize) -> Filter {
    match number % 5 {
        0 => Filter::default(),
        1 => Filter { channels: names(&["even"]), ..Filter::default() },
        2 => Filter { types: names(&["third"]), ..Filter::default() },
        3 => tag(1, "7"),
        _ => Filter { channels: names(&["nothing"]), ..Filter::default() },
    }
}

/// The same, a second time.
fn wants(number: usize, lsn: u64) -> bool {
    match number % 5 {
        0 => true,
        1 => lsn.is_multiple_of(2),
        2 => lsn.is_multiple_of(3),
        3 => lsn % 10 == 7,
        _ => false,
    }
}

fn event(lsn: u64) -> Draft {
    Draft {
        channel: if lsn.is_multiple_of(2) { "even" } else { "odd" },
        event_type: if lsn.is_multiple_of(3) { "third" } else { "other" },
        tags: vec![(1, (lsn % 10).to_string())],
        ..draft(if lsn.is_multiple_of(7) { "*" } else { "a" }, lsn, 1)
    }
}

/// What a stream was given, as positions of commits.
fn positions(frames: &[bytes::Bytes]) -> Vec<u64> {
    let text = String::from_utf8(frames.concat()).unwrap();
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.map(|id| id.parse::<EventId>().unwrap().commit_lsn.as_u64()).collect()
}

/// Every event is judged by the filter that the answers say held at its position: none is missing, none is twice,
/// none is there by the wrong filter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_holds_from_exactly_the_position_that_was_answered() {
    let journals = journals(ROOMY, 10);
    let hub = Hub::new(journals.clone());
    let mut readers = Vec::new();
    let mut changers = Vec::new();
    let done = Arc::new(AtomicBool::new(false));
    for number in 0..6usize {
        let mut stream = hub.open(subscription("a", filter(number), Start::Earliest)).await;
        let handle = stream.handle();
        let stop = done.clone();
        changers.push(std::thread::spawn(move || {
            // A change at the position of the one before takes its place.
            let mut held: Vec<(Place, usize)> = vec![((Lsn::ZERO, 0), number)];
            let mut random = fastrand::Rng::with_seed(number as u64);
            while !stop.load(Ordering::Relaxed) {
                let next = random.usize(0..5);
                let from = handle.set_filter(filter(next)).place();
                held.retain(|(at, _)| *at != from);
                assert!(held.last().is_none_or(|(at, _)| *at < from), "positions only grow");
                held.push((from, next));
                (0..random.u32(0..2000)).for_each(|_| std::hint::spin_loop());
            }
            // All of what is still to come, so that the end is seen.
            let from = handle.set_filter(Filter::default()).place();
            held.retain(|(at, _)| *at != from);
            held.push((from, 0));
            held
        }));
        readers.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.last() != Some(&(20 + COMMITS)) {
                match stream.next().await {
                    Batch::Frames(frames) => seen.extend(positions(&frames)),
                    other => panic!("{other:?}"),
                }
            }
            seen
        }));
    }
    let writer = std::thread::spawn({
        let journals = journals.clone();
        move || {
            for lsn in 20..20 + COMMITS {
                commit(&journals, &[event(lsn)]);
                if lsn.is_multiple_of(64) {
                    std::thread::yield_now();
                }
            }
        }
    });
    writer.join().unwrap();
    done.store(true, Ordering::Relaxed);
    let held: Vec<_> = changers.into_iter().map(|changer| changer.join().unwrap()).collect();
    commit(&journals, &[draft("a", 20 + COMMITS, 1)]);
    let mut changes = 0;
    for (reader, held) in readers.into_iter().zip(held) {
        let seen = tokio::time::timeout(Duration::from_secs(30), reader).await;
        let seen = seen.expect("the last event comes").expect("frames alone");
        let holds = |lsn: u64| {
            let place = (Lsn::new(lsn), 1);
            held.iter().rev().find(|(from, _)| *from <= place).map_or(0, |(_, number)| *number)
        };
        let expected: Vec<u64> =
            (20..20 + COMMITS).filter(|lsn| wants(holds(*lsn), *lsn)).chain([20 + COMMITS]).collect();
        assert!(seen == expected, "{} were seen, {} are right", seen.len(), expected.len());
        changes += held.len();
    }
    assert!(changes > 60, "only {changes} changes took part");
}
