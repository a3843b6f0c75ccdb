//! Changes to events: the one place where a row gets a meaning.
//!
//! ```text
//! begin(transaction)   pass 1: the rows that others are related to
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
mod problem;
mod related;
mod row;
mod trouble;
mod view;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::config::Secret;
use crate::mirror::Mirror;
use crate::postgres::Lsn;
use crate::postgres::pgoutput::{Relation, RelationId};
use crate::postgres::schema::Types;
use crate::source::{Change, Operation, RowChange, Transaction};

use super::compile::Compiled;
use super::event::{Audience, Epoch, Event, EventId, Kind, OrganizationId, SyncReason, Tags};
use super::rule::{Envelope, Rule, TableRules};
use bound::{Bound, JoinEncoders};
use emit::Verifier;
use frame::{DataSource, Frame};
use related::Related;
use row::{Cells, Known, Row, Scratch};
use trouble::Trouble;
use view::{Verdict, View};

pub use problem::{Problem, ProblemKind};

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
    epoch: Epoch,
    max_event: u64,
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
        self.taken = self
            .taken
            .saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        before
    }

    const fn id(&self, epoch: Epoch, ordinal: u32) -> EventId {
        EventId {
            epoch,
            commit_lsn: self.commit_lsn,
            ordinal,
        }
    }
}

/// Who is told of a change of a row, and what it is to them.
struct Halves<'a> {
    /// The old half: a delete, or a row that went to another organization.
    old: Option<(Row<'a>, &'a str)>,
    /// The new half.
    new: Option<(Row<'a>, &'a str)>,
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
            epoch,
            max_event,
            bounds: HashMap::new(),
            related: Related::default(),
            transaction: Position::default(),
            frame: Frame::default(),
            tags: Tags::default(),
            scratch: Scratch::default(),
            trouble: Trouble::default(),
        }
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
        self.types = types;
        self.bounds.clear();
    }

    /// Whether values of the relation would be encoded as text for want of knowing their type. Only what the catalog
    /// uses counts. Cheap for a relation that was asked about before.
    #[must_use]
    pub fn unknown_types(&self, relation: &Relation) -> bool {
        match self.bounds.get(&relation.id) {
            Some(bound) if std::ptr::eq(&*bound.relation, relation) => bound.unknown_types,
            _ => self.compiled.uses(relation) && bound::has_unknown_types(relation, &self.types),
        }
    }

    /// Opens a transaction, and collects its related rows.
    ///
    /// # Errors
    /// The transaction could not be read.
    pub fn begin(&mut self, transaction: &Transaction) -> io::Result<()> {
        self.transaction = Position {
            commit_lsn: transaction.commit_lsn,
            commit_millis: transaction.commit_time.unix_millis(),
            xid: transaction.xid,
            taken: 0,
        };
        self.related.clear(self.compiled.targets.len());
        if self.compiled.targets.is_empty() {
            return Ok(());
        }
        let mut changes = transaction.reader()?;
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
        let bound = Arc::new(Bound::new(
            relation,
            &self.compiled,
            &self.types,
            &mut self.trouble.problems,
        ));
        self.encoders.rebind(relation, &self.compiled, &self.types);
        self.bounds.insert(relation.id, Arc::clone(&bound));
        bound
    }

    fn map_row(&mut self, change: &RowChange, mirror: &Mirror, sink: &mut dyn FnMut(Event<'_>)) {
        let bound = self.bind(&change.relation);
        let compiled = Arc::clone(&self.compiled);
        let Some((table, rules)) = bound
            .table
            .and_then(|table| Some((table, compiled.tables.get(table)?)))
        else {
            return;
        };
        let base = self.transaction.take(2 * rules.rules.len());
        // An update may turn out to be a delete here and an insert there.
        if change.operation != Operation::Update && !rules.fires_on(change.operation) {
            return;
        }
        let cells = Cells::of(change, &mut self.scratch);
        let row = cells.row(change);
        match route(rules, &bound, row, &mut self.trouble) {
            Some(halves) => {
                let Self {
                    related,
                    frame,
                    tags,
                    trouble,
                    encoders,
                    transaction,
                    ..
                } = self;
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
                self.sync(
                    base + 1,
                    SyncReason::Unroutable,
                    OrganizationId::EVERY,
                    &rules.channels,
                    sink,
                );
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
            self.sync(
                ordinal,
                SyncReason::Truncated,
                OrganizationId::EVERY,
                &rules.channels,
                sink,
            );
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
        let oversize = self.frame.write_json(
            id,
            &envelope,
            millis,
            &emitted.organization,
            emitted.data,
            self.max_event,
        );
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

/// Whose change it is. None when the log does not tell.
///
/// An old organization that is not logged is taken for the new one, and is a problem: the identity was lowered, and
/// a `data.sync` to everybody for each update of a table would be worse than what it tells.
fn route<'a>(rules: &TableRules, bound: &Bound, row: Row<'a>, trouble: &mut Trouble) -> Option<Halves<'a>> {
    let is_delete = row.operation() == Operation::Delete;
    let whole = |organization| {
        let half = Some((row, organization));
        if is_delete {
            Halves { old: half, new: None }
        } else {
            Halves { old: None, new: half }
        }
    };
    let Some(slot) = rules.organization else {
        return Some(whole(OrganizationId::EVERY));
    };
    let column = bound.position(slot)?;
    // Some(None) is nobody's: null, or a claim to be every organization, which all of them would see.
    let read = |known: Known<'a>| match known {
        Known::Text(text) => Some(
            std::str::from_utf8(text)
                .ok()
                .filter(|id| !matches!(*id, OrganizationId::EVERY | "")),
        ),
        Known::Null => Some(None),
        Known::Unchanged | Known::Unlogged => None,
    };
    let Some(current) = read(row.current(column)) else {
        trouble.unlogged_of(rules, &bound.relation);
        return None;
    };
    if current.is_none() && rules.fires_on(row.operation()) {
        trouble.no_organization(rules, bound.relation.id.0);
    }
    let old = if row.operation() == Operation::Update {
        read(row.old(column)).unwrap_or_else(|| {
            trouble.unlogged_of(rules, &bound.relation);
            current
        })
    } else {
        current
    };
    Some(if old == current {
        current.map_or(Halves { old: None, new: None }, whole)
    } else {
        Halves {
            old: old.map(|organization| (row.left(), organization)),
            new: current.map(|organization| (row.arrived(), organization)),
        }
    })
}

/// One change's rules being run: the mapper's parts that do not stand in the way of its views.
struct Run<'m> {
    epoch: Epoch,
    max_event: u64,
    transaction: &'m Position,
    encoders: &'m JoinEncoders,
    frame: &'m mut Frame,
    tags: &'m mut Tags,
    trouble: &'m mut Trouble,
}

impl Run<'_> {
    fn fire(
        &mut self,
        view: &View<'_>,
        table: usize,
        index: usize,
        rule: &Rule,
        ordinal: u32,
        sink: &mut dyn FnMut(Event<'_>),
    ) {
        let id = self.transaction.id(self.epoch, ordinal);
        let commit_millis = self.transaction.commit_millis;
        match view.judge(rule) {
            Verdict::Holds => {}
            Verdict::Fails => return,
            undecided => {
                match (undecided, rule.condition_expression()) {
                    (Verdict::Error(error), Some(computed)) => {
                        self.trouble.expression(view, index, computed, &error);
                    }
                    _ => self.trouble.undecided(view),
                }
                self.trouble.counters.syncs += 1;
                let kind = Kind::Sync {
                    reason: SyncReason::Unroutable,
                    channels: &rule.channels,
                };
                return sink(Event {
                    id,
                    organization: view.organization,
                    commit_millis,
                    kind,
                    audience: None,
                });
            }
        }
        let Some(audience) = self.audience(view, rule) else {
            return;
        };
        self.collect_tags(view, rule);
        let mut source = DataSource {
            view,
            encoders: self.encoders,
            trouble: self.trouble,
            table,
            rule: index,
            max_event: self.max_event,
        };
        let oversize = self
            .frame
            .write(id, &rule.envelope, commit_millis, &rule.data, &mut source);
        self.trouble.counters.events += 1;
        self.trouble.counters.oversize += u64::from(oversize);
        sink(Event {
            id,
            organization: view.organization,
            commit_millis,
            kind: Kind::Data {
                event_type: &rule.event_type,
                channel: &rule.channel,
                tags: self.tags,
                frame: self.frame.bytes(),
            },
            audience: audience.as_ref(),
        });
    }

    /// Who may see it; the outer None is nobody.
    fn audience(&mut self, view: &View<'_>, rule: &Rule) -> Option<Option<Arc<Audience>>> {
        let Some(only) = &rule.only else { return Some(None) };
        let Some(slot) = only.user else {
            return Some(Some(Arc::clone(&only.roles)));
        };
        let user = match view.current(slot) {
            Known::Text(text) => std::str::from_utf8(text).ok(),
            Known::Null => None,
            Known::Unchanged | Known::Unlogged => {
                self.trouble.unlogged(view);
                None
            }
        };
        match user {
            Some(user) => Some(Some(Arc::new(Audience {
                roles: only.roles.roles.clone(),
                user: Some(user.into()),
            }))),
            None if only.roles.roles.is_empty() => None,
            None => Some(Some(Arc::clone(&only.roles))),
        }
    }

    /// An update carries a tag's new value and its old one, so that a filter sees a row come and leave.
    fn collect_tags(&mut self, view: &View<'_>, rule: &Rule) {
        self.tags.clear();
        for (name, slot) in &rule.tags {
            let current = view.current(*slot);
            let old = match view.row.operation() {
                Operation::Update => view.old(*slot),
                Operation::Insert | Operation::Delete => current,
            };
            for known in [Some(current), (old != current).then_some(old)]
                .into_iter()
                .flatten()
            {
                match known {
                    Known::Text(text) => self.tags.push(*name, text),
                    Known::Null => {}
                    Known::Unchanged | Known::Unlogged => self.trouble.unlogged(view),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
