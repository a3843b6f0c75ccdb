use super::fixture::{Draft, EPOCH, commit, draft, journals};
use super::writer::LOG_COST;
use super::{Journals, Place};
use crate::catalog::event::{Epoch, OrganizationId};
use crate::postgres::Lsn;

const ROOMY: u64 = 1 << 30;

fn snapshot(journals: &Journals, organization: &str) -> super::Snapshot {
    journals.snapshot(&OrganizationId::new(organization))
}

/// Places of everything after `after`, read in portions of at most `weight`.
fn places(journals: &Journals, organization: &str, after: Place, weight: usize) -> Vec<(u64, u32)> {
    let mut places = Vec::new();
    let mut after = after;
    loop {
        let snapshot = snapshot(journals, organization);
        let read = snapshot.read(after, Lsn::MAX, weight).expect("at or above the floor");
        for run in &read.runs {
            places.extend(run.block.entries(run.range.clone()).map(|e| (e.place.0.as_u64(), e.place.1)));
        }
        if read.covered >= (snapshot.view.head, 0) {
            return places;
        }
        assert!(read.covered > after, "a read moves on");
        after = read.covered;
    }
}

fn from_floor(journals: &Journals, organization: &str) -> Vec<(u64, u32)> {
    places(journals, organization, snapshot(journals, organization).floor(), usize::MAX)
}

fn floor(journals: &Journals, organization: &str) -> (u64, u32) {
    let (lsn, ordinal) = snapshot(journals, organization).floor();
    (lsn.as_u64(), ordinal)
}

#[test]
fn nothing_is_seen_before_it_is_published() {
    let journals = journals(ROOMY, 10);
    assert!(draft("a", 20, 1).append(&journals));
    assert_eq!(from_floor(&journals, "a"), []);
    journals.publish(Lsn::new(21));
    assert_eq!(from_floor(&journals, "a"), [(20, 1)]);
    assert_eq!(journals.head(), Lsn::new(21));
}

#[test]
fn a_reader_sees_a_transaction_in_both_journals_or_in_none() {
    let journals = journals(ROOMY, 10);
    commit(&journals, &[draft("a", 20, 1), draft("*", 20, 2), draft("a", 20, 3)]);
    let before = snapshot(&journals, "a");
    commit(&journals, &[draft("*", 30, 1), draft("a", 30, 2)]);
    let read = before.read((Lsn::new(10), 0), Lsn::MAX, usize::MAX).unwrap();
    assert_eq!(read.runs.iter().map(|run| run.range.len()).sum::<usize>(), 3);
    assert_eq!(read.covered, (Lsn::new(21), 0));
    assert_eq!(from_floor(&journals, "a"), [(20, 1), (20, 2), (20, 3), (30, 1), (30, 2)]);
}

#[test]
fn the_unpublished_is_discarded_and_may_come_again() {
    let journals = journals(ROOMY, 10);
    let empty = journals.bytes();
    assert!(draft("a", 20, 1).append(&journals) && draft("a", 20, 2).append(&journals));
    journals.discard_unpublished();
    journals.publish(Lsn::new(15));
    assert_eq!(from_floor(&journals, "a"), []);
    assert_eq!(journals.bytes(), empty + LOG_COST);
    commit(&journals, &[draft("a", 20, 1)]);
    assert_eq!(from_floor(&journals, "a"), [(20, 1)]);
}

#[test]
fn what_is_out_of_order_or_done_or_of_another_epoch_is_refused() {
    let journals = journals(ROOMY, 10);
    commit(&journals, &[draft("a", 20, 2)]);
    assert!(!draft("a", 20, 3).append(&journals), "below the head");
    assert!(!draft("b", 20, 1).append(&journals), "below the head");
    assert!(!Draft { epoch: Epoch::new(8), ..draft("a", 30, 1) }.append(&journals));
    assert!(draft("a", 30, 2).append(&journals));
    assert!(!draft("a", 30, 2).append(&journals), "twice");
    assert!(!draft("a", 30, 1).append(&journals), "backwards");
    journals.publish(Lsn::new(31));
    assert_eq!(from_floor(&journals, "a"), [(20, 2), (30, 2)]);
}

#[test]
fn the_head_never_falls_and_passes_every_published_commit() {
    let journals = journals(ROOMY, 10);
    assert!(draft("a", 50, 1).append(&journals));
    journals.publish(Lsn::new(20));
    assert_eq!(journals.head(), Lsn::new(51));
    journals.publish(Lsn::new(30));
    assert_eq!(journals.head(), Lsn::new(51));
}

#[test]
fn the_largest_organization_loses_its_oldest_first() {
    let journals = journals(200_000, 10);
    commit(&journals, &[draft("quiet", 20, 1), draft("quiet", 20, 2)]);
    for lsn in 100..1000 {
        commit(&journals, &[Draft { size: 1000, ..draft("noisy", lsn, 1) }]);
        assert!(journals.bytes() <= 200_000, "{} bytes", journals.bytes());
    }
    assert_eq!(from_floor(&journals, "quiet"), [(20, 1), (20, 2)]);
    let kept = from_floor(&journals, "noisy");
    assert_eq!(kept.last(), Some(&(999, 1)));
    assert!((50..200).contains(&kept.len()), "{} kept", kept.len());
    assert_eq!(floor(&journals, "noisy"), (kept[0].0 - 1, 1));
    assert_eq!(journals.oldest_kept(), Some(Lsn::new(20)));
    assert_eq!(journals.recount(), journals.bytes());
}

#[test]
fn one_transaction_above_the_bound_stays_within_it_and_costs_its_own_head() {
    let journals = journals(300_000, 10);
    commit(&journals, &[draft("a", 20, 1)]);
    for ordinal in 1..2000 {
        assert!(Draft { size: 1000, ..draft("a", 30, ordinal) }.append(&journals));
        assert!(journals.bytes() <= 300_000);
    }
    journals.publish(Lsn::new(31));
    let kept = from_floor(&journals, "a");
    let floor = floor(&journals, "a");
    assert_eq!(kept.first(), Some(&(30, floor.1 + 1)));
    assert_eq!(kept.last(), Some(&(30, 1999)));
    assert_eq!(journals.recount(), journals.bytes());
}

#[test]
fn a_discarded_transaction_above_the_bound_leaves_the_floor_at_what_was_published() {
    let journals = journals(300_000, 10);
    commit(&journals, &[draft("a", 20, 1)]);
    for ordinal in 1..2000 {
        assert!(Draft { size: 1000, ..draft("a", 30, ordinal) }.append(&journals));
    }
    journals.discard_unpublished();
    assert_eq!(floor(&journals, "a"), (20, 1));
    commit(&journals, &[draft("a", 30, 1)]);
    assert_eq!(from_floor(&journals, "a"), [(30, 1)]);
}

#[test]
fn a_transaction_of_many_organizations_is_bounded_too() {
    let journals = journals(300_000, 10);
    for number in 1..2000 {
        assert!(draft(&format!("o{number}"), 30, number).append(&journals));
        assert!(journals.bytes() <= 300_000);
    }
    journals.publish(Lsn::new(31));
    assert!(journals.bytes() <= 300_000);
    assert!(journals.organizations() < 600);
    assert_eq!(journals.recount(), journals.bytes());
    let kept = (1..2000).filter(|number| !from_floor(&journals, &format!("o{number}")).is_empty()).count();
    assert!(kept > 100, "{kept} kept");
}

#[test]
fn age_and_log_evict_entry_by_entry() {
    let journals = journals(ROOMY, 10);
    for lsn in 20..40 {
        commit(&journals, &[draft("a", lsn, 1), draft("a", lsn, 2)]);
    }
    journals.evict_before(25, Lsn::ZERO);
    assert_eq!((floor(&journals, "a"), journals.oldest_kept()), ((24, 2), Some(Lsn::new(25))));
    journals.evict_before(0, Lsn::new(33));
    assert_eq!((floor(&journals, "a"), journals.oldest_kept()), ((32, 2), Some(Lsn::new(33))));
    assert_eq!(from_floor(&journals, "a").len(), 14);
    journals.evict_before(1000, Lsn::ZERO);
    assert_eq!((journals.oldest_kept(), journals.organizations()), (None, 0));
    assert_eq!(journals.bytes(), LOG_COST);
}

#[test]
fn a_forgotten_organization_keeps_a_floor() {
    let journals = journals(ROOMY, 10);
    commit(&journals, &[draft("a", 20, 1)]);
    commit(&journals, &[draft("b", 30, 1)]);
    journals.evict_before(25, Lsn::ZERO);
    assert_eq!(journals.organizations(), 1);
    assert_eq!(floor(&journals, "a"), (20, 1));
    assert_eq!(floor(&journals, "never seen"), (20, 1));
    commit(&journals, &[draft("a", 40, 1)]);
    assert_eq!(floor(&journals, "a"), (20, 1));
    assert_eq!(from_floor(&journals, "a"), [(40, 1)]);
}

#[test]
fn what_memory_took_from_one_organization_is_no_floor_of_the_others() {
    let journals = journals(200_000, 10);
    commit(&journals, &[Draft { size: 190_000, ..draft("a", 20, 1) }]);
    commit(&journals, &[Draft { size: 150_000, ..draft("b", 30, 1) }]);
    assert_eq!(
        (floor(&journals, "a"), floor(&journals, "b"), floor(&journals, "c")),
        ((20, 1), (10, 0), (10, 0))
    );
    journals.evict_before(25, Lsn::ZERO);
    assert_eq!((floor(&journals, "a"), floor(&journals, "c")), ((20, 1), (20, 1)));
    assert_eq!(journals.organizations(), 1);
}

#[test]
fn many_small_publishes_become_few_blocks() {
    let journals = journals(ROOMY, 10);
    for lsn in 20..5020 {
        commit(&journals, &[Draft { size: 200, ..draft("a", lsn, 1) }]);
    }
    let read = snapshot(&journals, "a").read((Lsn::new(10), 0), Lsn::MAX, usize::MAX).unwrap();
    assert!(read.runs.len() < 50, "{} blocks", read.runs.len());
    let expected: Vec<_> = (20..5020).map(|lsn| (lsn, 1)).collect();
    assert_eq!(places(&journals, "a", (Lsn::new(10), 0), usize::MAX), expected);
    assert_eq!(places(&journals, "a", (Lsn::new(10), 0), 1), expected);
    let frames: Vec<u8> =
        read.runs.iter().flat_map(|run| run.block.slice(run.block.frame_range(&run.range))).collect();
    let written: String = (20..5020).map(|lsn| Draft { size: 200, ..draft("a", lsn, 1) }.frame()).collect();
    assert_eq!(frames, written.as_bytes());
    assert_eq!(journals.recount(), journals.bytes());
    assert!(journals.bytes() < written.len() as u64 * 3 / 2);
}

#[test]
fn both_journals_read_in_portions_merge_by_id() {
    let journals = journals(ROOMY, 10);
    let mut expected = Vec::new();
    for lsn in 20..400 {
        let organization = if lsn % 3 == 0 { "*" } else { "a" };
        commit(&journals, &[Draft { size: 2000, ..draft(organization, lsn, 1) }, draft("other", lsn, 2)]);
        expected.push((lsn, 1));
    }
    for weight in [1, 10_000, usize::MAX] {
        assert_eq!(places(&journals, "a", (Lsn::new(10), 0), weight), expected);
    }
}

#[test]
fn a_reset_starts_an_empty_history() {
    let journals = journals(ROOMY, 10);
    commit(&journals, &[draft("a", 20, 1)]);
    let before = snapshot(&journals, "a");
    assert!(draft("a", 30, 1).append(&journals));
    journals.set_visible(Lsn::new(15));
    journals.reset(Epoch::new(8), Lsn::new(5), i64::MIN);
    assert_eq!(before.read((Lsn::new(10), 0), Lsn::MAX, usize::MAX).unwrap().runs.len(), 1);
    let view = journals.view();
    assert_eq!((view.epoch, view.head, view.visible), (Epoch::new(8), Lsn::new(5), None));
    assert_eq!((journals.oldest_kept(), journals.bytes()), (None, LOG_COST));
    assert_eq!(floor(&journals, "a"), (5, 0));
    assert!(!draft("a", 30, 1).append(&journals), "of the old epoch");
    assert_ne!(view.epoch, EPOCH);
}

#[test]
fn what_an_organization_lost_before_a_publish_is_below_its_floor_even_if_it_was_forgotten_meanwhile() {
    let journals = journals(6000, 10);
    assert!(Draft { size: 2800, ..draft("a", 30, 1) }.append(&journals));
    assert!(Draft { size: 2800, ..draft("b", 30, 2) }.append(&journals));
    assert_eq!(journals.recount(), journals.bytes());
    journals.evict_before(i64::MIN, Lsn::new(10));
    assert_eq!(journals.organizations(), 1, "one lost its only entry and was forgotten");
    assert!(draft("b", 30, 3).append(&journals));
    assert_eq!((floor(&journals, "a"), floor(&journals, "b")), ((10, 0), (10, 0)));
    journals.publish(Lsn::new(31));
    assert_eq!((floor(&journals, "b"), from_floor(&journals, "b")), ((30, 2), vec![(30, 3)]));
    assert_eq!(floor(&journals, "never seen"), (30, 2), "it might have been its own");
}
