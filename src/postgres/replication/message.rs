//! What is inside a CopyData of the stream, and the status that goes back.

use bytes::{BufMut, Bytes, BytesMut};

use super::super::error::ProtocolError;
use super::super::{Lsn, PgTimestamp};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicationMessage {
    XLogData(XLogData),
    Keepalive(Keepalive),
}

/// A piece of the log: for pgoutput, one whole logical message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XLogData {
    /// Where it starts; zero for messages that have no place of their own (Relation, Type).
    pub start: Lsn,
    /// The server's end of log.
    pub wal_end: Lsn,
    pub sent_at: PgTimestamp,
    /// A slice of the read buffer, which it keeps alive.
    pub data: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How far the server has decoded. Outside a transaction, every commit below was sent or is of no concern.
    pub wal_end: Lsn,
    pub sent_at: PgTimestamp,
    /// Without a status soon, the server ends the connection.
    pub reply_requested: bool,
}

/// Start, end and time, in front of the data of an XLogData.
pub(super) const XLOG_HEADER: usize = 1 + 8 + 8 + 8;

pub(super) fn decode(body: Bytes) -> Result<ReplicationMessage, ProtocolError> {
    const MALFORMED: ProtocolError = ProtocolError::Malformed { tag: b'd' };
    let (&kind, rest) = body.split_first().ok_or(MALFORMED)?;
    let number = |at: usize| {
        let bytes = rest.get(at..)?.first_chunk::<8>()?;
        Some(u64::from_be_bytes(*bytes))
    };
    let time = |at| number(at).map(|micros| PgTimestamp::from_micros(micros.cast_signed()));
    match kind {
        b'w' => Ok(ReplicationMessage::XLogData(XLogData {
            start: Lsn::new(number(0).ok_or(MALFORMED)?),
            wal_end: Lsn::new(number(8).ok_or(MALFORMED)?),
            sent_at: time(16).ok_or(MALFORMED)?,
            data: body.slice(XLOG_HEADER..),
        })),
        b'k' => match rest.get(16..) {
            Some(&[reply]) => Ok(ReplicationMessage::Keepalive(Keepalive {
                wal_end: Lsn::new(number(0).ok_or(MALFORMED)?),
                sent_at: time(8).ok_or(MALFORMED)?,
                reply_requested: reply != 0,
            })),
            _ => Err(MALFORMED),
        },
        kind => Err(ProtocolError::ReplicationKind { kind }),
    }
}

/// A standby status update, as a whole CopyData message.
pub(super) fn encode_status(
    positions: [Lsn; 3],
    sent_at: PgTimestamp,
    reply_requested: bool,
    out: &mut BytesMut,
) {
    const BODY: u32 = 1 + 3 * 8 + 8 + 1;
    out.put_u8(b'd');
    out.put_u32(4 + BODY);
    out.put_u8(b'r');
    for position in positions {
        out.put_u64(position.as_u64());
    }
    out.put_i64(sent_at.as_micros());
    out.put_u8(reply_requested.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xlog(data: &[u8]) -> Bytes {
        let mut body = BytesMut::from(&b"w"[..]);
        body.put_u64(0x10);
        body.put_u64(0x20);
        body.put_i64(-5);
        body.put_slice(data);
        body.freeze()
    }

    #[test]
    fn xlog_data_carries_its_bytes_unchanged() {
        let expected = XLogData {
            start: Lsn::new(0x10),
            wal_end: Lsn::new(0x20),
            sent_at: PgTimestamp::from_micros(-5),
            data: Bytes::from_static(b"payload"),
        };
        assert_eq!(decode(xlog(b"payload")), Ok(ReplicationMessage::XLogData(expected)));
    }

    #[test]
    fn truncated_headers_are_refused() {
        let whole = xlog(b"");
        for end in 0..whole.len() {
            assert!(decode(whole.slice(..end)).is_err(), "{end} bytes");
        }
        let keepalive = Bytes::from_static(b"k\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\x01");
        for end in 0..keepalive.len() {
            assert!(decode(keepalive.slice(..end)).is_err(), "{end} bytes");
        }
        let expected =
            Keepalive { wal_end: Lsn::new(1), sent_at: PgTimestamp::from_micros(2), reply_requested: true };
        assert_eq!(decode(keepalive), Ok(ReplicationMessage::Keepalive(expected)));
        assert_eq!(decode(Bytes::from_static(b"z")), Err(ProtocolError::ReplicationKind { kind: b'z' }));
    }

    #[test]
    fn status_is_a_whole_copy_data_message() {
        let mut out = BytesMut::new();
        encode_status([Lsn::new(3), Lsn::new(2), Lsn::new(1)], PgTimestamp::from_micros(7), true, &mut out);
        let mut expected = vec![b'd', 0, 0, 0, 38, b'r'];
        for number in [3_u64, 2, 1, 7] {
            expected.extend_from_slice(&number.to_be_bytes());
        }
        expected.push(1);
        assert_eq!(out, expected);
    }
}
