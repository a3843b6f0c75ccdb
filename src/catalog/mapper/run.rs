//! A rule on one half of a change: does it apply, who may see what it makes, and what that is.

use std::sync::Arc;

use crate::catalog::event::{Audience, Epoch, Event, Kind, SyncReason, Tags};
use crate::catalog::rule::Rule;
use crate::source::Operation;

use super::Position;
use super::bound::JoinEncoders;
use super::frame::{DataSource, Frame};
use super::row::Known;
use super::trouble::Trouble;
use super::view::{Verdict, View};

/// One change's rules being run: the mapper's parts that do not stand in the way of its views.
pub(super) struct Run<'m> {
    pub(super) epoch: Epoch,
    pub(super) max_event: u64,
    pub(super) transaction: &'m Position,
    pub(super) encoders: &'m JoinEncoders,
    pub(super) frame: &'m mut Frame,
    pub(super) tags: &'m mut Tags,
    pub(super) trouble: &'m mut Trouble,
}

impl Run<'_> {
    pub(super) fn fire(
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
                let kind = Kind::Sync { reason: SyncReason::Unroutable, channels: &rule.channels };
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
        let oversize = self.frame.write(id, &rule.envelope, commit_millis, &rule.data, &mut source);
        self.trouble.counters.events += 1;
        self.trouble.counters.event_bytes += self.frame.bytes().len() as u64;
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
            // No user's id is so long.
            Known::Null | Known::Oversize { .. } => None,
            Known::Unchanged | Known::Unlogged => {
                self.trouble.unlogged(view);
                None
            }
        };
        match user {
            Some(user) => {
                Some(Some(Arc::new(Audience { roles: only.roles.roles.clone(), user: Some(user.into()) })))
            }
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
            for known in [Some(current), (old != current).then_some(old)].into_iter().flatten() {
                match known {
                    Known::Text(text) => self.tags.push(*name, text),
                    // Nobody can ask for a tag so long.
                    Known::Null | Known::Oversize { .. } => {}
                    Known::Unchanged | Known::Unlogged => self.trouble.unlogged(view),
                }
            }
        }
    }
}
