//! A Postgres of the bench's own, databases with the reference domain in it, and workers under measure.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};
use walcast::access::NewToken;
use walcast::cli::cluster::{Binaries, Cluster, ClusterOptions};
use walcast::config::{Config, Secret};
use walcast::postgres::client::{self, Client};
use walcast::postgres::dsn::Dsn;

use crate::crowd::localhost;
use crate::peers::{free_port, listening, program};
use crate::process::Process;

const JWT_SECRET: &str = "a secret of the bench, long enough for HS256";

/// How long a worker may take until it lets streams in.
const READY: Duration = Duration::from_secs(180);

/// The server.
pub struct World {
    cluster: Cluster,
    databases: std::cell::Cell<u32>,
    pub pg_recvlogical: PathBuf,
}

/// A database with the reference domain, its worker's slot and publication.
pub struct Database {
    pub url: String,
    pub session: Client,
    config: Config,
    dsn: Dsn,
}

/// `walcast run`.
pub struct Worker {
    pub process: Process,
    pub address: SocketAddr,
    /// From the start of the process until it let streams in.
    pub starting: Duration,
}

impl World {
    pub async fn start() -> anyhow::Result<Self> {
        let settings = [
            ("max_connections", "100"),
            ("max_wal_senders", "50"),
            ("max_replication_slots", "50"),
            ("max_wal_size", "16GB"),
            ("checkpoint_timeout", "1h"),
            ("shared_buffers", "512MB"),
            ("wal_writer_delay", "10ms"),
            ("autovacuum", "off"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let options = ClusterOptions { settings, durable: false, ..ClusterOptions::default() };
        let beside = Binaries::find(None)?.program("pg_recvlogical");
        let pg_recvlogical = if beside.exists() { Some(beside) } else { program("pg_recvlogical") };
        Ok(Self {
            cluster: Cluster::start(options).await?,
            databases: std::cell::Cell::new(0),
            pg_recvlogical: pg_recvlogical.context("no pg_recvlogical (Debian: postgresql-client)")?,
        })
    }

    pub async fn version(&self) -> anyhow::Result<String> {
        let session = client::connect(&Dsn::parse(&self.cluster.dsn("postgres"))?).await?;
        Ok(session.query_one("select 'PostgreSQL ' || current_setting('server_version')", &[]).await?.get(0))
    }

    /// A fresh database with one organization `o1` and its member `u1`. `change` sees the configuration first.
    pub async fn database(&self, change: impl FnOnce(&mut Config)) -> anyhow::Result<Database> {
        self.databases.set(self.databases.get() + 1);
        let name = format!("bench_{}", self.databases.get());
        let admin = client::connect(&Dsn::parse(&self.cluster.dsn("postgres"))?).await?;
        admin.batch_execute(&format!("create database {name}")).await?;
        let url = self.cluster.dsn(&name);
        let dsn = Dsn::parse(&url)?;
        walcast::cli::migrate::run(&dsn, true).await?;
        let session = client::connect(&dsn).await?;
        // Nothing is decoded before its flush: a commit that does not wait for it would only hide where time goes.
        session.batch_execute("set synchronous_commit = on").await?;
        let mut config = Config::reference();
        config.access.jwt_secret = Some(Secret::new(JWT_SECRET.to_owned()));
        change(&mut config);
        let database = Database { url, session, config, dsn };
        database.organizations(1).await?;
        Ok(database)
    }
}

impl Database {
    /// Publication, slot and what else the worker needs.
    pub async fn set_up(&self) -> anyhow::Result<()> {
        walcast::cli::setup::apply(&self.config, &self.dsn).await
    }

    pub async fn sql(&self, sql: &str) -> anyhow::Result<()> {
        self.session.batch_execute(sql).await.with_context(|| sql.chars().take(200).collect::<String>())
    }

    pub async fn text(&self, sql: &str) -> anyhow::Result<String> {
        let row = self.session.query_one(&format!("select ({sql})::text"), &[]).await?;
        Ok(row.get(0))
    }

    /// `o1` to `o<count>`, each with its member `u1`.
    pub async fn organizations(&self, count: usize) -> anyhow::Result<()> {
        self.sql(&format!(
            "begin;
             insert into users (id, email, name) values ('u1', 'u1@example.com', 'u1') on conflict do nothing;
             insert into organizations (id, name, plan) select 'o' || n, 'O' || n, 'free'
               from generate_series(1, {count}) n on conflict do nothing;
             insert into memberships (organization_id, user_id, role) select 'o' || n, 'u1', 'admin'
               from generate_series(1, {count}) n on conflict do nothing;
             commit"
        ))
        .await
    }

    /// A slot beside the worker's, for others to read.
    pub async fn slot(&self, name: &str) -> anyhow::Result<String> {
        let slot = self.text(&format!("'{name}_' || current_database()")).await?;
        self.sql(&format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await?;
        Ok(slot)
    }

    /// Drops it once its reader, which has ended, is gone from the server too.
    pub async fn drop_slot(&self, slot: &str) -> anyhow::Result<()> {
        let active = format!("(select active from pg_replication_slots where slot_name = '{slot}')");
        while self.text(&active).await? == "true" {
            sleep(Duration::from_millis(20)).await;
        }
        self.sql(&format!("select pg_drop_replication_slot('{slot}')")).await
    }

    /// Starts the worker and waits until it lets streams in.
    pub async fn worker(&self, environment: &[(&str, &str)]) -> anyhow::Result<Worker> {
        self.start(&["run", "--reference"], environment).await
    }

    /// One that serves another catalog than the reference domain's.
    pub async fn worker_of_a_catalog(&self, path: &str) -> anyhow::Result<Worker> {
        self.start(&["run"], &[("WALCAST_CATALOG_PATH", path)]).await
    }

    async fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Worker> {
        let address = localhost(free_port());
        let began = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_walcast"));
        command
            .args(arguments)
            .env_clear()
            .envs(
                std::env::vars()
                    .filter(|(name, _)| matches!(name.as_str(), "PATH" | "HOME" | "USER" | "TMPDIR")),
            )
            .env("DATABASE_URL", &self.url)
            .env("WALCAST_ACCESS_JWT_SECRET", JWT_SECRET)
            .env("WALCAST_HTTP_LISTEN", address.to_string())
            .env("WALCAST_LIMITS_STREAMS_PER_USER", "0")
            .env("WALCAST_LIMITS_STREAMS_PER_ADDRESS", "0")
            .env("WALCAST_LIMITS_OPENS_PER_SECOND", "0")
            .envs(environment.iter().copied())
            .stderr(Stdio::null());
        let process = Process::start(&mut command)?;
        drop(listening(address).await?);
        while !matches!(get(address, "/readyz").await?.as_str(), "ready" | "degraded") {
            ensure!(began.elapsed() < READY, "the worker is not ready after {READY:?}");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(Worker { process, address, starting: began.elapsed() })
    }

    /// A request for a stream of `u1`; `more` are further parameters and header lines.
    pub fn request(&self, organization: &str, parameters: &str, headers: &str) -> anyhow::Result<String> {
        let secret = Secret::new(JWT_SECRET.to_owned());
        let token = NewToken::new("u1", Duration::from_secs(7200), &self.config.access).sign(&secret)?;
        Ok(format!(
            "GET /api/realtime/stream?organizationId={organization}{parameters} HTTP/1.1\r\nHost: localhost\r\n\
             Accept: text/event-stream\r\nAuthorization: Bearer {token}\r\n{headers}\r\n"
        ))
    }
}

impl Worker {
    /// A counter or gauge of its metrics.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = get(self.address, "/metrics").await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.with_context(|| format!("no metric {name}"))?.parse().context("a number")
    }
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut socket = listening(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(Duration::from_secs(30), socket.read_to_string(&mut answer)).await??;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(body.trim().to_owned())
}
