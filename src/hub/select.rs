//! From runs of entries to what one stream sends: shared slices of the journal's own bytes.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::filter::Filter;
use crate::catalog::event::SyncReason;
use crate::journal::{Block, EntryRef, Label, Place, Run};

/// The most that a batch carries, unless one frame alone is larger: what a stream costs while it writes.
pub(super) const MAX_BATCH: usize = 256 * 1024;

/// Pieces below this are gathered into one when several follow each other: a copy of so little is cheaper than a
/// place of its own in a gathered write, and does not hold a whole block for a slow socket.
const TINY: usize = 1024;

/// Who reads.
pub(super) struct Reader<'a> {
    pub(super) user: &'a str,
    pub(super) role: Option<&'a str>,
    pub(super) filter: &'a Filter,
    /// Frames at most, one or more.
    pub(super) most: usize,
}

/// What a stream takes of the runs it was given.
#[derive(Debug)]
pub(super) struct Selected {
    pub(super) frames: Vec<Bytes>,
    /// The last entry in `frames`.
    pub(super) last_frame: Option<Place>,
    /// How many are in `frames`.
    pub(super) count: usize,
    /// A sync that comes first; then `frames` is empty.
    pub(super) sync: Option<(SyncReason, Place)>,
    /// The last entry that was looked at, when that is not all of them.
    pub(super) stopped_at: Option<Place>,
}

enum Verdict {
    Send,
    Skip,
    Sync(SyncReason),
}

impl Reader<'_> {
    pub(super) fn select(&self, runs: &[Run], from: Place) -> Selected {
        let mut gather = Gather::default();
        let mut selected =
            Selected { frames: Vec::new(), last_frame: None, count: 0, sync: None, stopped_at: None };
        let mut looked_at = from;
        'runs: for run in runs {
            let whole = run.block.frame_range(&run.range);
            let left = self.most - selected.count;
            if self.takes_all(&run.block) && gather.fits(whole.len()) && run.range.len() <= left {
                gather.add(&run.block, whole);
                selected.count += run.range.len();
                looked_at = run.last().unwrap_or(looked_at);
                selected.last_frame = Some(looked_at);
                continue;
            }
            let mut known: Option<(u16, bool)> = None;
            for entry in run.block.entries(run.range.clone()) {
                let passes = match known {
                    Some((label, passes)) if label == entry.label_number => passes,
                    _ => self.filter.passes(entry.label),
                };
                known = Some((entry.label_number, passes));
                match self.judge(&entry, passes) {
                    Verdict::Skip => {}
                    Verdict::Send
                        if gather.is_empty()
                            || (gather.fits(entry.frame.len()) && selected.count < self.most) =>
                    {
                        gather.add(&run.block, entry.frame);
                        selected.count += 1;
                        selected.last_frame = Some(entry.place);
                    }
                    Verdict::Sync(reason) if gather.is_empty() => {
                        selected.sync = Some((reason, entry.place));
                        selected.stopped_at = Some(entry.place);
                        break 'runs;
                    }
                    Verdict::Send | Verdict::Sync(_) => {
                        selected.stopped_at = Some(looked_at);
                        break 'runs;
                    }
                }
                looked_at = entry.place;
            }
        }
        selected.frames = gather.finish();
        selected
    }

    pub(super) fn takes_all_of(&self, runs: &[Run]) -> bool {
        runs.iter().all(|run| self.takes_all(&run.block))
    }

    fn takes_all(&self, block: &Block) -> bool {
        block.is_plain()
            && self.filter.tags.is_empty()
            && block.labels().iter().all(|label| self.filter.passes(label))
    }

    fn judge(&self, entry: &EntryRef<'_>, passes: bool) -> Verdict {
        if !passes || entry.audience.is_some_and(|audience| !audience.admits(self.user, self.role)) {
            return Verdict::Skip;
        }
        match entry.label {
            Label::Sync { reason, .. } => Verdict::Sync(*reason),
            Label::Data { .. } if self.filter.passes_tags(entry.tags) => Verdict::Send,
            Label::Data { .. } => Verdict::Skip,
        }
    }
}

/// Joins what lies together and copies only what is tiny.
#[derive(Default)]
struct Gather<'a> {
    pieces: Vec<Bytes>,
    /// Frames of one block that lie together, not yet sliced.
    open: Option<(&'a Arc<Block>, Range<usize>)>,
    bytes: usize,
}

impl<'a> Gather<'a> {
    const fn is_empty(&self) -> bool {
        self.open.is_none() && self.pieces.is_empty()
    }

    const fn fits(&self, more: usize) -> bool {
        self.bytes + more <= MAX_BATCH
    }

    fn add(&mut self, block: &'a Arc<Block>, frames: Range<usize>) {
        self.bytes += frames.len();
        match &mut self.open {
            Some((open, range)) if Arc::ptr_eq(open, block) && range.end == frames.start => {
                range.end = frames.end;
            }
            _ => {
                self.close();
                self.open = Some((block, frames));
            }
        }
    }

    fn close(&mut self) {
        if let Some((block, range)) = self.open.take() {
            self.pieces.push(block.slice(range));
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.close();
        if !self.pieces.windows(2).any(|pair| pair.iter().all(|piece| piece.len() < TINY)) {
            return self.pieces;
        }
        let mut out = Vec::new();
        let mut rest = self.pieces.into_iter().peekable();
        while let Some(piece) = rest.next() {
            let next_is_tiny = rest.peek().is_some_and(|next| next.len() < TINY);
            if piece.len() >= TINY || !next_is_tiny {
                out.push(piece);
                continue;
            }
            let mut joined = BytesMut::from(&*piece);
            while let Some(next) = rest.next_if(|next| next.len() < TINY) {
                joined.extend_from_slice(&next);
            }
            out.push(joined.freeze());
        }
        out
    }
}
