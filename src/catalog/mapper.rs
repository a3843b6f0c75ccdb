//! Changes to events: the one place where a row gets a meaning.
//!
//! ```text
//! begin(transaction)   pass 1: the rows that others are related to (also of a part, where it comes in parts)
//! map_change(change)   bind ─► halves (who has lost the row, who has it now) ─► rules ─► frame ─► sink
//! ```
//!
//! The same transaction gives the same events in the same order with the same ids, whoever maps it and however
//! often: ids count what could have fired, not what did. What the log does not tell is never guessed: the field is
//! null or left out, or, where it decides whether there is an event at all, a `data.sync` stands in its place; and it
//! is a [`Problem`].
//!
//! A plain column goes from the tuple's bytes through its encoder into the frame: no allocation, no expression.

mod bound;
mod emit;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod problem;
mod related;
mod route;
mod row;
mod run;
mod trouble;
mod view;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::config::Secret;
use crate::mirror::Mirror;
use crate::postgres::pgoutput::{Relation, RelationId};
use crate::postgres::schema::Types;
use crate::postgres::{Lsn, PgTimestamp};
use crate::source::{Change, Changes, Operation, Part, RowChange, Transaction};

use super::compile::Compiled;
use super::event::{Epoch, Event, EventId, Kind, OrganizationId, SyncReason, Tags};
use super::rule::Envelope;
use bound::{Bound, JoinEncoders};
use emit::Verifier;
use frame::Frame;
use related::Related;
use route::route;
use row::{Cells, Scratch};
use run::Run;
use trouble::Trouble;
use view::View;

pub use problem::{Problem, ProblemKind};

/// How often a type that is not known is asked for.
const TYPE_ATTEMPTS: u8 = 3;

/// How often what happened, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Domain events, emitted ones among them.
    pub events: u64,
    /// Of them, those that went out without their data.
    pub oversize: u64,
    /// `data.sync` entries: truncated tables, and what could not be routed or decided.
    pub syncs: u64,
    pub failed_expressions: u64,
    /// Old values that were needed and not logged.
    pub unlogged: u64,
    /// Changes of rows without an organization.
    pub no_organization: u64,
    /// Emitted events that were dropped.
    pub refused_emits: u64,
}

/// Maps transactions, one after the other.
#[derive(Debug)]
pub struct Mapper {
    compiled: Arc<Compiled>,
    types: Arc<Types>,
    /// Types that were asked for: how often, and in which transaction last.
    asked_types: HashMap<u32, (u8, Lsn)>,
    epoch: Epoch,
    max_event: u64,
    in_log: bool,
    verifier: Verifier,
    bounds: HashMap<RelationId, Arc<Bound>>,
    encoders: JoinEncoders,
    related: Related,
    transaction: Position,
    frame: Frame,
    tags: Tags,
    scratch: Scratch,
    trouble: Trouble,
}

/// Where in which transaction the mapper is.
#[derive(Debug, Default)]
struct Position {
    commit_lsn: Lsn,
    commit_millis: i64,
    xid: u32,
    /// Ordinals taken so far.
    taken: u32,
}

impl Position {
    /// Reserves `count` ordinals; what comes before the first.
    fn take(&mut self, count: usize) -> u32 {
        let before = self.taken;
        self.taken = self.taken.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        before
    }

    const fn id(&self, epoch: Epoch, ordinal: u32) -> EventId {
        EventId { epoch, commit_lsn: self.commit_lsn, ordinal }
    }
}

impl Mapper {
    /// `emit_secret` is `walcast.secret`'s, in hexadecimal; without it every emitted event is dropped.
    #[must_use]
    pub fn new(
        compiled: Arc<Compiled>,
        types: Arc<Types>,
        epoch: Epoch,
        max_event: u64,
        emit_secret: Option<Secret>,
    ) -> Self {
        Self {
            encoders: JoinEncoders::new(&compiled, &types),
            verifier: Verifier::new(emit_secret.as_ref()),
            compiled,
            types,
            asked_types: HashMap::new(),
            epoch,
            max_event,
            in_log: true,
            bounds: HashMap::new(),
            related: Related::default(),
            transaction: Position::default(),
            frame: Frame::default(),
            tags: Tags::default(),
            scratch: Scratch::default(),
            trouble: Trouble::default(),
        }
    }

    /// Rows come from the outbox, which knows each of them whole.
    pub const fn set_outbox(&mut self) {
        self.in_log = false;
    }

    #[must_use]
    pub const fn compiled(&self) -> &Arc<Compiled> {
        &self.compiled
    }

    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// History began anew: ids from here on are of this epoch.
    pub const fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// For types made since; between transactions or within one.
    pub fn set_types(&mut self, types: Arc<Types>) {
        self.encoders = JoinEncoders::new(&self.compiled, &types);
        for bound in self.bounds.values() {
            self.encoders.rebind(&bound.relation, &self.compiled, &types);
        }
        self.types = types;
        self.bounds.clear();
    }

    /// Whether the types should be read again before a change of the relation is mapped: one of a column is not known,
    /// and values of the relation can get into events. Asks a few times, in different transactions (what is decoded
    /// may not be visible to a query yet); after that the type is gone for good, and its values go out as text.
    #[must_use]
    pub fn unknown_types(&mut self, relation: &Relation) -> bool {
        match self.bounds.get(&relation.id) {
            Some(bound) if std::ptr::eq(&*bound.relation, relation) && !bound.unknown_types => return false,
            Some(_) => {}
            None if !self.compiled.uses(relation) => return false,
            None => {}
        }
        let mut ask = false;
        for column in relation.columns.iter().filter(|column| !self.types.knows(column.type_oid)) {
            let (times, at) = self.asked_types.entry(column.type_oid).or_default();
            if *times < TYPE_ATTEMPTS && (*times == 0 || *at != self.transaction.commit_lsn) {
                (*times, *at) = (*times + 1, self.transaction.commit_lsn);
                ask = true;
            }
        }
        ask && self.compiled.uses(relation)
    }

    /// Opens a transaction, and collects its related rows.
    ///
    /// # Errors
    /// The transaction could not be read.
    pub fn begin(&mut self, transaction: &Transaction) -> io::Result<()> {
        let Transaction { commit_lsn, commit_time, xid, .. } = *transaction;
        if !transaction.begun {
            self.open(commit_lsn, commit_time, xid);
        }
        self.collect(&transaction.changes)
    }

    /// Opens a transaction of which this is the first part, and collects the related rows of the part. No row that asks
    /// for them may be in it.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn begin_part(&mut self, part: &Part) -> io::Result<()> {
        if part.first {
            self.open(part.commit_lsn, part.commit_time, part.xid);
        }
        self.collect(&part.changes)
    }

    fn open(&mut self, commit_lsn: Lsn, commit_time: PgTimestamp, xid: u32) {
        self.transaction = Position { commit_lsn, commit_millis: commit_time.unix_millis(), xid, taken: 0 };
        self.related.clear(self.compiled.targets.len());
    }

    fn collect(&mut self, changes: &Changes) -> io::Result<()> {
        let related = |mapper: &mut Self, relation: &Arc<Relation>| !mapper.bind(relation).targets.is_empty();
        if self.compiled.targets.is_empty() || !changes.touch(|relation| related(self, relation)) {
            return Ok(());
        }
        let mut changes = changes.reader()?;
        while let Some(change) = changes.next()? {
            let Change::Row(change) = change else { continue };
            let bound = self.bind(&change.relation);
            if bound.targets.is_empty() || change.operation == Operation::Delete {
                continue;
            }
            let cells = Cells::of(change, &mut self.scratch);
            for target in &bound.targets {
                self.related.collect(target, &cells.row(change));
            }
            cells.recycle(&mut self.scratch);
        }
        Ok(())
    }

    /// The events of one change of the transaction that was begun, in the order of their ids. To be called for every
    /// change, in order, after the mirror has applied it.
    pub fn map_change(&mut self, change: &Change, mirror: &Mirror, sink: &mut dyn FnMut(Event<'_>)) {
        match change {
            Change::Row(change) => self.map_row(change, mirror, sink),
            Change::Truncate(relations) => {
                for relation in relations {
                    self.map_truncate(relation, sink);
                }
            }
            Change::Emit(message) => self.map_emit(&message.content, sink),
            // It takes no ordinal: events beside it keep their ids with and without a canary.
            Change::Canary(_) => {}
        }
    }

    /// What could not be done as the catalog says, as of now.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.trouble.problems.iter()
    }

    /// Grows whenever a problem comes or goes; not when one repeats.
    #[must_use]
    pub const fn problems_revision(&self) -> u64 {
        self.trouble.problems.revision()
    }

    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.trouble.counters
    }

    fn bind(&mut self, relation: &Arc<Relation>) -> Arc<Bound> {
        if let Some(bound) = self.bounds.get(&relation.id)
            && Arc::ptr_eq(&bound.relation, relation)
        {
            return Arc::clone(bound);
        }
        let bound = Arc::new(Bound::new(relation, &self.compiled, &self.types, &mut self.trouble.problems));
        self.encoders.rebind(relation, &self.compiled, &self.types);
        self.bounds.insert(relation.id, Arc::clone(&bound));
        bound
    }

    fn map_row(&mut self, change: &RowChange, mirror: &Mirror, sink: &mut dyn FnMut(Event<'_>)) {
        let bound = self.bind(&change.relation);
        let compiled = Arc::clone(&self.compiled);
        let Some((table, rules)) = bound.table.and_then(|table| Some((table, compiled.tables.get(table)?)))
        else {
            return;
        };
        let base = self.transaction.take(2 * rules.rules.len());
        // An update may turn out to be a delete here and an insert there.
        if change.operation != Operation::Update && !rules.fires_on(change.operation) {
            return;
        }
        let cells = Cells::of(change, &mut self.scratch);
        let mut row = cells.row(change);
        if let Some(key) = bound.partitioned_by_key()
            && self.in_log
        {
            row = row.of_partition(key);
        }
        match route(rules, &bound, row, &mut self.trouble) {
            Some(halves) => {
                let Self { related, frame, tags, trouble, encoders, transaction, .. } = self;
                let view = |(row, organization)| View::new(rules, &bound, row, organization, mirror, related);
                let halves = [halves.old.map(view), halves.new.map(view)];
                let mut run = Run {
                    epoch: self.epoch,
                    max_event: self.max_event,
                    transaction,
                    encoders,
                    frame,
                    tags,
                    trouble,
                };
                for (index, rule) in rules.rules.iter().enumerate() {
                    for (half, view) in (0..).zip(&halves) {
                        let Some(view) = view else { continue };
                        if rule.operations.contains(view.row.operation()) {
                            let before = u32::try_from(2 * index).unwrap_or(u32::MAX);
                            let ordinal = base.saturating_add(before).saturating_add(half + 1);
                            run.fire(view, table, index, rule, ordinal, sink);
                        }
                    }
                }
            }
            None if rules.fires_on(change.operation) => {
                self.sync(base + 1, SyncReason::Unroutable, OrganizationId::EVERY, &rules.channels, sink);
            }
            None => {}
        }
        cells.recycle(&mut self.scratch);
    }

    fn map_truncate(&mut self, relation: &Arc<Relation>, sink: &mut dyn FnMut(Event<'_>)) {
        let bound = self.bind(relation);
        let compiled = Arc::clone(&self.compiled);
        if let Some(rules) = bound.table.and_then(|table| compiled.tables.get(table)) {
            let ordinal = self.transaction.take(1) + 1;
            self.sync(ordinal, SyncReason::Truncated, OrganizationId::EVERY, &rules.channels, sink);
        }
    }

    fn map_emit(&mut self, content: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
        let ordinal = self.transaction.take(1) + 1;
        let emitted = match self.verifier.read(self.transaction.xid, content, &self.compiled) {
            Ok(emitted) => emitted,
            Err(refusal) => return self.trouble.emit(&refusal),
        };
        let id = self.transaction.id(self.epoch, ordinal);
        let envelope = Envelope::new(&emitted.event_type, &emitted.channel);
        let millis = self.transaction.commit_millis;
        let oversize =
            self.frame.write_json(id, &envelope, millis, &emitted.organization, emitted.data, self.max_event);
        self.trouble.counters.events += 1;
        self.trouble.counters.oversize += u64::from(oversize);
        sink(Event {
            id,
            organization: &emitted.organization,
            commit_millis: millis,
            kind: Kind::Data {
                event_type: &emitted.event_type,
                channel: &emitted.channel,
                tags: &emitted.tags,
                frame: self.frame.bytes(),
            },
            audience: emitted.audience.as_ref(),
        });
    }

    fn sync(
        &mut self,
        ordinal: u32,
        reason: SyncReason,
        organization: &str,
        channels: &Arc<[Arc<str>]>,
        sink: &mut dyn FnMut(Event<'_>),
    ) {
        self.trouble.counters.syncs += 1;
        sink(Event {
            id: self.transaction.id(self.epoch, ordinal),
            organization,
            commit_millis: self.transaction.commit_millis,
            kind: Kind::Sync { reason, channels },
            audience: None,
        });
    }
}

#[cfg(test)]
mod tests;
