//! One append-only log of frames per organization, and the window of it that is kept.
//!
//! ```text
//!            append (unseen)      publish(head)                    Snapshot::read
//!  Event ──► Writer: pending ───► Log per organization, and `*` ──► runs of entries ──► hub
//!                │                    │
//!                └── bounds ──────────┴─► evict: the floor rises
//! ```
//!
//! Invariants:
//! - Entries of a log are in the order of their ids, each id once: an append that is not after the last entry of its
//!   organization, or below the head, or of another epoch is refused.
//! - A reader sees exactly the entries of commits below the head that it took, in all logs alike: a transaction is
//!   seen whole or not at all.
//! - Everything after a log's floor and below the head is there. A place at or above the greater of the
//!   organization's and the `*` floor can be read on from without a gap.
//! - After every call, memory (frames, index, pending, bookkeeping) is within `max_memory`, or there is nothing left
//!   to evict.
//!
//! It knows positions as numbers only, and neither Postgres nor HTTP nor who reads.

mod block;
#[cfg(test)]
pub(crate) mod fixture;
mod log;
mod read;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use tokio::sync::Notify;

use crate::catalog::event::{Epoch, Event, EventId, OrganizationId};
use crate::postgres::Lsn;

pub(crate) use block::{Block, EntryRef, Label, Place};
pub(crate) use log::Run;
pub(crate) use read::{Runs, Snapshot};
pub use writer::Touched;

use log::{Floor, Log};
use writer::{Lookup, Writer, give_back};

/// The state that all journals share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Counts resets: positions of different generations can't be compared, even under one epoch.
    pub generation: u64,
    pub epoch: Epoch,
    /// Every commit below is published.
    pub head: Lsn,
    /// Every commit below is visible to a new snapshot of the database; none: never told, the head is taken for it.
    pub visible: Option<Lsn>,
    /// What is below was given up for its age or for the log it holds back.
    pub window_start: Lsn,
    /// Where this history began: until the window has moved on from here, all of it is kept.
    pub origin: Lsn,
    /// In ms since 1970: what committed before was given up for its age, or is of another history.
    pub known_from: i64,
}

/// Hears of what was published. Called by the publisher in order, after readers can see it; must be quick and must
/// not write to the journals.
pub trait Listener: Send + Sync {
    /// `touched` has all entries of commits from `before` to below `head`.
    fn published(&self, before: Lsn, head: Lsn, touched: &[Touched]);
    /// Nothing of before is left; the new history starts at `start`.
    fn reset(&self, start: Lsn);
}

/// Every organization's journal.
pub struct Journals {
    max_memory: u64,
    writer: Mutex<Writer>,
    /// Written under the writer's lock only.
    directory: RwLock<Directory>,
    listeners: RwLock<Vec<Weak<dyn Listener>>>,
    /// Wakes those who wait for the head to move, or for a reset.
    moved: Notify,
}

#[derive(Debug)]
struct Directory {
    view: View,
    /// The floor of organizations that are not in `logs`.
    base: Floor,
    logs: HashMap<OrganizationId, Arc<Log>>,
    every: Arc<Log>,
}

impl Journals {
    /// Empty, at position zero of epoch zero until the first [`reset`](Self::reset). `max_memory` in bytes.
    #[must_use]
    pub fn new(max_memory: u64) -> Arc<Self> {
        let view = View {
            generation: 0,
            epoch: Epoch::new(0),
            head: Lsn::ZERO,
            visible: None,
            window_start: Lsn::ZERO,
            origin: Lsn::ZERO,
            known_from: i64::MIN,
        };
        let (writer, directory) = fresh(max_memory, view);
        Arc::new(Self {
            max_memory,
            writer: Mutex::new(writer),
            directory: RwLock::new(directory),
            listeners: RwLock::default(),
            moved: Notify::new(),
        })
    }

    /// Drops everything, published or not, and starts a history at `start`. Every stream is told before anything
    /// else. What [`set_visible`](Self::set_visible) said is forgotten. `known_from`: when the history begins, in ms since
    /// 1970, so that what committed earlier may be missing; `i64::MIN` where there was none before.
    pub fn reset(&self, epoch: Epoch, start: Lsn, known_from: i64) {
        let mut writer = self.writer();
        let generation = self.view().generation + 1;
        let view = View {
            generation,
            epoch,
            head: start,
            visible: None,
            window_start: start,
            origin: start,
            known_from,
        };
        let (new_writer, new_directory) = fresh(self.max_memory, view);
        // Freed after the lock: there may be much.
        let old = std::mem::replace(&mut *self.directory_mut(), new_directory);
        *writer = new_writer;
        drop(old);
        self.tell(|listener| listener.reset(start));
    }

    /// Adds an event that nobody sees until [`publish`](Self::publish). Events come in the order of their ids. False:
    /// refused, because it is of another epoch, below the head, or not after the last entry of its organization.
    pub fn append(&self, event: Event<'_>) -> bool {
        let mut writer = self.writer();
        let view = self.view();
        if event.id.epoch != view.epoch || event.id.commit_lsn < view.head {
            return false;
        }
        writer.append(&event, self)
    }

    /// Shows what was appended since the last call, all at once. `head`: every commit below it is done; a head below
    /// the present one, or at or below a commit that was appended, is raised to what is true.
    pub fn publish(&self, head: Lsn) {
        let mut writer = self.writer();
        let touched = writer.publish(self);
        writer.enforce(self);
        let after_last = |touched: &Touched| Lsn::new(touched.last.as_u64().saturating_add(1));
        let (before, head) = {
            let mut directory = self.directory_mut();
            let before = directory.view.head;
            let head = touched.iter().map(after_last).fold(head.max(before), Lsn::max);
            directory.view.head = head;
            (before, head)
        };
        if before < head || !touched.is_empty() {
            self.tell(|listener| listener.published(before, head, &touched));
        }
    }

    /// Drops what was appended since the last publish: its transaction will come again.
    pub fn discard_unpublished(&self) {
        self.writer().discard();
    }

    /// Gives up entries that committed before `commit_millis` (ms since 1970) or below `lsn`. Pass as `lsn` the
    /// greater of what the write-ahead log's budget demands and, where known, what was the head `max_age` ago.
    pub fn evict_before(&self, commit_millis: i64, lsn: Lsn) {
        let mut writer = self.writer();
        let lsn = {
            let mut directory = self.directory_mut();
            let start = lsn.min(directory.view.head).max(directory.view.window_start);
            directory.view.window_start = start;
            directory.view.known_from = directory.view.known_from.max(commit_millis);
            start
        };
        writer.evict_before(commit_millis, lsn, self);
    }

    /// Tells up to where commits are visible to a new snapshot of the database. Streams that lost their place go on
    /// from there, not from the head: who reads the database then misses nothing.
    pub fn set_visible(&self, visible: Lsn) {
        let _writer = self.writer();
        self.directory_mut().view.visible = Some(visible);
    }

    /// The least commit position of an entry kept in any journal.
    #[must_use]
    pub fn oldest_kept(&self) -> Option<Lsn> {
        self.writer().oldest()
    }

    /// When the oldest entry that is kept was committed, in ms since 1970.
    #[must_use]
    pub fn oldest_commit_millis(&self) -> Option<i64> {
        self.writer().oldest_millis()
    }

    #[must_use]
    pub fn head(&self) -> Lsn {
        self.view().head
    }

    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.view().epoch
    }

    #[must_use]
    pub fn view(&self) -> View {
        self.directory().view
    }

    /// The head as an id.
    #[must_use]
    pub fn position(&self) -> EventId {
        let view = self.view();
        EventId::position(view.epoch, view.head)
    }

    /// Memory of everything kept, pending and index included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.writer().bytes()
    }

    /// Organizations that have a journal now, `*` not counted.
    #[must_use]
    pub fn organizations(&self) -> usize {
        self.directory().logs.len()
    }

    /// Memory, counted anew.
    #[cfg(test)]
    pub(crate) fn recount(&self) -> u64 {
        self.writer().recount()
    }

    pub fn listen(&self, listener: Weak<dyn Listener>) {
        let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
    }

    /// Completes when the head has moved, or the history was reset, since the future was enabled.
    pub(crate) fn moved(&self) -> tokio::sync::futures::Notified<'_> {
        self.moved.notified()
    }

    pub(crate) fn snapshot(&self, organization: &OrganizationId) -> Snapshot {
        let directory = self.directory();
        Snapshot {
            view: directory.view,
            base: directory.base,
            own: directory.logs.get(organization).cloned(),
            every: directory.every.clone(),
        }
    }

    /// Under the writer's lock, so that listeners hear everything in order.
    fn tell(&self, what: impl Fn(&dyn Listener)) {
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            what(&*listener);
        }
        self.moved.notify_waiters();
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory_mut(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookup for Journals {
    fn insert(&self, organization: &OrganizationId, log: &Arc<Log>) {
        self.directory_mut().logs.insert(organization.clone(), log.clone());
    }

    fn raise_base(&self, floor: Floor) {
        let mut directory = self.directory_mut();
        directory.base = directory.base.max(floor);
    }

    fn forget(&self, organization: &OrganizationId) {
        let mut directory = self.directory_mut();
        directory.logs.remove(organization);
        give_back(&mut directory.logs);
    }
}

impl std::fmt::Debug for Journals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journals").field("view", &self.view()).finish_non_exhaustive()
    }
}

/// A history without entries that starts at the view's head.
fn fresh(max_memory: u64, view: View) -> (Writer, Directory) {
    let base = Floor { place: (view.head, 0), millis: None };
    let every = Arc::new(Log::new(base));
    let mut writer = Writer::new(max_memory, base);
    writer.adopt_every(every.clone());
    (writer, Directory { view, base, logs: HashMap::new(), every })
}
