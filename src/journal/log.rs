//! One organization's published history: blocks in order, and the floor below which nothing is kept.
//!
//! ```text
//!        floor        ┌ sealed ┐┌ sealed ┐┌ tier 1 ┐┌ 0 ┐┌ 0 ┐
//!  evicted ···········│        ││        ││        ││   ││   │ ◄─ publish pushes here
//! ```
//!
//! Each publish pushes a small block; eight of a tier are merged into one of the next, until a block is full. So a
//! live stream shares what was just published, a resuming one reads large pieces, and each frame is copied about
//! three times in its life.
//!
//! Only the writer changes a log. Readers clone blocks out under a short read lock. What is pushed counts as seen
//! only below the head that the reader took before: that is what keeps a transaction of several organizations whole.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::block::{BLOCK_WEIGHT, Block, Builder, Place};
use crate::postgres::Lsn;

/// Blocks of one tier that become one of the next.
const FAN: usize = 8;

/// The tier of a block that is not merged any more.
const SEALED: u8 = u8::MAX;

/// Entries of one block, in order.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) block: Arc<Block>,
    pub(crate) range: Range<usize>,
}

/// What a read took out of a log.
#[derive(Debug)]
pub(super) struct Portion {
    pub(super) runs: Vec<Run>,
    /// Everything up to here is in `runs`.
    pub(super) covered: Place,
}

/// The place asked for is below the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BelowFloor;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Floor {
    pub(super) place: Place,
    /// Commit time of the entry evicted last; none while the floor is where the history starts.
    pub(super) millis: Option<i64>,
}

#[derive(Debug)]
pub(super) struct Log {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    floor: Floor,
    blocks: VecDeque<Arc<Block>>,
}

impl Floor {
    /// What covers both.
    pub(super) fn max(self, other: Self) -> Self {
        Self { place: self.place.max(other.place), millis: self.millis.max(other.millis) }
    }
}

impl Log {
    pub(super) fn new(floor: Floor) -> Self {
        Self { state: RwLock::new(State { floor, blocks: VecDeque::new() }) }
    }

    pub(super) fn floor(&self) -> Floor {
        self.read_state().floor
    }

    /// Entries after `after` of commits below `below`: at least a block of them, then no more than `max_weight`.
    pub(super) fn read(&self, after: Place, below: Lsn, max_weight: usize) -> Result<Portion, BelowFloor> {
        let end = (below, 0);
        let mut covered = end;
        let mut weight = 0;
        let mut blocks = Vec::new();
        {
            let state = self.read_state();
            if after < state.floor.place {
                return Err(BelowFloor);
            }
            let first = state.blocks.partition_point(|block| block.last() <= after);
            for block in state.blocks.range(first..).take_while(|block| block.first() < end) {
                if weight >= max_weight {
                    covered = blocks.last().map_or(after, |block: &Arc<Block>| block.last());
                    break;
                }
                weight += block.weight();
                blocks.push(block.clone());
            }
        }
        let run = |block: Arc<Block>| {
            let range = block.count_to(after)..block.count_before(end);
            (!range.is_empty()).then_some(Run { block, range })
        };
        Ok(Portion { runs: blocks.into_iter().filter_map(run).collect(), covered: covered.min(end) })
    }

    /// Whether an entry of the transaction that committed at `commit_lsn` is kept.
    pub(super) fn names(&self, commit_lsn: Lsn) -> bool {
        let state = self.read_state();
        let first = state.blocks.partition_point(|block| block.last() < (commit_lsn, 0));
        let Some(block) = state.blocks.get(first) else {
            return false;
        };
        let place = block.place(block.count_before((commit_lsn, 0)));
        place.is_some_and(|place| place.0 == commit_lsn && place > state.floor.place)
    }

    /// The commit position of the first kept entry that committed at `millis` or later.
    pub(super) fn since(&self, millis: i64) -> Option<Lsn> {
        let state = self.read_state();
        let block = state.blocks.iter().find(|block| block.newest_millis() >= millis)?;
        let first = block.count_to(state.floor.place);
        block
            .entries(first..block.len())
            .find(|entry| entry.commit_millis >= millis)
            .map(|entry| entry.place.0)
    }

    /// The oldest kept entry: its commit position and time.
    pub(super) fn oldest(&self) -> Option<(Lsn, i64)> {
        let state = self.read_state();
        let block = state.blocks.front()?;
        let first = block.count_to(state.floor.place);
        block.entries(first..block.len()).next().map(|entry| (entry.place.0, entry.commit_millis))
    }

    /// What its blocks cost, and how many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> (u64, usize) {
        let state = self.read_state();
        (state.blocks.iter().map(|block| block.cost()).sum(), state.blocks.len())
    }

    /// Appends blocks and merges what is due; `scratch` is an empty builder. How much more (or less) the log costs.
    pub(super) fn push(&self, new: &[Arc<Block>], scratch: &mut Builder) -> i64 {
        let mut change = 0;
        for block in new {
            change += signed(block.cost());
            self.write_state().blocks.push_back(block.clone());
            // Merging is done on clones: only this writer changes the log, so nothing moves meanwhile.
            while let Some((replaced, merged)) = self.merge(scratch) {
                let merged = Arc::new(merged);
                change += signed(merged.cost());
                let mut state = self.write_state();
                let keep = state.blocks.len().saturating_sub(replaced);
                let old = state.blocks.split_off(keep);
                state.blocks.push_back(merged);
                drop(state);
                change -= old.iter().map(|block| signed(block.cost())).sum::<i64>();
            }
        }
        change
    }

    /// Drops the oldest block. What that frees, None when there is none.
    pub(super) fn evict_block(&self) -> Option<u64> {
        let mut state = self.write_state();
        let block = state.blocks.pop_front()?;
        state.floor = Floor { place: block.last(), millis: Some(block.newest_millis()) };
        Some(block.cost())
    }

    /// Raises the floor over the leading entries that `old` (commit position, time) picks. What that frees: memory
    /// goes by whole blocks, the floor by entries.
    pub(super) fn evict_entries(&self, old: impl Fn(Lsn, i64) -> bool) -> u64 {
        let mut freed = 0;
        let mut state = self.write_state();
        while let Some(block) = state.blocks.front() {
            let first = block.count_to(state.floor.place);
            let leading = block.entries(first..block.len()).take_while(|e| old(e.place.0, e.commit_millis));
            let last = leading.last().map(|e| Floor { place: e.place, millis: Some(e.commit_millis) });
            let whole = last.is_some_and(|floor| floor.place == block.last());
            let cost = block.cost();
            if let Some(floor) = last {
                state.floor = floor;
            }
            if !whole {
                break;
            }
            state.blocks.pop_front();
            freed += cost;
        }
        freed
    }

    /// What was lost of a transaction before it could be published.
    pub(super) fn raise_floor(&self, floor: Floor) {
        let mut state = self.write_state();
        if state.floor.place < floor.place {
            state.floor = floor;
        }
    }

    /// The last blocks of one tier as one of the next, and how many it replaces, when that is due.
    fn merge(&self, scratch: &mut Builder) -> Option<(usize, Block)> {
        let state = self.read_state();
        let tier = state.blocks.back()?.tier;
        if tier == SEALED {
            return None;
        }
        let mut weight = 0;
        let mut run: Vec<Arc<Block>> = Vec::new();
        for block in state.blocks.iter().rev().take_while(|block| block.tier == tier) {
            if weight >= BLOCK_WEIGHT || run.len() == FAN {
                break;
            }
            weight += block.weight();
            run.push(block.clone());
        }
        drop(state);
        if run.len() < 2 || (run.len() < FAN && weight < BLOCK_WEIGHT) {
            return None;
        }
        run.iter().rev().for_each(|block| scratch.absorb(block));
        let tier = if scratch.is_full() { SEALED } else { tier + 1 };
        Some((run.len(), scratch.finish(tier)?))
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tier that a block of a publish starts with.
pub(super) fn first_tier(builder: &Builder) -> u8 {
    if builder.is_full() { SEALED } else { 0 }
}

fn signed(cost: u64) -> i64 {
    i64::try_from(cost).unwrap_or(i64::MAX)
}
