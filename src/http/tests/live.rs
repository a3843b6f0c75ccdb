//! Streams of a live preset: what they ask, when, and what they show of it. The test answers.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::bench::{Bench, EPOCH, token};
use super::client::Client;
use crate::catalog::OrganizationId;
use crate::config::Config;
use crate::hub::EndReason;
use crate::live::{Answer, Question, Waiter};
use crate::postgres::Lsn;

/// The tag `status` in the bench's vocabulary.
const STATUS: u16 = 1;

async fn bench() -> Bench {
    bench_where(|_| {}).await
}

async fn bench_where(change: impl FnOnce(&mut Config)) -> Bench {
    Bench::with(|config| {
        let preset = r#"
            path = "/live"
            channels = ["issues"]
            parameters = { statuses = "status" }
            live = { sql = "sql/live/heatmap.sql", arguments = ["status", "priority"], parameter = "every", min_interval = "100ms" }
        "#;
        config.presets.push(toml::from_str(preset).unwrap());
        config.http.keepalive = Duration::from_secs(1);
        config.replay.max_age = Duration::from_secs(1);
        change(config);
    })
    .await
}

async fn open(bench: &Bench, query: &str) -> Client {
    let path = format!("/live?organizationId=a&token={}{query}", token("u"));
    let mut client = bench.open(&path, &[]).await;
    let connected = client.connected().await;
    assert!(connected.contains("\"channels\":[\"issues\"],\"resumed\":false"), "{connected}");
    client
}

async fn asked(bench: &mut Bench) -> (Question, Waiter) {
    let asked = timeout(Duration::from_secs(10), bench.questions.recv()).await;
    asked.expect("a question").expect("a stream")
}

/// Nobody asks anything for a while.
async fn quiet(bench: &mut Bench) {
    let asked = timeout(Duration::from_millis(150), bench.questions.recv()).await;
    assert!(asked.is_err(), "{asked:?}");
}

fn say(waiter: Waiter, rows: &'static str) {
    waiter.answer.send(Answer::Rows(rows.into())).expect("it waits");
}

fn values(question: &Question) -> Vec<Option<Vec<&str>>> {
    let arguments = question.arguments.iter();
    arguments
        .map(|values| values.as_ref().map(|values| values.iter().map(String::as_str).collect()))
        .collect()
}

#[tokio::test]
async fn an_answer_is_shown_at_once_and_after_changes_at_most_once_an_interval() {
    let mut bench = bench().await;
    let mut client = open(&bench, "&statuses=open,closed,open&every=700").await;
    let (question, waiter) = asked(&mut bench).await;
    assert_eq!(&*question.organization, "a");
    assert_eq!(values(&question), [Some(vec!["closed", "open"]), None]);
    assert_eq!(waiter.position, bench.journals.head());
    // Before it is shown, so that the interval has not begun.
    let answered = Instant::now();
    say(waiter, "[{\"n\":1}]");
    assert_eq!(client.frame().await, "data: {\"type\":\"update\",\"data\":[{\"n\":1}]}\n\n");

    // Nothing that it is not filtered on, and nothing of others.
    bench.publish("a", 150, "issues", &[(STATUS, "resolved")]);
    bench.publish("b", 151, "issues", &[(STATUS, "open")]);
    bench.publish("a", 152, "lots", &[(STATUS, "open")]);
    quiet(&mut bench).await;
    for lsn in 160..170 {
        bench.publish("a", lsn, "issues", &[(STATUS, "open")]);
    }
    let (_, waiter) = asked(&mut bench).await;
    assert!(answered.elapsed() >= Duration::from_millis(700), "{:?}", answered.elapsed());
    assert!(waiter.position > Lsn::new(169), "it shows the last of them: {:?}", waiter.position);
    // What commits while the answer is on its way is shown by the next.
    bench.publish("a", 180, "issues", &[(STATUS, "open")]);
    quiet(&mut bench).await;
    let answered = Instant::now();
    say(waiter, "[]");
    assert_eq!(client.frame().await, "data: {\"type\":\"update\",\"data\":[]}\n\n");
    let (_, waiter) = asked(&mut bench).await;
    assert!(answered.elapsed() >= Duration::from_millis(700), "{:?}", answered.elapsed());
    assert!(waiter.position > Lsn::new(180));
    waiter.answer.send(Answer::Oversize(2_000_000)).unwrap();
    assert_eq!(client.frame().await, "data: {\"type\":\"update\",\"data\":null,\"oversize\":2000000}\n\n");
    // A quiet stream is kept alive by comments, whatever its id is: it resumes nothing.
    for _ in 0..2 {
        assert_eq!(client.frame().await, ": keepalive\n\n");
    }
    quiet(&mut bench).await;
    assert!(bench.metrics.encode().contains("walcast_live_updates_total 3\n"));
}

#[tokio::test]
async fn a_gap_and_a_new_history_are_told_and_asked_about() {
    let mut bench = bench().await;
    let mut client = open(&bench, "&every=100").await;
    say(asked(&mut bench).await.1, "[]");
    client.frame().await;
    bench.publish_truncate("a", 150);
    let sync = client.frame().await;
    assert!(sync.contains("\"type\":\"data.sync\"") && sync.contains("\"reason\":\"truncated\""), "{sync}");
    let (_, old) = asked(&mut bench).await;
    // While it is asked: what was asked in the old history is not waited for.
    bench.journals.reset(EPOCH, Lsn::new(20), i64::MIN);
    let sync = client.frame().await;
    assert!(sync.contains("\"reason\":\"history_reset\""), "{sync}");
    let (_, new) = asked(&mut bench).await;
    assert!(old.answer.is_closed());
    assert_eq!(new.position, Lsn::new(20));
    say(new, "[1]");
    assert_eq!(client.frame().await, "data: {\"type\":\"update\",\"data\":[1]}\n\n");
}

/// The next frame that is no keepalive, its clock made 0.
async fn told(client: &mut Client) -> String {
    loop {
        let frame = client.frame().await;
        if frame != ": keepalive\n\n" {
            return super::client::timeless(&frame);
        }
    }
}

/// The seconds of a frame that is `stale` or `fresh`, and nothing more.
fn seconds(name: &str, frame: &str) -> u64 {
    let before = format!("data: {{\"type\":\"{name}\",\"timestamp\":0,\"data\":{{\"seconds\":");
    let seconds = frame.strip_prefix(&before).and_then(|rest| rest.strip_suffix("}}\n\n")?.parse().ok());
    seconds.unwrap_or_else(|| panic!("no {name}: {frame}"))
}

#[tokio::test]
async fn an_answer_that_is_late_is_told_to_be_once_and_is_followed_by_that_it_is_there() {
    const UPDATE: &str = "data: {\"type\":\"update\",\"data\":[]}\n\n";
    let mut bench = bench_where(|config| config.canary.stale_after = Duration::from_millis(500)).await;
    let mut client = open(&bench, "&every=100").await;
    let (_, first) = asked(&mut bench).await;
    seconds("stale", &told(&mut client).await);
    // The worker falls behind too: that is no news. The answer does not make the worker current.
    bench.freshness.grow_stale(Duration::from_secs(31));
    say(first, "[]");
    assert_eq!(told(&mut client).await, UPDATE);
    bench.freshness.refresh();
    assert_eq!(seconds("fresh", &told(&mut client).await), 31);

    // In time: nothing is said of it.
    bench.publish("a", 150, "issues", &[]);
    say(asked(&mut bench).await.1, "[]");
    assert_eq!(told(&mut client).await, UPDATE);

    // Late, and asked anew meanwhile: it has been late since the first time.
    bench.publish("a", 151, "issues", &[]);
    let (_, old) = asked(&mut bench).await;
    let began = Instant::now();
    seconds("stale", &told(&mut client).await);
    tokio::time::sleep(Duration::from_millis(1000).saturating_sub(began.elapsed())).await;
    bench.journals.reset(EPOCH, Lsn::new(20), i64::MIN);
    let sync = told(&mut client).await;
    assert!(sync.contains("\"reason\":\"history_reset\""), "{sync}");
    let (_, new) = asked(&mut bench).await;
    assert!(old.answer.is_closed());
    say(new, "[]");
    assert_eq!(told(&mut client).await, UPDATE);
    assert!(seconds("fresh", &told(&mut client).await) >= 1);
}

#[tokio::test]
async fn a_stream_that_ends_while_its_answer_is_late_says_why_and_nothing_else() {
    let mut bench = bench_where(|config| config.canary.stale_after = Duration::from_millis(200)).await;
    let mut client = open(&bench, "").await;
    let (_, waiter) = asked(&mut bench).await;
    seconds("stale", &told(&mut client).await);
    for handle in bench.hub.handles(&OrganizationId::new("a")) {
        handle.end(EndReason::Revoked);
    }
    let rest = super::client::timeless(&client.rest().await);
    assert_eq!(rest, "data: {\"type\":\"access.revoked\",\"timestamp\":0,\"data\":{}}\n\n");
    assert!(waiter.answer.is_closed(), "nobody waits any more");
}

#[tokio::test]
async fn a_stream_that_is_ended_shows_nothing_more() {
    let mut bench = bench().await;
    let mut client = open(&bench, "").await;
    let (_, waiter) = asked(&mut bench).await;
    for handle in bench.hub.handles(&OrganizationId::new("a")) {
        handle.end(EndReason::Revoked);
    }
    // It may be there before the stream has seen its end.
    let _ = waiter.answer.send(Answer::Rows("[]".into()));
    let rest = super::client::timeless(&client.rest().await);
    assert_eq!(rest, "data: {\"type\":\"access.revoked\",\"timestamp\":0,\"data\":{}}\n\n");
}

#[tokio::test]
async fn a_filter_that_is_replaced_asks_anew_when_the_next_update_is_due() {
    let mut bench = bench().await;
    let path = format!("/live?organizationId=a&token={}&every=300", token("u"));
    let mut client = bench.open(&path, &[]).await;
    let connected = client.connected().await;
    let id = connected.split("\"connectionId\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    say(asked(&mut bench).await.1, "[]");
    client.frame().await;
    let (address, path) = (bench.address, format!("/api/realtime/stream/{id}"));
    let put = |body: &'static str| {
        let path = path.clone();
        async move {
            let mut client = Client::connect(address).await;
            let length = body.len().to_string();
            let bearer = format!("Bearer {}", token("u"));
            let headers = [
                ("authorization", bearer.as_str()),
                ("content-type", "application/json"),
                ("content-length", length.as_str()),
                ("connection", "close"),
            ];
            client.send("PUT", &path, &headers).await;
            client.send_raw(body.as_bytes()).await;
            client.rest().await
        }
    };
    let answer = put("{\"tags\":{\"statuses\":[\"open\",\"a\\u0000b\"]}}").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"channels\":[\"issues\"]"), "{answer}");
    let (question, waiter) = asked(&mut bench).await;
    assert_eq!(values(&question), [Some(vec!["open"]), None]);
    say(waiter, "[2]");
    assert_eq!(client.frame().await, "data: {\"type\":\"update\",\"data\":[2]}\n\n");
    // By the new one it is told of changes too.
    bench.publish("a", 150, "issues", &[(STATUS, "closed")]);
    quiet(&mut bench).await;
    bench.publish("a", 151, "issues", &[(STATUS, "open")]);
    say(asked(&mut bench).await.1, "[3]");
    let answer = put("{\"types\":[\"changed\"]}").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("filtered by tags alone"), "{answer}");
}
