//! What is told to a room's streams beside their journal: frames without an id, that nobody asks for later.
//!
//! ```text
//! tell ─► number, newest of each subject ─► seats whose filter may want it: flag, wake ─► Stream takes what is after
//!                                                                                          the number it has seen
//! ```
//!
//! A stream holds a number, no queue. Of a subject that is told about again, what was told before is dropped. What is
//! older than [`KEPT`], or above [`MOST`], is dropped too; a stream that had not taken that yet is lost, and ends: its
//! client comes back and is told how things stand.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::filter::Filter;
use super::select::MAX_BATCH;
use crate::journal::Label;

/// Longer than a socket may take nothing.
const KEPT: Duration = Duration::from_secs(120);

/// Subjects of one room; some 150 bytes each, beside the frame.
const MOST: usize = 1 << 16;

/// A frame about a user; streams of that user don't get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub about: Arc<str>,
    /// Whole, without an `id:`.
    pub frame: Vec<u8>,
}

/// The channel and type by which filters let notices through. Those of one hub are of one kind.
#[derive(Clone, Debug)]
pub struct NoticeKind(pub(super) Label);

impl NoticeKind {
    #[must_use]
    pub fn new(channel: &str, event_type: &str) -> Self {
        Self(Label::Data { event_type: event_type.into(), channel: channel.into() })
    }

    pub(super) fn passes(&self, filter: &Filter) -> bool {
        // Notices have no tags, and what has not a tag does not match it.
        filter.tags.is_empty() && filter.passes(&self.0)
    }
}

/// A room's.
#[derive(Debug, Default)]
pub(super) struct Notices {
    kind: Option<NoticeKind>,
    by_number: BTreeMap<u64, Entry>,
    newest: HashMap<Arc<str>, u64>,
    /// Of the last that was told.
    number: u64,
    /// Of the last that was dropped and not told anew.
    floor: u64,
}

#[derive(Debug)]
struct Entry {
    about: Arc<str>,
    /// The frames that were told together; this one's place among them.
    frames: Bytes,
    place: Range<usize>,
    at: Instant,
}

/// Something was dropped before it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost;

/// What a stream takes.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) frames: Vec<Bytes>,
    /// The last number that it has seen now.
    pub(super) number: u64,
    /// There is more than fits in a batch.
    pub(super) more: bool,
}

impl Notices {
    pub(super) fn add(&mut self, kind: &NoticeKind, notices: impl Iterator<Item = Notice>, now: Instant) {
        self.kind.get_or_insert_with(|| kind.clone());
        let mut frames = Vec::new();
        let mut places = Vec::new();
        for notice in notices {
            let start = frames.len();
            frames.extend_from_slice(&notice.frame);
            places.push((notice.about, start..frames.len()));
        }
        let frames = Bytes::from(frames);
        for (about, place) in places {
            self.number += 1;
            if let Some(before) = self.newest.insert(about.clone(), self.number) {
                self.by_number.remove(&before);
            }
            self.by_number.insert(self.number, Entry { about, frames: frames.clone(), place, at: now });
        }
        self.trim(now);
    }

    fn trim(&mut self, now: Instant) {
        while let Some(oldest) = self.by_number.first_entry() {
            let old = now.saturating_duration_since(oldest.get().at) > KEPT;
            if !old && self.newest.len() <= MOST {
                return;
            }
            self.floor = *oldest.key();
            self.newest.remove(&oldest.remove().about);
        }
    }

    /// Of the last that was told.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Whether a stream with this filter gets any.
    pub(super) fn pass(&self, filter: &Filter) -> bool {
        self.kind.as_ref().is_some_and(|kind| kind.passes(filter))
    }

    /// What a stream of `user` has not seen that has seen all up to `seen`.
    pub(super) fn after(&self, seen: u64, user: &str) -> Result<Taken, Lost> {
        if seen < self.floor {
            return Err(Lost);
        }
        let mut taken = Taken { frames: Vec::new(), number: seen, more: false };
        let mut bytes = 0;
        // Neighbours told together go out as one piece.
        let mut open: Option<(&Bytes, Range<usize>)> = None;
        for (number, entry) in self.by_number.range(seen.saturating_add(1)..) {
            if *entry.about == *user {
                taken.number = *number;
                continue;
            }
            bytes += entry.place.len();
            if bytes > MAX_BATCH && open.is_some() {
                taken.more = true;
                break;
            }
            taken.number = *number;
            open = match open {
                Some((frames, place))
                    if frames.as_ptr() == entry.frames.as_ptr() && place.end == entry.place.start =>
                {
                    Some((frames, place.start..entry.place.end))
                }
                other => {
                    taken.frames.extend(other.map(|(frames, place)| frames.slice(place)));
                    Some((&entry.frames, entry.place.clone()))
                }
            };
        }
        taken.frames.extend(open.map(|(frames, place)| frames.slice(place)));
        Ok(taken)
    }
}
