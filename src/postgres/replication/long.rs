//! A CopyData that is read as it arrives: its header as it is, its logical message condensed.

use bytes::BytesMut;

use super::super::error::ProtocolError;
use super::super::pgoutput::{Condenser, LongMessages};
use super::message::{self, ReplicationMessage, XLOG_HEADER, XLogData};

const MALFORMED: ProtocolError = ProtocolError::Malformed { tag: b'd' };

#[derive(Debug)]
pub(super) struct LongMessage {
    /// Without its data; none until it has come.
    header: Option<XLogData>,
    message: Condenser,
}

impl LongMessage {
    /// Of a body of so many bytes.
    pub(super) fn new(length: usize, keep: LongMessages) -> Self {
        Self { header: None, message: Condenser::new(length.saturating_sub(XLOG_HEADER), keep) }
    }

    /// Takes what it can of `input`; a few bytes may stay for the next call.
    pub(super) fn push(&mut self, input: &mut BytesMut) -> Result<(), ProtocolError> {
        if self.header.is_none() {
            if input.len() < XLOG_HEADER {
                return Ok(());
            }
            match message::decode(input.split_to(XLOG_HEADER).freeze())? {
                ReplicationMessage::XLogData(header) => self.header = Some(header),
                ReplicationMessage::Keepalive(_) => return Err(MALFORMED),
            }
        }
        self.message.push(input).map_err(|_| MALFORMED)
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.header.is_some() && self.message.is_complete()
    }

    /// None when it is nobody's here.
    pub(super) fn finish(self) -> Option<ReplicationMessage> {
        let data = self.message.finish()?;
        Some(ReplicationMessage::XLogData(XLogData { data, ..self.header? }))
    }
}
