//! Proof that the judge judges: histories with one mistake each, and what it must say of them. Before every run.

use serde_json::json;
use tokio::sync::watch;

use super::{Acknowledged, Committed, Facts, Ids, Placed, Verdict, judge, judge_order};
use crate::deed::Expected;
use crate::reader::{Micros, Place, Reader, Seen};
use crate::writer::Standing;

/// In microseconds; commits are a second apart.
const SECOND: Micros = 1_000_000;

/// The stream is ben's, an admin of north: everything. Six events of it, one a commit, at 10, 20, …, the fifth for
/// managers, the sixth a table that was emptied.
fn history() -> Vec<Committed> {
    let event = |at: u64| Expected {
        organization: "north",
        channel: "custom",
        event_type: "torture",
        key: format!("torture m{at}"),
        tags: Vec::new(),
        only: (at == 50).then_some(&["manager"][..]),
        data: json!({ "marker": format!("m{at}") }),
    };
    let events = (1..=5).map(|at| Committed { lsn: at * 10, event: event(at * 10) });
    let truncated = Committed { lsn: 60, event: Expected::sync("truncated", "telemetry") };
    events.chain(std::iter::once(truncated)).collect()
}

/// The commit at `lsn` was so many seconds after the beginning of time, which is 100.
const fn time(lsn: u64) -> Micros {
    (100 + lsn.cast_signed()) * SECOND
}

fn facts() -> Facts {
    Facts { commits: (1..=6).map(|at| (at * 10, time(at * 10))).collect(), ..Facts::default() }
}

fn placed(lsn: u64, role: Option<&'static str>) -> Placed {
    Placed { lsn, time: time(lsn), standing: Standing { organization: "north", user: "ben", role } }
}

fn event(at: u64) -> Seen {
    Seen::Event {
        id: format!("e.{at}.1"),
        place: (at, 1),
        organization: "north".to_owned(),
        key: Some(format!("torture m{at}")),
        frame: at,
        data: json!({ "marker": format!("m{at}") }),
    }
}

/// For the first time.
const fn opened(at: u64) -> Seen {
    Seen::Connected { asked: None, at: (at, 0), resumed: false, time: time(at) }
}

const fn again(asked: Place, resumed: bool, time: Micros) -> Seen {
    Seen::Connected { asked: Some(asked), at: asked, resumed, time }
}

fn sync(reason: &str, at: u64) -> Seen {
    Seen::Sync { reason: reason.to_owned(), place: (at, u32::from(reason == "truncated")), time: time(at) }
}

/// Missed, duplicated, reordered, foreign, untold, unfounded, wrong.
fn counts(log: Vec<Seen>, facts: &Facts) -> [u64; 7] {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let (_, pressure) = watch::channel(false);
    // The second reader of the run is ben.
    let spec = crate::stage::spec(4);
    let mut reader = Reader::new(spec, address, fastrand::Rng::with_seed(1), pressure);
    reader.log = log;
    let mut verdict = Verdict::default();
    judge(&reader, &history(), facts, &mut Ids::default(), &mut verdict);
    verdict.counts()
}

fn missed_duplicated_reordered() {
    let is = |log: Vec<Seen>, expected: [u64; 7], what: &str| {
        assert_eq!(counts(log, &facts()), expected, "{what}");
    };
    let end = || sync("truncated", 60);
    let all = || vec![opened(10), event(10), event(20), event(30), event(40), end()];
    let without = |at: usize| {
        let mut log = all();
        log.remove(at);
        log
    };
    is(all(), [0; 7], "all of it, once, in order");
    let resumed =
        vec![opened(10), event(10), again((10, 1), true, 0), event(20), event(30), event(40), end()];
    is(resumed, [0; 7], "a stream that resumes goes on");
    is(vec![opened(25), event(30), event(40), end()], [0; 7], "what was before a stream's start is not owed");

    is(without(2), [1, 0, 0, 0, 0, 0, 0], "a gap");
    is(vec![opened(10), event(10), event(20)], [3, 0, 0, 0, 0, 0, 0], "an end that never came");
    let cut = vec![opened(10), event(10), again((10, 1), true, 0), event(30), event(40), end()];
    is(cut, [1, 0, 0, 0, 0, 0, 0], "a gap across a reconnect");
    is(without(5), [1, 0, 0, 0, 0, 0, 0], "an emptied table that was not told");
    let mut twice = all();
    twice.insert(1, event(10));
    is(twice, [0, 1, 0, 0, 0, 0, 0], "a second copy");
    let swapped = vec![opened(10), event(10), event(30), event(20), event(40), end()];
    is(swapped, [1, 0, 1, 0, 0, 0, 0], "another order");
    let mut early = all();
    early.swap(4, 5);
    is(early, [1, 0, 1, 0, 0, 0, 0], "an emptied table that was told too early");
}

fn foreign() {
    let all = || vec![opened(10), event(10), event(20), event(30), event(40)];
    let then = |log: Vec<Seen>, rest: Vec<Seen>| log.into_iter().chain(rest).collect::<Vec<_>>();
    let end = || sync("truncated", 60);
    assert_eq!(
        counts(then(all(), vec![event(50), end()]), &facts()),
        [0, 0, 0, 1, 0, 0, 0],
        "not for this role"
    );
    let manager = Facts { placed: vec![placed(45, Some("manager"))], ..facts() };
    assert_eq!(
        counts(then(all(), vec![event(50), end()]), &manager),
        [0; 7],
        "for the role since a commit before"
    );
    assert_eq!(counts(then(all(), vec![end()]), &manager)[0], 1, "kept from who has the role");

    // Gone at 25, back at 45.
    let gone = Facts { placed: vec![placed(25, None), placed(45, Some("admin"))], ..facts() };
    let revoked = || vec![opened(10), event(10), event(20), Seen::Revoked { time: time(26) }];
    let refused =
        Seen::Refused { head: "HTTP/1.1 403 Forbidden".to_owned(), asked: time(30), time: time(30) };
    let back = vec![refused, again((20, 1), true, time(46)), event(30), event(40), end()];
    assert_eq!(counts(then(revoked(), back), &gone), [0; 7], "a member again sees what was meanwhile");
    assert_eq!(counts(then(all(), vec![end()]), &gone)[3], 2, "sent on after the membership went");
    let slipped =
        vec![again((20, 1), true, time(27)), event(30), again((30, 1), true, time(46)), event(40), end()];
    assert_eq!(counts(then(revoked(), slipped), &gone), [0, 0, 0, 1, 0, 0, 0], "let in while no member");

    let refused = |head: &str| vec![Seen::Refused { head: head.to_owned(), asked: time(30), time: time(30) }];
    assert_eq!(counts(refused("HTTP/1.1 500 "), &facts())[6], 1, "a refusal");
    assert_eq!(counts(refused("HTTP/1.1 403 "), &facts())[6], 1, "a member that was refused");
    assert_eq!(
        counts(vec![opened(10), Seen::Revoked { time: time(11) }], &facts())[6],
        1,
        "a member that was revoked"
    );
}

fn untold_and_unfounded() {
    let end = || [event(40), sync("truncated", 60)];
    let told = |reason: &str, at: u64| {
        let log = vec![opened(10), event(10), again((10, 1), false, time(30)), sync(reason, at)];
        log.into_iter().chain([event(30)].into_iter().filter(|_| at == 30)).chain(end()).collect::<Vec<_>>()
    };
    let reset = Facts { resets: vec![25..=28], ..facts() };
    let flood = |organization| Facts { floods: vec![(organization, 25..=28)], ..facts() };
    assert_eq!(counts(told("history_reset", 30), &reset), [0; 7], "a gap that is told is none");
    assert_eq!(counts(told("history_expired", 30), &facts()), [0; 7], "20 s are more than the window");
    assert_eq!(counts(told("history_reset", 30), &facts()), [0, 0, 0, 0, 0, 1, 0], "nothing was reset");
    assert_eq!(counts(told("history_expired", 30), &flood("north")), [0; 7], "more than the window, at once");
    assert_eq!(counts(told("slow_consumer", 30), &flood("north"))[5], 1, "what had gone before it came back");
    let gone_meanwhile = vec![opened(10), event(10), sync("history_expired", 30), event(30)];
    let gone_meanwhile = gone_meanwhile.into_iter().chain(end()).collect();
    assert_eq!(counts(gone_meanwhile, &facts())[5], 1, "what went while it was there");
    assert_eq!(counts(told("history_expired", 40), &reset), [0; 7], "as the position says");
    let soon = |facts: &Facts| {
        let log = vec![
            opened(20),
            event(20),
            Seen::Sync { reason: "slow_consumer".to_owned(), place: (30, 0), time: time(30) },
        ];
        counts(log.into_iter().chain([event(30)]).chain(end()).collect(), facts)
    };
    assert_eq!(soon(&facts()), [0, 0, 0, 0, 0, 1, 0], "10 s are less than the window");
    assert_eq!(soon(&flood("north")), [0; 7]);
    assert_eq!(soon(&Facts { tight: true, ..facts() }), [0; 7], "a window that memory bounds");
    assert_eq!(soon(&flood("east")), [0, 0, 0, 0, 0, 1, 0], "another organization's flood");
    let nowhere: Vec<_> = vec![opened(10), event(10), event(20), event(30), sync("truncated", 35)];
    let nowhere = nowhere.into_iter().chain(end()).collect();
    assert_eq!(counts(nowhere, &facts()), [0, 0, 0, 0, 0, 1, 0], "nobody emptied a table there");
    let untold = vec![opened(10), again((10, 0), false, time(11)), event(10), event(20), event(30)];
    let untold = untold.into_iter().chain(end()).collect();
    assert_eq!(counts(untold, &facts()), [0, 0, 0, 0, 1, 0, 0], "not resumed, and not told");
    let past = vec![opened(10), sync("history_reset", 20), event(30)].into_iter().chain(end()).collect();
    assert_eq!(counts(past, &reset)[0], 1, "a gap after what was told");
}

fn wrong() {
    let bent = |change: fn(&mut Seen)| {
        let mut log = vec![opened(10), event(10), event(20), event(30), event(40), sync("truncated", 60)];
        change(&mut log[1]);
        counts(log, &facts())
    };
    let other_data = bent(|seen| {
        if let Seen::Event { data, .. } = seen {
            *data = json!({ "marker": "m" });
        }
    });
    assert_eq!(other_data, [0, 0, 0, 0, 0, 0, 1], "other data");
    let other_id = bent(|seen| {
        if let Seen::Event { place, .. } = seen {
            place.0 = 11;
        }
    });
    assert_eq!(other_id, [0, 0, 0, 0, 0, 0, 1], "an id of another commit");
    let other_owner = bent(|seen| {
        if let Seen::Event { organization, .. } = seen {
            *organization = "east".to_owned();
        }
    });
    assert_eq!(other_owner, [0, 0, 0, 1, 0, 0, 0], "another organization's name");
}

fn order() {
    let reordered = |commits: &[(Micros, Micros)]| {
        let place = |(at, (began, ended)): (usize, &(Micros, Micros))| Acknowledged {
            lsn: at as u64,
            began: *began,
            ended: *ended,
        };
        let mut verdict = Verdict::default();
        judge_order(&commits.iter().enumerate().map(place).collect::<Vec<_>>(), &mut verdict);
        verdict.reordered
    };
    assert_eq!(reordered(&[(1, 2), (3, 4), (5, 9), (6, 7)]), 0, "one after the other, or at the same time");
    assert_eq!(reordered(&[(5, 9), (1, 6)]), 0, "at the same time: either may be first");
    assert_eq!(reordered(&[(3, 4), (5, 6), (1, 2)]), 1, "it had ended before the others began");
    assert_eq!(reordered(&[(5, 6), (1, 9), (1, 4)]), 1, "whatever lies between");
}

/// # Panics
/// When the judge lets something pass, or blames what is right.
pub fn prove() {
    missed_duplicated_reordered();
    foreign();
    untold_and_unfounded();
    wrong();
    order();
}
