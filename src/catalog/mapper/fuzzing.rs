//! What the fuzzers assert of emitted messages.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use std::cell::RefCell;

use super::Mapper;
use super::emit::Verifier;
use crate::catalog::OrganizationId;
use crate::catalog::event::{Event, Kind};
use crate::catalog::fixture;
use crate::catalog::fuzzing::{emission, is_well_formed, transaction};
use crate::catalog::spelling::{WORKER_TYPES, is_name};
use crate::catalog::{Compiled, Epoch};
use crate::config::Secret;
use crate::mirror::Mirror;
use crate::postgres::schema::Types;
use crate::source::Change;

const SECRET: &str = "\\x0a0b0c0d";
const MAX_EVENT: u64 = 700;

const SCHEMA: &str = "notes: *id text, organization_id text, user_id text, kind text";

const CATALOG: &str = r#"
[tables.notes]
organization = "organization_id"
channel = "notes"
tags = { kind = "kind" }
[[tables.notes.events]]
type = "note.open"
on = ["insert"]
[[tables.notes.events]]
type = "note.user"
on = ["insert"]
only = { user = "user_id", roles = ["admin"] }
[[tables.notes.events]]
type = "note.roles"
on = ["insert"]
channel = "board"
only = { roles = ["admin", "manager"] }
[[tables.notes.events]]
type = "note.twice"
on = ["insert"]
[[tables.notes.events]]
type = "note.twice"
on = ["delete"]
channel = "board"
"#;

/// Any bytes as a message under our prefix. Unsigned, nothing comes of it; signed, an event that is well-formed, of one
/// organization, of no type of the worker's own, and shown to nobody whom the catalog does not admit to its type.
pub fn emitted(data: &[u8]) {
    thread_local! {
        static MAPPER: RefCell<(Mapper, Mirror)> = RefCell::new(mapper());
    }
    MAPPER.with_borrow_mut(|(mapper, mirror)| {
        let unsigned = emission(data.to_vec());
        let signed = emission(Verifier::new(Some(&Secret::new(SECRET.to_owned()))).sign(77, data));
        let elsewhere = emission(Verifier::new(Some(&Secret::new(SECRET.to_owned()))).sign(78, data));
        assert_eq!(events(mapper, mirror, unsigned, &mut |_| {}), 0, "unsigned");
        assert_eq!(events(mapper, mirror, elsewhere, &mut |_| {}), 0, "signed for another transaction");
        events(mapper, mirror, signed, &mut |event| {
            is_well_formed(event, MAX_EVENT);
            assert!(!event.organization.is_empty() && event.organization != OrganizationId::EVERY);
            let Kind::Data { event_type, channel, .. } = &event.kind else {
                panic!("a data.sync of an emitted message");
            };
            assert!(is_name(event_type) && is_name(channel) && !WORKER_TYPES.contains(&&***event_type));
            let admits = |role| event.audience.is_none_or(|audience| audience.admits("nobody", Some(role)));
            match &***event_type {
                "note.user" => {
                    assert!(!admits("manager") && event.audience.is_some_and(|of| of.user.is_some()))
                }
                "note.roles" => assert!(!admits("member") && &***channel == "board"),
                "note.twice" => panic!("which of two rules it inherits from is nobody's guess"),
                _ => {}
            }
        });
    });
}

fn mapper() -> (Mapper, Mirror) {
    let compiled: Compiled = fixture::compile(CATALOG, SCHEMA).unwrap_or_else(|errors| panic!("{errors}"));
    let mirror = Mirror::new(compiled.mirror_specs().to_vec(), 1 << 20);
    let secret = Some(Secret::new(SECRET.to_owned()));
    (Mapper::new(compiled.into(), Types::builtin().into(), Epoch::new(0xe1), MAX_EVENT, secret), mirror)
}

fn events(mapper: &mut Mapper, mirror: &Mirror, change: Change, each: &mut dyn FnMut(&Event<'_>)) -> usize {
    let transaction = transaction(vec![change]);
    mapper.begin(&transaction).expect("in memory");
    let mut reader = transaction.reader().expect("in memory");
    let mut count = 0;
    while let Some(change) = reader.next().expect("in memory") {
        mapper.map_change(change, mirror, &mut |event| {
            count += 1;
            each(&event);
        });
    }
    count
}
