//! The stream after START_REPLICATION: CopyData in both directions until one side is done.

use std::time::Duration;

use postgres_protocol::message::frontend;
use tokio::time::timeout;

use super::super::error::StreamError;
use super::super::pgoutput::LongMessages;
use super::super::wire::{Frame, Wire};
use super::super::{Lsn, PgTimestamp};
use super::long::LongMessage;
use super::message::{self, ReplicationMessage};
use super::query::passing;

/// How long the server may take to release the slot. It may be in the middle of a huge transaction and not listen.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);

/// Messages above this are read as they arrive. Nearly none are; the others cost no copy.
const LONG_BYTES: usize = 1 << 20;

/// Changes, as they are decoded. After an error it is of no more use.
///
/// Every method may be cancelled and called again: nothing is lost, nothing is sent by halves.
#[derive(Debug)]
pub struct ReplicationStream {
    wire: Wire,
    keep: LongMessages,
    /// Messages above it are read as they arrive.
    long_bytes: usize,
    /// The message that is being read as it arrives.
    long: Option<LongMessage>,
}

impl ReplicationStream {
    pub(super) const fn new(wire: Wire, keep: LongMessages) -> Self {
        Self { wire, keep, long_bytes: LONG_BYTES, long: None }
    }

    /// As if messages above `bytes` were long.
    #[cfg(any(test, fuzzing))]
    pub(super) fn reading_above(self, bytes: usize) -> Self {
        Self { long_bytes: bytes, ..self }
    }

    /// As if the server had sent this.
    #[cfg(any(test, fuzzing))]
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.wire.input().extend_from_slice(bytes);
    }

    /// Waits for the next message.
    pub async fn next(&mut self) -> Result<ReplicationMessage, StreamError> {
        loop {
            if let Some(message) = self.try_next()? {
                return Ok(message);
            }
            self.more().await?;
        }
    }

    /// The next message that is already here; reads nothing.
    pub fn try_next(&mut self) -> Result<Option<ReplicationMessage>, StreamError> {
        while let Some(taken) = self.take()? {
            let message = match taken {
                Taken::Long(message) => message,
                Taken::Frame(frame) => decode(frame)?,
            };
            if message.is_some() {
                return Ok(message);
            }
        }
        Ok(None)
    }

    /// What is here whole, or, of a long message, what was kept.
    fn take(&mut self) -> Result<Option<Taken>, StreamError> {
        if self.long.is_none()
            && let Some(length) = self.wire.open_long(self.long_bytes)?
        {
            self.long = Some(LongMessage::new(length, self.keep));
        }
        let Some(long) = &mut self.long else {
            return Ok(self.wire.try_frame()?.map(Taken::Frame));
        };
        long.push(self.wire.input())?;
        if !long.is_complete() {
            return Ok(None);
        }
        Ok(self.long.take().map(|long| Taken::Long(long.finish())))
    }

    /// Bytes that have come from the server, so that a long message on its way is not taken for silence.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.wire.received()
    }

    async fn more(&mut self) -> Result<(), StreamError> {
        match self.long {
            Some(_) => self.wire.more_of_long().await,
            None => self.wire.more().await,
        }
    }

    /// Tells the server what is safe: it forgets everything below `flushed`.
    pub async fn status(
        &mut self,
        written: Lsn,
        flushed: Lsn,
        applied: Lsn,
        reply_requested: bool,
    ) -> Result<(), StreamError> {
        message::encode_status(
            [written, flushed, applied],
            PgTimestamp::now(),
            reply_requested,
            self.wire.output(),
        );
        self.wire.flush().await
    }

    /// Ends the stream in order. When this succeeds, the server has taken the last status and released the slot.
    pub async fn finish(mut self) -> Result<(), StreamError> {
        frontend::copy_done(self.wire.output());
        let released = async {
            loop {
                let Some(taken) = self.take()? else {
                    self.more().await?;
                    continue;
                };
                // What was on its way already is read again from the slot later.
                let Taken::Frame(frame) = taken else { continue };
                match frame.tag {
                    b'd' | b'c' | b'C' => {}
                    b'Z' => break,
                    b'E' => return Err(frame.server_error()),
                    _ => passing(&frame)?,
                }
            }
            frontend::terminate(self.wire.output());
            self.wire.flush().await
        };
        timeout(FINISH_TIMEOUT, released)
            .await
            .unwrap_or_else(|_| Err(StreamError::Io(std::io::ErrorKind::TimedOut.into())))
    }
}

#[derive(Debug)]
enum Taken {
    Frame(Frame),
    /// None: of a long message nothing is kept.
    Long(Option<ReplicationMessage>),
}

/// `None` for messages that carry nothing for the caller.
fn decode(frame: Frame) -> Result<Option<ReplicationMessage>, StreamError> {
    match frame.tag {
        b'd' => Ok(Some(message::decode(frame.into_body())?)),
        // CopyDone, or the CommandComplete of a server that shuts down.
        b'c' | b'C' => Err(StreamError::Ended),
        b'E' => Err(frame.server_error()),
        _ => {
            passing(&frame)?;
            Ok(None)
        }
    }
}
