//! The stream after START_REPLICATION: CopyData in both directions until one side is done.

use std::time::Duration;

use postgres_protocol::message::frontend;
use tokio::time::timeout;

use super::super::error::StreamError;
use super::super::wire::{Frame, Wire};
use super::super::{Lsn, PgTimestamp};
use super::message::{self, ReplicationMessage};
use super::query::passing;

/// How long the server may take to release the slot. It may be in the middle of a huge transaction and not listen.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);

/// Changes, as they are decoded. After an error it is of no more use.
///
/// Every method may be cancelled and called again: nothing is lost, nothing is sent by halves.
#[derive(Debug)]
pub struct ReplicationStream {
    wire: Wire,
}

impl ReplicationStream {
    pub(super) const fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// Waits for the next message.
    pub async fn next(&mut self) -> Result<ReplicationMessage, StreamError> {
        loop {
            let frame = self.wire.frame().await?;
            if let Some(message) = decode(frame)? {
                return Ok(message);
            }
        }
    }

    /// The next message that is already here; reads nothing.
    pub fn try_next(&mut self) -> Result<Option<ReplicationMessage>, StreamError> {
        while let Some(frame) = self.wire.try_frame()? {
            if let Some(message) = decode(frame)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
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
                let frame = self.wire.frame().await?;
                match frame.tag {
                    // What was on its way already is read again from the slot later.
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
