//! Random histories, bounds and readers against a model that forgets nothing.

mod action;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt;
use proptest::prelude::*;

use action::{Action, CHANNELS, ORGANIZATIONS, ROLES, TYPES, action, filter, wants};

use crate::catalog::event::{Audience, Epoch, EventId, OrganizationId, SyncReason};
use crate::hub::{Batch, Filter, Hub, Start, Stream, StreamHandle, Subscription};
use crate::journal::fixture::{Draft, draft};
use crate::journal::{Journals, Place};
use crate::postgres::Lsn;

struct Reader {
    stream: Stream,
    handle: StreamHandle,
    organization: &'static str,
    user: String,
    role: Option<Arc<str>>,
    /// Filters, each from its position on.
    filters: Vec<(Place, Filter)>,
    generation: u64,
    after: Place,
    /// What its first batch must be.
    first: Option<SyncReason>,
}

struct World {
    journals: Arc<Journals>,
    hub: Arc<Hub>,
    max_memory: u64,
    published: Vec<Draft>,
    pending: Vec<Draft>,
    epoch: Epoch,
    generation: u64,
    lsn: u64,
    ordinal: u32,
    readers: Vec<Reader>,
    /// Ids that were given out: of entries, of cursors, of any generation.
    ids: Vec<(u64, EventId)>,
}

impl World {
    fn new(max_memory: u64) -> Self {
        let journals = Journals::new(max_memory);
        let hub = Hub::new(journals.clone());
        let epoch = Epoch::new(1);
        journals.reset(epoch, Lsn::new(100), i64::MIN);
        Self {
            journals,
            hub,
            max_memory,
            published: Vec::new(),
            pending: Vec::new(),
            epoch,
            generation: 1,
            lsn: 100,
            ordinal: 0,
            readers: Vec::new(),
            ids: Vec::new(),
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Append { next, organization, kind, tag, audience, size } => {
                if next {
                    self.lsn += 10;
                    self.ordinal = 0;
                }
                self.ordinal += 1;
                self.append(organization, kind, tag, audience, size);
            }
            Action::Publish => {
                self.lsn += 10;
                self.ordinal = 0;
                self.journals.publish(Lsn::new(self.lsn));
                self.published.append(&mut self.pending);
            }
            Action::Discard => {
                self.journals.discard_unpublished();
                self.pending.clear();
                self.lsn = self.journals.head().as_u64();
                self.ordinal = 0;
            }
            Action::EvictBefore { share, by_age } => {
                let at = 100 + (self.journals.head().as_u64() - 100) * share / 100;
                let (millis, lsn) = if by_age { (i64::try_from(at).unwrap(), 0) } else { (i64::MIN, at) };
                self.journals.evict_before(millis, Lsn::new(lsn));
                assert!(self.journals.oldest_kept().is_none_or(|oldest| oldest >= Lsn::new(at)));
            }
            Action::Reset { epoch } => {
                self.generation += 1;
                self.epoch = if epoch { Epoch::new(self.generation) } else { self.epoch };
                (self.lsn, self.ordinal) = (100, 0);
                self.journals.reset(self.epoch, Lsn::new(100), i64::MIN);
                self.pending.clear();
                self.published.clear();
            }
            Action::Open { organization, role, filter, start } => {
                self.open(organization, role, filter, start);
            }
            Action::Read { stream, times } => {
                if let Some(stream) = stream.checked_rem(self.readers.len()) {
                    (0..times).for_each(|_| self.read(stream));
                }
            }
            Action::Close { stream } => {
                if let Some(stream) = stream.checked_rem(self.readers.len()) {
                    self.readers.swap_remove(stream);
                }
                assert_eq!(self.hub.streams(), self.readers.len());
            }
            Action::Filter { stream, filter: number } => {
                if let Some(stream) = stream.checked_rem(self.readers.len()) {
                    let reader = &mut self.readers[stream];
                    let from = reader.handle.set_filter(filter(number)).place();
                    reader.filters.retain(|(at, _)| *at != from);
                    reader.filters.push((from, filter(number)));
                }
            }
        }
        self.check();
    }

    fn append(&mut self, organization: usize, kind: usize, tag: usize, audience: usize, size: usize) {
        let audience = match audience {
            0 => Some(Audience { roles: vec!["admin".into()], user: None }),
            1 => Some(Audience { roles: vec!["admin".into()], user: Some("ann".into()) }),
            _ => None,
        };
        let entry = Draft {
            epoch: self.epoch,
            channel: CHANNELS[kind % 3],
            event_type: TYPES[kind % 2],
            tags: (1..=2).filter(|_| tag > 0).map(|name| (name, tag.to_string())).collect(),
            audience: audience.map(Arc::new),
            size,
            sync: kind == 9,
            ..draft(ORGANIZATIONS[organization], self.lsn, self.ordinal)
        };
        assert!(entry.append(&self.journals));
        self.pending.push(entry);
    }

    fn open(&mut self, organization: usize, role: usize, number: usize, start: usize) {
        let organization = ORGANIZATIONS[organization];
        let snapshot = self.journals.snapshot(&OrganizationId::new(organization));
        let pick = self.ids.len().checked_sub(1 + start * start).and_then(|i| self.ids.get(i)).copied();
        let head = self.journals.head();
        let (start, id) = match (start, pick) {
            (0 | 1, _) => (Start::Now(head), None),
            (2 | 3, _) => (Start::Earliest, None),
            (4, _) => (Start::Unreadable, None),
            (_, Some((generation, id))) if id.place() <= (head, 0) => {
                (Start::After(id), Some((generation, id)))
            }
            _ => (Start::Now(head), None),
        };
        let role = ROLES.get(role).map(|&role| Arc::from(role));
        let user = if number.is_multiple_of(2) { "ann" } else { "bob" }.to_owned();
        let subscription = Subscription {
            organization: OrganizationId::new(organization),
            user: user.clone(),
            role: role.clone(),
            filter: filter(number),
            start,
        };
        let stream = self.hub.open(subscription).now_or_never().expect("no start is ahead of the head");
        let floor = snapshot.floor();
        let mut first = None;
        match id {
            Some((_, id)) if stream.resumed() => {
                assert!(id.epoch == self.epoch && id.place() >= floor);
                assert_eq!(stream.cursor(), id);
            }
            Some((generation, id)) => {
                let named =
                    |d: &Draft| d.id() == id && (d.organization == organization || d.organization == "*");
                let known = id.ordinal == 0 || self.published.iter().any(named);
                assert!(generation != self.generation || id.place() < floor || !known, "{id} can be resumed");
                let expired = id.epoch == self.epoch && id.place() < floor;
                first = Some(if expired { SyncReason::HistoryExpired } else { SyncReason::HistoryReset });
            }
            None if start == Start::Unreadable => first = Some(SyncReason::HistoryReset),
            None if start == Start::Earliest => assert_eq!(stream.cursor().place(), floor),
            None => assert_eq!(stream.cursor().place(), (head, 0).max(floor)),
        }
        let reader = Reader {
            handle: stream.handle(),
            after: stream.cursor().place(),
            stream,
            organization,
            user,
            role,
            filters: vec![((Lsn::ZERO, 0), filter(number))],
            generation: self.generation,
            first,
        };
        self.readers.push(reader);
    }

    /// What a reader is owed, in order.
    fn owed<'a>(&'a self, reader: &'a Reader) -> impl Iterator<Item = &'a Draft> {
        self.published.iter().filter(move |entry| {
            let place = entry.id().place();
            let newest = reader.filters.iter().rev().find(|(from, _)| *from <= place);
            let admits = |audience: &Arc<Audience>| audience.admits(&reader.user, reader.role.as_deref());
            place > reader.after
                && (entry.organization == reader.organization || entry.organization == "*")
                && newest.is_some_and(|(_, filter)| wants(filter, entry))
                && entry.audience.as_ref().is_none_or(admits)
        })
    }

    fn read(&mut self, number: usize) {
        let batch = poll(&mut self.readers[number].stream);
        let reader = &self.readers[number];
        let floor = self.journals.snapshot(&OrganizationId::new(reader.organization)).floor();
        let reset = reader.generation != self.generation;
        let mut owed = self.owed(reader);
        let after = match batch {
            None => {
                assert!(!reset && reader.first.is_none(), "it was to be told something");
                assert!(owed.next().is_none(), "it was not given what it is owed");
                reader.after
            }
            Some(Batch::Frames(frames)) => {
                assert!(!reset && reader.first.is_none(), "it was to be told something first");
                let text = String::from_utf8(frames.concat()).unwrap();
                let mut rest = text.as_str();
                let mut last = reader.after;
                while !rest.is_empty() {
                    let entry = owed.next().expect("no more than it is owed");
                    assert!(!entry.sync, "a sync was left out");
                    rest = rest.strip_prefix(entry.frame().as_str()).expect("exactly what is next");
                    last = entry.id().place();
                }
                assert!(last > reader.after, "an empty batch");
                last
            }
            Some(Batch::Sync { reason: SyncReason::Truncated, id }) => {
                assert!(!reset && reader.first.is_none(), "it was to be told something first");
                let entry = owed.next().expect("it is owed");
                assert!(entry.sync && entry.id() == id);
                id.place()
            }
            Some(Batch::Sync { reason, id }) => {
                assert_eq!(id.epoch, self.epoch);
                match reason {
                    _ if reset => assert_eq!(reason, SyncReason::HistoryReset),
                    SyncReason::SlowConsumer => assert!(floor > reader.after && reader.first.is_none()),
                    _ => assert_eq!(Some(reason), reader.first),
                }
                assert!(id.place() <= (self.journals.head(), 0).max(floor));
                id.place()
            }
            Some(Batch::End(_) | Batch::Notices(_) | Batch::Rest(_)) => {
                panic!("nobody ended it, nobody told it anything, and nobody wrote for it")
            }
        };
        drop(owed);
        let reader = &mut self.readers[number];
        reader.after = after;
        reader.first = None;
        if reset {
            let (_, filter) = reader.filters.pop().unwrap();
            reader.filters = vec![((Lsn::ZERO, 0), filter)];
        }
        reader.generation = self.generation;
        self.ids.push((self.generation, reader.stream.cursor()));
        self.ids
            .push((self.generation, EventId { epoch: self.epoch, commit_lsn: after.0, ordinal: after.1 }));
    }

    fn check(&self) {
        assert!(self.journals.bytes() <= self.max_memory, "{} bytes", self.journals.bytes());
        assert_eq!(self.journals.recount(), self.journals.bytes());
        for reader in self.readers.iter().filter(|reader| reader.generation == self.generation) {
            let cursor = reader.stream.cursor().place();
            let next = self.owed(reader).next().map(|entry| entry.id().place());
            assert!(next.is_none_or(|next| cursor < next), "a cursor passes what is owed");
            assert!(cursor >= reader.after);
        }
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls until there is a batch or nothing wakes it.
fn poll(stream: &mut Stream) -> Option<Batch> {
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(flag.clone());
    let mut next = std::pin::pin!(stream.next());
    while flag.0.swap(false, Ordering::SeqCst) {
        if let Poll::Ready(batch) = next.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(batch);
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_sees_a_contiguous_part_of_its_journal_or_is_told(
        max_memory in prop_oneof![Just(8_000u64), Just(60_000), Just(400_000), Just(1 << 30)],
        actions in prop::collection::vec(action(), 1..200),
    ) {
        let mut world = World::new(max_memory);
        for action in &actions {
            world.act(action);
        }
        for number in 0..world.readers.len() {
            // Enough for a reset, a lost place, each sync, and what a batch can't hold at once.
            (0..world.published.len() + 3).for_each(|_| world.read(number));
            prop_assert!(world.owed(&world.readers[number]).next().is_none());
        }
    }
}
