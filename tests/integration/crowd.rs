//! A crowd that comes within a second, in an organization where many listen for presence: nothing is lost, and what data
//! waits meanwhile. A figure and a claim, of the binary; run alone:
//!
//! ```text
//! TEST_WALCAST=target/release/walcast cargo test --test integration crowd -- --ignored --nocapture
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::bench::app::{TestApp, token_with};
use crate::bench::process::WorkerProcess;
use crate::measure::cpu_seconds;

/// Users who come, and streams of others that asked for presence.
const CROWD: usize = 2000;
const WATCHERS: usize = 200;

/// Between two events of data.
const BEAT: Duration = Duration::from_millis(20);

/// A stream, frame by frame. Lighter than a client: thousands share the machine with what is measured.
struct Reader {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// Of the buffer, what was handed out.
    taken: usize,
}

impl Reader {
    /// Comes again until it is let in, as a browser does; how often it had to is counted.
    async fn open(address: SocketAddr, user: &str, channels: &str, again: &AtomicUsize) -> Self {
        let request = format!(
            "GET /api/realtime/stream?organizationId=o1&channel={channels} HTTP/1.1\r\nHost: x\r\n\
             Authorization: Bearer {}\r\n\r\n",
            token_with(user, json!({}))
        );
        loop {
            if let Some(reader) = Self::try_open(address, &request).await {
                return reader;
            }
            again.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn try_open(address: SocketAddr, request: &str) -> Option<Self> {
        let mut socket = TcpStream::connect(address).await.ok()?;
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut reader = Self { socket, buffer: Vec::new(), taken: 0 };
        if !reader.until(b"\r\n\r\n").await?.starts_with("HTTP/1.1 200") {
            return None;
        }
        let is_open = reader.frame().await?.contains("\"type\":\"connected\"");
        is_open.then_some(reader)
    }

    async fn frame(&mut self) -> Option<&str> {
        self.until(b"\n\n").await
    }

    /// None: the connection has ended.
    async fn until(&mut self, mark: &[u8]) -> Option<&str> {
        let mut searched = self.taken;
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer[searched..], mark) {
                let start = std::mem::replace(&mut self.taken, searched + at + mark.len());
                return Some(std::str::from_utf8(&self.buffer[start..self.taken]).expect("text"));
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            searched = self.buffer.len().saturating_sub(mark.len());
            if self.socket.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// The user whom a frame of presence says to be online.
fn arrival(frame: &str) -> Option<&str> {
    let data = frame.split_once("\"data\":{\"userId\":\"")?.1;
    let (user, rest) = data.split_once('"')?;
    assert!(rest.starts_with(",\"isOnline\":true"), "nobody leaves: {frame}");
    Some(user)
}

/// Counts who of the crowd was told to each watcher; ends when it is everybody.
fn watch(mut reader: Reader, done: Arc<AtomicUsize>) -> JoinHandle<Reader> {
    tokio::spawn(async move {
        let (mut told, mut count) = (vec![false; CROWD + 1], 0);
        while count < CROWD {
            let frame = reader.frame().await.expect("the stream goes on");
            if let Some(number) = arrival(frame).and_then(|user| user.strip_prefix('u')) {
                let number: usize = number.parse().expect("a number");
                assert!(!std::mem::replace(&mut told[number], true), "told twice: {number}");
                count += 1;
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
        reader
    })
}

/// The delays of events of data, which are said in microseconds of `origin`; one lost or out of order fails.
fn listen(
    mut reader: Reader,
    origin: Instant,
    stop: Arc<AtomicBool>,
) -> JoinHandle<Vec<(Duration, Duration)>> {
    tokio::spawn(async move {
        let mut delays = Vec::new();
        loop {
            let frame = reader.frame().await.expect("the stream goes on");
            let now = origin.elapsed();
            let Some((_, data)) = frame.split_once("\"data\":[") else { continue };
            let (number, rest) = data.split_once(',').expect("two numbers");
            assert_eq!(number.trim().parse::<usize>().expect("a number"), delays.len(), "{frame}");
            let sent: u64 = rest.trim().split(']').next().and_then(|text| text.parse().ok()).expect("a time");
            let sent = Duration::from_micros(sent);
            delays.push((sent, now.saturating_sub(sent)));
            if stop.load(Ordering::Relaxed) {
                return delays;
            }
        }
    })
}

fn told(what: &str, delays: impl Iterator<Item = Duration>) {
    let mut delays: Vec<_> = delays.collect();
    delays.sort_unstable();
    let at = |share: usize| delays[(delays.len() * share / 100).min(delays.len() - 1)];
    println!(
        "{what}: {} events, median {:?}, p99 {:?}, at most {:?}",
        delays.len(),
        at(50),
        at(99),
        delays[delays.len() - 1]
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a minute, to be run alone"]
async fn two_thousand_users_who_come_within_a_second_are_told_to_everybody_who_asked_and_data_goes_on() {
    let mut app = TestApp::start().await;
    app.stop().await;
    app.sql(&format!(
        "begin; insert into organizations (id, name, plan) values ('o1', 'One', 'free');
         insert into users (id, email, name) select n, n, n
           from (select 'u' || i from generate_series(1, {CROWD}) i
                 union all select 'w' || i from generate_series(0, {WATCHERS}) i) of(n);
         insert into memberships (organization_id, user_id, role) select 'o1', id, 'member' from users; commit"
    ))
    .await;
    let limits = [("WALCAST_LIMITS_STREAMS_PER_ADDRESS", "0"), ("WALCAST_LIMITS_OPENS_PER_SECOND", "0")];
    let worker = WorkerProcess::start(&app.url, &limits).await;
    let address = worker.address;
    let done = Arc::new(AtomicUsize::new(0));
    let again = Arc::new(AtomicUsize::new(0));
    let mut watchers = Vec::new();
    for number in 0..WATCHERS {
        let reader = Reader::open(address, &format!("w{number}"), "presence", &again).await;
        watchers.push(watch(reader, Arc::clone(&done)));
    }
    let origin = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let plain = Reader::open(address, &format!("w{WATCHERS}"), "custom", &again).await;
    let both = Reader::open(address, &format!("w{WATCHERS}"), "custom,presence", &again).await;
    let listeners = [listen(plain, origin, Arc::clone(&stop)), listen(both, origin, Arc::clone(&stop))];
    let writer = async {
        let mut beat = tokio::time::interval(BEAT);
        let mut number = 0;
        while !listeners.iter().all(JoinHandle::is_finished) {
            beat.tick().await;
            let sent = origin.elapsed().as_micros();
            app.sql(&format!("select walcast.emit('o1', 'beat', '[{number}, {sent}]')")).await;
            number += 1;
        }
    };
    let crowd = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (began, cpu) = (Instant::now(), cpu_seconds(worker.pid()));
        let opened = (1..=CROWD).map(|number| {
            let again = Arc::clone(&again);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(1).mul_f64(number as f64 / CROWD as f64)).await;
                Reader::open(address, &format!("u{number}"), "lots", &again).await
            })
        });
        let crowd = futures_util::future::join_all(opened.collect::<Vec<_>>()).await;
        let all_open = began.elapsed();
        let watchers = futures_util::future::join_all(watchers).await;
        let known = began.elapsed();
        let cpu = cpu_seconds(worker.pid()) - cpu;
        assert!(crowd.iter().all(Result::is_ok), "every stream opened");
        assert!(watchers.iter().all(Result::is_ok), "every watcher was told of everybody, once");
        stop.store(true, Ordering::Relaxed);
        println!(
            "{CROWD} streams open after {all_open:?} ({} came again), known to all {WATCHERS} watchers after {known:?}, \
             {cpu:.2} s of CPU",
            again.load(Ordering::Relaxed)
        );
        let began = began.duration_since(origin);
        (crowd, watchers, began, began + known)
    };
    let ((crowd, watchers, began, known), ()) = tokio::join!(crowd, writer);
    for (what, listener) in ["data alone", "data and presence"].into_iter().zip(listeners) {
        let delays = listener.await.expect("nothing is lost, doubled or out of order");
        told(
            &format!("{what}, before"),
            delays.iter().filter(|(sent, _)| *sent < began).map(|(_, late)| *late),
        );
        let meanwhile = delays.iter().filter(|(sent, _)| (began..known).contains(sent));
        told(&format!("{what}, meanwhile"), meanwhile.map(|(_, late)| *late));
    }
    drop((crowd, watchers));
}
