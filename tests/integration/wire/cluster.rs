//! A server of its own for a test, with TLS: started in a temporary folder, gone when dropped.
//!
//! It has a certificate for `localhost`, made by an authority of its own, and a rule of authentication for each user.
//! `127.0.0.1` reaches it too: a name that the certificate does not have.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
    dir: tempfile::TempDir,
    owner: Option<(u32, u32)>,
    pub(super) port: u16,
}

impl TlsCluster {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
            .expect("a public folder");
        let port = free_port();
        let cluster = Self { dir, owner: server_user(), port };
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
            &["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D", "."],
        );
        certificates(self.dir.path());
        self.install_certificate();
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

    fn install_certificate(&self) {
        let data = self.path("data");
        for name in ["server.crt", "server.key", "ca.crt"] {
            std::fs::copy(self.path(name), data.join(name)).expect("the server's certificate");
            if let Some((user, group)) = self.owner {
                std::os::unix::fs::chown(data.join(name), Some(user), Some(group)).expect("its owner");
            }
        }
        let secret = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(data.join("server.key"), secret).expect("the key's mode");
    }

    /// Another certificate for the server, from a new key, by these arguments of `openssl req -x509`.
    pub(super) fn replace_certificate(&self, arguments: &str) {
        openssl(self.dir.path(), &format!("req -x509 {KEY} {arguments} -keyout server.key -out server.crt"));
        self.install_certificate();
        self.control(&["restart", "-w", "-m", "fast", "-l", "log"]);
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn control(&self, arguments: &[&str]) {
        self.server("pg_ctl", &[arguments, &["-D", "."]].concat());
    }

    /// One of the server's programs, as the user who owns the data, in the data folder.
    fn server(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(server_program(program));
        command.args(arguments).current_dir(self.path("data")).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        assert!(command.status().is_ok_and(|status| status.success()), "{program} {arguments:?} failed");
    }

    /// A URL over TCP.
    pub(super) fn dsn(&self, user: &str, password: &str, host: &str, parameters: &str) -> Dsn {
        let password: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        Dsn::parse(&format!("postgres://{user}:{password}@{host}:{}/postgres?{parameters}", self.port))
            .expect("a valid URL")
    }

    pub(super) fn unix_dsn(&self, user: &str) -> Dsn {
        let dir = self.path("data").display().to_string().replace('/', "%2F");
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

impl Drop for TlsCluster {
    fn drop(&mut self) {
        self.control(&["stop", "-m", "immediate"]);
    }
}

/// Below the range from which outgoing connections take theirs.
pub(super) fn free_port() -> u16 {
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(20_000..32_768));
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// Whom to run the server as, when this is root, whom it refuses.
fn server_user() -> Option<(u32, u32)> {
    let id = |flag: &str, user: &[&str]| {
        let output = Command::new("id").arg(flag).args(user).output().expect("id");
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
    };
    (id("-u", &[]) == 0).then(|| (id("-u", &["postgres"]), id("-g", &["postgres"])))
}

fn server_program(name: &str) -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    installed
        .map(|version| version.path().join("bin").join(name))
        .find(|path| path.exists())
        .unwrap_or(name.into())
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
