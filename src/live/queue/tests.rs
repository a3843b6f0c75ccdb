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

fn question(bench: &Bench, organization: &str, value: &str) -> Question {
    Question {
        query: Arc::clone(&bench.query),
        organization: organization.into(),
        arguments: vec![Some(vec![value.to_owned()])],
    }
}

fn waiter(position: u64) -> (Waiter, Answered) {
    let (answer, answered) = oneshot::channel();
    (Waiter { position: Lsn::new(position), answer }, answered)
}

impl Bench {
    fn ask(&mut self, organization: &str, value: &str, position: u64) -> Answered {
        let (waiter, answered) = waiter(position);
        self.queue.add(question(self, organization, value), waiter);
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
    bench.queue.finished(&"a".into(), false);
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
    bench.queue.finished(&"noisy".into(), false);
    assert_eq!(bench.next(0), run("noisy", "3", 1));
    assert_eq!(bench.next(0), None);
}

#[test]
fn organizations_that_take_long_leave_a_session_to_who_does_not() {
    let mut bench = bench();
    let slow = ["s1", "s2", "s3", "s4"];
    let mut held: Vec<_> = slow.iter().map(|organization| bench.ask(organization, "1", 0)).collect();
    for organization in slow {
        assert_eq!(bench.next(0), run(organization, "1", 1), "nobody knows yet");
        bench.queue.finished(&organization.into(), true);
    }
    held.extend(slow.iter().map(|organization| bench.ask(organization, "2", 0)));
    held.push(bench.ask("quick", "1", 0));
    for organization in &slow[..SLOW] {
        assert_eq!(bench.next(0), run(organization, "2", 1));
    }
    assert_eq!(bench.next(0), run("quick", "1", 1));
    assert_eq!(bench.next(0), None, "the fourth waits, though a session is free");
    held.push(bench.ask("quick", "2", 0));
    // Its run ended in time this once: it counts as the others do.
    bench.queue.finished(&"s1".into(), false);
    assert_eq!(bench.next(0), run("s4", "2", 1), "its turn was the first");
    assert_eq!(bench.next(0), run("quick", "2", 1));
}

#[test]
fn what_nobody_waits_for_any_more_is_not_kept_until_its_turn() {
    let mut bench = bench();
    let _busy = [bench.ask("a", "x", 0), bench.ask("a", "y", 0), bench.ask("a", "stays", 0)];
    assert_eq!((bench.next(0), bench.next(0)), (run("a", "x", 1), run("a", "y", 1)));
    let _unseen = bench.ask("b", "stays", 9);
    assert_eq!(bench.next(0), None);
    let (later, waiters) = (Arc::new(question(&bench, "c", "goes")), vec![waiter(0).0]);
    bench.queue.defer(later, waiters, Instant::now() + Duration::from_secs(60));
    for n in 0..10 * SWEEP {
        drop(bench.ask("a", &n.to_string(), 0));
    }
    let queue = &bench.queue;
    let kept = queue.by_organization.values().map(VecDeque::len).sum::<usize>();
    assert!(queue.waiting.len() <= SWEEP + 1 && kept <= SWEEP + 1, "{} {kept}", queue.waiting.len());
    assert_eq!(queue.later.values().map(Vec::len).sum::<usize>(), 0);
    bench.queue.finished(&"a".into(), false);
    assert_eq!(bench.next(0), run("a", "stays", 1));
    bench.queue.seen();
    assert_eq!(bench.next(9), run("b", "stays", 1));
}

#[test]
fn what_failed_comes_again_later_for_who_still_waits() {
    let mut bench = bench();
    let (stays, leaves) = (bench.ask("a", "x", 0), bench.ask("a", "x", 0));
    let (question, waiters) = bench.queue.next(Lsn::ZERO).unwrap();
    let at = Instant::now() + Duration::from_secs(5);
    bench.queue.finished(&question.organization, false);
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
