//! Which table a change is of: relation messages bound to the changes that follow them.

use std::collections::HashMap;
use std::sync::Arc;

use super::assembler::Violation;
use super::{Change, Operation, RowChange};
use crate::postgres::pgoutput::{LogicalMessage, OldTuple, Relation, RelationId, Tuple};

/// The prefix of the logical messages that are events: `walcast.emit` writes them. Every role can write messages
/// under any prefix; others are nobody's business here.
pub const EMIT_PREFIX: &str = "walcast";

/// The prefix of the worker's own heartbeat.
pub const CANARY_PREFIX: &str = "walcast.canary";

/// The newest definition of each table, at one point of the stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Relations {
    known: HashMap<RelationId, Arc<Relation>>,
    /// The one used last: changes of a table come in runs.
    last: Option<Arc<Relation>>,
}

impl Relations {
    pub(super) fn define(&mut self, relation: Arc<Relation>) {
        self.last = None;
        self.known.insert(relation.id, relation);
    }

    /// The change that a message is; none for a message that is none, or not ours.
    pub(super) fn bind(&mut self, message: LogicalMessage) -> Result<Option<Change>, Violation> {
        Ok(match message {
            LogicalMessage::Insert { relation, new } => {
                Some(self.row(relation, Operation::Insert, None, Some(new))?)
            }
            LogicalMessage::Update { relation, old, new } => {
                Some(self.row(relation, Operation::Update, old, Some(new))?)
            }
            LogicalMessage::Delete { relation, old } => {
                Some(self.row(relation, Operation::Delete, Some(old), None)?)
            }
            LogicalMessage::Truncate { relations, .. } => {
                let relations = relations.into_iter().map(|id| self.get(id)).collect::<Result<_, _>>()?;
                Some(Change::Truncate(relations))
            }
            LogicalMessage::Message(message) if message.transactional && message.prefix == EMIT_PREFIX => {
                Some(Change::Emit(message))
            }
            LogicalMessage::Message(message) if message.transactional && message.prefix == CANARY_PREFIX => {
                Some(Change::Canary(message.content))
            }
            LogicalMessage::Message(_)
            | LogicalMessage::Begin(_)
            | LogicalMessage::Commit(_)
            | LogicalMessage::Origin(_)
            | LogicalMessage::Relation(_)
            | LogicalMessage::Type(_) => None,
        })
    }

    fn row(
        &mut self,
        id: RelationId,
        operation: Operation,
        old: Option<OldTuple>,
        new: Option<Tuple>,
    ) -> Result<Change, Violation> {
        Ok(Change::Row(RowChange { relation: self.get(id)?, operation, old, new }))
    }

    fn get(&mut self, id: RelationId) -> Result<Arc<Relation>, Violation> {
        if let Some(last) = self.last.as_ref().filter(|last| last.id == id) {
            return Ok(Arc::clone(last));
        }
        let relation = self.known.get(&id).ok_or(Violation::UnknownRelation(id))?;
        self.last = Some(Arc::clone(relation));
        Ok(Arc::clone(relation))
    }
}
