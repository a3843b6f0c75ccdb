//! The wire against a real server: every sslmode, every authentication method, and the replication stream.
//!
//! The cluster has a certificate for `localhost`, made by an authority of its own, and a rule of authentication for
//! each user. `127.0.0.1` reaches it too: a name that the certificate does not have.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;
use walcast::postgres::client::{self, Client};
use walcast::postgres::dsn::Host;
use walcast::postgres::error::{AuthenticationError, ConnectFailure, StreamError, TlsError};
use walcast::postgres::pgoutput::{self, Cell, LogicalMessage, OldTuple, Tuple};
use walcast::postgres::{
    ConnectError, Dsn, Lsn, ReplicationConnection, ReplicationMessage, ReplicationStream,
};

const HBA: &str = "
local   all postgres,trust_user     trust
local   all all                     scram-sha-256
host    all trust_user all          trust
host    all md5_user   all          md5
host    all clear_user all          password
hostssl all cert_user  all          cert
hostnossl all open_user all         scram-sha-256
host    all scram_user all          scram-sha-256
";

/// A password in which every character means something in a URL.
const PASSWORD: &str = "p:a/s?s#w[o]r@d%25 ü";

struct TlsCluster {
    dir: tempfile::TempDir,
    owner: Option<(u32, u32)>,
    port: u16,
}

impl TlsCluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
            .expect("a public folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a free port")
            .port();
        let cluster = Self {
            dir,
            owner: server_user(),
            port,
        };
        cluster.initialize();
        cluster.control(&["start", "-w", "-l", "log"]);
        let admin = cluster.admin().await;
        admin
            .batch_execute(&format!(
                "CREATE ROLE trust_user LOGIN REPLICATION;
                 CREATE ROLE scram_user LOGIN REPLICATION PASSWORD '{PASSWORD}';
                 CREATE ROLE open_user LOGIN PASSWORD '{PASSWORD}';
                 CREATE ROLE clear_user LOGIN PASSWORD '{PASSWORD}';
                 CREATE ROLE cert_user LOGIN;
                 SET password_encryption = md5;
                 CREATE ROLE md5_user LOGIN REPLICATION PASSWORD '{PASSWORD}';"
            ))
            .await
            .expect("the roles");
        cluster
    }

    fn initialize(&self) {
        let data = self.path("data");
        std::fs::create_dir(&data).expect("the data folder");
        if let Some((user, group)) = self.owner {
            std::os::unix::fs::chown(&data, Some(user), Some(group)).expect("the data folder's owner");
        }
        self.server(
            "initdb",
            &[
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
                ".",
            ],
        );
        certificates(self.dir.path());
        for name in ["server.crt", "server.key", "ca.crt"] {
            std::fs::copy(self.path(name), data.join(name)).expect("the server's certificate");
            if let Some((user, group)) = self.owner {
                std::os::unix::fs::chown(data.join(name), Some(user), Some(group)).expect("its owner");
            }
        }
        std::fs::set_permissions(data.join("server.key"), std::fs::Permissions::from_mode(0o600))
            .expect("the key");
        std::fs::write(data.join("pg_hba.conf"), HBA).expect("pg_hba.conf");
        let settings = format!(
            "port = {}\nlisten_addresses = 'localhost'\nunix_socket_directories = '{}'\nwal_level = logical\n\
             fsync = off\nssl = on\nssl_ca_file = 'ca.crt'\nssl_cert_file = 'server.crt'\n\
             ssl_key_file = 'server.key'\n",
            self.port,
            data.display()
        );
        std::fs::write(data.join("postgresql.auto.conf"), settings).expect("the settings");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn control(&self, arguments: &[&str]) {
        self.server("pg_ctl", &[arguments, &["-D", "."]].concat());
    }

    /// One of the server's programs, as the user who owns the data, in the data folder.
    fn server(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(server_program(program));
        command
            .args(arguments)
            .current_dir(self.path("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        assert!(
            command.status().is_ok_and(|status| status.success()),
            "{program} {arguments:?} failed"
        );
    }

    /// A URL over TCP.
    fn dsn(&self, user: &str, password: &str, host: &str, parameters: &str) -> Dsn {
        let password: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        Dsn::parse(&format!(
            "postgres://{user}:{password}@{host}:{}/postgres?{parameters}",
            self.port
        ))
        .expect("a valid URL")
    }

    fn unix_dsn(&self, user: &str) -> Dsn {
        let dir = self.path("data").display().to_string().replace('/', "%2F");
        Dsn::parse(&format!("postgres://{user}@{dir}:{}/postgres", self.port)).expect("a valid URL")
    }

    async fn admin(&self) -> Client {
        client::connect(&self.unix_dsn("postgres"))
            .await
            .expect("an administrator's connection")
    }

    /// `sslrootcert=` the authority that signed the server's certificate.
    fn trusting(&self) -> String {
        format!("sslrootcert={}", self.path("ca.crt").display())
    }
}

impl Drop for TlsCluster {
    fn drop(&mut self) {
        self.control(&["stop", "-m", "immediate"]);
    }
}

/// Whom to run the server as, when this is root, whom it refuses.
fn server_user() -> Option<(u32, u32)> {
    let id = |flag: &str, user: &[&str]| {
        let output = Command::new("id").arg(flag).args(user).output().expect("id");
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .expect("a number")
    };
    (id("-u", &[]) == 0).then(|| (id("-u", &["postgres"]), id("-g", &["postgres"])))
}

fn server_program(name: &str) -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    installed
        .map(|version| version.path().join("bin").join(name))
        .find(|path| path.exists())
        .unwrap_or(name.into())
}

/// `ca`, `other` (an authority that signed nothing), `server` for localhost, `client` for `cert_user`.
fn certificates(dir: &Path) {
    let openssl = |arguments: &str| {
        let status = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(dir)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "openssl {arguments}");
    };
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    for name in ["ca", "other"] {
        openssl(&format!(
            "req -x509 {KEY} -keyout {name}.key -out {name}.crt -subj /CN={name}"
        ));
    }
    for (name, common_name, extra) in [
        ("server", "localhost", " -addext subjectAltName=DNS:localhost"),
        ("client", "cert_user", " -addext extendedKeyUsage=clientAuth"),
    ] {
        openssl(&format!(
            "req -x509 {KEY} -CA ca.crt -CAkey ca.key -keyout {name}.key -out {name}.crt -subj /CN={common_name} \
             -addext basicConstraints=critical,CA:FALSE{extra}"
        ));
    }
}

async fn uses_tls(client: &Client) -> bool {
    let row = client
        .query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[])
        .await
        .expect("this session's row");
    row.get(0)
}

fn failure(result: Result<Client, ConnectError>) -> ConnectFailure {
    result.map(|_| ()).expect_err("a refused connection").failure
}

#[tokio::test]
async fn every_sslmode_checks_what_it_says_and_nothing_else() {
    let cluster = TlsCluster::start().await;
    let trusting = cluster.trusting();
    let other = format!("sslrootcert={}", cluster.path("other.crt").display());
    // Per mode: encrypted; accepts another authority; accepts a name that is not in the certificate.
    for (mode, encrypted, any_authority, any_name) in [
        ("disable", false, true, true),
        ("prefer", true, true, true),
        ("require", true, false, true),
        ("verify-ca", true, false, true),
        ("verify-full", true, false, false),
    ] {
        let connect = async |host: &str, roots: &str| {
            let parameters = format!("sslmode={mode}&{roots}");
            let dsn = cluster.dsn("scram_user", PASSWORD, host, &parameters);
            let replication = ReplicationConnection::connect(&dsn).await;
            let sql = client::connect(&dsn).await;
            assert_eq!(
                sql.is_ok(),
                replication.is_ok(),
                "{mode} {host}: SQL and replication differ"
            );
            sql
        };
        let client = connect("localhost", &trusting).await.expect(mode);
        assert_eq!(uses_tls(&client).await, encrypted, "{mode}");
        for (result, accepted, case) in [
            (
                connect("localhost", &other).await,
                any_authority,
                "another authority",
            ),
            (connect("127.0.0.1", &trusting).await, any_name, "another name"),
        ] {
            match result {
                Ok(_) => assert!(accepted, "{mode} accepts {case}"),
                Err(error) => {
                    assert!(!accepted, "{mode} refuses {case}: {error}");
                    assert!(
                        matches!(error.failure, ConnectFailure::Tls(TlsError::Handshake(_))),
                        "{error:?}"
                    );
                }
            }
        }
    }
    let unchecked =
        client::connect(&cluster.dsn("scram_user", PASSWORD, "127.0.0.1", "sslmode=require")).await;
    assert!(uses_tls(&unchecked.expect("require without sslrootcert checks nothing")).await);
}

#[tokio::test]
async fn sslmodes_hold_where_the_server_has_no_tls() {
    let cluster = TlsCluster::start().await;
    let admin = cluster.admin().await;
    let open = client::connect(&cluster.dsn("open_user", PASSWORD, "localhost", "sslmode=prefer")).await;
    assert!(!uses_tls(&open.expect("prefer goes on without TLS where a rule forbids it")).await);

    admin
        .batch_execute("ALTER SYSTEM SET ssl = off")
        .await
        .expect("ssl off");
    cluster.control(&["restart", "-w", "-m", "fast", "-l", "log"]);
    let plain = client::connect(&cluster.dsn("scram_user", PASSWORD, "localhost", "sslmode=prefer")).await;
    assert!(!uses_tls(&plain.expect("prefer goes on without TLS")).await);
    for mode in ["require", "verify-ca", "verify-full"] {
        let parameters = format!("sslmode={mode}&{}", cluster.trusting());
        let refused = client::connect(&cluster.dsn("scram_user", PASSWORD, "localhost", &parameters)).await;
        assert!(
            matches!(failure(refused), ConnectFailure::Tls(TlsError::NotOffered)),
            "{mode}"
        );
    }
}

#[tokio::test]
async fn every_authentication_method_is_spoken() {
    let cluster = TlsCluster::start().await;
    let certificate = format!(
        "sslmode=require&sslcert={}&sslkey={}",
        cluster.path("client.crt").display(),
        cluster.path("client.key").display()
    );
    for (user, password, parameters) in [
        ("trust_user", "", ""),
        ("md5_user", PASSWORD, ""),
        ("clear_user", PASSWORD, ""),
        ("scram_user", PASSWORD, "sslmode=disable"),
        ("scram_user", PASSWORD, "sslmode=require&channel_binding=disable"),
        ("scram_user", PASSWORD, "sslmode=require&channel_binding=require"),
        ("cert_user", "", &certificate),
    ] {
        let dsn = cluster.dsn(user, password, "localhost", parameters);
        let client = client::connect(&dsn)
            .await
            .unwrap_or_else(|error| panic!("{dsn} {parameters}: {error}"));
        let row = client
            .query_one("SELECT current_user::text", &[])
            .await
            .expect("a row");
        assert_eq!(row.get::<_, &str>(0), user);
    }
    for (user, parameters) in [
        ("scram_user", "sslmode=disable&channel_binding=require"),
        ("md5_user", "sslmode=require&channel_binding=require"),
        ("trust_user", "sslmode=require&channel_binding=require"),
    ] {
        let refused = client::connect(&cluster.dsn(user, PASSWORD, "localhost", parameters)).await;
        let expected = matches!(
            failure(refused),
            ConnectFailure::Authentication(AuthenticationError::ChannelBinding(_))
        );
        assert!(expected, "{user} {parameters}");
    }
    let refused = client::connect(&cluster.dsn("cert_user", "", "localhost", "sslmode=require")).await;
    assert!(refused.is_err(), "no client certificate");
}

#[tokio::test]
async fn wrong_and_missing_passwords_are_told_apart_and_never_printed() {
    let cluster = TlsCluster::start().await;
    for user in ["scram_user", "md5_user", "clear_user"] {
        let dsn = cluster.dsn(user, "no-such-secret", "localhost", "");
        for error in [
            client::connect(&dsn)
                .await
                .map(|_| ())
                .expect_err("a wrong password"),
            ReplicationConnection::connect(&dsn)
                .await
                .map(|_| ())
                .expect_err("a wrong password"),
        ] {
            assert_eq!(error.sqlstate().map(|code| code.code()), Some("28P01"), "{error}");
            assert!(!format!("{error} {error:?} {dsn} {dsn:?}").contains("no-such-secret"));
        }
        let refused = client::connect(&cluster.dsn(user, "", "localhost", "passfile=/nonexistent")).await;
        assert!(matches!(
            failure(refused),
            ConnectFailure::Authentication(AuthenticationError::NoPassword)
        ));
    }
    let passfile = cluster.path("pgpass");
    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    std::fs::write(
        &passfile,
        format!("localhost:{}:*:scram_user:{escaped}\n", cluster.port),
    )
    .expect("a passfile");
    std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    let parameters = format!("passfile={}", passfile.display());
    client::connect(&cluster.dsn("scram_user", "", "localhost", &parameters))
        .await
        .expect("the file's password");
}

#[tokio::test]
async fn hosts_are_tried_in_order_until_one_answers() {
    let cluster = TlsCluster::start().await;
    let dead = TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port();
    let url = format!(
        "postgres://trust_user@127.0.0.1:{dead},no-such-host.invalid:1,localhost:{}/postgres",
        cluster.port
    );
    let client = client::connect(&Dsn::parse(&url).expect("a valid URL"))
        .await
        .expect("the third host");
    assert_eq!(
        *client.host(),
        Host::Tcp {
            host: "localhost".to_owned(),
            port: cluster.port
        }
    );

    // An answer ends the search, even when it is no.
    let url = format!(
        "postgres://nobody@localhost:{},127.0.0.1:{dead}/postgres",
        cluster.port
    );
    let error = client::connect(&Dsn::parse(&url).expect("a valid URL"))
        .await
        .expect_err("no such user");
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("28000"));
}

#[tokio::test]
async fn silent_server_costs_no_more_than_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = silent.local_addr().expect("its address").port();
    let dsn = Dsn::parse(&format!("postgres://x@127.0.0.1:{port}/x?connect_timeout=1")).expect("a valid URL");
    let refused = timeout(Duration::from_secs(5), client::connect(&dsn))
        .await
        .expect("an end");
    assert!(matches!(failure(refused), ConnectFailure::Timeout(limit) if limit == Duration::from_secs(1)));
}

#[tokio::test]
async fn sessions_print_values_in_the_fixed_format_and_end_with_their_client() {
    let cluster = TlsCluster::start().await;
    let admin = cluster.admin().await;
    admin
        .batch_execute(
            "ALTER ROLE trust_user SET TimeZone = 'Asia/Tokyo';
             ALTER ROLE trust_user SET DateStyle = 'German';
             ALTER ROLE trust_user SET bytea_output = 'escape'",
        )
        .await
        .expect("the role's own format");
    let dsn = cluster.dsn(
        "trust_user",
        "",
        "localhost",
        "options=-c%20search_path%3Dpg_catalog&application_name=it",
    );
    let client = client::connect(&dsn).await.expect("a connection");
    const VALUES: &str = "SELECT '2026-01-02 03:04:05+00'::timestamptz::text || ' ' || '\\x01'::bytea::text || ' ' || \
                          current_setting('search_path') || ' ' || current_setting('application_name') AS line";
    const LINE: &str = "2026-01-02 03:04:05+00 \\x01 pg_catalog it";
    let row = client.query_one(VALUES, &[]).await.expect("a row");
    assert_eq!(row.get::<_, &str>(0), LINE);
    let mut replication = ReplicationConnection::connect(&dsn)
        .await
        .expect("a replication connection");
    let rows = replication.simple_query(VALUES).await.expect("a row");
    assert_eq!(rows.first().and_then(|row| row.get("line")), Some(LINE));

    drop((client, replication));
    let gone = async {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'it'";
        while admin
            .query_one(count, &[])
            .await
            .expect("a count")
            .get::<_, i64>(0)
            > 0
        {}
    };
    timeout(Duration::from_secs(5), gone)
        .await
        .expect("the sessions to end");
}

/// A stream from a new slot over everything that is published.
async fn stream(cluster: &TlsCluster) -> ReplicationStream {
    let dsn = cluster.dsn(
        "scram_user",
        PASSWORD,
        "localhost",
        &format!("sslmode=verify-full&{}", cluster.trusting()),
    );
    let mut connection = ReplicationConnection::connect(&dsn)
        .await
        .expect("a replication connection");
    assert!(connection.server_version() >= 140_000);
    let identity = connection.identify_system().await.expect("an identity");
    assert_eq!(identity.database, "postgres");
    for (name, code) in [("Not allowed!", "42602"), ("a\" LOGICAL pgoutput", "42601")] {
        let error = connection.create_slot(name).await.expect_err("a bad name");
        assert_eq!(error.sqlstate().map(|code| code.code()), Some(code), "{error}");
    }
    let point = connection.create_slot("mine").await.expect("a slot");
    assert!(point >= Lsn::new(1) && identity.system_id.parse::<u64>().is_ok());
    connection
        .start("mine", point, "all \"tables\"")
        .await
        .expect("a stream")
}

/// Logical messages up to and including the next commit.
async fn transaction(stream: &mut ReplicationStream) -> Vec<LogicalMessage> {
    let mut messages = Vec::new();
    loop {
        let next = timeout(Duration::from_secs(20), stream.next())
            .await
            .expect("a message")
            .expect("no error");
        let ReplicationMessage::XLogData(data) = next else {
            continue;
        };
        let message = pgoutput::decode(data.data).expect("a readable message");
        let is_last = matches!(message, LogicalMessage::Commit(_));
        messages.push(message);
        if is_last {
            return messages;
        }
    }
}

fn texts(tuple: &Tuple) -> Vec<Option<String>> {
    tuple
        .cells()
        .map(|cell| match cell {
            Cell::Null => None,
            Cell::Unchanged => Some("unchanged".to_owned()),
            Cell::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        })
        .collect()
}

fn row(cells: &[Option<&str>]) -> Vec<Option<String>> {
    cells.iter().map(|cell| cell.map(str::to_owned)).collect()
}

const TABLES: &str = r#"
CREATE TYPE mood AS ENUM ('fine');
CREATE TABLE plain (id int PRIMARY KEY, body text, mood mood);
CREATE TABLE whole (id int PRIMARY KEY, body text);
ALTER TABLE whole REPLICA IDENTITY FULL;
ALTER TABLE plain ALTER body SET STORAGE EXTERNAL;
CREATE PUBLICATION "all ""tables""" FOR ALL TABLES;
"#;

#[tokio::test]
async fn every_kind_of_change_comes_through_the_stream() {
    let cluster = TlsCluster::start().await;
    let admin = cluster.admin().await;
    admin.batch_execute(TABLES).await.expect("tables");
    let mut stream = stream(&cluster).await;

    admin
        .batch_execute("INSERT INTO plain VALUES (1, repeat('x', 9000), 'fine'), (2, NULL, NULL)")
        .await
        .expect("insert");
    let messages = transaction(&mut stream).await;
    let [
        LogicalMessage::Begin(begin),
        LogicalMessage::Type(mood),
        LogicalMessage::Relation(relation),
        LogicalMessage::Insert {
            relation: first_relation,
            new: first,
        },
        LogicalMessage::Insert { new: second, .. },
        LogicalMessage::Commit(commit),
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!(
        (begin.final_lsn, begin.commit_time),
        (commit.commit_lsn, commit.commit_time)
    );
    assert!(commit.end_lsn > commit.commit_lsn);
    assert_eq!((mood.namespace.as_str(), mood.name.as_str()), ("public", "mood"));
    assert_eq!(
        relation
            .columns
            .iter()
            .map(|c| (c.name.as_str(), c.is_key))
            .collect::<Vec<_>>(),
        [("id", true), ("body", false), ("mood", false)]
    );
    assert_eq!(relation.columns[2].type_oid, mood.oid);
    assert_eq!(*first_relation, relation.id);
    assert_eq!(
        texts(first),
        row(&[Some("1"), Some(&"x".repeat(9000)), Some("fine")])
    );
    assert_eq!(texts(second), row(&[Some("2"), None, None]));

    admin
        .batch_execute(
            "BEGIN; UPDATE plain SET mood = NULL WHERE id = 1; UPDATE plain SET id = 3 WHERE id = 2;
             DELETE FROM plain WHERE id = 3; COMMIT",
        )
        .await
        .expect("changes");
    let messages = transaction(&mut stream).await;
    let [
        LogicalMessage::Begin(_),
        LogicalMessage::Update {
            old: None, new: kept, ..
        },
        LogicalMessage::Update {
            old: Some(OldTuple::Key(old_key)),
            new: renamed,
            ..
        },
        LogicalMessage::Delete {
            old: OldTuple::Key(deleted),
            ..
        },
        LogicalMessage::Commit(_),
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!(texts(kept), row(&[Some("1"), Some("unchanged"), None]));
    assert_eq!(texts(old_key), row(&[Some("2"), None, None]));
    assert_eq!(texts(renamed), row(&[Some("3"), None, None]));
    assert_eq!(texts(deleted), row(&[Some("3"), None, None]));

    admin
        .batch_execute(
            "BEGIN; INSERT INTO whole VALUES (1, 'a'); UPDATE whole SET body = 'b';
             SELECT pg_logical_emit_message(true, 'prefix', 'content'::bytea);
             TRUNCATE plain, whole RESTART IDENTITY CASCADE; COMMIT",
        )
        .await
        .expect("changes");
    // A table is described again whenever the server thinks that it may have changed.
    let mut messages = transaction(&mut stream).await;
    messages.retain(|message| !matches!(message, LogicalMessage::Relation(_) | LogicalMessage::Type(_)));
    let [
        LogicalMessage::Begin(_),
        LogicalMessage::Relation(whole),
        LogicalMessage::Insert { .. },
        LogicalMessage::Update {
            old: Some(OldTuple::Full(old)),
            new,
            ..
        },
        LogicalMessage::Message(emitted),
        LogicalMessage::Truncate {
            relations,
            cascade: true,
            restart_identity: true,
        },
        LogicalMessage::Commit(last),
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!(
        (texts(old), texts(new)),
        (row(&[Some("1"), Some("a")]), row(&[Some("1"), Some("b")]))
    );
    assert_eq!(
        (
            emitted.transactional,
            emitted.prefix.as_str(),
            &emitted.content[..]
        ),
        (true, "prefix", &b"content"[..])
    );
    assert_eq!(relations.len(), 2);
    assert!(relations.contains(whole) && relations.contains(&relation.id));

    stream
        .status(last.end_lsn, last.end_lsn, last.end_lsn, false)
        .await
        .expect("a status");
    stream.finish().await.expect("an orderly end");
    let slot = admin
        .query_one(
            "SELECT confirmed_flush_lsn::text, active FROM pg_replication_slots WHERE slot_name = 'mine'",
            &[],
        )
        .await
        .expect("the slot");
    assert_eq!(
        (slot.get::<_, String>(0), slot.get::<_, bool>(1)),
        (last.end_lsn.to_string(), false)
    );
}

#[tokio::test]
async fn cancelled_reads_lose_nothing() {
    let cluster = TlsCluster::start().await;
    let admin = cluster.admin().await;
    admin.batch_execute(TABLES).await.expect("tables");
    let mut stream = stream(&cluster).await;
    admin
        .batch_execute(
            "INSERT INTO whole SELECT n, repeat(md5(n::text), n % 50) FROM generate_series(1, 20000) n",
        )
        .await
        .expect("rows");
    let (mut expected, mut cancelled) = (1, 0);
    while expected <= 20_000 {
        let next = match stream.try_next().expect("no error") {
            Some(message) => message,
            None => match timeout(Duration::from_micros(20), stream.next()).await {
                Ok(message) => message.expect("no error"),
                Err(_) => {
                    cancelled += 1;
                    stream
                        .status(Lsn::ZERO, Lsn::ZERO, Lsn::ZERO, cancelled % 7 == 0)
                        .await
                        .expect("a status");
                    continue;
                }
            },
        };
        let ReplicationMessage::XLogData(data) = next else {
            continue;
        };
        if let LogicalMessage::Insert { new, .. } = pgoutput::decode(data.data).expect("a readable message") {
            assert_eq!(texts(&new).first().cloned().flatten(), Some(expected.to_string()));
            expected += 1;
        }
    }
    assert!(cancelled > 0, "nothing was cancelled");
}

#[tokio::test]
async fn giant_values_come_whole() {
    let cluster = TlsCluster::start().await;
    let admin = cluster.admin().await;
    admin.batch_execute(TABLES).await.expect("tables");
    let mut stream = stream(&cluster).await;
    admin
        .batch_execute("INSERT INTO whole VALUES (1, repeat('é', 30000000))")
        .await
        .expect("a row");
    let messages = transaction(&mut stream).await;
    let [.., LogicalMessage::Insert { new, .. }, LogicalMessage::Commit(_)] = &messages[..] else {
        panic!("no row")
    };
    assert_eq!(new.size(), 1 + 4 + 1 + 1 + 4 + 60_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_errors_keep_their_sqlstate_and_an_end_is_told_from_a_break() {
    let cluster = TlsCluster::start().await;
    let admin = cluster.admin().await;
    admin.batch_execute(TABLES).await.expect("tables");
    let dsn = cluster.unix_dsn("trust_user");
    let mut connection = ReplicationConnection::connect(&dsn).await.expect("a connection");
    let error = connection
        .simple_query("SELECT 1 AS one; SELECT 1/0")
        .await
        .expect_err("a division by zero");
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("22012"));
    let rows = connection
        .simple_query("SELECT 1 AS one; SELECT 2 AS two")
        .await
        .expect("still usable");
    assert_eq!(
        rows.iter()
            .map(|row| (row.get("one"), row.get("two")))
            .collect::<Vec<_>>(),
        [(Some("1"), None), (None, Some("2"))]
    );
    let error = connection
        .start("absent", Lsn::ZERO, "p")
        .await
        .expect_err("no such slot");
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("42704"));

    let mut running = stream(&cluster).await;
    let busy = ReplicationConnection::connect(&dsn).await.expect("a connection");
    let error = busy
        .start("mine", Lsn::ZERO, "p")
        .await
        .expect_err("a slot in use");
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("55006"));

    let terminate =
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'mine'";
    admin.batch_execute(terminate).await.expect("a termination");
    let error = until_error(&mut running).await;
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("57P01"), "{error}");

    let connection = ReplicationConnection::connect(&dsn).await.expect("a connection");
    let mut running = connection
        .start("mine", Lsn::ZERO, "all \"tables\"")
        .await
        .expect("a stream");
    let until_end = tokio::spawn(async move { until_error(&mut running).await });
    tokio::task::block_in_place(|| cluster.control(&["restart", "-w", "-m", "fast", "-l", "log"]));
    let error = until_end.await.expect("an end");
    assert!(
        matches!(error, StreamError::Ended | StreamError::Closed),
        "{error:?}"
    );
}

async fn until_error(stream: &mut ReplicationStream) -> StreamError {
    loop {
        match timeout(Duration::from_secs(20), stream.next())
            .await
            .expect("an end")
        {
            Ok(ReplicationMessage::Keepalive(keepalive)) => {
                let end = keepalive.wal_end;
                if let Err(error) = stream.status(end, end, end, false).await {
                    return error;
                }
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}
