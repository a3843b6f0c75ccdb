//! Memory is bounded, whatever comes: the worker's own process, and the most that it ever took (`VmHWM`).
//!
//! Each case is a function of its scale. What runs with every test is small enough for a shared machine; `figures`
//! runs the same at full scale, for docs/memory.md:
//!
//! ```text
//! cargo test --test integration memory::figures -- --ignored --nocapture --test-threads 1
//! ```

use serde_json::json;

use crate::bench::app::{Member, TestApp, token_with};
use crate::bench::http::Request;
use crate::bench::process::WorkerProcess;
use crate::bench::sse::{Frame, Stream};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What an allocator keeps, a task's stack and a batch on its way may take beside what is bounded.
const SLACK: u64 = 24 * MIB;

/// For what is to be more than a worker keeps. Streams hear of it while it reads millions of rows.
const SMALL_WINDOW: [(&str, &str); 3] = [
    ("WALCAST_SOURCE_MAX_TRANSACTION", "1MiB"),
    ("WALCAST_REPLAY_MAX_MEMORY", "4MiB"),
    ("WALCAST_HTTP_KEEPALIVE", "5s"),
];

/// A worker as a process of its own, and somebody in organization `o1`.
struct Bench {
    app: TestApp,
    worker: WorkerProcess,
    member: Member,
}

impl Bench {
    async fn start(environment: &[(&str, &str)]) -> Self {
        let mut app = TestApp::start().await;
        let member = app.member("o1", "u1", "admin").await;
        app.stop().await;
        let worker = WorkerProcess::start(&app.url, environment).await;
        let bench = Self { app, worker, member };
        // What the first stream and the first event allocate for good is not what is measured.
        let mut stream = bench.open("").await;
        bench.app.sql("select walcast.emit('o1', 'first', '1')").await;
        stream.event().await;
        bench
    }

    fn request(&self, parameters: &str) -> Request {
        let member =
            Member { organization: self.member.organization.clone(), token: token_with("u1", json!({})) };
        Request::get(TestApp::target(&member, parameters)).bearer(&member.token)
    }

    /// A stream that has read its `connected`.
    async fn open(&self, parameters: &str) -> Stream {
        let mut stream = Stream::open(self.worker.address, self.request(parameters)).await;
        assert_eq!(stream.data().await.event_type().as_deref(), Some("connected"));
        stream
    }

    /// The largest resident size that the process has had, in bytes.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.worker.pid())).expect("/proc");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") * KIB
    }

    /// By how much `work` raised the peak; it ends when an event emitted after it has come.
    async fn growth(&self, what: &str, bound: u64, sql: &str) {
        let before = self.peak();
        let mut stream = self.open("&channel=custom").await;
        self.app.sql(sql).await;
        // A stream that fell out of the window goes on from now, and is told: the mark may lie before that.
        loop {
            self.app.sql("select walcast.emit('o1', 'last', '1')").await;
            let marks = ["last", "data.sync"];
            let seen = stream
                .events_until(|event| event.event_type().is_some_and(|t| marks.contains(&t.as_str())))
                .await;
            if seen.last().and_then(Frame::event_type).as_deref() == Some("last") {
                break;
            }
        }
        self.check(what, before, bound);
    }

    #[track_caller]
    fn check(&self, what: &str, before: u64, bound: u64) {
        // The kernel counts pages thread by thread, and the mark may go back by some.
        let growth = self.peak().saturating_sub(before);
        println!(
            "{what}: {:.1} MiB more at most, bound {} MiB, {} MiB before",
            tenths(growth),
            bound / MIB,
            before / MIB
        );
        assert!(growth <= bound, "{what} took {growth} bytes more, {bound} are allowed");
    }
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn tenths(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

/// A logical message under a prefix that is not ours; nothing of it is kept.
async fn strangers_message(bytes: u64) {
    let bench = Bench::start(&[]).await;
    let sql = format!("select pg_logical_emit_message(true, 'theirs', repeat('x', {bytes}))");
    bench.growth(&format!("a stranger's message of {bytes} bytes"), SLACK, &sql).await;
}

/// One under ours, which nobody has signed: at most as much as a row.
async fn forged_message(bytes: u64) {
    let bench = Bench::start(&[]).await;
    let sql = format!("select pg_logical_emit_message(true, 'walcast', repeat('x', {bytes}))");
    bench.growth(&format!("a forged message of {bytes} bytes"), 32 * MIB + SLACK, &sql).await;
}

/// A row with one value of that length. Its event says how long it would have been.
async fn long_row(bytes: u64) {
    let bench = Bench::start(&[]).await;
    let mut stream = bench.open("&channel=issues").await;
    let before = bench.peak();
    bench
        .app
        .sql(&format!(
            "insert into issues (id, organization_id, priority, status, title)
             values ('i1', 'o1', 'low', 'open', repeat('x', {bytes}))"
        ))
        .await;
    let event = stream.event().await.json();
    assert_eq!(event["data"], json!(null));
    let told = event["oversize"].as_u64().expect("its length");
    assert!((bytes..bytes + 1000).contains(&told), "{event}");
    // `source.max_row`, and nothing for what it becomes: the event is known to be too long before it is written.
    bench.check(&format!("a row of {bytes} bytes"), before, 32 * MIB + SLACK);
}

/// One transaction, beyond what is kept of it in memory.
async fn long_transaction(rows: u64) {
    let bench = Bench::start(&SMALL_WINDOW).await;
    let sql = format!(
        "insert into devices (id, organization_id, name, model, status)
           values ('d1', 'o1', 'Device', 'Model', 'ONLINE');
         insert into device_telemetry (organization_id, device_id, event_type, temperature, humidity, battery)
           select 'o1', 'd1', 'reading', 20.5, 40, 90 from generate_series(1, {rows}) n"
    );
    // A change holds its read buffer, whose other bytes count too; so twice its share, and the journal.
    bench.growth(&format!("a transaction of {rows} rows"), 2 * MIB + 4 * MIB + SLACK, &sql).await;
}

/// An event for each of so many organizations that nobody listens to.
async fn organizations(count: u64) {
    const EACH: u64 = 2 * KIB;
    let bench = Bench::start(&[]).await;
    let sql =
        format!("select walcast.emit('org-' || n, 'tick', to_jsonb(n)) from generate_series(1, {count}) n");
    // The transaction itself is in memory while it is mapped.
    bench.growth(&format!("{count} organizations"), count * EACH + 64 * MIB + SLACK, &sql).await;
}

/// A client that asks for everything and reads nothing.
async fn deaf_client(events: u64) {
    let bench = Bench::start(&SMALL_WINDOW).await;
    let (_socket, head, _) = bench.request("").send(bench.worker.address).await;
    assert_eq!(head.status, 200);
    let sql = format!(
        "select walcast.emit('o1', 'large', to_jsonb(repeat('x', 10000))) from generate_series(1, {events})"
    );
    let what = format!("a client that leaves {events} events of 10 kB unread");
    bench.growth(&what, 2 * MIB + 4 * MIB + SLACK, &sql).await;
}

/// Streams that all read the same window from its start, `most` bytes of it. They are open before any of them reads: then
/// each holds as much as it ever does.
async fn replays(streams: usize, events: u64, window: &'static str, most: usize) {
    let environment = [
        ("WALCAST_REPLAY_MAX_MEMORY", window),
        ("WALCAST_REPLAY_MAX_WAL", "4GiB"),
        ("WALCAST_LIMITS_STREAMS_PER_USER", "0"),
        ("WALCAST_LIMITS_STREAMS_PER_ADDRESS", "0"),
        // The first wait for the last to open.
        ("WALCAST_HTTP_WRITE_TIMEOUT", "600s"),
    ];
    let bench = Bench::start(&environment).await;
    let sql = format!(
        "select walcast.emit('o1', 'large', to_jsonb(repeat('x', 10000))) from generate_series(1, {events});"
    );
    bench.app.sql(&sql).await;
    let mut stream = bench.open("&channel=custom").await;
    bench.app.sql("select walcast.emit('o1', 'last', '1')").await;
    stream.events_until(|event| event.event_type().as_deref() == Some("last")).await;
    let before = bench.peak();
    let mut open = Vec::new();
    for _ in 0..streams {
        let (socket, head, seen) = bench.request("&since=earliest").send(bench.worker.address).await;
        assert_eq!(head.status, 200);
        open.push((socket, seen));
    }
    let mut readers = tokio::task::JoinSet::new();
    for (mut socket, mut seen) in open {
        readers.spawn(async move {
            let (last, mut read) = (b"\"type\":\"last\"", 0);
            while read < most && memchr::memmem::find(&seen, last).is_none() {
                // Enough for a needle that lies across two reads.
                seen.drain(..seen.len().saturating_sub(last.len()));
                match tokio::io::AsyncReadExt::read_buf(&mut socket, &mut seen).await {
                    Ok(some) if some > 0 => read += some,
                    other => panic!("the stream ended after {read} bytes: {other:?}"),
                }
            }
            socket
        });
    }
    let mut sockets = Vec::new();
    while let Some(done) = readers.join_next().await {
        sockets.push(done.expect("a stream that read its part"));
    }
    let each = 256 * KIB + 16 * KIB;
    let what = format!("{streams} streams that replay {events} events of 10 kB");
    bench.check(&what, before, streams as u64 * each + SLACK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_message_is_discarded_without_being_buffered() {
    strangers_message(400_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_message_takes_no_more_than_a_row_may() {
    forged_message(100_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
pub async fn a_row_takes_no_more_than_a_row_may_and_its_event_is_oversize() {
    long_row(20_000_000).await;
    long_row(200_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
pub async fn an_organization_that_nobody_listens_to_costs_next_to_nothing() {
    organizations(10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_replay_a_window_hold_a_batch_each() {
    replays(20, 800, "32MiB", usize::MAX).await;
}

#[tokio::test(flavor = "multi_thread")]
pub async fn a_transaction_beyond_the_window_stays_within_its_bounds() {
    long_transaction(60_000).await;
}

#[tokio::test(flavor = "multi_thread")]
pub async fn a_client_that_never_reads_costs_no_more_than_the_window() {
    deaf_client(4_000).await;
}

mod figures {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "a measurement of minutes"]
    async fn of_giants() {
        strangers_message(400_000_000).await;
        long_row(20_000_000).await;
        long_row(900_000_000).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "a measurement of minutes"]
    async fn of_many() {
        organizations(100_000).await;
        deaf_client(40_000).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "a measurement of minutes"]
    async fn of_replay() {
        // All of it would be 250 GB through one machine.
        replays(1_000, 25_000, "256MiB", 4 << 20).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "a measurement of minutes"]
    async fn of_one_transaction() {
        long_transaction(5_000_000).await;
    }
}
