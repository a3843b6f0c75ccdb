//! The writer's side: what is appended and not yet published, what everything costs, and who loses first.
//!
//! Three ordered sets answer without looking at every organization: who is largest (`by_size`), who has the oldest
//! entry (`by_age`), and which organization without content has the lowest floor (`idle`). Each has an organization
//! at most once and is corrected only when the answer changes.
//!
//! The unpublished counts and can be evicted like the rest: a transaction larger than the whole bound still leaves
//! memory below it after every append. What it lost raises the floor only when it is published.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::block::{Block, Builder, Place};
use super::log::{Floor, Log, first_tier};
use crate::catalog::event::{Event, OrganizationId};
use crate::postgres::Lsn;

/// What an organization costs beside its blocks: its log, its places in maps and sets.
pub(super) const LOG_COST: u64 = 512;

/// Sizes are compared in steps of so many bytes, so that most appends leave `by_size` as it is.
const SIZE_STEP: u64 = 4096;

/// Builders kept for the next transaction, and the most that one may have allocated to be kept.
const SPARE_BUILDERS: usize = 8;
const SPARE_CAPACITY: usize = 256 * 1024;

#[derive(Debug, Default)]
struct Pending {
    builder: Builder,
    blocks: Vec<Arc<Block>>,
    /// The last entry that was evicted before it could be published.
    lost: Option<Floor>,
    last: Place,
}

#[derive(Debug)]
struct Slot {
    organization: OrganizationId,
    log: Arc<Log>,
    pending: Option<Box<Pending>>,
    /// The last entry published.
    last: Place,
    bytes: u64,
    /// What `by_size` has: steps begun, 0 when it is not there.
    size: u64,
    /// What `by_age` has.
    oldest: Option<Lsn>,
    /// What `idle` has.
    idle: Option<Place>,
}

/// An organization with new entries, as a publish made them.
#[derive(Debug)]
pub struct Touched {
    pub organization: OrganizationId,
    /// The commit position of the last entry.
    pub(crate) last: Lsn,
    pub(crate) blocks: Vec<Arc<Block>>,
    /// Some of what was published is evicted already: `blocks` is not all of it.
    pub(crate) lost: bool,
}

/// What the writer needs done where readers look organizations up.
pub(super) trait Lookup {
    fn insert(&self, organization: &OrganizationId, log: &Arc<Log>);
    /// From now on the floor of organizations that are not known is at least this.
    fn raise_base(&self, floor: Floor);
    /// Forgets an organization without content. Its floor was raised over before, so that at any time a reader that
    /// finds no log finds a floor that covers it.
    fn forget(&self, organization: &OrganizationId);
}

#[derive(Debug)]
pub(super) struct Writer {
    max_memory: u64,
    bytes: u64,
    slots: HashMap<OrganizationId, Slot>,
    touched: Vec<OrganizationId>,
    by_size: BTreeSet<(u64, OrganizationId)>,
    by_age: BTreeSet<(Lsn, OrganizationId)>,
    idle: BTreeSet<(Place, OrganizationId)>,
    spare: Vec<Builder>,
    scratch: Builder,
    /// The floor of organizations without a slot.
    base: Floor,
    /// The greatest floor of organizations that were forgotten before what they lost could be published.
    lost: Option<Floor>,
}

impl Writer {
    pub(super) fn new(max_memory: u64, start: Floor) -> Self {
        Self {
            max_memory,
            bytes: 0,
            slots: HashMap::new(),
            touched: Vec::new(),
            by_size: BTreeSet::new(),
            by_age: BTreeSet::new(),
            idle: BTreeSet::new(),
            spare: Vec::new(),
            scratch: Builder::default(),
            base: start,
            lost: None,
        }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn oldest(&self) -> Option<Lsn> {
        self.by_age.first().map(|(lsn, _)| *lsn)
    }

    /// When the oldest entry that is kept was committed, in ms since 1970.
    pub(super) fn oldest_millis(&self) -> Option<i64> {
        let (_, organization) = self.by_age.first()?;
        Some(self.slots.get(organization)?.log.oldest()?.1)
    }

    /// The `*` journal is there from the start and never forgotten.
    pub(super) fn adopt_every(&mut self, log: Arc<Log>) {
        let every = OrganizationId::new(OrganizationId::EVERY);
        self.bytes += LOG_COST;
        self.slots.insert(every.clone(), Slot::new(every, log, self.base.place));
    }

    /// False: not after the last entry of its organization, or too large for any block.
    pub(super) fn append(&mut self, event: &Event<'_>, lookup: &impl Lookup) -> bool {
        let place = event.id.place();
        if !Builder::accepts(event) || place <= self.base.place {
            return false;
        }
        if !self.slots.contains_key(event.organization) {
            let organization = OrganizationId::new(event.organization);
            let log = Arc::new(Log::new(self.base));
            lookup.insert(&organization, &log);
            self.bytes += LOG_COST;
            let mut slot = Slot::new(organization.clone(), log, self.base.place);
            if let Some(floor) = self.lost {
                // What was lost may be of this very organization.
                self.touched.push(organization.clone());
                slot.pending = Some(Box::new(Pending { lost: Some(floor), ..Pending::default() }));
            }
            self.slots.insert(organization, slot);
        }
        let Some(slot) = self.slots.get_mut(event.organization) else {
            return false;
        };
        if place <= slot.pending.as_ref().map_or(slot.last, |pending| pending.last) {
            return false;
        }
        if let Some(floor) = slot.idle.take() {
            self.idle.remove(&(floor, slot.organization.clone()));
        }
        let pending = slot.pending.get_or_insert_with(|| {
            self.touched.push(slot.organization.clone());
            Box::new(Pending { builder: self.spare.pop().unwrap_or_default(), ..Pending::default() })
        });
        let before = pending.builder.weight() as u64;
        pending.builder.push(event);
        pending.last = place;
        let mut change = (pending.builder.weight() as u64).saturating_sub(before);
        if pending.builder.is_full() {
            change += pending.close();
        }
        slot.bytes += change;
        self.bytes += change;
        slot.file_size(&mut self.by_size);
        self.enforce(lookup);
        true
    }

    /// Moves what was appended into the logs, where the head that is stored next makes it seen.
    pub(super) fn publish(&mut self, lookup: &impl Lookup) -> Vec<Touched> {
        let mut published = Vec::with_capacity(self.touched.len());
        if let Some(floor) = self.lost.take() {
            self.base = self.base.max(floor);
            lookup.raise_base(self.base);
            // Whose it was is not known any more: everybody looks at the floor.
            let organization = OrganizationId::new(OrganizationId::EVERY);
            published.push(Touched { organization, last: floor.place.0, blocks: Vec::new(), lost: true });
        }
        for organization in std::mem::take(&mut self.touched) {
            let Some(slot) = self.slots.get_mut(&organization) else {
                continue;
            };
            let Some(mut pending) = slot.pending.take() else {
                continue;
            };
            let closed = pending.close();
            slot.bytes += closed;
            self.bytes += closed;
            if let Some(floor) = pending.lost {
                slot.log.raise_floor(floor);
            }
            let change = slot.log.push(&pending.blocks, &mut self.scratch);
            // What is pending counts already.
            let counted: u64 = pending.blocks.iter().map(|block| block.cost()).sum();
            slot.bytes = slot.bytes.saturating_sub(counted).saturating_add_signed(change);
            self.bytes = self.bytes.saturating_sub(counted).saturating_add_signed(change);
            slot.last = slot.last.max(pending.last);
            let Pending { builder, blocks, lost, last } = *pending;
            self.keep_spare(builder);
            self.file(&organization);
            published.push(Touched { organization, last: last.0, blocks, lost: lost.is_some() });
        }
        published
    }

    pub(super) fn discard(&mut self) {
        self.lost = None;
        for organization in std::mem::take(&mut self.touched) {
            let Some(slot) = self.slots.get_mut(&organization) else {
                continue;
            };
            let Some(mut pending) = slot.pending.take() else {
                continue;
            };
            let freed = pending.cost();
            slot.bytes = slot.bytes.saturating_sub(freed);
            self.bytes = self.bytes.saturating_sub(freed);
            pending.builder.clear();
            self.keep_spare(pending.builder);
            self.file(&organization);
        }
    }

    /// Brings memory below its bound: the largest organization loses its oldest first. Organizations without content
    /// are forgotten when there is no other way, or when they alone would take a quarter of the memory.
    pub(super) fn enforce(&mut self, lookup: &impl Lookup) {
        while self.bytes > self.max_memory {
            let idle = self.idle.len() as u64 * LOG_COST;
            let largest = self.by_size.last().filter(|_| idle <= self.max_memory / 4).cloned();
            if let Some((_, organization)) = largest {
                let freed = self.slots.get_mut(&organization).map_or(0, Slot::evict_oldest);
                self.bytes = self.bytes.saturating_sub(freed);
                self.file(&organization);
            } else if let Some((_, organization)) = self.idle.pop_first() {
                self.forget(&organization, lookup);
            } else {
                break;
            }
        }
    }

    /// Evicts every published entry that is old by either measure, and forgets organizations that have nothing
    /// younger. Looks only at organizations that lose something.
    pub(super) fn evict_before(&mut self, millis: i64, lsn: Lsn, lookup: &impl Lookup) {
        let old = |at: Lsn, time: i64| at < lsn || time < millis;
        while let Some((_, organization)) = self.by_age.first().cloned() {
            let Some(slot) = self.slots.get_mut(&organization) else {
                break;
            };
            if !slot.log.oldest().is_some_and(|(at, time)| old(at, time)) {
                break;
            }
            let freed = slot.log.evict_entries(old);
            slot.bytes = slot.bytes.saturating_sub(freed);
            self.bytes = self.bytes.saturating_sub(freed);
            self.file(&organization);
        }
        while let Some((floor, organization)) = self.idle.first().cloned() {
            let time = self.slots.get(&organization).and_then(|slot| slot.log.floor().millis);
            if floor > self.base.place && !old(floor.0, time.unwrap_or(i64::MAX)) {
                break;
            }
            self.idle.pop_first();
            self.forget(&organization, lookup);
        }
    }

    /// What [`bytes`](Self::bytes) must be, counted anew.
    #[cfg(test)]
    pub(super) fn recount(&self) -> u64 {
        let pending = |slot: &Slot| slot.pending.as_ref().map_or(0, |pending| pending.cost());
        self.slots.values().map(|slot| LOG_COST + slot.log.count().0 + pending(slot)).sum()
    }

    fn forget(&mut self, organization: &OrganizationId, lookup: &impl Lookup) {
        if let Some(slot) = self.slots.get(organization) {
            self.base = self.base.max(slot.log.floor());
        }
        lookup.raise_base(self.base);
        lookup.forget(organization);
        if let Some(slot) = self.slots.remove(organization) {
            give_back(&mut self.slots);
            self.bytes = self.bytes.saturating_sub(LOG_COST);
            let lost = slot.pending.and_then(|pending| pending.lost);
            self.lost = [self.lost, lost].into_iter().flatten().reduce(Floor::max);
        }
    }

    /// Corrects the places of an organization in the three sets.
    fn file(&mut self, organization: &OrganizationId) {
        let Some(slot) = self.slots.get_mut(organization) else {
            return;
        };
        slot.file_size(&mut self.by_size);
        let oldest = slot.log.oldest().map(|(lsn, _)| lsn);
        if oldest != slot.oldest {
            if let Some(lsn) = slot.oldest {
                self.by_age.remove(&(lsn, organization.clone()));
            }
            if let Some(lsn) = oldest {
                self.by_age.insert((lsn, organization.clone()));
            }
            slot.oldest = oldest;
        }
        let empty = slot.bytes == 0 && !organization.is_every();
        let idle = empty.then(|| slot.log.floor().place);
        if idle != slot.idle {
            if let Some(floor) = slot.idle {
                self.idle.remove(&(floor, organization.clone()));
            }
            if let Some(floor) = idle {
                self.idle.insert((floor, organization.clone()));
            }
            slot.idle = idle;
        }
    }

    fn keep_spare(&mut self, builder: Builder) {
        if self.spare.len() < SPARE_BUILDERS && builder.capacity() <= SPARE_CAPACITY {
            self.spare.push(builder);
        }
    }
}

impl Slot {
    const fn new(organization: OrganizationId, log: Arc<Log>, floor: Place) -> Self {
        Self { organization, log, pending: None, last: floor, bytes: 0, size: 0, oldest: None, idle: None }
    }

    fn file_size(&mut self, by_size: &mut BTreeSet<(u64, OrganizationId)>) {
        let size = if self.bytes > 0 { self.bytes / SIZE_STEP + 1 } else { 0 };
        if size == self.size {
            return;
        }
        if self.size > 0 {
            by_size.remove(&(self.size, self.organization.clone()));
        }
        if size > 0 {
            by_size.insert((size, self.organization.clone()));
        }
        self.size = size;
    }

    /// Evicts the oldest block, published or not. What that frees.
    fn evict_oldest(&mut self) -> u64 {
        let freed =
            self.log.evict_block().or_else(|| self.pending.as_mut()?.evict_oldest()).unwrap_or(self.bytes);
        self.bytes = self.bytes.saturating_sub(freed);
        freed
    }
}

impl Pending {
    /// Closes the block being built. How much more that costs.
    fn close(&mut self) -> u64 {
        let weight = self.builder.weight() as u64;
        let tier = first_tier(&self.builder);
        let Some(block) = self.builder.finish(tier) else {
            return 0;
        };
        let cost = block.cost();
        self.blocks.push(Arc::new(block));
        cost.saturating_sub(weight)
    }

    fn evict_oldest(&mut self) -> Option<u64> {
        let weight = self.builder.weight() as u64;
        let mut freed = 0;
        let block = if self.blocks.is_empty() {
            freed = weight;
            Arc::new(self.builder.finish(0)?)
        } else {
            let block = self.blocks.remove(0);
            freed += block.cost();
            block
        };
        self.lost = Some(Floor { place: block.last(), millis: Some(block.newest_millis()) });
        Some(freed)
    }

    fn cost(&self) -> u64 {
        self.builder.weight() as u64 + self.blocks.iter().map(|block| block.cost()).sum::<u64>()
    }
}

/// Frees most of a map's room once it is nearly empty: a crowd of organizations that passed leaves nothing behind.
pub(super) fn give_back<V>(map: &mut HashMap<OrganizationId, V>) {
    if map.capacity() > map.len() * 4 + 1024 {
        map.shrink_to(map.len() * 2);
    }
}
