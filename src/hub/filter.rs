//! What a stream wants to see: AND between channel, type and each tag name, OR within one.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::event::TagIter;
use crate::journal::Label;

/// None, and no tags, is everything. A `data.sync` of the journal goes by channel only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub channels: Option<BTreeSet<Arc<str>>>,
    pub types: Option<BTreeSet<Arc<str>>>,
    /// Tag name (index into the catalog's names) and its allowed values. An event that has no such tag does not
    /// match; one that has it twice (old and new) matches by either.
    pub tags: Vec<(u16, Vec<Box<[u8]>>)>,
}

impl Filter {
    /// The same filter with each name once, in order, and its values in order: what matching by search needs. A name
    /// that was given twice must match both times.
    #[must_use]
    pub(super) fn ordered(mut self) -> Self {
        for (_, values) in &mut self.tags {
            values.sort_unstable();
            values.dedup();
        }
        self.tags.sort();
        self.tags.dedup();
        self
    }

    pub(super) fn passes_channel(&self, channel: &str) -> bool {
        self.channels.as_ref().is_none_or(|channels| channels.contains(channel))
    }

    /// Whether entries with this label pass, tags aside.
    pub(super) fn passes(&self, label: &Label) -> bool {
        match label {
            Label::Data { event_type, channel } => {
                self.passes_channel(channel)
                    && self.types.as_ref().is_none_or(|types| types.contains(event_type))
            }
            Label::Sync { channels, .. } => {
                channels.is_empty() || channels.iter().any(|channel| self.passes_channel(channel))
            }
        }
    }

    pub(super) fn passes_tags(&self, tags: &[u8]) -> bool {
        self.tags.iter().all(|(name, values)| {
            let allowed = |value: &[u8]| values.binary_search_by(|known| (**known).cmp(value)).is_ok();
            TagIter::over(tags).any(|(n, value)| n == *name && allowed(value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::event::{SyncReason, Tags};

    fn names(names: &[&str]) -> Option<BTreeSet<Arc<str>>> {
        Some(names.iter().map(|&name| name.into()).collect())
    }

    fn data(event_type: &str, channel: &str) -> Label {
        Label::Data { event_type: event_type.into(), channel: channel.into() }
    }

    fn tags(pairs: &[(u16, &str)]) -> Tags {
        let mut tags = Tags::default();
        pairs.iter().for_each(|(name, value)| tags.push(*name, value.as_bytes()));
        tags
    }

    #[test]
    fn channel_and_type_must_both_pass() {
        let filter = Filter { channels: names(&["a", "b"]), types: names(&["t"]), tags: vec![] };
        assert!(filter.passes(&data("t", "b")));
        assert!(!filter.passes(&data("t", "c")));
        assert!(!filter.passes(&data("u", "a")));
        assert!(Filter::default().passes(&data("any", "any")));
    }

    #[test]
    fn a_sync_passes_by_channel_whatever_the_types() {
        let filter = Filter { channels: names(&["a"]), types: names(&["t"]), tags: vec![] };
        let sync = |channels: &[&str]| Label::Sync {
            reason: SyncReason::Truncated,
            channels: channels.iter().map(|&c| Arc::from(c)).collect(),
        };
        assert!(filter.passes(&sync(&["x", "a"])));
        assert!(filter.passes(&sync(&[])));
        assert!(!filter.passes(&sync(&["x"])));
    }

    #[test]
    fn tags_are_and_between_names_and_or_within_one() {
        let values = |values: &[&str]| values.iter().map(|v| v.as_bytes().into()).collect();
        let filter =
            Filter { tags: vec![(2, values(&["z", "y"])), (1, values(&["b", "a"]))], ..Filter::default() };
        let filter = filter.ordered();
        assert!(filter.passes_tags(tags(&[(1, "a"), (2, "z")]).as_bytes()));
        assert!(filter.passes_tags(tags(&[(1, "old"), (1, "b"), (2, "y")]).as_bytes()));
        assert!(!filter.passes_tags(tags(&[(1, "a")]).as_bytes()));
        assert!(!filter.passes_tags(tags(&[(1, "a"), (2, "q")]).as_bytes()));
        assert!(!filter.passes_tags(&[]));
    }
}
