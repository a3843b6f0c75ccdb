//! Streams whose standing changes while they are live.

use std::sync::Arc;

use futures_util::FutureExt;

use super::{Count, ROOMY, hub, id, live, names, poll, poll_ids, subscription, tag};
use crate::catalog::event::{Audience, OrganizationId};
use crate::hub::{Batch, EndReason, Filter, Full, Limits, Start};
use crate::journal::fixture::{Draft, commit, draft, journals};
use crate::postgres::Lsn;

#[test]
fn an_event_with_an_audience_reaches_whom_it_admits() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let (mut ann, mut admin) = (live(&hub, Filter::default()), live(&hub, Filter::default()));
    admin.handle().set_role(Some("admin".into()));
    assert_eq!((poll(&mut ann), poll(&mut admin)), (None, None));
    let only = |roles: &[&str], user: Option<&str>| {
        let roles = roles.iter().map(|&role| role.into()).collect();
        Some(Arc::new(Audience { roles, user: user.map(Into::into) }))
    };
    commit(
        &journals,
        &[
            Draft { audience: only(&["admin"], None), ..draft("a", 20, 1) },
            Draft { audience: only(&[], Some("bob")), ..draft("a", 20, 2) },
            draft("a", 20, 3),
            Draft { audience: only(&["admin"], Some("ann")), ..draft("a", 20, 4) },
        ],
    );
    assert_eq!(poll_ids(&mut ann), [id(20, 3), id(20, 4)]);
    assert_eq!(poll_ids(&mut admin), [id(20, 1), id(20, 3), id(20, 4)]);
}

#[test]
fn a_changed_role_holds_for_all_that_is_not_read_yet() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default());
    stream.handle().set_role(Some("admin".into()));
    let audience = Some(Arc::new(Audience { roles: vec!["admin".into()], user: None }));
    commit(&journals, &[Draft { audience, ..draft("a", 20, 1) }]);
    stream.handle().set_role(None);
    assert_eq!(poll(&mut stream), None);
    assert_eq!(stream.cursor(), id(21, 0));
}

#[test]
fn a_role_from_a_position_on_judges_what_commits_there_and_above() {
    let audience = |role: &str| Some(Arc::new(Audience { roles: vec![role.into()], user: None }));
    let both = |lsn| {
        let member = Draft { audience: audience("member"), ..draft("a", lsn, 1) };
        [member, Draft { audience: audience("admin"), ..draft("a", lsn, 2) }]
    };
    for read_between in [false, true] {
        let journals = journals(ROOMY, 10);
        let hub = hub(&journals);
        let mut stream = live(&hub, Filter::default());
        let handle = stream.handle();
        handle.set_role(Some("member".into()));
        let mut seen = Vec::new();
        let mut read = |stream: &mut _| {
            let ids = std::iter::repeat_with(|| poll_ids(stream));
            seen.extend(ids.take_while(|ids| !ids.is_empty()).flatten());
        };
        if read_between {
            read(&mut stream);
        }
        commit(&journals, &both(20));
        // As a transaction does: before it is published, and before the one below it was read.
        handle.set_role_from(Lsn::new(30), Some("admin".into()));
        if read_between {
            read(&mut stream);
        }
        commit(&journals, &both(30));
        handle.set_role_from(Lsn::new(40), Some("member".into()));
        if read_between {
            read(&mut stream);
        }
        commit(&journals, &both(40));
        commit(&journals, &both(50));
        read(&mut stream);
        assert_eq!(handle.role().as_deref(), Some("member"));
        assert_eq!(seen, [id(20, 1), id(30, 2), id(40, 1), id(50, 1)], "read between: {read_between}");
        assert_eq!(stream.cursor(), id(51, 0));
    }
}

#[test]
fn a_stream_that_is_busy_hears_that_it_ends() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default());
    assert_eq!(poll(&mut stream), None);
    commit(&journals, &[draft("a", 20, 1)]);
    let count = Arc::<Count>::default();
    assert_eq!(count.poll_ended(&stream), None);
    stream.handle().end(EndReason::Revoked);
    assert_eq!((count.get(), count.poll_ended(&stream)), (1, Some(EndReason::Revoked)));
}

#[test]
fn only_streams_that_may_match_are_woken_and_the_others_stand_at_the_head() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let event = |lsn, device: &str| Draft { tags: vec![(1, device.to_owned())], ..draft("a", lsn, 1) };
    let filters = [
        tag(1, "d1"),
        tag(1, "d2"),
        Filter { channels: names(&["other"]), ..Filter::default() },
        Filter { types: names(&["other"]), ..Filter::default() },
        Filter { channels: names(&["c"]), ..Filter::default() },
        Filter { types: names(&["t"]), ..Filter::default() },
        Filter::default(),
    ];
    let mut streams: Vec<_> = filters.map(|filter| (live(&hub, filter), Arc::<Count>::default())).into();
    for (stream, count) in &mut streams {
        assert_eq!(count.poll(stream), None);
    }
    commit(&journals, &[event(20, "d1")]);
    let woken: Vec<_> = streams.iter().map(|(_, count)| count.get()).collect();
    assert_eq!(woken, [1, 0, 0, 0, 1, 1, 1]);
    let cursors: Vec<_> = streams.iter().map(|(stream, _)| stream.cursor()).collect();
    assert_eq!([cursors[1], cursors[2], cursors[3]], [id(21, 0); 3]);
    assert_eq!([cursors[0], cursors[6]], [id(10, 0); 2], "they have not read it yet");
    commit(&journals, &[event(30, "d2")]);
    assert_eq!(poll_ids(&mut streams[1].0), [id(30, 1)]);
    assert_eq!(poll_ids(&mut streams[0].0), [id(20, 1)]);
}

#[test]
fn an_audience_wakes_only_whom_it_admits() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default());
    let count = Arc::<Count>::default();
    assert_eq!(count.poll(&mut stream), None);
    let to = |user: &str| Some(Arc::new(Audience { roles: vec![], user: Some(user.into()) }));
    commit(&journals, &[Draft { audience: to("bob"), ..draft("a", 20, 1) }]);
    assert_eq!(count.get(), 0);
    commit(&journals, &[Draft { audience: to("ann"), ..draft("a", 30, 1) }]);
    assert_eq!(count.get(), 1);
    assert_eq!(poll_ids(&mut stream), [id(30, 1)]);
}

#[test]
fn an_ended_stream_gives_its_reason_and_nothing_else() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter::default());
    let count = Arc::<Count>::default();
    assert_eq!(count.poll(&mut stream), None);
    let handles = hub.handles(&OrganizationId::new("a"));
    handles[0].end(EndReason::Revoked);
    handles[0].end(EndReason::Closed);
    assert_eq!(count.get(), 1);
    commit(&journals, &[draft("a", 20, 1)]);
    assert_eq!(poll(&mut stream), Some(Batch::End(EndReason::Revoked)));
    assert_eq!(poll(&mut stream), Some(Batch::End(EndReason::Revoked)));
}

#[test]
fn a_changed_filter_holds_from_the_position_that_is_answered() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let mut stream = live(&hub, Filter { types: names(&["old"]), ..Filter::default() });
    assert_eq!(poll(&mut stream), None);
    let both = |lsn| {
        [Draft { event_type: "old", ..draft("a", lsn, 1) }, Draft { event_type: "new", ..draft("a", lsn, 2) }]
    };
    commit(&journals, &both(20));
    let handle = stream.handle();
    let new = Filter { types: names(&["new"]), ..Filter::default() };
    assert_eq!(handle.set_filter(new.clone()), id(21, 0));
    assert_eq!(*handle.filter(), new);
    commit(&journals, &both(30));
    assert_eq!(poll_ids(&mut stream), [id(20, 1)]);
    assert_eq!(poll_ids(&mut stream), [id(30, 2)]);
    let count = Arc::<Count>::default();
    assert_eq!(count.poll(&mut stream), None);
    commit(&journals, &[Draft { event_type: "old", ..draft("a", 40, 1) }]);
    assert_eq!(count.get(), 0);
    commit(&journals, &[Draft { event_type: "new", ..draft("a", 50, 1) }]);
    assert_eq!(count.get(), 1);
}

#[test]
fn the_oldest_of_all_makes_room_and_who_makes_room_by_their_own_pushes_out_nobody() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let limits = Limits { streams: 3, streams_per_user: 2, evict_oldest: true };
    let open = |organization: &str| {
        let subscription = subscription(organization, Filter::default(), Start::Earliest);
        hub.open_within(subscription, limits).now_or_never().unwrap()
    };
    let (first, second, third) = (open("b").unwrap(), open("a").unwrap(), open("a").unwrap());
    let own = open("a").unwrap();
    assert_eq!([&first, &second, &third, &own].map(|s| s.handle().is_ending()), [false, true, false, false]);
    // The second has yet to leave, but makes room no more.
    let fourth = open("c").unwrap();
    assert_eq!([&first, &third, &own, &fourth].map(|s| s.handle().is_ending()), [true, false, false, false]);
    assert_eq!(hub.streams(), 5);
    let more: Vec<_> = std::iter::from_fn(|| open("d").ok()).take(100).collect();
    assert_eq!(hub.streams(), 3 + 64, "who takes nothing holds a socket, and there are no more than so many");
    assert_eq!(open("d").unwrap_err(), Full::Streams);
    drop((first, second, third, own, fourth, more));
    assert_eq!(hub.streams(), 0);
    let again = [open("a").unwrap(), open("b").unwrap(), open("c").unwrap()];
    assert!(again.iter().all(|stream| !stream.handle().is_ending()));
}

#[test]
fn a_dropped_stream_leaves_nothing_and_limits_count_the_living() {
    let journals = journals(ROOMY, 10);
    let hub = hub(&journals);
    let limits = Limits { streams: 3, streams_per_user: 2, evict_oldest: false };
    let open = |organization: &str| {
        let subscription = subscription(organization, Filter::default(), Start::Earliest);
        hub.open_within(subscription, limits).now_or_never().unwrap()
    };
    let (a, b) = (OrganizationId::new("a"), OrganizationId::new("b"));
    let first = open("a").unwrap();
    let second = open("a").unwrap();
    assert_eq!(open("a").unwrap_err(), Full::User);
    let third = open("b").unwrap();
    assert_eq!(open("b").unwrap_err(), Full::Streams);
    assert_eq!((hub.streams(), hub.streams_of(&a), hub.streams_of_user(&a, "ann")), (3, 2, 2));
    assert_eq!((hub.streams_of(&b), hub.streams_of_user(&b, "bob")), (1, 0));
    let handle = first.handle();
    drop((first, second, third));
    assert_eq!((hub.streams(), hub.streams_of(&a), hub.organizations()), (0, 0, vec![]));
    handle.end(EndReason::Evicted);
    handle.set_filter(tag(1, "x"));
    let again = open("a").unwrap();
    commit(&journals, &[draft("a", 20, 1)]);
    assert_eq!(hub.organizations(), [(a, 1)]);
    drop(again);
}
