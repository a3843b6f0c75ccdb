//! Every sslmode and every way to authenticate, for SQL and replication alike.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::time::timeout;
use walcast::postgres::client::{self, Client};
use walcast::postgres::dsn::Host;
use walcast::postgres::error::{AuthenticationError, ConnectFailure, TlsError};
use walcast::postgres::{ConnectError, Dsn, ReplicationConnection};

use super::cluster::{PASSWORD, TlsCluster, free_port};

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
            assert_eq!(sql.is_ok(), replication.is_ok(), "{mode} {host}: SQL and replication differ");
            sql
        };
        let client = connect("localhost", &trusting).await.expect(mode);
        assert_eq!(uses_tls(&client).await, encrypted, "{mode}");
        for (result, accepted, case) in [
            (connect("localhost", &other).await, any_authority, "another authority"),
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

    admin.batch_execute("ALTER SYSTEM SET ssl = off").await.expect("ssl off");
    cluster.restart().await;
    let plain = client::connect(&cluster.dsn("scram_user", PASSWORD, "localhost", "sslmode=prefer")).await;
    assert!(!uses_tls(&plain.expect("prefer goes on without TLS")).await);
    for mode in ["require", "verify-ca", "verify-full"] {
        let parameters = format!("sslmode={mode}&{}", cluster.trusting());
        let refused = client::connect(&cluster.dsn("scram_user", PASSWORD, "localhost", &parameters)).await;
        assert!(matches!(failure(refused), ConnectFailure::Tls(TlsError::NotOffered)), "{mode}");
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
        let client =
            client::connect(&dsn).await.unwrap_or_else(|error| panic!("{dsn} {parameters}: {error}"));
        let row = client.query_one("SELECT current_user::text", &[]).await.expect("a row");
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
            client::connect(&dsn).await.map(|_| ()).expect_err("a wrong password"),
            ReplicationConnection::connect(&dsn).await.map(|_| ()).expect_err("a wrong password"),
        ] {
            assert_eq!(error.sqlstate().map(|code| code.code()), Some("28P01"), "{error}");
            assert!(!format!("{error} {error:?} {dsn} {dsn:?}").contains("no-such-secret"));
        }
        let refused = client::connect(&cluster.dsn(user, "", "localhost", "passfile=/nonexistent")).await;
        assert!(matches!(failure(refused), ConnectFailure::Authentication(AuthenticationError::NoPassword)));
    }
    let passfile = cluster.path("pgpass");
    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    std::fs::write(&passfile, format!("localhost:{}:*:scram_user:{escaped}\n", cluster.port))
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
    let dead = free_port();
    let url = format!(
        "postgres://trust_user@127.0.0.1:{dead},no-such-host.invalid:1,localhost:{}/postgres",
        cluster.port
    );
    let client = client::connect(&Dsn::parse(&url).expect("a valid URL")).await.expect("the third host");
    assert_eq!(*client.host(), Host::Tcp { host: "localhost".to_owned(), port: cluster.port });

    // An answer ends the search, even when it is no.
    let url = format!("postgres://nobody@localhost:{},127.0.0.1:{dead}/postgres", cluster.port);
    let error = client::connect(&Dsn::parse(&url).expect("a valid URL")).await.expect_err("no such user");
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("28000"));
}

#[tokio::test]
async fn silent_server_costs_no_more_than_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = silent.local_addr().expect("its address").port();
    let dsn = Dsn::parse(&format!("postgres://x@127.0.0.1:{port}/x?connect_timeout=1")).expect("a valid URL");
    let refused = timeout(Duration::from_secs(60), client::connect(&dsn)).await.expect("an end");
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
    let mut replication = ReplicationConnection::connect(&dsn).await.expect("a replication connection");
    let rows = replication.simple_query(VALUES).await.expect("a row");
    assert_eq!(rows.first().and_then(|row| row.get("line")), Some(LINE));

    drop((client, replication));
    let gone = async {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'it'";
        while admin.query_one(count, &[]).await.expect("a count").get::<_, i64>(0) > 0 {}
    };
    timeout(Duration::from_secs(60), gone).await.expect("the sessions to end");
}

#[tokio::test]
async fn certificates_as_the_manual_makes_them_are_understood() {
    let cluster = TlsCluster::start().await;
    let connect = async |host: &str, mode: &str, roots: &str| {
        let roots = cluster.path(roots).display().to_string();
        let parameters = format!("sslmode={mode}&sslrootcert={roots}&channel_binding=require");
        client::connect(&cluster.dsn("scram_user", PASSWORD, host, &parameters)).await
    };
    // Trusted itself, an authority at that; by an authority, but with a common name only.
    let by_authority = "-CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE";
    for (signing, roots) in [("", "server.crt"), (by_authority, "ca.crt")] {
        cluster.replace_certificate(&format!("-subj /CN=localhost {signing}")).await;
        connect("localhost", "verify-full", roots).await.expect("the common name");
        connect("127.0.0.1", "verify-ca", roots).await.expect("no name is asked for");
        for refused in [
            connect("127.0.0.1", "verify-full", roots).await,
            connect("localhost", "verify-full", "other.crt").await,
            connect("localhost", "verify-ca", "other.crt").await,
        ] {
            assert!(matches!(failure(refused), ConnectFailure::Tls(TlsError::Handshake(_))), "{roots}");
        }
    }
    // With alternative names, the common name counts for nothing.
    cluster.replace_certificate("-subj /CN=localhost -addext subjectAltName=DNS:elsewhere").await;
    assert!(connect("localhost", "verify-full", "server.crt").await.is_err());
    connect("localhost", "verify-ca", "server.crt").await.expect("trusted itself");
    connect("localhost", "require", "ca.crt").await.expect_err("require with an authority checks it");
}
