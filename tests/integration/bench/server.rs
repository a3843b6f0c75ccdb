//! The Postgres that the tests run on, and a database of its own for each.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use walcast::cli::cluster::{Cluster, ClusterOptions};
use walcast::postgres::client::{self, Client};
use walcast::postgres::dsn::Dsn;

use super::PATIENCE;

/// Databases are named by process and counter, so that a server can be shared by many runs.
static NEXT: AtomicU32 = AtomicU32::new(0);

static SERVER: OnceCell<Server> = OnceCell::const_new();

struct Server {
    /// Of a database that every server has.
    url: String,
    admin: Dsn,
    /// Migrated once; each test's database is a copy of it.
    template: String,
    /// Ends with this process.
    _cluster: Option<Cluster>,
}

/// What a test cluster is set to: throw-away, and enough of everything for tests side by side.
pub fn settings() -> Vec<(String, String)> {
    [
        ("max_connections", "400"),
        ("wal_writer_delay", "10ms"),
        ("max_wal_senders", "300"),
        ("max_replication_slots", "300"),
        ("max_wal_size", "4GB"),
        ("shared_buffers", "256MB"),
        ("wal_sender_timeout", "20s"),
        ("max_prepared_transactions", "20"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

impl Server {
    async fn start() -> Self {
        let (url, cluster) = match std::env::var("TEST_DATABASE_URL") {
            Ok(url) => (url, None),
            Err(_) => {
                let options =
                    ClusterOptions { settings: settings(), durable: false, ..ClusterOptions::default() };
                let cluster = Cluster::start(options).await.expect("a cluster of our own");
                (cluster.dsn("postgres"), Some(cluster))
            }
        };
        let admin = Dsn::parse(&url).expect("the server's URL");
        let template = name("template");
        let session = client::connect(&admin).await.expect("the server answers");
        sweep(&session).await;
        session.batch_execute(&format!("create database {template}")).await.expect("a template");
        let dsn = admin.with_database(&template);
        walcast::cli::migrate::run(&dsn, true).await.expect("migrations");
        Self { url, admin, template, _cluster: cluster }
    }
}

fn name(role: &str) -> String {
    format!("walcast_{role}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// `url` with another database; it has one, and nothing after it but parameters.
fn url_with_database(url: &str, database: &str) -> String {
    let (base, parameters) = url.split_once('?').map_or((url, String::new()), |(b, p)| (b, format!("?{p}")));
    let (server, _) = base.rsplit_once('/').expect("a URL that names a database");
    format!("{server}/{database}{parameters}")
}

/// The URL of a fresh database with the reference domain in it.
pub async fn database() -> String {
    let server = SERVER.get_or_init(Server::start).await;
    copy_of(server, &server.template).await
}

/// The URL of a fresh database with nothing in it.
pub async fn empty_database() -> String {
    let server = SERVER.get_or_init(Server::start).await;
    copy_of(server, "template0").await
}

async fn copy_of(server: &Server, template: &str) -> String {
    let database = name("test");
    let session = client::connect(&server.admin).await.expect("the server answers");
    // A template can be copied by one session at a time.
    static COPYING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let copying = COPYING.lock().await;
    let create = format!("create database {database} template {template}");
    session.batch_execute(&create).await.expect("a database");
    drop(copying);
    url_with_database(&server.url, &database)
}

/// Drops a test's slots and database as soon as nothing uses them. The worker ends with the test's runtime, after
/// this is called: so a thread of its own waits for it. What a finished run leaves, the next one sweeps.
pub fn clean_up(dsn: Dsn) {
    let Some(server) = SERVER.get() else { return };
    // A server of the test's own has other names, and goes with its databases.
    if !dsn.database.starts_with("walcast_test_") {
        return;
    }
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let Ok(session) = client::connect(&server.admin).await else { return };
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while drop_database(&session, &dsn.database).await.is_err()
                && tokio::time::Instant::now() < deadline
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    });
}

/// Fails while a walsender still uses a slot of the database.
async fn drop_database(session: &Client, database: &str) -> Result<(), tokio_postgres::Error> {
    let slots = format!(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '{database}'"
    );
    session.batch_execute(&slots).await?;
    session.batch_execute(&format!("drop database {database} with (force)")).await
}

/// Databases that earlier runs left on a server that outlives them.
async fn sweep(session: &Client) {
    let left = "select datname from pg_database
                where datname ~ '^walcast_(test|template)_[0-9]+_[0-9]+$'
                  and not exists (select from pg_stat_activity a where a.datname = pg_database.datname)";
    for row in session.query(left, &[]).await.expect("the databases") {
        let database: String = row.get(0);
        if let Err(error) = drop_database(session, &database).await {
            eprintln!("{database} stays: {error}");
        }
    }
}

/// A session on a test's database.
pub async fn session(dsn: &Dsn) -> Client {
    client::connect(dsn).await.expect("the test's database answers")
}

/// Whether the server is of this major version or a newer one; says on the terminal that `test` was not run where not.
pub async fn is_since(major: i32, test: &str) -> bool {
    let server = SERVER.get_or_init(Server::start).await;
    let asked = "select current_setting('server_version_num')::int / 10000";
    let version: i32 = session(&server.admin).await.query_one(asked, &[]).await.expect("a version").get(0);
    if version < major {
        super::programs::skipped(test, &format!("needs PostgreSQL {major}, and this is {version}"));
    }
    version >= major
}
