//! The steps of an event's way, one at a time: `cargo bench --bench steps`.
//!
//! Each works on what the step before makes of a row of eight columns: a message's bytes, a change, an event, a
//! journal, a stream.

#![allow(clippy::expect_used, reason = "a bench: it stops where it can't go on")]

mod given;

use std::sync::Arc;

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use futures_util::FutureExt as _;
use walcast::catalog::{Event, EventId, Kind, OrganizationId, Tags};
use walcast::hub::{Batch, Filter, Hub, Start, Subscription};
use walcast::journal::Journals;
use walcast::postgres::{Lsn, pgoutput};

use given::{Rules, insert_message};

/// Items of one iteration: what a clock can tell.
const MANY: u32 = 1000;

fn main() {
    divan::main();
}

/// A message of the stream to what it says.
#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    let message = Bytes::from(insert_message());
    bencher.counter(ItemsCount::new(1u32)).bench(|| pgoutput::decode(black_box(message.clone())));
}

/// A change to an event's finished frame.
#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let mut rules = Rules::new("on = [\"insert\"]\n");
    bencher.counter(ItemsCount::new(MANY)).bench_local(|| rules.map(MANY, &given::insert()));
}

/// A condition of plain columns that does not hold: two values compared.
#[divan::bench]
fn condition_plain(bencher: Bencher<'_, '_>) {
    let mut rules = Rules::new("on = [\"update\"]\nwhen.changed = [\"battery\"]\n");
    bencher.counter(ItemsCount::new(MANY)).bench_local(|| rules.map(MANY, &given::update()));
}

/// An expression that does not hold.
#[divan::bench]
fn condition_expression(bencher: Bencher<'_, '_>) {
    let mut rules = Rules::new("on = [\"update\"]\nwhen.expr = \"new.battery > 95 && new.kind != 'test'\"\n");
    bencher.counter(ItemsCount::new(MANY)).bench_local(|| rules.map(MANY, &given::update()));
}

/// Frames into an organization's journal, published a hundred at a time.
#[divan::bench]
fn journal_append(bencher: Bencher<'_, '_>) {
    let journals = journals();
    let mut next = 1;
    bencher.counter(ItemsCount::new(MANY)).bench_local(|| {
        next = fill(&journals, next, MANY);
    });
}

/// A stream that reads 1,000 events behind it, in as many batches as it takes.
#[divan::bench]
fn cursor_read(bencher: Bencher<'_, '_>) {
    read(bencher, &Filter::default());
}

/// The same, of which one in a hundred passes its filter.
#[divan::bench]
fn cursor_read_filtered(bencher: Bencher<'_, '_>) {
    read(bencher, &Filter { tags: vec![(0, vec![b"d7".as_slice().into()])], ..Filter::default() });
}

fn read(bencher: Bencher<'_, '_>, filter: &Filter) {
    let journals = journals();
    fill(&journals, 1, MANY);
    let hub = Hub::new(journals);
    let open = || {
        let subscription = Subscription {
            organization: OrganizationId::new("o1"),
            user: "u1".to_owned(),
            role: None,
            filter: filter.clone(),
            start: Start::Earliest,
        };
        hub.open(subscription).now_or_never().expect("nothing to wait for")
    };
    bencher.counter(ItemsCount::new(MANY)).with_inputs(open).bench_local_refs(|stream| {
        while let Some(Batch::Frames(frames)) = stream.next().now_or_never() {
            black_box(frames);
        }
    });
}

fn journals() -> Arc<Journals> {
    let journals = Journals::new(64 << 20);
    journals.reset(given::EPOCH, Lsn::new(1), i64::MIN);
    journals
}

/// Appends events from a position on; the position after them.
fn fill(journals: &Journals, from: u64, count: u32) -> u64 {
    let frame = vec![b'x'; 300];
    let (event_type, channel) = (Arc::from("reading"), Arc::from("telemetry"));
    let end = from + u64::from(count);
    for lsn in from..end {
        let mut tags = Tags::default();
        tags.push(0, format!("d{}", lsn % 100).as_bytes());
        let appended = journals.append(Event {
            id: EventId { epoch: given::EPOCH, commit_lsn: Lsn::new(lsn), ordinal: 1 },
            organization: "o1",
            commit_millis: 0,
            kind: Kind::Data { event_type: &event_type, channel: &channel, tags: &tags, frame: &frame },
            audience: None,
        });
        assert!(appended, "events come in order");
        if lsn % 100 == 99 {
            journals.publish(Lsn::new(lsn + 1));
        }
    }
    journals.publish(Lsn::new(end));
    end
}
