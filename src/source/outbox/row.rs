//! A row of the outbox as what the log would say of the same change.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::Row;

use super::answer::{get, position};
use super::assembly::Change;
use super::relation::{Definition, Omitted};
use crate::postgres::pgoutput::{EmittedMessage, LogicalMessage, LongMessages, OldTuple, Tuple};
use crate::source::policy::SourceError;
use crate::source::{CANARY_PREFIX, EMIT_PREFIX};

/// Of the transactions from one position to another. A message that is too long to be verified is not believed: it
/// reads as empty.
pub(super) const ROWS: &str = "
select t.position, o.operation::text, o.relation, o.old_row, o.new_row,
       case when octet_length(o.message) > $3 then '' else o.message end, o.omitted::text
  from walcast.outbox_transactions t join walcast.outbox o on o.xid = t.xid
 where t.position >= $1 and t.position <= $2 order by t.position, o.id";

/// None when it does not read as one of its table.
pub(super) fn change(
    row: &Row,
    definitions: &HashMap<i64, Definition>,
    long: LongMessages,
) -> Result<Option<Change>, SourceError> {
    let operation: &str = get(row, 1)?;
    if let "M" | "C" = operation {
        let message = EmittedMessage {
            transactional: true,
            lsn: position(get(row, 0)?)?,
            prefix: if operation == "M" { EMIT_PREFIX } else { CANARY_PREFIX }.to_owned(),
            content: Bytes::copy_from_slice(get::<&str>(row, 5)?.as_bytes()),
        };
        return Ok(Some(Change { table: None, message: LogicalMessage::Message(message) }));
    }
    let id: Option<i64> = get(row, 2)?;
    let Some(definition) = id.and_then(|id| definitions.get(&id)) else {
        return Ok(None);
    };
    let Ok([old, new]) = Omitted::parse(get(row, 6)?) else {
        return Ok(None);
    };
    let mut kept = 0;
    let mut tuple = |column, omitted: &[Omitted]| -> Result<Option<Tuple>, SourceError> {
        let text: Option<&str> = get(row, column)?;
        Ok(text.and_then(|text| definition.tuple(text, omitted, long, &mut kept).ok()))
    };
    let relation = definition.relation.id;
    let message = match (operation, tuple(3, &old)?.map(OldTuple::Full), tuple(4, &new)?) {
        ("I", None, Some(new)) => LogicalMessage::Insert { relation, new },
        ("U", Some(old), Some(new)) => LogicalMessage::Update { relation, old: Some(old), new },
        ("D", Some(old), None) => LogicalMessage::Delete { relation, old },
        ("T", None, None) => {
            LogicalMessage::Truncate { relations: vec![relation], cascade: false, restart_identity: false }
        }
        _ => return Ok(None),
    };
    Ok(Some(Change { table: Some(Arc::clone(&definition.relation)), message }))
}
