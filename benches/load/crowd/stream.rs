//! One stream of the crowd: a socket, where its answer stands, and the last number it saw.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::sync::atomic::Ordering;

use super::{Births, Spec};
use crate::marker;

/// Room in front of what is read for a marker that began in the read before.
pub const TAIL: usize = marker::LONGEST;

/// What a turn of the client heard.
#[derive(Default)]
pub struct Heard {
    pub events: u64,
    /// Nanoseconds, and how many events took so long: those of one read that were born together are told together.
    pub took: Vec<(u64, u64)>,
    pub last_at: u64,
}

enum State {
    /// The request, as far as it is not written.
    Asking(Vec<u8>),
    /// The answer's head, as far as it has come.
    Answering(Vec<u8>),
    Open,
}

pub struct Stream {
    socket: TcpStream,
    state: State,
    /// The number of the last event.
    last: u64,
    tail: Vec<u8>,
    pub group: usize,
    pub reading: bool,
}

impl Stream {
    pub fn connect(spec: Spec, registry: &Registry, token: Token) -> anyhow::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // Gone at once when it is closed: the next crowd needs its port.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.bind(&SocketAddr::from((spec.source, 0)).into())?;
        match socket.connect(&spec.address.into()) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            other => other.context("connect")?,
        }
        let mut socket = TcpStream::from_std(socket.into());
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            socket,
            state: State::Asking(spec.request.into_bytes()),
            last: spec.after,
            tail: Vec::new(),
            group: spec.group,
            reading: spec.reading,
        })
    }

    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Takes nothing any more, and stays.
    pub fn rest(&mut self, registry: &Registry) -> anyhow::Result<()> {
        Ok(registry.deregister(&mut self.socket)?)
    }

    pub fn ready(
        &mut self,
        event: &Event,
        buffer: &mut [u8],
        births: Option<&Births>,
        heard: &mut Heard,
    ) -> anyhow::Result<()> {
        if event.is_writable() && matches!(self.state, State::Asking(_)) {
            self.ask()?;
        }
        if event.is_readable() || event.is_error() || event.is_read_closed() {
            self.read(buffer, births, heard)?;
        }
        Ok(())
    }

    fn ask(&mut self) -> anyhow::Result<()> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error).context("connect");
        }
        let State::Asking(request) = &mut self.state else { return Ok(()) };
        while !request.is_empty() {
            match self.socket.write(request) {
                Ok(written) => drop(request.drain(..written)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Err(error) => return Err(error).context("request"),
            }
        }
        self.state = State::Answering(Vec::new());
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], births: Option<&Births>, heard: &mut Heard) -> anyhow::Result<()> {
        loop {
            let kept = self.tail.len();
            buffer[TAIL - kept..TAIL].copy_from_slice(&self.tail);
            let read = match self.socket.read(&mut buffer[TAIL..]) {
                Ok(0) => bail!("closed by the server, after event {}", self.last),
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Err(error) => return Err(error).context(format!("after event {}", self.last)),
            };
            self.tail.clear();
            let bytes = &buffer[TAIL - kept..TAIL + read];
            let body = self.head(bytes)?;
            let left = self.events(&bytes[body..], births, heard)?;
            self.tail.extend_from_slice(&bytes[bytes.len() - left..]);
            if read < buffer.len() - TAIL {
                // By edges: what comes from now on is another one.
                return Ok(());
            }
        }
    }

    /// Where the body begins in `bytes`.
    fn head(&mut self, bytes: &[u8]) -> anyhow::Result<usize> {
        let State::Answering(head) = &mut self.state else { return Ok(0) };
        let before = head.len();
        head.extend_from_slice(bytes);
        let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") else {
            return Ok(bytes.len());
        };
        ensure!(head.starts_with(b"HTTP/1.1 200"), "refused: {}", String::from_utf8_lossy(head));
        self.state = State::Open;
        Ok(end + 4 - before)
    }

    /// How many bytes at the end are not whole yet.
    fn events(&mut self, bytes: &[u8], births: Option<&Births>, heard: &mut Heard) -> anyhow::Result<usize> {
        let now = marker::now_nanos();
        let mut wrong = None;
        let left = marker::scan(bytes, |sequence, mut born| {
            if sequence != self.last + 1 {
                wrong.get_or_insert((self.last, sequence));
            }
            self.last = sequence;
            if let Some(births) = births {
                born = births.get(sequence as usize).map_or(born, |born| born.load(Ordering::Acquire));
            }
            heard.events += 1;
            let took = now.saturating_sub(born);
            match heard.took.last_mut() {
                Some((same, count)) if *same == took => *count += 1,
                _ => heard.took.push((took, 1)),
            }
        });
        if let Some((last, sequence)) = wrong {
            bail!(
                "event {sequence} came after {last}: {}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(300)])
            );
        }
        if heard.events > 0 {
            heard.last_at = now;
        }
        ensure!(left <= marker::LONGEST, "a marker without an end");
        Ok(left)
    }
}
