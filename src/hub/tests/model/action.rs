//! What may happen in a random history, and what its filters mean.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use crate::hub::Filter;
use crate::journal::fixture::Draft;

pub(super) const ORGANIZATIONS: [&str; 3] = ["a", "b", "*"];
pub(super) const CHANNELS: [&str; 3] = ["x", "y", "z"];
pub(super) const TYPES: [&str; 2] = ["t", "u"];
pub(super) const ROLES: [&str; 2] = ["admin", "member"];

#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Ends the transaction in hand, when `next` is set, and adds an event to the present one.
    Append {
        next: bool,
        organization: usize,
        kind: usize,
        tag: usize,
        audience: usize,
        size: usize,
    },
    Publish,
    Discard,
    EvictBefore {
        share: u64,
        by_age: bool,
    },
    Reset {
        epoch: bool,
    },
    Open {
        organization: usize,
        role: usize,
        filter: usize,
        start: usize,
    },
    Read {
        stream: usize,
        times: usize,
    },
    Close {
        stream: usize,
    },
    Filter {
        stream: usize,
        filter: usize,
    },
}

pub(super) fn action() -> impl Strategy<Value = Action> {
    let size = prop_oneof![8 => 0..300usize, 2 => 300..4000usize, 1 => 10_000..90_000usize];
    prop_oneof![
        16 => (any::<bool>(), 0..3usize, 0..10usize, 0..4usize, 0..8usize, size).prop_map(
            |(next, organization, kind, tag, audience, size)| {
                Action::Append { next, organization, kind, tag, audience, size }
            }
        ),
        8 => Just(Action::Publish),
        1 => Just(Action::Discard),
        1 => (0..100u64, any::<bool>()).prop_map(|(share, by_age)| Action::EvictBefore { share, by_age }),
        1 => any::<bool>().prop_map(|epoch| Action::Reset { epoch }),
        4 => (0..2usize, 0..3usize, 0..FILTERS, 0..40usize).prop_map(
            |(organization, role, filter, start)| Action::Open { organization, role, filter, start }
        ),
        12 => (0..64usize, 1..4usize).prop_map(|(stream, times)| Action::Read { stream, times }),
        1 => (0..64usize).prop_map(|stream| Action::Close { stream }),
        1 => (0..64usize, 0..FILTERS).prop_map(|(stream, filter)| Action::Filter { stream, filter }),
    ]
}

pub(super) const FILTERS: usize = 8;

pub(super) fn filter(number: usize) -> Filter {
    let set =
        |names: &[&str]| Some(names.iter().map(|&name| Arc::from(name)).collect::<BTreeSet<Arc<str>>>());
    let value = |value: &str| value.as_bytes().into();
    match number {
        0 | 1 => Filter::default(),
        2 => Filter { channels: set(&["x"]), ..Filter::default() },
        3 => Filter { channels: set(&["y", "z"]), types: set(&["t"]), ..Filter::default() },
        4 => Filter { types: set(&["u"]), ..Filter::default() },
        5 => Filter { tags: vec![(1, vec![value("1")])], ..Filter::default() },
        6 => {
            Filter { channels: set(&["x", "y"]), tags: vec![(1, vec![value("2"), value("1")])], types: None }
        }
        _ => Filter {
            tags: vec![(2, vec![value("2")]), (1, vec![value("1"), value("3")])],
            ..Filter::default()
        },
    }
}

/// The meaning of a filter, written a second time and otherwise.
pub(super) fn wants(filter: &Filter, entry: &Draft) -> bool {
    let channel =
        filter.channels.as_ref().is_none_or(|channels| channels.iter().any(|c| **c == *entry.channel));
    let event_type = filter.types.as_ref().is_none_or(|types| types.iter().any(|t| **t == *entry.event_type));
    let tag = |(name, values): &(u16, Vec<Box<[u8]>>)| {
        entry.tags.iter().any(|(n, v)| n == name && values.iter().any(|value| **value == *v.as_bytes()))
    };
    channel && (entry.sync || (event_type && filter.tags.iter().all(tag)))
}
