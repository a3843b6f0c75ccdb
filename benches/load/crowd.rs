//! The load client: thousands of streams on one thread, each proven in order, whole and without duplicates.
//!
//! ```text
//! Spec ─► connect ─► request ─► head ─► markers: last + 1, or the bench fails
//! ```
//!
//! One buffer for all sockets, readiness by edges, no allocation a read: on a machine that runs client and server
//! side by side, what the client takes is missing from the server. It can't tell servers apart.

mod stream;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};
use tokio::time::{Instant, sleep};

use crate::histogram::Histogram;
use stream::{Heard, Stream};

/// Connections that are being opened at once: below what servers let wait for their accept.
const OPENING: usize = 400;

/// What is read at once.
const BUFFER: usize = 256 << 10;

const WAKE: Token = Token(usize::MAX);

/// Streams are counted in groups, to tell apart those that suffer from those that are to be spared.
pub const GROUPS: usize = 2;

/// A stream to open.
pub struct Spec {
    pub address: SocketAddr,
    /// One of many of this machine: an address has only so many ports.
    pub source: Ipv4Addr,
    pub request: String,
    /// The number that comes before the first one expected.
    pub after: u64,
    /// False: takes nothing after the answer's head.
    pub reading: bool,
    pub group: usize,
}

impl Spec {
    /// The `number`th stream of a crowd.
    pub fn new(address: SocketAddr, number: usize, request: String) -> Self {
        let source = Ipv4Addr::new(127, 0, 1, u8::try_from(1 + number / 10_000).unwrap_or(u8::MAX));
        Self { address, source, request, after: 0, reading: true, group: 0 }
    }
}

/// When events were born, where their frames can't say it: by sequence, in nanoseconds since 1970.
pub type Births = Arc<Vec<AtomicU64>>;

#[derive(Default)]
struct Shared {
    open: AtomicUsize,
    received: [AtomicU64; GROUPS],
    /// When the last event came, and when the last stream opened.
    last_at: AtomicU64,
    opened_at: AtomicU64,
    latency: Mutex<[Histogram; GROUPS]>,
    failure: Mutex<Option<String>>,
    stop: AtomicBool,
}

pub struct Crowd {
    shared: Arc<Shared>,
    specs: mpsc::Sender<Spec>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    pub fn new(births: Option<Births>) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let shared = Arc::new(Shared::default());
        let (specs, incoming) = mpsc::channel();
        let client = Client {
            poll,
            births,
            shared: shared.clone(),
            incoming,
            waiting: VecDeque::new(),
            streams: Vec::new(),
            opening: 0,
            buffer: vec![0; BUFFER + stream::TAIL],
        };
        let thread = std::thread::Builder::new().name("crowd".to_owned()).spawn(move || client.run())?;
        Ok(Self { shared, specs, waker, thread: Some(thread) })
    }

    /// Opens streams; returns when all of the crowd is open.
    pub async fn open(&self, specs: impl IntoIterator<Item = Spec>) -> anyhow::Result<()> {
        let count = self.begin(specs)?;
        self.opened(count).await
    }

    /// Begins to open streams, and says how many there will be in all.
    pub fn begin(&self, specs: impl IntoIterator<Item = Spec>) -> anyhow::Result<usize> {
        let mut count = self.shared.open.load(Ordering::Acquire);
        for spec in specs {
            self.specs.send(spec)?;
            count += 1;
        }
        self.waker.wake()?;
        Ok(count)
    }

    pub async fn opened(&self, count: usize) -> anyhow::Result<()> {
        self.reach("streams opened", Duration::from_secs(60), || {
            let open = self.shared.open.load(Ordering::Acquire);
            (open >= count, open as u64, count as u64)
        })
        .await
    }

    /// Waits until a group has received so many events in all; fails at once when a stream is wrong.
    pub async fn received(&self, group: usize, count: u64, patience: Duration) -> anyhow::Result<()> {
        self.reach("events received", patience, || {
            let received = self.count(group);
            (received >= count, received, count)
        })
        .await?;
        // More would be duplicates, which streams see by their numbers; fewer is the deadline above.
        anyhow::ensure!(self.count(group) == count, "{} events came instead of {count}", self.count(group));
        Ok(())
    }

    async fn reach(
        &self,
        what: &str,
        patience: Duration,
        state: impl Fn() -> (bool, u64, u64),
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            self.check()?;
            let (done, have, want) = state();
            if done {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "{what}: {have} of {want} after {patience:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Whether every stream is right so far.
    pub fn check(&self) -> anyhow::Result<()> {
        let failure = self.shared.failure.lock().expect("the client lives").clone();
        failure.map_or(Ok(()), |failure| Err(anyhow::anyhow!(failure)))
    }

    pub fn count(&self, group: usize) -> u64 {
        self.shared.received[group].load(Ordering::Acquire)
    }

    /// Nanoseconds since 1970 at which the last event came.
    pub fn last_at(&self) -> u64 {
        self.shared.last_at.load(Ordering::Acquire)
    }

    /// Nanoseconds since 1970 at which the last stream opened.
    pub fn opened_at(&self) -> u64 {
        self.shared.opened_at.load(Ordering::Acquire)
    }

    /// What a group's events took from birth to here, since this was last asked.
    pub fn latency(&self, group: usize) -> Histogram {
        std::mem::take(&mut self.shared.latency.lock().expect("the client lives")[group])
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Client {
    poll: Poll,
    births: Option<Births>,
    shared: Arc<Shared>,
    incoming: mpsc::Receiver<Spec>,
    waiting: VecDeque<Spec>,
    streams: Vec<Stream>,
    opening: usize,
    buffer: Vec<u8>,
}

impl Client {
    fn run(mut self) {
        let mut events = Events::with_capacity(4096);
        while !self.shared.stop.load(Ordering::Acquire) {
            if let Err(error) = self.turn(&mut events) {
                self.shared.failure.lock().expect("nobody panics").get_or_insert(format!("{error:#}"));
                return;
            }
        }
    }

    fn turn(&mut self, events: &mut Events) -> anyhow::Result<()> {
        match self.poll.poll(events, Some(Duration::from_millis(100))) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        self.waiting.extend(self.incoming.try_iter());
        let mut heard: [Heard; GROUPS] = Default::default();
        for event in events.iter().filter(|event| event.token() != WAKE) {
            let number = event.token().0;
            let stream = &mut self.streams[number];
            let was_open = stream.is_open();
            let group = stream.group;
            stream
                .ready(event, &mut self.buffer, self.births.as_ref(), &mut heard[group])
                .map_err(|error| error.context(format!("stream {number}")))?;
            if !was_open && self.streams[number].is_open() {
                self.opening -= 1;
                if !self.streams[number].reading {
                    self.streams[number].rest(self.poll.registry())?;
                }
                self.shared.opened_at.store(crate::marker::now_nanos(), Ordering::Release);
                self.shared.open.fetch_add(1, Ordering::AcqRel);
            }
        }
        self.tell(&heard);
        while self.opening < OPENING
            && let Some(spec) = self.waiting.pop_front()
        {
            let token = Token(self.streams.len());
            self.streams.push(Stream::connect(spec, self.poll.registry(), token)?);
            self.opening += 1;
        }
        Ok(())
    }

    fn tell(&self, heard: &[Heard; GROUPS]) {
        if heard.iter().all(|heard| heard.events == 0) {
            return;
        }
        let mut latency = self.shared.latency.lock().expect("nobody panics");
        for (group, heard) in heard.iter().enumerate() {
            for (nanos, count) in &heard.took {
                latency[group].record_many(*nanos, *count);
            }
            // After the latencies: who sees the count finds them.
            self.shared.last_at.fetch_max(heard.last_at, Ordering::AcqRel);
            self.shared.received[group].fetch_add(heard.events, Ordering::AcqRel);
        }
    }
}

/// The loopback address that servers of the bench listen at.
pub const fn localhost(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
