//! What a live preset costs when many watch and everything changes. Figures, of the binary; run alone:
//!
//! ```text
//! TEST_WALCAST=target/release/walcast cargo test --test integration live::scale -- --ignored --nocapture --test-threads 1
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::PATH;
use crate::bench::app::{TestApp, token_with};
use crate::bench::http::Request;
use crate::bench::process::WorkerProcess;
use crate::bench::server;
use crate::bench::sse::Stream;
use crate::measure::cpu_seconds;

const ORGANIZATIONS: usize = 100;
/// Of each organization.
const STREAMS: usize = 10;
const ISSUES: usize = 1000;
/// Each a transaction.
const CHANGES_A_SECOND: u32 = 500;
/// The shortest that a client may ask for.
const INTERVAL: Duration = Duration::from_secs(5);
/// Until streams of an organization have come to ask together, and then what is measured.
const SETTLE: Duration = Duration::from_secs(120);
const MEASURED: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes, to be run alone"]
async fn a_thousand_streams_that_ask_the_same_in_their_organization() {
    measure("the same", |_| String::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes, to be run alone"]
async fn a_thousand_streams_that_each_ask_something_else() {
    measure("each something else", |n| format!("&buildingIds=b{n},b{}", (n + 1) % STREAMS)).await;
}

/// When each stream was first answered after it was opened, and when it was shown each update.
struct Watched {
    first: Duration,
    updates: Vec<Instant>,
}

async fn watch(mut stream: Stream, opened: Instant, stop: Arc<AtomicBool>) -> Watched {
    stream.event().await;
    let mut watched = Watched { first: opened.elapsed(), updates: vec![Instant::now()] };
    while !stop.load(Ordering::Relaxed) {
        let frame = stream.event().await;
        assert_eq!(frame.event_type().as_deref(), Some("update"), "{}", frame.raw);
        watched.updates.push(Instant::now());
    }
    watched
}

/// Seconds of CPU that the sessions of live queries have taken; none: their processes are elsewhere.
async fn sessions_cpu(app: &TestApp) -> Option<f64> {
    let pids = "select coalesce(string_agg(pid::text, ' '), '') from pg_stat_activity
                where datname = current_database() and application_name = 'walcast live'";
    let pids = app.text(pids).await;
    let pids: Vec<u32> = pids.split(' ').filter_map(|pid| pid.parse().ok()).collect();
    let here = pids.iter().all(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists());
    (here && !pids.is_empty()).then(|| pids.into_iter().map(cpu_seconds).sum())
}

async fn count(worker: &WorkerProcess, name: &str) -> f64 {
    let metrics = Request::get("/metrics").fetch(worker.address).await.body;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name}"))
}

fn told(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
    println!("  {what}: median {:.0?}, p99 {:.0?}, at most {:.0?}", at(50), at(99), took[took.len() - 1]);
}

async fn measure(what: &str, filter: impl Fn(usize) -> String) {
    let mut app = TestApp::builder()
        .before(&format!(
            "begin;
             insert into organizations (id, name, plan)
               select 'o' || n, 'O', 'free' from generate_series(1, {ORGANIZATIONS}) n;
             insert into users (id, email, name)
               select n, n, n from (select 'u' || n from generate_series(1, {ORGANIZATIONS}) n) of(n);
             insert into memberships (organization_id, user_id, role)
               select 'o' || n, 'u' || n, 'member' from generate_series(1, {ORGANIZATIONS}) n;
             insert into issues (id, organization_id, campus_id, building_id, category, priority, status, title)
               select o || '-' || n, 'o' || o, 'c' || n % 5, 'b' || n % {STREAMS}, 'k' || n % 6, 'high', 'open', 'issue'
               from generate_series(1, {ORGANIZATIONS}) o, generate_series(0, {ISSUES} - 1) n;
             commit; analyze issues"
        ))
        .start()
        .await;
    app.stop().await;
    let limits = [("WALCAST_LIMITS_STREAMS_PER_ADDRESS", "0"), ("WALCAST_LIMITS_OPENS_PER_SECOND", "0")];
    let worker = WorkerProcess::start(&app.url, &limits).await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(server::session(&app.dsn).await, Arc::clone(&done)));
    let mut watches = Vec::new();
    for n in 0..STREAMS {
        for organization in 1..=ORGANIZATIONS {
            let path = format!(
                "{PATH}?organizationId=o{organization}&updateInterval={}{}",
                INTERVAL.as_millis(),
                filter(n)
            );
            let opened = Instant::now();
            let token = token_with(&format!("u{organization}"), json!({}));
            let stream = Stream::open(worker.address, Request::get(path).bearer(&token)).await;
            assert_eq!(stream.head.status, 200);
            watches.push(tokio::spawn(watch(stream, opened, Arc::clone(&stop))));
        }
        // As people come: not all at once.
        tokio::time::sleep(Duration::from_millis(470)).await;
    }
    let answered = "walcast_live_runs_total{outcome=\"answered\"} ";
    for (phase, lasts) in [("at first", SETTLE), ("then", MEASURED)] {
        let (began, runs, updates) = (
            Instant::now(),
            count(&worker, answered).await,
            count(&worker, "walcast_live_updates_total ").await,
        );
        let (cpu, sessions) = (cpu_seconds(worker.pid()), sessions_cpu(&app).await);
        tokio::time::sleep(lasts.min(MEASURED)).await;
        let seconds = began.elapsed().as_secs_f64();
        let sessions =
            sessions.zip(sessions_cpu(&app).await).map(|(before, now)| (now - before) / seconds * 100.0);
        println!(
            "{what}, {phase}: {:.0} queries/s, {:.0} updates/s, worker {:.0} % of a core, the queries' sessions {:.0} %",
            (count(&worker, answered).await - runs) / seconds,
            (count(&worker, "walcast_live_updates_total ").await - updates) / seconds,
            (cpu_seconds(worker.pid()) - cpu) / seconds * 100.0,
            sessions.unwrap_or(f64::NAN),
        );
        tokio::time::sleep(lasts.saturating_sub(MEASURED)).await;
    }
    // The writer last: each stream ends with one more update.
    stop.store(true, Ordering::Relaxed);
    let watched = futures_util::future::join_all(watches).await;
    let watched: Vec<_> =
        watched.into_iter().map(|watched| watched.expect("it was shown all along")).collect();
    done.store(true, Ordering::Relaxed);
    let changes = writer.await.expect("a writer");
    println!("  {changes:.0} changes/s were written");
    told("opened to its first answer", watched.iter().map(|watched| watched.first).collect());
    let gaps = watched.iter().flat_map(|watched| watched.updates.windows(2));
    let late = gaps.map(|pair| (pair[1] - pair[0]).saturating_sub(INTERVAL));
    told("beyond the interval between two updates", late.collect());
}

/// Rows spread over the organizations; how many changes a second it came to.
async fn write(session: walcast::postgres::client::Client, stop: Arc<AtomicBool>) -> f64 {
    let update = session
        .prepare(
            "update issues set status = case status when 'open' then 'closed' else 'open' end where id = $1",
        )
        .await
        .expect("a statement");
    let mut beat = tokio::time::interval(Duration::from_secs(1) / CHANGES_A_SECOND);
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut n) = (Instant::now(), 0usize);
    while !stop.load(Ordering::Relaxed) {
        beat.tick().await;
        let id = format!("{}-{}", 1 + n % ORGANIZATIONS, n / ORGANIZATIONS % ISSUES);
        session.execute(&update, &[&id]).await.expect("a change");
        n += 1;
    }
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = n as f64 / began.elapsed().as_secs_f64();
    rate
}
