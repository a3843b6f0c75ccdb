//! Figures, not claims: what README and ARCHITECTURE.md quote. Run alone, in release:
//!
//! ```text
//! cargo test --release --test integration measure -- --ignored --nocapture --test-threads 1
//! ```

use std::time::{Duration, Instant};

use tokio::process::Command;
use walcast::cli::cluster::Binaries;

use crate::bench::app::TestApp;
use crate::bench::drain::Drains;
use crate::bench::process::WorkerProcess;

/// CPU seconds (user and system) of a process so far.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("/proc");
    let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    // utime and stime are fields 14 and 15 of the line, in ticks of 1/100 s.
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let seconds = ticks as f64 / 100.0;
    seconds
}

fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") / 1024
}

/// The largest resident size that the process has had.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") / 1024
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values[values.len() / 2]
}

const TRANSACTIONS: u32 = 100_000;
const ROUNDS: u32 = 3;
const CHANGES: u32 = 5 * TRANSACTIONS;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes"]
async fn drain_of_a_backlog_beside_pg_recvlogical() {
    let mut app = TestApp::start().await;
    app.member("o1", "u1", "admin").await;
    app.stop().await;
    // One a round: what pg_recvlogical has read it confirms.
    for round in 1..=ROUNDS {
        let twin = format!("'twin_{round}_' || current_database()");
        app.sql(&format!("select pg_create_logical_replication_slot({twin}, 'pgoutput')")).await;
    }
    app.sql(
        "insert into devices (id, organization_id, name, model, status)
           select 'd' || n, 'o1', 'Device ' || n, 'M', 'ONLINE' from generate_series(1, 1000) n",
    )
    .await;
    // By itself: a block that commits can't be part of a larger transaction.
    app.sql(&format!(
        "do $$ begin
           for n in 1..{TRANSACTIONS} loop
             insert into device_telemetry (organization_id, device_id, event_type, temperature, humidity, battery)
               select 'o1', 'd' || (1 + (n * 5 + k) % 1000), 'reading', 20 + k, 40 + k, 90 from generate_series(0, 4) k;
             commit;
           end loop;
         end $$"
    ))
    .await;
    let end = app.text("pg_current_wal_insert_lsn()").await;
    app.sql("select pg_switch_wal()").await;
    // Beside the server's own programs, or where the client's are.
    let beside = Binaries::find(None).expect("server binaries").program("pg_recvlogical");
    let program = if beside.exists() { beside } else { "pg_recvlogical".into() };

    for round in 1..=ROUNDS {
        let twin = app.text(&format!("'twin_{round}_' || current_database()")).await;
        let began = Instant::now();
        let drained = Command::new(&program)
            .args(["-d", &app.url, "--slot", &twin, "--start", "-f", "/dev/null", "--no-loop"])
            .args(["-o", "proto_version=1", "-o", "publication_names=walcast", "--endpos", &end])
            .args(["--fsync-interval=0", "--status-interval=3600"])
            .status()
            .await
            .expect("pg_recvlogical");
        assert!(drained.success());
        let peer = began.elapsed();

        let began = Instant::now();
        let worker = WorkerProcess::start(&app.url, &[("WALCAST_REPLAY_MAX_WAL", "8GiB")]).await;
        let ours = began.elapsed();
        let (cpu, resident, peak) =
            (cpu_seconds(worker.pid()), resident_mib(worker.pid()), peak_mib(worker.pid()));
        worker.kill().await;
        let rate = |took: Duration| f64::from(CHANGES) / took.as_secs_f64();
        println!(
            "round {round}: pg_recvlogical {:.0} changes/s, walcast {:.0} changes/s (ratio {:.2}), {:.2} us of CPU a \
             change, {resident} MiB resident after, {peak} MiB at most",
            rate(peer),
            rate(ours),
            peer.as_secs_f64() / ours.as_secs_f64(),
            cpu * 1e6 / f64::from(CHANGES),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes"]
async fn memory_of_one_transaction_of_a_million_rows() {
    let mut app = TestApp::start().await;
    app.member("o1", "u1", "admin").await;
    app.stop().await;
    let worker = WorkerProcess::start(&app.url, &[]).await;
    let idle = resident_mib(worker.pid());
    app.sql(
        "insert into devices (id, organization_id, name, model, status)
         select 'd' || n, 'o1', 'Device ' || n, 'Model', 'ONLINE' from generate_series(1, 10) n",
    )
    .await;
    let member = crate::bench::app::Member {
        organization: "o1".to_owned(),
        token: crate::bench::app::token_with("u1", serde_json::json!({})),
    };
    let request =
        crate::bench::http::Request::get(TestApp::target(&member, "&channel=custom")).bearer(&member.token);
    let mut stream = crate::bench::sse::Stream::open(worker.address, request).await;
    stream.data().await;
    let began = Instant::now();
    app.sql(
        "begin;
         insert into device_telemetry (organization_id, device_id, event_type, temperature, humidity, battery)
           select 'o1', 'd' || (1 + n % 10), 'reading', 20.5, 40, 90 from generate_series(1, 1000000) n;
         select walcast.emit('o1', 'million.done', '1');
         commit",
    )
    .await;
    let committed = began.elapsed();
    // A transaction larger than the whole window pushes out its own beginning, and every stream is told.
    let event = stream.event().await;
    assert!(matches!(event.event_type().as_deref(), Some("million.done" | "data.sync")), "{}", event.raw);
    println!(
        "1,000,000 rows in one transaction: written in {committed:.1?}, seen by a stream {:.1?} after the commit; resident \
         {idle} MiB before, {} MiB after, {} MiB at most",
        began.elapsed() - committed,
        resident_mib(worker.pid()),
        peak_mib(worker.pid()),
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes"]
async fn latency_from_commit_to_client() {
    const EVENTS: usize = 2000;
    let mut app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.stop().await;
    let worker = WorkerProcess::start(&app.url, &[]).await;
    let request = crate::bench::http::Request::get(TestApp::target(&member, "")).bearer(&member.token);
    let mut stream = crate::bench::sse::Stream::open(worker.address, request).await;
    stream.data().await;
    let idle = resident_mib(worker.pid());
    // The bench's cluster commits without waiting for the log's flush, before which nothing is decoded.
    app.sql("set synchronous_commit = on").await;
    let mut took = Vec::with_capacity(EVENTS);
    for n in 0..EVENTS {
        app.sql(&format!("select walcast.emit('o1', 'tick', '{n}')")).await;
        let committed = Instant::now();
        let event = stream.event().await;
        took.push(committed.elapsed());
        assert_eq!(event.json()["data"], n);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut sorted = took.clone();
    sorted.sort_unstable();
    println!(
        "commit (as its writer learns of it) to client: median {:.0?}, p99 {:.0?} over {EVENTS}; {idle} MiB resident",
        median(took),
        sorted[EVENTS * 99 / 100],
    );
}

/// Events a second of the noisy organization, in transactions of [`NOISY_ROWS`].
const NOISY_RATE: u32 = 20_000;
const NOISY_ROWS: u32 = 20;

/// Latencies of so many events of the quiet organization, one each 10 ms, sorted.
async fn quiet_latencies(
    app: &TestApp,
    stream: &mut crate::bench::sse::Stream,
    events: usize,
) -> Vec<Duration> {
    let mut took = Vec::with_capacity(events);
    for n in 0..events {
        app.sql(&format!("select walcast.emit('quiet', 'tick', '{n}')")).await;
        let committed = Instant::now();
        assert_eq!(stream.event().await.json()["data"], n);
        took.push(committed.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    took.sort_unstable();
    took
}

/// The binary may be another than the tests' own: `TEST_WALCAST=target/quick/release/walcast` beside a debug build.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes"]
async fn latency_of_a_quiet_organization_beside_a_noisy_one() {
    const EVENTS: usize = 500;
    const NOISY_STREAMS: usize = 10;
    let mut app = TestApp::start().await;
    let (noisy, quiet) = (app.member("noisy", "u1", "admin").await, app.member("quiet", "u2", "admin").await);
    app.stop().await;
    let worker = WorkerProcess::start(&app.url, &[]).await;
    app.address = worker.address;
    app.sql("set synchronous_commit = on").await;
    app.sql(
        "insert into devices (id, organization_id, name, model, status)
           select 'd' || n, 'noisy', 'Device ' || n, 'M', 'ONLINE' from generate_series(1, 100) n",
    )
    .await;
    let mut stream = app.open(&quiet, "").await;
    let readers = Drains::start(worker.address, &noisy, "", NOISY_STREAMS, u64::MAX);
    // In the server, so that what writing costs is not the test's: what is due by the clock, a commit each few rows.
    let noise = format!(
        "do $$
         declare began timestamptz := clock_timestamp(); due int; written int := 0;
         begin
           loop
             due := extract(epoch from clock_timestamp() - began) * {NOISY_RATE};
             if written > due then
               perform pg_sleep((written - due)::float8 / {NOISY_RATE});
             end if;
             insert into device_telemetry (organization_id, device_id, event_type, temperature, humidity, battery)
               select 'noisy', 'd' || (1 + n % 100), 'reading', 20.5, 40, 90 from generate_series(1, {NOISY_ROWS}) n;
             written := written + {NOISY_ROWS};
             commit;
           end loop;
         end $$"
    );
    let rows =
        async || app.text("select count(*) from device_telemetry").await.parse::<u32>().expect("a number");
    for round in 1..=3 {
        let alone = quiet_latencies(&app, &mut stream, EVENTS).await;
        let session = crate::bench::server::session(&app.dsn).await;
        // As the quiet one: what is committed without it becomes visible to the decoder in heaps, at the next flush.
        session.batch_execute("set synchronous_commit = on").await.expect("a session");
        let pid: i32 = session.query_one("select pg_backend_pid()", &[]).await.expect("a session").get(0);
        let (noise, before, began) = (noise.clone(), rows().await, Instant::now());
        let writing = tokio::spawn(async move { session.batch_execute(&noise).await });
        let beside = quiet_latencies(&app, &mut stream, EVENTS).await;
        let rate = f64::from(rows().await - before) / began.elapsed().as_secs_f64();
        app.sql(&format!("select pg_terminate_backend({pid})")).await;
        assert!(writing.await.expect("a task").is_err(), "it writes until it is stopped");
        let at = |sorted: &[Duration], percent: usize| sorted[sorted.len() * percent / 100];
        println!(
            "round {round}: alone median {:.2?}, p99 {:.2?}; beside {rate:.0} events/s of another median {:.2?} ({:.2} \
             times), p99 {:.2?}",
            at(&alone, 50),
            at(&alone, 99),
            at(&beside, 50),
            at(&beside, 50).as_secs_f64() / at(&alone, 50).as_secs_f64(),
            at(&beside, 99),
        );
    }
    drop(readers);
}
