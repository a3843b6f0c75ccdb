//! Random comings and goings against what each observer would have made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::attendance::{Attendance, Change};
use crate::catalog::OrganizationId;

const GRACE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
enum Act {
    Arrive {
        organization: usize,
        user: usize,
    },
    /// One of the open streams ends.
    Leave {
        stream: usize,
    },
    Dismiss {
        organization: usize,
        user: usize,
    },
    /// Somebody reads the roll, and hears every announcement from then on.
    Observe {
        organization: usize,
    },
    Pass {
        millis: u64,
    },
    Announce {
        budget: usize,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let place = || (0..2usize, 0..4usize);
    prop_oneof![
        6 => place().prop_map(|(organization, user)| Act::Arrive { organization, user }),
        6 => (0..64usize).prop_map(|stream| Act::Leave { stream }),
        1 => place().prop_map(|(organization, user)| Act::Dismiss { organization, user }),
        3 => (0..2usize).prop_map(|organization| Act::Observe { organization }),
        4 => (0..4000u64).prop_map(|millis| Act::Pass { millis }),
        4 => (1..6usize).prop_map(|budget| Act::Announce { budget }),
    ]
}

/// The meaning, written a second time and otherwise: when each user's grace ends, if they have no stream.
#[derive(Default)]
struct Truth {
    streams: Vec<(usize, usize)>,
    until: BTreeMap<(usize, usize), Instant>,
    /// Dismissed, and not come again since.
    dismissed: BTreeSet<(usize, usize)>,
}

impl Truth {
    fn online(&self, organization: usize, now: Instant) -> BTreeSet<String> {
        let open = self.streams.iter().filter(|at| !self.dismissed.contains(at));
        let leaving = self.until.iter().filter(|(_, until)| **until > now).map(|(at, _)| at);
        open.chain(leaving).filter(|at| at.0 == organization).map(|at| user(at.1).to_string()).collect()
    }
}

fn organization(number: usize) -> OrganizationId {
    OrganizationId::new(&format!("o{number}"))
}

fn user(number: usize) -> Arc<str> {
    format!("u\"{number}").into()
}

fn read(attendance: &mut Attendance, id: usize) -> BTreeSet<String> {
    let text = attendance.online(&organization(id)).concat();
    let names: Vec<String> = serde_json::from_slice(&text).expect("a JSON array");
    let set: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(set.len(), names.len(), "each once: {names:?}");
    set
}

/// What was announced reaches the observers of its organization.
fn hear(observers: &mut [(usize, BTreeSet<String>)], announced: &[(OrganizationId, Vec<Change>)]) {
    for (id, changes) in announced {
        let listening = observers.iter_mut().filter(|(of, _)| organization(*of) == *id);
        for (_, thinks) in listening {
            for change in changes {
                if change.is_online {
                    thinks.insert(change.user.to_string());
                } else {
                    thinks.remove(&*change.user);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_read_the_roll_and_every_announcement_since_knows_who_is_online(
        grace in prop_oneof![Just(Duration::ZERO), Just(GRACE)],
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let mut attendance = Attendance::new(grace);
        let mut now = Instant::now();
        let mut truth = Truth::default();
        let mut observers: Vec<(usize, BTreeSet<String>)> = vec![(0, BTreeSet::new()), (1, BTreeSet::new())];
        for act in acts {
            match act {
                Act::Arrive { organization: o, user: u } => {
                    attendance.arrive(&organization(o), &user(u));
                    truth.dismissed.remove(&(o, u));
                    truth.until.remove(&(o, u));
                    truth.streams.push((o, u));
                }
                Act::Leave { stream } => {
                    let Some(stream) = stream.checked_rem(truth.streams.len()) else { continue };
                    let at = truth.streams.swap_remove(stream);
                    attendance.leave(&organization(at.0), &user(at.1), now);
                    let last = !truth.streams.contains(&at);
                    if last && !truth.dismissed.contains(&at) {
                        truth.until.insert(at, now + grace);
                    }
                }
                Act::Dismiss { organization: o, user: u } => {
                    attendance.dismiss(&organization(o), &user(u));
                    truth.until.remove(&(o, u));
                    if truth.streams.contains(&(o, u)) {
                        truth.dismissed.insert((o, u));
                    }
                }
                Act::Observe { organization: o } => {
                    attendance.settle(now);
                    let roll = read(&mut attendance, o);
                    prop_assert_eq!(&roll, &truth.online(o, now));
                    observers.push((o, roll));
                }
                Act::Pass { millis } => now += Duration::from_millis(millis),
                Act::Announce { budget } => {
                    attendance.settle(now);
                    let announced = attendance.announce(budget, |_| 2);
                    let count: usize = announced.iter().map(|(_, changes)| changes.len() * 2).sum();
                    prop_assert!(count <= budget.max(2) + 1, "{count} of {budget}");
                    hear(&mut observers, &announced);
                }
            }
        }
        attendance.settle(now);
        while attendance.is_anybody_in_line() {
            let announced = attendance.announce(4, |_| 1);
            hear(&mut observers, &announced);
        }
        for (o, thinks) in &observers {
            prop_assert_eq!(thinks, &truth.online(*o, now));
        }
        // With everybody gone and told, nothing is kept.
        for (o, u) in std::mem::take(&mut truth.streams) {
            attendance.leave(&organization(o), &user(u), now);
        }
        attendance.settle(now + grace);
        attendance.announce(usize::MAX, |_| 1);
        prop_assert!(attendance.is_empty(), "{attendance:?}");
    }
}

fn announced(attendance: &mut Attendance) -> Vec<(String, bool)> {
    let all = attendance.announce(usize::MAX, |_| 1).into_iter().flat_map(|(_, changes)| changes);
    all.map(|change| (change.user.to_string(), change.is_online)).collect()
}

#[test]
fn who_comes_back_within_the_grace_was_never_away() {
    let mut attendance = Attendance::new(GRACE);
    let (room, ann, start) = (OrganizationId::new("o"), Arc::from("ann"), Instant::now());
    attendance.arrive(&room, &ann);
    assert_eq!(announced(&mut attendance), [("ann".to_owned(), true)]);
    attendance.leave(&room, &ann, start);
    attendance.settle(start + GRACE / 2);
    attendance.arrive(&room, &ann);
    attendance.settle(start + GRACE * 2);
    assert_eq!(announced(&mut attendance), []);
    attendance.leave(&room, &ann, start);
    assert_eq!(attendance.next_due(), Some(start + GRACE));
    attendance.settle(start + GRACE);
    assert_eq!(announced(&mut attendance), [("ann".to_owned(), false)]);
    assert!(attendance.is_empty());
}

#[test]
fn a_user_with_two_streams_is_online_until_the_second_ends() {
    let mut attendance = Attendance::new(Duration::ZERO);
    let (room, ann, now) = (OrganizationId::new("o"), Arc::from("ann"), Instant::now());
    attendance.arrive(&room, &ann);
    attendance.arrive(&room, &ann);
    assert_eq!(announced(&mut attendance), [("ann".to_owned(), true)]);
    attendance.leave(&room, &ann, now);
    assert_eq!(announced(&mut attendance), []);
    attendance.leave(&room, &ann, now);
    assert_eq!(announced(&mut attendance), [("ann".to_owned(), false)]);
}

#[test]
fn a_flapping_user_takes_one_place_in_line() {
    let mut attendance = Attendance::new(Duration::ZERO);
    let (room, ann, now) = (OrganizationId::new("o"), Arc::from("ann"), Instant::now());
    for _ in 0..1000 {
        attendance.arrive(&room, &ann);
        attendance.leave(&room, &ann, now);
    }
    assert_eq!(announced(&mut attendance), [], "nobody had heard of them");
    attendance.arrive(&room, &ann);
    assert_eq!(announced(&mut attendance), [("ann".to_owned(), true)]);
    for _ in 0..1000 {
        attendance.leave(&room, &ann, now);
        attendance.arrive(&room, &ann);
    }
    assert_eq!(announced(&mut attendance), []);
}

#[test]
fn a_crowd_is_announced_over_many_ticks_and_holds_up_nobody() {
    const CROWD: usize = 10_000;
    let mut attendance = Attendance::new(GRACE);
    let (crowded, quiet) = (OrganizationId::new("crowded"), OrganizationId::new("quiet"));
    for number in 0..CROWD {
        attendance.arrive(&crowded, &format!("u{number}").into());
    }
    attendance.arrive(&quiet, &"ann".into());
    let streams = |id: &OrganizationId| if *id == crowded { CROWD } else { 1 };
    let first = attendance.announce(super::BUDGET, streams);
    let of =
        |id: &OrganizationId| first.iter().find(|(at, _)| at == id).map_or(0, |(_, changes)| changes.len());
    assert_eq!((of(&crowded), of(&quiet)), (super::BUDGET / 2 / CROWD, 1));
    let mut told = of(&crowded);
    while attendance.is_anybody_in_line() {
        let announced = attendance.announce(super::BUDGET, streams);
        let count: usize = announced.iter().map(|(_, changes)| changes.len()).sum();
        assert!(count * CROWD <= super::BUDGET && count > 0);
        told += count;
    }
    assert_eq!(told, CROWD);
}

#[test]
fn readers_of_a_roll_share_what_was_written() {
    let mut attendance = Attendance::new(GRACE);
    let room = OrganizationId::new("o");
    for number in 0..1000 {
        attendance.arrive(&room, &format!("u{number}").into());
    }
    let [written, rest] = attendance.online(&room);
    assert_eq!(&rest[..], b"]");
    for number in 1000..1100 {
        attendance.arrive(&room, &format!("u{number}").into());
        let [again, rest] = attendance.online(&room);
        assert_eq!(again.as_ptr(), written.as_ptr(), "nothing was written anew");
        assert!(rest.len() < written.len() / 4);
    }
    let names: Vec<String> = serde_json::from_slice(&attendance.online(&room).concat()).unwrap();
    assert_eq!(names.len(), 1100);
}
