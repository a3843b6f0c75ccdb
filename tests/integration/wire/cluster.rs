//! A server of its own for a test, with TLS.
//!
//! It has a certificate for `localhost`, made by an authority of its own, and a rule of authentication for each user.
//! `127.0.0.1` reaches it too: a name that the certificate does not have.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use walcast::cli::cluster::{Cluster, ClusterOptions, StopMode};
use walcast::postgres::Dsn;
use walcast::postgres::client::{self, Client};

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
pub(super) const PASSWORD: &str = "p:a/s?s#w[o]r@d%25 ü";

pub(super) struct TlsCluster {
    cluster: Cluster,
    /// Certificates and keys.
    dir: tempfile::TempDir,
    pub(super) port: u16,
}

impl TlsCluster {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        certificates(dir.path());
        // The second as production has it: streams end where commits are flushed.
        let settings = [("listen_addresses", "localhost"), ("synchronous_commit", "on")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let options = ClusterOptions { settings, durable: false, ..ClusterOptions::default() };
        let cluster = Cluster::start(options).await.expect("a cluster");
        let port = cluster.port();
        let this = Self { cluster, dir, port };
        this.install_certificate();
        let admin = this.admin().await;
        for (name, value) in [
            ("ssl", "on"),
            ("ssl_ca_file", "ca.crt"),
            ("ssl_cert_file", "server.crt"),
            ("ssl_key_file", "server.key"),
        ] {
            admin.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).await.expect("a setting");
        }
        drop(admin);
        std::fs::write(this.cluster.data_dir().join("pg_hba.conf"), HBA).expect("pg_hba.conf");
        this.restart().await;
        let admin = this.admin().await;
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
        this
    }

    /// Puts the certificate where the server reads it, as the server's user.
    fn install_certificate(&self) {
        let data = self.cluster.data_dir();
        let owner = std::fs::metadata(data).expect("the data folder");
        for name in ["server.crt", "server.key", "ca.crt"] {
            let file = data.join(name);
            std::fs::copy(self.path(name), &file).expect("the server's certificate");
            chown(&file, Some(owner.uid()), Some(owner.gid())).expect("its owner");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its mode");
        }
    }

    /// Another certificate for the server, from a new key, by these arguments of `openssl req -x509`.
    pub(super) async fn replace_certificate(&self, arguments: &str) {
        openssl(self.dir.path(), &format!("req -x509 {KEY} {arguments} -keyout server.key -out server.crt"));
        self.install_certificate();
        self.restart().await;
    }

    pub(super) async fn restart(&self) {
        self.cluster.restart(StopMode::Fast).await.expect("the server starts again");
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A URL over TCP.
    pub(super) fn dsn(&self, user: &str, password: &str, host: &str, parameters: &str) -> Dsn {
        let password: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        Dsn::parse(&format!("postgres://{user}:{password}@{host}:{}/postgres?{parameters}", self.port))
            .expect("a valid URL")
    }

    pub(super) fn unix_dsn(&self, user: &str) -> Dsn {
        let dir = self.cluster.socket_dir().display().to_string().replace('/', "%2F");
        Dsn::parse(&format!("postgres://{user}@{dir}:{}/postgres", self.port)).expect("a valid URL")
    }

    pub(super) async fn admin(&self) -> Client {
        client::connect(&self.unix_dsn("postgres")).await.expect("an administrator's connection")
    }

    /// `sslrootcert=` the authority that signed the server's certificate.
    pub(super) fn trusting(&self) -> String {
        format!("sslrootcert={}", self.path("ca.crt").display())
    }
}

/// Below the range from which outgoing connections take theirs.
pub(super) fn free_port() -> u16 {
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(20_000..32_768));
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// `ca`, `other` (an authority that signed nothing), `server` for localhost, `client` for `cert_user`.
fn certificates(dir: &Path) {
    for name in ["ca", "other"] {
        let request = format!("req -x509 {KEY} -days 2 -keyout {name}.key -out {name}.crt -subj /CN={name}");
        openssl(dir, &request);
    }
    for (name, common_name, extra) in [
        ("server", "localhost", " -addext subjectAltName=DNS:localhost"),
        ("client", "cert_user", " -addext extendedKeyUsage=clientAuth"),
    ] {
        let request = format!(
            "req -x509 {KEY} -days 2 -CA ca.crt -CAkey ca.key -keyout {name}.key -out {name}.crt \
             -subj /CN={common_name} -addext basicConstraints=critical,CA:FALSE{extra}"
        );
        openssl(dir, &request);
    }
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

fn openssl(dir: &Path, arguments: &str) {
    let status = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "openssl {arguments}");
}
