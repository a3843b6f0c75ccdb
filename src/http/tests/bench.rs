//! A server over a journal that the test writes by hand.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::{Client, dateless};
use crate::access::{Authenticator, Memberships, NewToken};
use crate::catalog::{Epoch, Event, EventId, Kind, SyncReason, Tags};
use crate::config::{Config, Secret};
use crate::http::state::State;
use crate::http::{Server, ServerError, Services, Visibility, Vocabulary};
use crate::hub::Hub;
use crate::journal::Journals;
use crate::live::{Live, Query, Questions};
use crate::mirror::Mirror;
use crate::postgres::Lsn;
use crate::presence::Presence;
use crate::source::Visible;
use crate::telemetry::{Freshness, Metrics, Phase, Readiness};

pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(super) const EPOCH: Epoch = Epoch::new(0xe);

/// Where the bench's journal begins.
const START: u64 = 100;

pub(super) struct Bench {
    pub(super) address: SocketAddr,
    pub(super) admin: Option<SocketAddr>,
    pub(super) journals: Arc<Journals>,
    pub(super) hub: Arc<Hub>,
    pub(super) now: Arc<Now>,
    pub(super) readiness: Readiness,
    pub(super) freshness: Freshness,
    pub(super) metrics: Metrics,
    /// What the streams of live presets ask.
    pub(super) questions: Questions,
    pub(super) state: Arc<State>,
    pub(super) running: JoinHandle<()>,
    shutdown: oneshot::Sender<()>,
}

/// Where "now" is: at the head, unless a test says otherwise.
pub(super) struct Now {
    journals: Arc<Journals>,
    pub(super) pinned: Mutex<Option<Lsn>>,
}

impl Visibility for Now {
    fn visible(&self) -> Pin<Box<dyn Future<Output = Visible> + Send + '_>> {
        let pinned = *self.pinned.lock().unwrap();
        let position = pinned.unwrap_or_else(|| self.journals.head());
        Box::pin(std::future::ready(Visible { position, current: true }))
    }
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// Channels lots and issues, tags priority and status, the preset `/issues`, and what `change` makes of it.
    pub(super) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::try_with(change).await.unwrap()
    }

    pub(super) async fn try_with(change: impl FnOnce(&mut Config)) -> Result<Self, ServerError> {
        let mut config = Config::default();
        config.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.http.allowed_origins = vec!["https://app.example.com".to_owned()];
        config.access.jwt_secret = Some(Secret::new(SECRET.to_owned()));
        config.access.cookie = Some("session".to_owned());
        let preset = r#"
            path = "/issues"
            channels = ["issues", "custom"]
            parameters = { statuses = "status" }
            keepalive = { type = "heartbeat", data = {} }
        "#;
        config.presets = vec![toml::from_str(preset).unwrap()];
        change(&mut config);

        let journals = Journals::new(1 << 24);
        journals.reset(EPOCH, Lsn::new(START), i64::MIN);
        let now = Arc::new(Now { journals: Arc::clone(&journals), pinned: Mutex::default() });
        let hub = Hub::new(Arc::clone(&journals));
        let presence = Presence::new(Arc::clone(&hub), config.presence.grace);
        let readiness = Readiness::new();
        readiness.enter(Phase::Live);
        let metrics = Metrics::new(&readiness);
        let freshness = Freshness::default();
        let mirror = Arc::new(Mirror::new(Vec::new(), 1 << 20));
        let queries = config.presets.iter().filter_map(|preset| Query::load(preset, 1 << 20));
        let (live, questions) = Live::new(queries.map(Result::unwrap));
        let server = Server::bind(
            &config,
            Services {
                authenticator: Authenticator::new(&config.access).unwrap(),
                memberships: Arc::new(OnceLock::from(
                    Memberships::new(&config.access, &[], &mirror).unwrap(),
                )),
                emitter: Arc::default(),
                live,
                vocabulary: Vocabulary::new(["issues", "lots"], ["priority", "status"], &config.channels),
                hub: Arc::clone(&hub),
                visibility: Arc::clone(&now) as Arc<dyn Visibility>,
                presence: Arc::clone(&presence),
                readiness: readiness.clone(),
                freshness: freshness.clone(),
                metrics: metrics.clone(),
            },
        );
        let server = server.await?;
        let (address, admin, state) = (server.address(), server.admin_address(), Arc::clone(&server.state));
        let (shutdown, asked) = oneshot::channel();
        let running = tokio::spawn(async move {
            let stopping = async {
                // A bench that is dropped stops its server too.
                let _ = asked.await;
            };
            tokio::select! {
                () = server.run(stopping) => {}
                () = presence.run() => {}
            }
        });
        Ok(Self {
            address,
            admin,
            journals,
            hub,
            now,
            readiness,
            freshness,
            metrics,
            questions,
            state,
            running,
            shutdown,
        })
    }

    /// Asks the server to stop, and gives what ends when it has.
    pub(super) fn shut_down(self) -> JoinHandle<()> {
        self.shutdown.send(()).unwrap();
        self.running
    }

    /// An event that commits at `lsn`, published. Its frame is [`frame`].
    pub(super) fn publish(&self, organization: &str, lsn: u64, channel: &str, tags: &[(u16, &str)]) {
        self.publish_sized(organization, lsn, channel, tags, 0);
    }

    pub(super) fn publish_sized(
        &self,
        organization: &str,
        lsn: u64,
        channel: &str,
        tags: &[(u16, &str)],
        size: usize,
    ) {
        let mut flat = Tags::default();
        tags.iter().for_each(|(name, value)| flat.push(*name, value.as_bytes()));
        let frame = frame(lsn, &"x".repeat(size));
        self.journals.append(Event {
            id: EventId { epoch: EPOCH, commit_lsn: Lsn::new(lsn), ordinal: 1 },
            organization,
            commit_millis: i64::try_from(now().as_millis()).unwrap(),
            kind: Kind::Data {
                event_type: &"changed".into(),
                channel: &channel.into(),
                tags: &flat,
                frame: frame.as_bytes(),
            },
            audience: None,
        });
        self.journals.publish(Lsn::new(lsn + 1));
    }

    /// A `data.sync` for streams of every channel.
    pub(super) fn publish_truncate(&self, organization: &str, lsn: u64) {
        self.journals.append(Event {
            id: EventId { epoch: EPOCH, commit_lsn: Lsn::new(lsn), ordinal: 1 },
            organization,
            commit_millis: i64::try_from(now().as_millis()).unwrap(),
            kind: Kind::Sync { reason: SyncReason::Truncated, channels: &Arc::from([]) },
            audience: None,
        });
        self.journals.publish(Lsn::new(lsn + 1));
    }

    pub(super) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// The whole answer to a request on a connection of its own, the date as `D`.
    pub(super) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let mut client = self.connect().await;
        let mut all = headers.to_vec();
        all.push(("connection", "close"));
        client.send(method, path, &all).await;
        dateless(&client.rest().await)
    }

    /// Opens a stream, whose answer must be one.
    pub(super) async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Client {
        let mut client = self.connect().await;
        client.send("GET", path, headers).await;
        let head = client.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"), "{head}");
        client
    }

    /// Opens a stream as user u of organization a, and reads its first frame.
    pub(super) async fn stream(&self, query: &str) -> Client {
        let path = format!("/api/realtime/stream?organizationId=a&token={}{query}", token("u"));
        let mut client = self.open(&path, &[]).await;
        client.connected().await;
        client
    }
}

/// The frame of the bench's event at `lsn`.
pub(super) fn frame(lsn: u64, data: &str) -> String {
    format!("id: {EPOCH}.{lsn}.1\ndata: {{\"data\":\"{data}\"}}\n\n")
}

/// A token of a member of organization a, good for an hour.
pub(super) fn token(user: &str) -> String {
    sign(user, 3600, &["a"], "")
}

pub(super) fn sign(user: &str, seconds: u64, organizations: &[&str], scope: &str) -> String {
    let organizations = organizations.iter().map(|&id| (id.to_owned(), "manager".to_owned()));
    let token = NewToken {
        sub: user.to_owned(),
        exp: now().as_secs() + seconds,
        scope: scope.to_owned(),
        organizations: organizations.collect(),
        ..NewToken::default()
    };
    token.sign(&Secret::new(SECRET.to_owned())).unwrap()
}

pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}
