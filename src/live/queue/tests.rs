//! What is run, when, and for whom.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::*;
use crate::live::{Answer, Query};

type Answered = oneshot::Receiver<Answer>;

struct Bench {
    query: Arc<Query>,
    queue: Queue,
}

fn bench() -> Bench {
    let query = Query::new("/live", "live.sql", "select $1, $2", 1, 1 << 20).unwrap();
    Bench { query: Arc::new(query), queue: Queue::default() }
}

impl Bench {
    fn ask(&mut self, organization: &str, value: &str, position: u64) -> Answered {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            query: Arc::clone(&self.query),
            organization: organization.into(),
            arguments: vec![Some(vec![value.to_owned()])],
        };
        self.queue.add(question, Waiter { position: Lsn::new(position), answer });
        answered
    }

    /// Organization, value and who waits of the next run.
    fn next(&mut self, visible: u64) -> Option<(String, String, usize)> {
        let (question, waiters) = self.queue.next(Lsn::new(visible))?;
        let value = question.arguments.iter().flatten().flatten().next().cloned().unwrap_or_default();
        Some((question.organization.to_string(), value, waiters.len()))
    }
}

fn run(organization: &str, value: &str, waiters: usize) -> Option<(String, String, usize)> {
    Some((organization.to_owned(), value.to_owned(), waiters))
}

#[test]
fn who_asks_the_same_before_its_run_begins_shares_it() {
    let mut bench = bench();
    let _held =
        [bench.ask("a", "x", 5), bench.ask("a", "x", 7), bench.ask("b", "x", 5), bench.ask("a", "y", 5)];
    assert_eq!(bench.next(7), run("a", "x", 2));
    let _late = bench.ask("a", "x", 7);
    assert_eq!(bench.next(7), run("b", "x", 1));
    assert_eq!(bench.next(7), run("a", "y", 1));
    bench.queue.finished(&"a".into());
    assert_eq!(bench.next(7), run("a", "x", 1));
    assert_eq!(bench.next(7), None);
}

#[test]
fn a_run_waits_until_what_it_is_to_show_is_visible() {
    let mut bench = bench();
    let _held = [bench.ask("a", "x", 5), bench.ask("a", "y", 9), bench.ask("a", "x", 8)];
    assert_eq!(bench.next(7), None);
    assert!(bench.queue.has_unseen());
    bench.queue.seen();
    assert_eq!(bench.next(8), run("a", "x", 2));
    assert_eq!(bench.next(8), None);
    bench.queue.seen();
    assert_eq!(bench.next(9), run("a", "y", 1));
    assert!(!bench.queue.has_unseen());
}

#[test]
fn organizations_take_turns_and_none_has_every_session() {
    let mut bench = bench();
    let mut held: Vec<_> = ["1", "2", "3", "4"].map(|value| bench.ask("noisy", value, 0)).into();
    held.push(bench.ask("quiet", "1", 0));
    assert_eq!(bench.next(0), run("noisy", "1", 1));
    assert_eq!(bench.next(0), run("quiet", "1", 1));
    assert_eq!(bench.next(0), run("noisy", "2", 1));
    assert_eq!(bench.next(0), None, "two at a time");
    bench.queue.finished(&"noisy".into());
    assert_eq!(bench.next(0), run("noisy", "3", 1));
    assert_eq!(bench.next(0), None);
}

#[test]
fn what_failed_comes_again_later_for_who_still_waits() {
    let mut bench = bench();
    let (stays, leaves) = (bench.ask("a", "x", 0), bench.ask("a", "x", 0));
    let (question, waiters) = bench.queue.next(Lsn::ZERO).unwrap();
    let at = Instant::now() + Duration::from_secs(5);
    bench.queue.finished(&question.organization);
    bench.queue.defer(question, waiters, at);
    // Whoever asks meanwhile does not hurry it.
    let _joins = bench.ask("a", "x", 0);
    assert_eq!(bench.next(0), None);
    assert_eq!(bench.queue.next_due(), Some(at));
    drop(leaves);
    bench.queue.due(at);
    assert_eq!(bench.next(0), run("a", "x", 2));
    drop(stays);
}

#[test]
fn nothing_is_run_for_nobody_and_nothing_is_kept_of_it() {
    let mut bench = bench();
    drop((bench.ask("a", "x", 0), bench.ask("a", "y", 0), bench.ask("b", "x", 9)));
    assert_eq!(bench.next(0), None);
    let queue = &bench.queue;
    assert!(queue.waiting.is_empty() && queue.by_organization.is_empty() && queue.turns.is_empty());
    assert!(queue.in_turn.is_empty() && queue.running.is_empty() && queue.unseen.is_empty());
}

#[test]
fn everybody_who_waits_is_answered() {
    let mut bench = bench();
    let mut answered = [bench.ask("a", "x", 0), bench.ask("a", "x", 0)];
    let (_, waiters) = bench.queue.next(Lsn::ZERO).unwrap();
    for waiter in waiters {
        waiter.answer.send(Answer::Rows(Bytes::from_static(b"[]"))).unwrap();
    }
    for answered in &mut answered {
        assert_eq!(answered.try_recv().unwrap(), Answer::Rows(Bytes::from_static(b"[]")));
    }
}
