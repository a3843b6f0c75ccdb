//! Messages of the frontend/backend protocol on a socket, in both directions.
//!
//! A message that comes in is a slice of the read buffer, not a copy. Its bytes keep that buffer alive
//! ([`READ_BUFFER`] bytes or more): whoever keeps a small value for long copies it.
//!
//! Reading and flushing may be cancelled at any await: what was read stays in the buffer, and so does what is not
//! yet written.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::{ProtocolError, ServerError, StreamError};
use super::socket::Socket;

/// One read takes as much as this. The walsender's cost is per send, ours per read: few and large ones.
pub(super) const READ_BUFFER: usize = 256 * 1024;
/// Less free room than this, and a read would bring little: a new buffer then.
const MIN_ROOM: usize = 32 * 1024;

/// Tag and length of a backend message.
pub(super) const HEADER: usize = 5;
/// No StringInfo of the server holds more than 1 GiB, so no message does.
const MAX_LENGTH: u32 = 1 << 30;
/// Messages that carry no data of a user; also every message before authentication is done.
const MAX_SHORT_LENGTH: u32 = 64 * 1024;

/// A whole backend message.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) tag: u8,
    /// With its header.
    pub(super) bytes: Bytes,
}

impl Frame {
    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    pub(super) fn into_body(mut self) -> Bytes {
        self.bytes.advance(HEADER.min(self.bytes.len()));
        self.bytes
    }

    pub(super) fn malformed(&self) -> ProtocolError {
        ProtocolError::Malformed { tag: self.tag }
    }

    pub(super) fn unexpected(&self, expected: &'static str) -> ProtocolError {
        ProtocolError::Unexpected { tag: self.tag, expected }
    }

    /// This ErrorResponse.
    pub(super) fn server_error(&self) -> StreamError {
        ServerError::parse(self.body())
            .map_or_else(|| self.malformed().into(), |error| StreamError::Server(Box::new(error)))
    }

    pub(super) fn log_notice(&self) {
        if let Some(notice) = ServerError::parse(self.body()) {
            tracing::debug!(
                severity = notice.severity,
                sqlstate = notice.sqlstate.code(),
                "{}",
                notice.message
            );
        }
    }
}

#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    input: BytesMut,
    output: BytesMut,
    /// Written to the socket, but perhaps still inside TLS.
    unflushed: bool,
    authenticated: bool,
    received: u64,
}

impl Wire {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            input: BytesMut::new(),
            output: BytesMut::new(),
            unflushed: false,
            authenticated: false,
            received: 0,
        }
    }

    /// From here on, messages may be long.
    pub(super) const fn set_authenticated(&mut self) {
        self.authenticated = true;
    }

    /// Where messages to the server are written; [`Wire::flush`] sends them.
    pub(super) const fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    pub(super) async fn flush(&mut self) -> Result<(), StreamError> {
        while !self.output.is_empty() {
            self.unflushed = true;
            if self.socket.write_buf(&mut self.output).await? == 0 {
                return Err(StreamError::Closed);
            }
        }
        if self.unflushed {
            self.socket.flush().await?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// The next message, when it is buffered whole.
    pub(super) fn try_frame(&mut self) -> Result<Option<Frame>, StreamError> {
        let Some((tag, total)) = self.header()? else {
            return Ok(None);
        };
        if self.input.len() < total {
            return Ok(None);
        }
        Ok(Some(Frame { tag, bytes: self.input.split_to(total).freeze() }))
    }

    /// The next message. Sends first what waits to be sent.
    pub(super) async fn frame(&mut self) -> Result<Frame, StreamError> {
        loop {
            if let Some(frame) = self.try_frame()? {
                return Ok(frame);
            }
            self.more().await?;
        }
    }

    /// The length of the next message's body, if it is a CopyData longer than `limit`: its header is taken, and so
    /// many bytes of [`Wire::input`] are its body.
    pub(super) fn open_long(&mut self, limit: usize) -> Result<Option<usize>, StreamError> {
        match self.header()? {
            Some((b'd', total)) if total > limit => {
                self.input.advance(HEADER);
                Ok(Some(total - HEADER))
            }
            _ => Ok(None),
        }
    }

    /// What was read and not yet taken.
    pub(super) const fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Bytes that have come so far.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Waits for more of a message of which a part is here. Sends first what waits to be sent.
    pub(super) async fn more(&mut self) -> Result<(), StreamError> {
        let missing = match self.header()? {
            Some((_, total)) => total.saturating_sub(self.input.len()),
            None => HEADER,
        };
        self.read(missing).await
    }

    /// As [`Wire::more`], within a message that [`Wire::open_long`] has begun.
    pub(super) async fn more_of_long(&mut self) -> Result<(), StreamError> {
        self.read(READ_BUFFER).await
    }

    /// What is left when the connection goes to somebody else: the socket, and what was read beyond.
    pub(super) fn into_parts(self) -> (Socket, BytesMut) {
        (self.socket, self.input)
    }

    async fn read(&mut self, missing: usize) -> Result<(), StreamError> {
        self.flush().await?;
        // A giant message's buffer grows with what has come, never by what its header claims.
        let wanted = missing.clamp(MIN_ROOM, self.input.len().max(READ_BUFFER));
        if self.input.capacity() - self.input.len() < wanted {
            self.input.reserve(wanted.max(READ_BUFFER));
        }
        match self.socket.read_buf(&mut self.input).await? {
            0 => Err(StreamError::Closed),
            read => {
                self.received += read as u64;
                Ok(())
            }
        }
    }

    /// The next message's tag and its length with its header, once both are buffered.
    fn header(&self) -> Result<Option<(u8, usize)>, ProtocolError> {
        let Some(&[tag, a, b, c, d]) = self.input.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        let limit = match tag {
            b'd' | b'D' | b'T' | b'E' | b'N' | b'A' if self.authenticated => MAX_LENGTH,
            _ => MAX_SHORT_LENGTH,
        };
        if !(4..=limit).contains(&length) {
            return Err(ProtocolError::Length { tag, length });
        }
        let length = usize::try_from(length).map_err(|_| ProtocolError::Length { tag, length })?;
        Ok(Some((tag, length + 1)))
    }
}

/// Text up to a zero byte, and what follows it.
pub(super) fn cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

impl ServerError {
    /// The fields of an ErrorResponse or NoticeResponse. Texts may come before the encoding is agreed on, so what is
    /// not UTF-8 is replaced.
    pub(super) fn parse(mut body: &[u8]) -> Option<Self> {
        let (mut severity, mut sqlstate, mut message) = (None, None, None);
        let (mut detail, mut hint) = (None, None);
        while let Some((&kind, rest)) = body.split_first()
            && kind != 0
        {
            let (value, rest) = cstr(rest)?;
            body = rest;
            let field = match kind {
                // "S" is translated, "V" is not; both may come, "V" last.
                b'S' | b'V' => &mut severity,
                b'C' => &mut sqlstate,
                b'M' => &mut message,
                b'D' => &mut detail,
                b'H' => &mut hint,
                _ => continue,
            };
            *field = Some(String::from_utf8_lossy(value).into_owned());
        }
        Some(Self {
            severity: severity?,
            sqlstate: tokio_postgres::error::SqlState::from_code(&sqlstate?),
            message: message?,
            detail,
            hint,
        })
    }
}

#[cfg(test)]
mod tests;
