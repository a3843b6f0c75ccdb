//! Proof that the judge judges: histories with one mistake each, and what it must say of them. Before every run.

use serde_json::json;

use super::{Committed, Ids, Verdict, judge};
use crate::deed::Expected;
use crate::reader::{Place, Reader, Seen};

/// Five events of one organization, one a commit, at 10, 20, …
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
    (1..=5).map(|at| Committed { lsn: at * 10, event: event(at * 10) }).collect()
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

fn connected(asked: bool, at: Place, resumed: bool) -> Seen {
    Seen::Connected { asked: asked.then(|| "e".to_owned()), at, resumed }
}

fn sync(at: u64) -> Seen {
    Seen::Sync { reason: "slow_consumer".to_owned(), place: (at, 0) }
}

/// Missed, duplicated, reordered, foreign, untold, wrong.
fn counts(log: Vec<Seen>) -> [u64; 6] {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let mut reader = Reader::new(crate::spec(0), address, fastrand::Rng::with_seed(1));
    reader.log = log;
    let mut verdict = Verdict::default();
    judge(&reader, &history(), &mut Ids::default(), &mut verdict);
    let Verdict { missed, duplicated, reordered, foreign, untold, wrong, .. } = verdict;
    assert_eq!(verdict.holds(), missed + duplicated + reordered + foreign + untold + wrong == 0);
    [missed, duplicated, reordered, foreign, untold, wrong]
}

/// # Panics
/// When the judge lets something pass, or blames what is right.
pub fn prove() {
    let first = || connected(false, (10, 0), false);
    let all = || vec![event(10), event(20), event(30), event(40)];
    let with = |head: Vec<Seen>, rest: Vec<Seen>| head.into_iter().chain(rest).collect::<Vec<_>>();

    assert_eq!(counts(with(vec![first()], all())), [0; 6], "all of it, once, in order");
    let resumed = vec![first(), event(10), connected(true, (10, 1), true), event(20), event(30), event(40)];
    assert_eq!(counts(resumed), [0; 6], "a stream that resumes goes on");
    let told = vec![first(), event(10), connected(true, (30, 0), false), sync(30), event(30), event(40)];
    assert_eq!(counts(told), [0; 6], "a gap that is told is none");
    let later = vec![connected(false, (25, 0), false), event(30), event(40)];
    assert_eq!(counts(later), [0; 6], "what was before a stream's start is not owed");

    assert_eq!(counts(vec![first(), event(10), event(30), event(40)]), [1, 0, 0, 0, 0, 0], "a gap");
    assert_eq!(counts(vec![first(), event(10), event(20)]), [2, 0, 0, 0, 0, 0], "an end that never came");
    let cut = vec![first(), event(10), connected(true, (10, 1), true), event(30), event(40)];
    assert_eq!(counts(cut), [1, 0, 0, 0, 0, 0], "a gap across a reconnect");
    let past = vec![first(), sync(20), event(30), event(40)];
    assert_eq!(counts(past), [1, 0, 0, 0, 0, 0], "a gap after what was told");
    assert_eq!(counts(with(vec![first(), event(10)], all())), [0, 1, 0, 0, 0, 0], "a second copy");
    let swapped = vec![first(), event(10), event(30), event(20), event(40)];
    assert_eq!(counts(swapped), [1, 0, 1, 0, 0, 0], "another order");
    assert_eq!(
        counts(with(vec![first()], all()).into_iter().chain([event(50)]).collect()),
        [0, 0, 0, 1, 0, 0],
        "not for this role"
    );
    let untold = with(vec![connected(false, (10, 0), false), connected(true, (10, 0), false)], all());
    assert_eq!(counts(untold), [0, 0, 0, 0, 1, 0], "not resumed, and not told");

    let bent = |change: fn(&mut Seen)| {
        let mut log = with(vec![first()], all());
        change(&mut log[1]);
        counts(log)
    };
    let other_data = bent(|seen| {
        if let Seen::Event { data, .. } = seen {
            *data = json!({ "marker": "m" });
        }
    });
    assert_eq!(other_data, [0, 0, 0, 0, 0, 1], "other data");
    let other_id = bent(|seen| {
        if let Seen::Event { place, .. } = seen {
            place.0 = 11;
        }
    });
    assert_eq!(other_id, [0, 0, 0, 0, 0, 1], "an id of another commit");
    let other_owner = bent(|seen| {
        if let Seen::Event { organization, .. } = seen {
            *organization = "east".to_owned();
        }
    });
    assert_eq!(other_owner, [0, 0, 0, 1, 0, 0], "another organization's name");
    assert_eq!(counts(vec![Seen::Refused("HTTP/1.1 500".to_owned())]), [0, 0, 0, 0, 0, 1], "a refusal");
}
