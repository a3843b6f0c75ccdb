//! A block: entries that lie one after the other, their frames in one piece, and an index over them.
//!
//! ```text
//! entries   │ place, time, label, audience, ends │ …      32 bytes each
//! frames    │ id: …\ndata: {…}\n\n │ …                    shared with sockets, sliced without a copy
//! tags      │ encoded pairs │ …                           read only by streams that filter on tags
//! labels    │ type and channel, or a sync │ …             once per block, not per entry
//! ```
//!
//! A block never changes: readers hold it without a lock. A [`Builder`] makes them, exactly sized, so that what a
//! block costs is what it says.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::catalog::event::{Audience, Event, Kind, SyncReason};
use crate::postgres::Lsn;

/// What orders entries within an epoch: (commit position, ordinal).
pub(crate) type Place = (Lsn, u32);

/// At this weight a block is full. Large enough that a resuming stream writes in big pieces, small enough that
/// evicting one costs an organization little of its history.
pub(super) const BLOCK_WEIGHT: usize = 64 * 1024;

/// The allocations of a block beyond their contents: headers of five, of its `Arc` and of the shared frames.
const ALLOCATIONS: usize = 128;

/// How many of the last labels and audiences are searched for an equal one. A miss costs a little memory only.
const LOOK_BACK: usize = 16;

/// No frame is near this (`journal.max_event`); it keeps every offset of a block within 32 bits.
const MAX_FRAME: usize = 1 << 30;

const EVERYBODY: u16 = u16::MAX;

/// What entries of a block have in common.
#[derive(Clone, Debug)]
pub(crate) enum Label {
    Data { event_type: Arc<str>, channel: Arc<str> },
    Sync { reason: SyncReason, channels: Arc<[Arc<str>]> },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    commit_lsn: Lsn,
    commit_millis: i64,
    ordinal: u32,
    frame_end: u32,
    tags_end: u32,
    label: u16,
    audience: u16,
}

impl Entry {
    const fn place(&self) -> Place {
        (self.commit_lsn, self.ordinal)
    }
}

/// An entry, read.
#[derive(Debug)]
pub(crate) struct EntryRef<'a> {
    pub(crate) place: Place,
    pub(crate) commit_millis: i64,
    pub(crate) label: &'a Label,
    /// Equal numbers are equal labels, within a block.
    pub(crate) label_number: u16,
    pub(crate) audience: Option<&'a Arc<Audience>>,
    pub(crate) tags: &'a [u8],
    /// Where its frame lies in the block's frames; empty for a sync.
    pub(crate) frame: Range<usize>,
}

#[derive(Debug)]
pub(crate) struct Block {
    entries: Box<[Entry]>,
    frames: Bytes,
    tags: Box<[u8]>,
    labels: Box<[Label]>,
    audiences: Box<[Arc<Audience>]>,
    first: Place,
    last: Place,
    newest_millis: i64,
    plain: bool,
    /// How often its contents were merged; see [`super::log`].
    pub(super) tier: u8,
}

impl Block {
    pub(crate) const fn first(&self) -> Place {
        self.first
    }

    pub(crate) const fn last(&self) -> Place {
        self.last
    }

    /// The greatest commit time in it, ms since 1970.
    pub(crate) const fn newest_millis(&self) -> i64 {
        self.newest_millis
    }

    /// Everybody may see each of its entries, and none is a sync: a slice of it may go out as it lies.
    pub(crate) const fn is_plain(&self) -> bool {
        self.plain
    }

    pub(crate) fn labels(&self) -> &[Label] {
        &self.labels
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many entries have a place that is not after `place`.
    pub(crate) fn count_to(&self, place: Place) -> usize {
        self.entries.partition_point(|entry| entry.place() <= place)
    }

    /// How many entries have a place before `place`.
    pub(crate) fn count_before(&self, place: Place) -> usize {
        self.entries.partition_point(|entry| entry.place() < place)
    }

    pub(crate) fn place(&self, number: usize) -> Option<Place> {
        self.entries.get(number).map(Entry::place)
    }

    /// Where the frames of these entries lie.
    pub(crate) fn frame_range(&self, entries: &Range<usize>) -> Range<usize> {
        self.offsets(entries.start).0..self.offsets(entries.end).0
    }

    /// Shares the frames in this range.
    pub(crate) fn slice(&self, frames: Range<usize>) -> Bytes {
        self.frames.slice(frames)
    }

    pub(crate) fn entries(&self, range: Range<usize>) -> impl Iterator<Item = EntryRef<'_>> {
        let (mut frame, mut tags) = self.offsets(range.start);
        self.entries.get(range).unwrap_or_default().iter().map_while(move |entry| {
            let (frame_end, tags_end) = (entry.frame_end as usize, entry.tags_end as usize);
            let read = EntryRef {
                place: entry.place(),
                commit_millis: entry.commit_millis,
                label: self.labels.get(usize::from(entry.label))?,
                label_number: entry.label,
                audience: self.audiences.get(usize::from(entry.audience)),
                tags: self.tags.get(tags..tags_end)?,
                frame: frame..frame_end,
            };
            (frame, tags) = (frame_end, tags_end);
            Some(read)
        })
    }

    /// Bytes of frames, tags and index: what filling and batching go by.
    pub(super) fn weight(&self) -> usize {
        self.frames.len() + self.tags.len() + size_of_val(&*self.entries)
    }

    /// Bytes of memory, all of them.
    pub(super) fn cost(&self) -> u64 {
        let shared = size_of_val(&*self.labels) + size_of_val(&*self.audiences);
        (size_of::<Self>() + ALLOCATIONS + self.weight() + shared) as u64
    }

    /// Frame and tag offset at which the entry of this number starts.
    fn offsets(&self, number: usize) -> (usize, usize) {
        let before = number.checked_sub(1).and_then(|number| self.entries.get(number));
        before.map_or((0, 0), |entry| (entry.frame_end as usize, entry.tags_end as usize))
    }
}

/// Collects entries into the next block.
#[derive(Debug, Default)]
pub(super) struct Builder {
    entries: Vec<Entry>,
    frames: Vec<u8>,
    tags: Vec<u8>,
    labels: Vec<Label>,
    audiences: Vec<Arc<Audience>>,
}

impl Builder {
    pub(super) fn is_full(&self) -> bool {
        self.weight() >= BLOCK_WEIGHT
    }

    pub(super) fn weight(&self) -> usize {
        self.frames.len() + self.tags.len() + size_of_val(&*self.entries)
    }

    /// Whether offsets can name it.
    pub(super) fn accepts(event: &Event<'_>) -> bool {
        match event.kind {
            Kind::Data { frame, tags, .. } => frame.len() <= MAX_FRAME && tags.as_bytes().len() <= MAX_FRAME,
            Kind::Sync { .. } => true,
        }
    }

    pub(super) fn push(&mut self, event: &Event<'_>) {
        let audience = match event.audience {
            Some(audience) => self.audience_number(audience),
            None => EVERYBODY,
        };
        let label = match &event.kind {
            Kind::Data { event_type, channel, tags, frame } => {
                self.frames.extend_from_slice(frame);
                self.tags.extend_from_slice(tags.as_bytes());
                self.data_label(event_type, channel)
            }
            Kind::Sync { reason, channels } => self.sync_label(*reason, channels),
        };
        let id = event.id;
        self.index(id.commit_lsn, id.ordinal, event.commit_millis, label, audience);
    }

    /// Adds the entries of `block`.
    pub(super) fn absorb(&mut self, block: &Block) {
        for entry in block.entries(0..block.len()) {
            let audience = entry.audience.map_or(EVERYBODY, |audience| self.audience_number(audience));
            let label = match entry.label {
                Label::Data { event_type, channel } => self.data_label(event_type, channel),
                Label::Sync { reason, channels } => self.sync_label(*reason, channels),
            };
            self.frames.extend_from_slice(block.frames.get(entry.frame).unwrap_or_default());
            self.tags.extend_from_slice(entry.tags);
            self.index(entry.place.0, entry.place.1, entry.commit_millis, label, audience);
        }
    }

    /// The block of what was added, and an empty builder that keeps its room. None when nothing was.
    pub(super) fn finish(&mut self, tier: u8) -> Option<Block> {
        let (first, last) = (self.entries.first()?.place(), self.entries.last()?.place());
        let sync = |label: &Label| matches!(label, Label::Sync { .. });
        let block = Block {
            first,
            last,
            newest_millis: self.entries.iter().map(|entry| entry.commit_millis).max().unwrap_or(i64::MIN),
            plain: self.audiences.is_empty() && !self.labels.iter().any(sync),
            tier,
            entries: self.entries.as_slice().into(),
            frames: Bytes::copy_from_slice(&self.frames),
            tags: self.tags.as_slice().into(),
            labels: self.labels.drain(..).collect(),
            audiences: self.audiences.drain(..).collect(),
        };
        self.clear();
        Some(block)
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.frames.clear();
        self.tags.clear();
        self.labels.clear();
        self.audiences.clear();
    }

    /// Bytes allocated, used or not, of the large parts.
    pub(super) fn capacity(&self) -> usize {
        self.frames.capacity() + self.tags.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    fn index(&mut self, commit_lsn: Lsn, ordinal: u32, commit_millis: i64, label: u16, audience: u16) {
        // A block is closed at BLOCK_WEIGHT and a merge adds less than that to one more: with MAX_FRAME no end
        // passes 32 bits.
        let end = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let (frame_end, tags_end) = (end(&self.frames), end(&self.tags));
        self.entries.push(Entry { commit_lsn, commit_millis, ordinal, frame_end, tags_end, label, audience });
    }

    fn data_label(&mut self, event_type: &Arc<str>, channel: &Arc<str>) -> u16 {
        intern(
            &mut self.labels,
            |label| matches!(label, Label::Data { event_type: t, channel: c } if t == event_type && c == channel),
            || Label::Data { event_type: event_type.clone(), channel: channel.clone() },
        )
    }

    fn sync_label(&mut self, reason: SyncReason, channels: &Arc<[Arc<str>]>) -> u16 {
        intern(
            &mut self.labels,
            |label| matches!(label, Label::Sync { reason: r, channels: c } if *r == reason && c == channels),
            || Label::Sync { reason, channels: channels.clone() },
        )
    }

    fn audience_number(&mut self, audience: &Arc<Audience>) -> u16 {
        intern(&mut self.audiences, |known| known == audience, || audience.clone())
    }
}

/// The number of an equal item among the last ones, or of a new one. A block has fewer than 4,100 entries (each
/// weighs 32 bytes and two full blocks is the most that is merged), so numbers stay far below [`EVERYBODY`].
fn intern<T>(items: &mut Vec<T>, equal: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> u16 {
    let recent = items.len().saturating_sub(LOOK_BACK);
    let known = items.iter().skip(recent).rposition(equal).map(|number| recent + number);
    let number = known.unwrap_or_else(|| {
        items.push(make());
        items.len() - 1
    });
    u16::try_from(number).unwrap_or(EVERYBODY - 1)
}
