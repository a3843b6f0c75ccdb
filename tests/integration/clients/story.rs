//! What happens to the worker while clients watch, and what they must have seen of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;

use serde_json::Value;

use crate::bench::app::TestApp;
use crate::bench::process::WorkerProcess;
use crate::bench::programs;
use crate::bench::watcher::{Saw, Seen, Target, Watcher};

pub const USER: &str = "u1";
/// Another of the same organization: a user has ten streams in one.
pub const SECOND_USER: &str = "u2";

/// A preset as its front end opens it: path, parameters, and where the number of a round is in an event's data.
const PRESETS: [(&str, &str, &str); 5] = [
    ("/api/realtime", "", "/data/deviceId"),
    ("/api/events", "organizationId=o1", "/data/id"),
    (
        "/api/realtime/issues/stream",
        "organizationId=o1&campusId=c1&buildingIds=&priorities=high,critical&statuses=open&_=17",
        "/data/issue/id",
    ),
    ("/api/realtime/stream", "organizationId=o1&channel=lots,alerts", "/data/parkingLotId"),
    ("/api/sse/dashboard", "lotId=all", "/data/parkingLotId"),
];

/// The live one, which shows how many issues there are: one more each round.
const LIVE: (&str, &str) = (
    "/api/realtime/heatmap/stream",
    "organizationId=o1&campusId=c1&buildingIds=&categories=c,other&updateInterval=5000&_=17",
);

/// Every preset under this address; `suffix` tells streams of one preset apart.
pub fn targets(base: &str, suffix: &str) -> Vec<Target> {
    let target = |(path, query): (&str, &str)| Target {
        name: format!("{path}{suffix}"),
        url: format!("{base}{path}?{query}"),
        with_credentials: false,
        headers: serde_json::Map::new(),
    };
    PRESETS.iter().map(|(path, query, _)| (*path, *query)).chain([LIVE]).map(target).collect()
}

/// The path of a stream's preset.
fn path(stream: &str) -> &str {
    stream.split('#').next().unwrap_or_default()
}

fn is_live(stream: &str) -> bool {
    path(stream) == LIVE.0
}

/// Where a stream's events have the number of their round.
fn pointer(stream: &str) -> &'static str {
    let preset = PRESETS.iter().find(|preset| preset.0 == path(stream));
    preset.map(|(_, _, pointer)| *pointer).unwrap_or_else(|| panic!("no preset {stream}"))
}

/// A worker that will be stopped and killed, and the database behind it.
pub struct Story {
    app: TestApp,
    /// Where it listens, each time.
    pub worker: SocketAddr,
    environment: Vec<(&'static str, String)>,
    running: Option<WorkerProcess>,
}

impl Story {
    /// Starts the worker, for pages of this origin.
    pub async fn begin(origin: &str) -> Self {
        let mut app = TestApp::start().await;
        app.member("o1", USER, "admin").await;
        app.member("o1", SECOND_USER, "admin").await;
        app.stop().await;
        let worker = programs::free_port();
        let environment = vec![
            ("WALCAST_HTTP_LISTEN", worker.to_string()),
            ("WALCAST_HTTP_ALLOWED_ORIGINS", origin.to_owned()),
            ("WALCAST_HTTP_TRUSTED_PROXIES", "127.0.0.1".to_owned()),
            ("WALCAST_HTTP_DRAIN", "300ms".to_owned()),
            ("WALCAST_ACCESS_COOKIE", "session".to_owned()),
        ];
        let mut story = Self { app, worker, environment, running: None };
        story.start().await;
        story
    }

    async fn start(&mut self) {
        let environment: Vec<_> =
            self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.running = Some(WorkerProcess::start(&self.app.url, &environment).await);
    }

    /// A round is one row for every preset, and rows that none of them shows.
    async fn rounds(&self, rounds: Range<u32>) {
        for n in rounds {
            self.app
                .sql(&format!(
                    "insert into devices (id, organization_id, name, model, status)
                       values ('n{n}', 'o1', 'D', 'M', 'ONLINE');
                     insert into activities (id, organization_id, category, subcategory, location, status, reporter)
                       values ('n{n}', 'o1', 'c', 's', 'l', 'open', 'u1');
                     insert into issues (id, organization_id, campus_id, category, priority, status, title,
                       description, reporter_id) values
                       ('hidden{n}', 'o1', 'c2', 'c', 'high', 'open', 't', 'd', 'u1'),
                       ('n{n}', 'o1', 'c1', 'c', 'high', 'open', 't', 'd', 'u1');
                     insert into lots (id, organization_id, name, total_slots, occupied)
                       values ('n{n}', 'o1', 'L', 10, 1);"
                ))
                .await;
        }
    }

    /// Stops and kills the worker while the client watches; then what it saw is judged, and said.
    pub async fn tell(mut self, client: &str, mut watcher: Watcher, targets: &[Target]) {
        let mut seen = Vec::new();
        let begun =
            |seen: &Seen| if is_live(&seen.stream) { total(seen).is_some() } else { is_connected(seen) };
        await_all(&mut watcher, targets, &mut seen, begun).await;
        self.rounds(0..2).await;
        // The live ones are told within their interval.
        await_all(&mut watcher, targets, &mut seen, |seen| round_of(seen).as_deref() == Some("n1")).await;
        self.rounds(2..4).await;
        let worker = self.running.take().expect("it runs");
        assert_eq!(worker.terminate().await.code(), Some(0));
        self.rounds(4..8).await;
        await_failures(&mut watcher, targets, &mut seen).await;
        self.start().await;
        self.rounds(8..12).await;
        await_all(&mut watcher, targets, &mut seen, |seen| round_of(seen).as_deref() == Some("n11")).await;

        self.running.take().expect("it runs").kill().await;
        self.rounds(12..16).await;
        await_failures(&mut watcher, targets, &mut seen).await;
        self.start().await;
        self.rounds(16..20).await;
        await_all(&mut watcher, targets, &mut seen, |seen| round_of(seen).as_deref() == Some("n19")).await;
        let (mut events, mut updates, mut reconnects) = (0, 0, 0);
        for target in targets {
            let judged = judge(&target.name, &seen);
            events += judged.events;
            updates += judged.updates;
            reconnects += judged.reconnects;
        }
        let streams = targets.len();
        println!("| {client} | {streams} | {events}, each once; {updates} updates | {reconnects} |");
    }
}

/// Reads until every stream has lost its connection and then tried again in vain, without giving up.
async fn await_failures(watcher: &mut Watcher, targets: &[Target], all: &mut Vec<Seen>) {
    for _ in 0..2 {
        await_all(watcher, targets, all, |seen| seen.saw == Saw::Error).await;
    }
}

/// Reads until every stream has seen what `last` recognises.
async fn await_all(
    watcher: &mut Watcher,
    targets: &[Target],
    all: &mut Vec<Seen>,
    last: impl Fn(&Seen) -> bool,
) {
    let mut awaited: BTreeSet<_> = targets.iter().map(|target| target.name.clone()).collect();
    while !awaited.is_empty() {
        let seen = watcher.next().await;
        assert_ne!(seen.saw, Saw::Closed, "{seen:?} gave up, after {all:#?}");
        if last(&seen) {
            awaited.remove(&seen.stream);
        }
        all.push(seen);
    }
}

fn is_connected(seen: &Seen) -> bool {
    seen.saw == Saw::Message && seen.json()["type"] == "connected"
}

/// None for what is not of a row.
fn round_of(seen: &Seen) -> Option<String> {
    if seen.saw != Saw::Message {
        return None;
    }
    if is_live(&seen.stream) {
        // Of as many as there are, the last.
        return total(seen)?.checked_sub(1).map(|last| format!("n{last}"));
    }
    let event = seen.json();
    event.get("channel").filter(|channel| *channel != "presence")?;
    let round = event.pointer(pointer(&seen.stream)).and_then(Value::as_str);
    Some(round.unwrap_or_else(|| panic!("no round in {event}")).to_owned())
}

/// The number of issues that an update counts; none: it is no update.
fn total(seen: &Seen) -> Option<u64> {
    let message = (seen.saw == Saw::Message).then(|| seen.json())?;
    let rows = message.get("data").filter(|_| message["type"] == "update")?.as_array().expect("rows");
    Some(rows.iter().map(|row| row["total"].as_u64().expect("a number")).sum())
}

struct Judged {
    events: usize,
    updates: usize,
    reconnects: usize,
}

/// Each connection begins with an answer, none shows less than the one before, and the last shows everything.
fn judge_live(stream: &str, messages: &[&Seen]) -> Judged {
    let mut totals = Vec::new();
    let mut connections = 0;
    let mut id = None;
    for pair in messages.windows(2) {
        assert!(!is_connected(pair[0]) || total(pair[1]).is_some(), "{stream}: an answer at once: {pair:?}");
    }
    for message in messages {
        if is_connected(message) {
            connections += 1;
            // A client that comes back has told where it stopped; what it is shown is whole all the same.
            assert_eq!(message.json()["resumed"], false, "{stream}");
            assert!(message.id.as_deref().is_some_and(|id| !id.is_empty()), "{stream}: {message:?}");
            id.clone_from(&message.id);
        } else {
            let total = total(message).unwrap_or_else(|| panic!("{stream}: neither: {message:?}"));
            // `eventsource` 3 says the event's own, which it has none.
            let is_none = message.id.as_deref().is_none_or(str::is_empty);
            assert!(is_none || message.id == id, "{stream}: an update moves no position: {message:?}");
            totals.push(total);
        }
    }
    assert!(totals.is_sorted(), "{stream}: {totals:?}");
    assert_eq!((totals.first(), totals.last()), (Some(&0), Some(&20)), "{stream}: {totals:?}");
    assert!(connections >= 3, "{stream}: connected at first and after each break: {connections}");
    Judged { events: 0, updates: totals.len(), reconnects: connections - 1 }
}

/// Every round once, in order, under its own id; a break is a reconnect that resumes, and nothing else. Of a live one,
/// what it shows.
fn judge(stream: &str, all: &[Seen]) -> Judged {
    let own: Vec<_> = all.iter().filter(|seen| seen.stream == stream).collect();
    let messages: Vec<_> = own.iter().copied().filter(|seen| seen.saw == Saw::Message).collect();
    if is_live(stream) {
        return judge_live(stream, &messages);
    }
    let rounds: Vec<_> = messages.iter().filter_map(|seen| round_of(seen)).collect();
    let expected: Vec<_> = (0..20).map(|n| format!("n{n}")).collect();
    assert_eq!(rounds, expected, "{stream}");

    let mut ids = BTreeMap::new();
    for message in messages.iter().filter(|seen| round_of(seen).is_some()) {
        let event = message.json();
        assert_eq!(event["id"].as_str(), message.id.as_deref(), "{stream}: the client's last event id");
        assert_eq!(ids.insert(message.id.clone(), ()), None, "{stream}: one id an event");
    }
    let kinds: BTreeSet<_> = messages.iter().map(|seen| seen.json()["type"].to_string()).collect();
    assert!(!kinds.contains("\"data.sync\""), "{stream}: nothing to be told: {kinds:?}");
    let resumed: Vec<_> = messages
        .iter()
        .filter(|seen| is_connected(seen))
        .map(|seen| seen.json()["resumed"] == true)
        .collect();
    assert!(resumed.len() >= 3, "{stream}: connected at first and after each break: {resumed:?}");
    assert_eq!(resumed.iter().filter(|resumed| !**resumed).count(), 1, "{stream}: {resumed:?}");
    assert!(!resumed[0], "{stream}: {resumed:?}");
    Judged { events: rounds.len(), updates: 0, reconnects: resumed.len() - 1 }
}
