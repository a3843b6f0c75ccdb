//! Messages to bytes, exactly as pgoutput writes them: for spools and tests.

use bytes::{BufMut, BytesMut};

use super::{CATALOG_NAMESPACE, LogicalMessage, OldTuple, Relation, ReplicaIdentity, Tuple};

impl LogicalMessage {
    /// Appends what [`decode`](fn@super::decode) reads back as this message. Texts must not hold zero bytes, as PostgreSQL's
    /// can't; counts and lengths beyond the format's are the caller's mistake and are cut off.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Begin(begin) => {
                out.put_u8(b'B');
                out.put_u64(begin.final_lsn.as_u64());
                out.put_i64(begin.commit_time.as_micros());
                out.put_u32(begin.xid);
            }
            Self::Commit(commit) => {
                out.put_u8(b'C');
                out.put_u8(0);
                out.put_u64(commit.commit_lsn.as_u64());
                out.put_u64(commit.end_lsn.as_u64());
                out.put_i64(commit.commit_time.as_micros());
            }
            Self::Origin(origin) => {
                out.put_u8(b'O');
                out.put_u64(origin.commit_lsn.as_u64());
                text(&origin.name, out);
            }
            Self::Relation(table) => relation(table, out),
            Self::Type(named) => {
                out.put_u8(b'Y');
                out.put_u32(named.oid);
                namespace(&named.namespace, out);
                text(&named.name, out);
            }
            Self::Insert { relation, new } => {
                out.put_u8(b'I');
                out.put_u32(relation.0);
                marked(b'N', new, out);
            }
            Self::Update { relation, old, new } => {
                out.put_u8(b'U');
                out.put_u32(relation.0);
                if let Some(old) = old {
                    old_tuple(old, out);
                }
                marked(b'N', new, out);
            }
            Self::Delete { relation, old } => {
                out.put_u8(b'D');
                out.put_u32(relation.0);
                old_tuple(old, out);
            }
            Self::Truncate { relations, cascade, restart_identity } => {
                out.put_u8(b'T');
                out.put_i32(i32::try_from(relations.len()).unwrap_or(i32::MAX));
                out.put_u8(u8::from(*cascade) | u8::from(*restart_identity) << 1);
                for relation in relations {
                    out.put_u32(relation.0);
                }
            }
            Self::Message(message) => {
                out.put_u8(b'M');
                out.put_u8(message.transactional.into());
                out.put_u64(message.lsn.as_u64());
                text(&message.prefix, out);
                out.put_i32(i32::try_from(message.content.len()).unwrap_or(i32::MAX));
                out.put_slice(&message.content);
            }
        }
    }
}

fn relation(relation: &Relation, out: &mut BytesMut) {
    out.put_u8(b'R');
    out.put_u32(relation.id.0);
    namespace(&relation.namespace, out);
    text(&relation.name, out);
    out.put_u8(match relation.identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    out.put_i16(i16::try_from(relation.columns.len()).unwrap_or(i16::MAX));
    for column in &relation.columns {
        out.put_u8(column.is_key.into());
        text(&column.name, out);
        out.put_u32(column.type_oid);
        out.put_i32(column.type_modifier);
    }
}

fn old_tuple(old: &OldTuple, out: &mut BytesMut) {
    match old {
        OldTuple::Key(tuple) => marked(b'K', tuple, out),
        OldTuple::Full(tuple) => marked(b'O', tuple, out),
    }
}

fn marked(mark: u8, tuple: &Tuple, out: &mut BytesMut) {
    out.put_u8(mark);
    tuple.encode(out);
}

fn namespace(name: &str, out: &mut BytesMut) {
    text(if name == CATALOG_NAMESPACE { "" } else { name }, out);
}

fn text(text: &str, out: &mut BytesMut) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}
