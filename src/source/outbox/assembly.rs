//! Rows of the outbox to whole transactions, through what assembles those of the log: one rule of what is kept in memory
//! and what goes to a file. Tables are told as the log tells them, whenever a change is of another form of one.

use std::collections::HashMap;
use std::sync::Arc;

use crate::postgres::pgoutput::{LogicalMessage, OldTuple, Relation, RelationId};
use crate::source::Transaction;
use crate::source::assembler::Assembler;
use crate::source::policy::SourceError;

/// Of a message of the log, its values aside.
const HEAD_BYTES: usize = 16;

/// A message, and the table that it is of as it was then.
pub(super) struct Change {
    pub(super) table: Option<Arc<Relation>>,
    pub(super) message: LogicalMessage,
}

/// Messages to transactions, through what assembles those of the log.
pub(super) struct Assembly {
    assembler: Assembler,
    /// As the assembler knows them.
    tables: HashMap<RelationId, Arc<Relation>>,
}

impl Assembly {
    pub(super) fn new(max_transaction: u64) -> Self {
        Self { assembler: Assembler::new(max_transaction), tables: HashMap::new() }
    }

    pub(super) fn change(&mut self, change: Change) -> Result<(), SourceError> {
        if let Some(table) = change.table
            && self.tables.get(&table.id).is_none_or(|known| **known != *table)
        {
            self.tables.insert(table.id, Arc::clone(&table));
            self.push(LogicalMessage::Relation((*table).clone()))?;
        }
        self.push(change.message).map(|_| ())
    }

    pub(super) fn push(&mut self, message: LogicalMessage) -> Result<Option<Transaction>, SourceError> {
        Ok(self.assembler.push_unwritten(size(&message) as u64, message)?)
    }
}

/// About as much as it takes in the log.
fn size(message: &LogicalMessage) -> usize {
    let old = |old: &OldTuple| match old {
        OldTuple::Full(tuple) | OldTuple::Key(tuple) => tuple.size(),
    };
    HEAD_BYTES
        + match message {
            LogicalMessage::Insert { new, .. } => new.size(),
            LogicalMessage::Update { old: before, new, .. } => before.as_ref().map_or(0, old) + new.size(),
            LogicalMessage::Delete { old: before, .. } => old(before),
            LogicalMessage::Message(message) => message.content.len(),
            _ => 0,
        }
}
