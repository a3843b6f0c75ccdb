//! Bytes to messages. Every length and kind is checked, and every byte must be accounted for.

use std::fmt;

use bytes::{Buf, Bytes};

use super::tuple::OVERSIZE;
use super::{
    Begin, CellSpan, Commit, EmittedMessage, LogicalMessage, OldTuple, Origin, Relation, RelationColumn,
    RelationId, ReplicaIdentity, Tuple, Type,
};
use crate::postgres::wire::cstr;
use crate::postgres::{Lsn, PgTimestamp};

/// Which message could not be read, where in it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The message's kind byte; `None` for an empty message.
    pub kind: Option<u8>,
    /// Bytes from the message's start to the field that is wrong.
    pub offset: usize,
    pub problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the message ends where {needed} more bytes are due")]
    Truncated { needed: usize },
    #[error("{0} bytes too many")]
    Trailing(usize),
    #[error("no such kind of message in protocol 1")]
    UnknownMessage,
    #[error("{what} can't be {value}")]
    Invalid { what: &'static str, value: i64 },
    #[error("a text has no end")]
    Unterminated,
    #[error("a text is not UTF-8")]
    NotUtf8,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.map(|kind| (kind, name(kind))) {
            None => f.write_str("pgoutput message")?,
            Some((_, Some(name))) => write!(f, "pgoutput message {name}")?,
            Some((kind, None)) => write!(f, "pgoutput message 0x{kind:02X}")?,
        }
        write!(f, ", byte {}: {}", self.offset, self.problem)
    }
}

impl std::error::Error for DecodeError {}

const fn name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        b'B' => "Begin",
        b'C' => "Commit",
        b'O' => "Origin",
        b'R' => "Relation",
        b'Y' => "Type",
        b'I' => "Insert",
        b'U' => "Update",
        b'D' => "Delete",
        b'T' => "Truncate",
        b'M' => "Message",
        _ => return None,
    })
}

/// Reads one message, the data of one XLogData. Tuples and contents share its bytes.
pub fn decode(bytes: Bytes) -> Result<LogicalMessage, DecodeError> {
    let kind = bytes.first().copied();
    let mut reader = Reader::new(&bytes);
    message(&mut reader)
        .and_then(|message| reader.finish().map(|()| message))
        .map_err(|problem| DecodeError { kind, offset: reader.field, problem })
}

fn message(reader: &mut Reader<'_>) -> Result<LogicalMessage, Problem> {
    match reader.u8()? {
        b'B' => Ok(LogicalMessage::Begin(Begin {
            final_lsn: reader.lsn()?,
            commit_time: reader.timestamp()?,
            xid: reader.u32()?,
        })),
        b'C' => {
            reader.flags("the flags of a commit", 0)?;
            Ok(LogicalMessage::Commit(Commit {
                commit_lsn: reader.lsn()?,
                end_lsn: reader.lsn()?,
                commit_time: reader.timestamp()?,
            }))
        }
        b'O' => Ok(LogicalMessage::Origin(Origin { commit_lsn: reader.lsn()?, name: reader.text()? })),
        b'R' => relation(reader),
        b'Y' => Ok(LogicalMessage::Type(Type {
            oid: reader.u32()?,
            namespace: reader.namespace()?,
            name: reader.text()?,
        })),
        b'I' => {
            let relation = RelationId(reader.u32()?);
            reader.marker("a new tuple's mark", b'N')?;
            Ok(LogicalMessage::Insert { relation, new: Tuple::decode(reader)? })
        }
        b'U' => update(reader),
        b'D' => {
            let relation = RelationId(reader.u32()?);
            let old = match reader.u8()? {
                b'K' => OldTuple::Key(Tuple::decode(reader)?),
                b'O' => OldTuple::Full(Tuple::decode(reader)?),
                other => {
                    return Err(Problem::Invalid { what: "an old tuple's mark", value: other.into() });
                }
            };
            Ok(LogicalMessage::Delete { relation, old })
        }
        b'T' => truncate(reader),
        b'M' => Ok(LogicalMessage::Message(EmittedMessage {
            transactional: reader.flags("the flags of a message", 1)? != 0,
            lsn: reader.lsn()?,
            prefix: reader.text()?,
            content: reader.content()?,
        })),
        _ => Err(Problem::UnknownMessage),
    }
}

fn relation(reader: &mut Reader<'_>) -> Result<LogicalMessage, Problem> {
    let id = RelationId(reader.u32()?);
    let namespace = reader.namespace()?;
    let name = reader.text()?;
    let identity = match reader.u8()? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        other => {
            return Err(Problem::Invalid { what: "a replica identity", value: other.into() });
        }
    };
    let column = |reader: &mut Reader<'_>| {
        Ok(RelationColumn {
            is_key: reader.flags("the flags of a column", 1)? != 0,
            name: reader.text()?,
            type_oid: reader.u32()?,
            type_modifier: reader.u32()?.cast_signed(),
        })
    };
    let columns = (0..reader.count()?).map(|_| column(reader)).collect::<Result<_, _>>()?;
    Ok(LogicalMessage::Relation(Relation { id, namespace, name, identity, columns }))
}

fn update(reader: &mut Reader<'_>) -> Result<LogicalMessage, Problem> {
    let relation = RelationId(reader.u32()?);
    let old = match reader.u8()? {
        b'N' => None,
        mark @ (b'K' | b'O') => {
            let tuple = Tuple::decode(reader)?;
            reader.marker("a new tuple's mark", b'N')?;
            Some(if mark == b'K' { OldTuple::Key(tuple) } else { OldTuple::Full(tuple) })
        }
        other => {
            return Err(Problem::Invalid { what: "a tuple's mark", value: other.into() });
        }
    };
    Ok(LogicalMessage::Update { relation, old, new: Tuple::decode(reader)? })
}

fn truncate(reader: &mut Reader<'_>) -> Result<LogicalMessage, Problem> {
    const CASCADE: u8 = 1;
    const RESTART_IDENTITY: u8 = 2;
    let count = reader.length("a count of relations")?;
    let options = reader.flags("the options of a truncate", CASCADE | RESTART_IDENTITY)?;
    let needed = count.saturating_mul(size_of::<u32>());
    reader.require(needed)?;
    let relations = (0..count).map(|_| reader.u32().map(RelationId)).collect::<Result<_, _>>()?;
    Ok(LogicalMessage::Truncate {
        relations,
        cascade: options & CASCADE != 0,
        restart_identity: options & RESTART_IDENTITY != 0,
    })
}

/// A position in a message. Each field is taken whole or not at all.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    whole: &'a Bytes,
    /// Where the field last asked for starts.
    field: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(whole: &'a Bytes) -> Self {
        Self { rest: whole, whole, field: 0 }
    }

    pub(super) const fn offset(&self) -> usize {
        self.whole.len() - self.rest.len()
    }

    /// What was read since that offset.
    pub(super) fn slice_from(&self, start: usize) -> Bytes {
        self.whole.slice(start.min(self.offset())..self.offset())
    }

    fn finish(&mut self) -> Result<(), Problem> {
        self.field = self.offset();
        match self.rest.len() {
            0 => Ok(()),
            more => Err(Problem::Trailing(more)),
        }
    }

    /// Starts a field of so many bytes.
    fn require(&mut self, bytes: usize) -> Result<(), Problem> {
        self.field = self.offset();
        match bytes.checked_sub(self.rest.len()) {
            None | Some(0) => Ok(()),
            Some(needed) => Err(Problem::Truncated { needed }),
        }
    }

    fn u8(&mut self) -> Result<u8, Problem> {
        self.require(1)?;
        Ok(self.rest.get_u8())
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        self.require(4)?;
        Ok(self.rest.get_u32())
    }

    fn u64(&mut self) -> Result<u64, Problem> {
        self.require(8)?;
        Ok(self.rest.get_u64())
    }

    fn lsn(&mut self) -> Result<Lsn, Problem> {
        self.u64().map(Lsn::new)
    }

    fn timestamp(&mut self) -> Result<PgTimestamp, Problem> {
        self.u64().map(|micros| PgTimestamp::from_micros(micros.cast_signed()))
    }

    /// A byte of which only these bits may be set.
    fn flags(&mut self, what: &'static str, known: u8) -> Result<u8, Problem> {
        match self.u8()? {
            flags if flags & !known == 0 => Ok(flags),
            other => Err(Problem::Invalid { what, value: other.into() }),
        }
    }

    fn marker(&mut self, what: &'static str, expected: u8) -> Result<(), Problem> {
        match self.u8()? {
            found if found == expected => Ok(()),
            other => Err(Problem::Invalid { what, value: other.into() }),
        }
    }

    /// A count of columns: a signed number of 16 bits.
    pub(super) fn count(&mut self) -> Result<u16, Problem> {
        self.require(2)?;
        let count = self.rest.get_i16();
        u16::try_from(count).map_err(|_| Problem::Invalid { what: "a count of columns", value: count.into() })
    }

    /// A length or count: a signed number of 32 bits.
    fn length(&mut self, what: &'static str) -> Result<usize, Problem> {
        let length = self.u32()?.cast_signed();
        usize::try_from(length).map_err(|_| Problem::Invalid { what, value: length.into() })
    }

    fn text(&mut self) -> Result<String, Problem> {
        self.field = self.offset();
        let (text, rest) = cstr(self.rest).ok_or(Problem::Unterminated)?;
        self.rest = rest;
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| Problem::NotUtf8)
    }

    /// A schema's name; the stream leaves out that of the catalog.
    fn namespace(&mut self) -> Result<String, Problem> {
        let name = self.text()?;
        Ok(if name.is_empty() { super::CATALOG_NAMESPACE.to_owned() } else { name })
    }

    fn content(&mut self) -> Result<Bytes, Problem> {
        let length = self.length("a content's length")?;
        self.require(length)?;
        let start = self.offset();
        self.rest.advance(length);
        Ok(self.slice_from(start))
    }

    /// One column; its span counts from the reader's start.
    pub(super) fn cell(&mut self) -> Result<CellSpan, Problem> {
        const TOO_LONG: Problem = Problem::Invalid { what: "a tuple's size", value: i64::MAX };
        match self.u8()? {
            b'n' => Ok(CellSpan::Null),
            b'u' => Ok(CellSpan::Unchanged),
            b't' => {
                let length = self.length("a value's length")?;
                self.require(length)?;
                let start = u32::try_from(self.offset()).map_err(|_| TOO_LONG)?;
                self.rest.advance(length);
                Ok(CellSpan::Text { start, length: u32::try_from(length).map_err(|_| TOO_LONG)? })
            }
            OVERSIZE => {
                let size = size_of::<u32>() + size_of::<u64>();
                self.require(size)?;
                let start = u32::try_from(self.offset()).map_err(|_| TOO_LONG)?;
                self.rest.advance(size);
                Ok(CellSpan::Oversize { start })
            }
            other => Err(Problem::Invalid { what: "a column's kind", value: other.into() }),
        }
    }
}
