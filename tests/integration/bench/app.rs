//! A worker under test, on a database of its own.

use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use walcast::app::App;
use walcast::config::{Config, Secret, SourceKind};
use walcast::postgres::client::Client;
use walcast::postgres::dsn::Dsn;

use super::http::{Request, Response};
use super::sse::Stream;
use super::{PATIENCE, eventually, server};

/// Signs the tokens of every test.
pub const JWT_SECRET: &str = "a secret of the tests, long enough for HS256";

/// Somebody, and where they belong.
#[derive(Clone, Debug)]
pub struct Member {
    pub organization: String,
    pub token: String,
}

/// The reference domain, a worker in this process, and a session to write with.
pub struct TestApp {
    pub url: String,
    pub dsn: Dsn,
    pub config: Config,
    pub address: SocketAddr,
    session: Client,
    /// Where the log ended when the last member had been made; zero over an outbox, whose positions are its own.
    written: AtomicU64,
    worker: Option<App>,
    /// Of the test's own catalog.
    _folder: tempfile::TempDir,
}

/// The way by which the worker reaches the test's database.
type Reroute = Box<dyn Fn(&Dsn) -> Dsn>;

/// What differs from the ordinary worker.
pub struct Builder {
    config: Config,
    catalog: Option<String>,
    before: String,
    url: Option<String>,
    worker_dsn: Option<Reroute>,
}

thread_local! {
    /// What the tests of this thread read: a test and its runtime have one thread.
    static SOURCE: Cell<SourceKind> = const { Cell::new(SourceKind::Auto) };
}

/// Runs a test, which is written for either source, over the outbox.
pub fn over_the_outbox(test: fn()) {
    SOURCE.set(SourceKind::Outbox);
    test();
    SOURCE.set(SourceKind::Auto);
}

/// A configuration for tests: the reference domain, any free port, everything a stream needs.
pub fn configuration() -> Config {
    let mut config = Config::reference();
    config.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.access.jwt_secret = Some(Secret::new(JWT_SECRET.to_owned()));
    config.http.drain = Duration::from_millis(200);
    config.source.kind = SOURCE.get();
    config
}

/// A token of `user` for an hour, with claims beside.
pub fn token_with(user: &str, claims: serde_json::Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut all = json!({ "sub": user, "exp": now + 3600 });
    for (name, value) in claims.as_object().into_iter().flatten() {
        all[name] = value.clone();
    }
    let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &all, &key).expect("a token")
}

impl Builder {
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// SQL that is run on the database before `setup`.
    pub fn before(mut self, sql: &str) -> Self {
        self.before.push_str(sql);
        self
    }

    /// A catalog of the test's own, beside the reference domain's tables.
    pub fn catalog(mut self, toml: &str) -> Self {
        self.catalog = Some(toml.to_owned());
        self
    }

    /// On this database, which has the domain in it.
    pub fn on(mut self, url: String) -> Self {
        self.url = Some(url);
        self
    }

    /// The worker reaches Postgres by another way than the test does.
    pub fn through(mut self, dsn: impl Fn(&Dsn) -> Dsn + 'static) -> Self {
        self.worker_dsn = Some(Box::new(dsn));
        self
    }

    pub async fn start(self) -> TestApp {
        let url = match self.url {
            Some(url) => url,
            None => server::database().await,
        };
        let dsn = Dsn::parse(&url).expect("the database's URL");
        let session = server::session(&dsn).await;
        session.batch_execute(&self.before).await.expect("the test's own SQL");
        let mut config = self.config;
        let folder = tempfile::tempdir().expect("a folder");
        if let Some(toml) = self.catalog {
            let path = folder.path().join("catalog.toml");
            std::fs::write(&path, toml).expect("a catalog");
            config.catalog.path = Some(path);
            // They name channels of the reference domain.
            config.presets.clear();
        }
        walcast::cli::setup::apply(&config, &dsn).await.expect("setup");
        let worker_dsn = self.worker_dsn.map_or_else(|| dsn.clone(), |through| through(&dsn));
        let worker = App::start(config.clone(), worker_dsn, true).await.expect("a worker");
        let address = worker.address();
        let (written, worker) = (AtomicU64::new(0), Some(worker));
        let app = TestApp { url, dsn, config, address, session, written, worker, _folder: folder };
        app.ready().await;
        app
    }
}

impl TestApp {
    pub fn builder() -> Builder {
        Builder { config: configuration(), catalog: None, before: String::new(), url: None, worker_dsn: None }
    }

    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Returns once the worker lets streams in.
    pub async fn ready(&self) {
        eventually("the worker is ready", || async {
            let word = self.get("/readyz").await.body;
            matches!(word.trim(), "ready" | "degraded").then_some(())
        })
        .await;
    }

    /// Runs SQL, each statement in a transaction of its own unless it says otherwise.
    pub async fn sql(&self, sql: &str) {
        self.session.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    }

    /// Runs SQL that may fail.
    pub async fn try_sql(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.session.batch_execute(sql).await
    }

    /// A new session of the test's own, after the server was restarted.
    pub async fn reconnect(&mut self) {
        let dsn = self.dsn.clone();
        self.session = eventually("the server answers again", || async {
            walcast::postgres::client::connect(&dsn).await.ok()
        })
        .await;
    }

    /// Runs SQL as one transaction; returns between what times (milliseconds since 1970) it was committed.
    pub async fn transaction(&self, sql: &str) -> RangeInclusive<i64> {
        let before = self.clock().await;
        self.sql(&format!("begin; {sql}; commit")).await;
        let after = self.clock().await;
        // An outbox's time is when it was numbered: soon after.
        let patience = i64::try_from(PATIENCE.as_millis()).expect("seconds");
        before..=if self.config.source.kind == SourceKind::Outbox { after + patience } else { after }
    }

    async fn clock(&self) -> i64 {
        let row = "select floor(extract(epoch from clock_timestamp()) * 1000)::bigint";
        self.session.query_one(row, &[]).await.expect("a time").get(0)
    }

    /// One value, as text.
    pub async fn text(&self, sql: &str) -> String {
        let row = self.session.query_one(&format!("select ({sql})::text"), &[]).await;
        row.unwrap_or_else(|error| panic!("{error:?} in {sql}")).get(0)
    }

    /// A member of an organization; both are made when they are not there yet.
    pub async fn member(&self, organization: &str, user: &str, role: &str) -> Member {
        self.sql(&format!(
            "begin;
             insert into organizations (id, name, plan) values ('{organization}', 'Org {organization}', 'free')
               on conflict do nothing;
             insert into users (id, email, name) values ('{user}', '{user}@example.com', '{user}')
               on conflict do nothing;
             insert into memberships (organization_id, user_id, role) values ('{organization}', '{user}', '{role}');
             commit"
        ))
        .await;
        let end = "case when source = 'wal' then pg_current_wal_insert_lsn() - '0/0' else 0 end";
        let written = self.text(&format!("select {end} from walcast.meta")).await;
        self.written.store(written.parse().expect("a position"), Ordering::Relaxed);
        Member { organization: organization.to_owned(), token: token_with(user, json!({})) }
    }

    /// The native path's target for a member, with more parameters (`&channel=…`).
    pub fn target(member: &Member, parameters: &str) -> String {
        format!("/api/realtime/stream?organizationId={}{parameters}", member.organization)
    }

    /// Opens a stream on the native path, whatever comes of it.
    pub async fn connect(&self, member: &Member, parameters: &str) -> Stream {
        let request = Request::get(Self::target(member, parameters))
            .bearer(&member.token)
            .header("Accept", "text/event-stream");
        Stream::open(self.address, request).await
    }

    /// Opens a stream on the native path and reads its `connected`; told to come again, it does. One that starts now
    /// starts after the making of its member.
    pub async fn open(&self, member: &Member, parameters: &str) -> Stream {
        eventually("a stream is let in", || async {
            let mut stream = self.connect(member, parameters).await;
            assert_eq!(stream.head.status, 200, "{:?}", stream.head);
            let first = stream.frame().await?;
            first.data.as_ref()?;
            assert_eq!(first.event_type().as_deref(), Some("connected"), "{}", first.raw);
            let starts_now = !(parameters.contains("since=") || parameters.contains("lastEventId="));
            (!starts_now || self.is_after_members(first.id.as_deref())).then_some(stream)
        })
        .await
    }

    /// Returns once a stream is refused for good. A worker that is behind by more than it waits for may not say so: whom
    /// it does not know may have become a member. It says that, and nothing else.
    pub async fn refused(&self, member: &Member, parameters: &str) {
        self.refuses(|| self.connect(member, parameters)).await;
    }

    /// As [`refused`](Self::refused), of another path.
    pub async fn refuses<F: Future<Output = Stream>>(&self, open: impl Fn() -> F) {
        eventually("a stream is refused", || async {
            let mut answer = open().await;
            if answer.head.status == 403 {
                return Some(());
            }
            assert_eq!(answer.head.status, 200, "{:?}", answer.head);
            let said = answer.frame().await.expect("a word").raw;
            assert!(said.starts_with(": behind\nretry: ") && said.lines().count() == 3, "{said:?}");
            assert!(answer.frame().await.is_none(), "it ends there");
            None
        })
        .await;
    }

    /// Whether a position is behind what made the members: a worker that is held up starts a stream where it is itself.
    fn is_after_members(&self, id: Option<&str>) -> bool {
        /// In which a page of the log begins: nothing is written there, and who is behind it is before it too.
        const HEADERS: [u64; 2] = [24, 40];
        let position = id.and_then(|id| id.split('.').nth(1)?.parse::<u64>().ok());
        let written = self.written.load(Ordering::Relaxed);
        HEADERS.contains(&(written % 8192)) || position.is_none_or(|position| position >= written)
    }

    pub async fn get(&self, target: &str) -> Response {
        Request::get(target).fetch(self.address).await
    }

    /// Returns once the reasons behind readiness say `text`, and the worker still lets streams in; what they say.
    pub async fn degraded(&self, text: &str) -> String {
        eventually("readiness tells why", || async {
            let told = self.get("/readyz/reasons").await.body;
            (self.get("/readyz").await.body.trim() == "degraded" && told.contains(text)).then_some(told)
        })
        .await
    }

    /// Returns once the worker is ready without a reason against it.
    pub async fn undegraded(&self) {
        let whole = tokio::time::timeout(super::PATIENCE, async {
            while self.get("/readyz").await.body.trim() != "ready" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        if whole.await.is_err() {
            panic!("still told: {}", self.get("/readyz/reasons").await.body);
        }
    }

    /// Stops the worker gracefully.
    pub async fn stop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.stop().await.expect("a graceful stop");
        }
    }

    /// Starts the worker again, on a new port.
    pub async fn restart(&mut self) {
        self.stop().await;
        let worker = App::start(self.config.clone(), self.dsn.clone(), true).await.expect("a worker");
        self.address = worker.address();
        self.worker = Some(worker);
        self.ready().await;
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        server::clean_up(self.dsn.clone());
    }
}
