//! nginx and Caddy before a worker, as docs/proxies configures them: only names, ports and paths are put in.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::net::TcpStream;
use tokio::process::Child;

use super::{eventually, programs};

/// The origin that the configurations list.
const DOCUMENTED_ORIGIN: &str = "https://app.example.com";

/// A proxy that ends TLS.
pub struct Front {
    pub address: SocketAddr,
    folder: tempfile::TempDir,
    _child: Child,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Nginx,
    Caddy,
}

impl Kind {
    pub const fn program(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
        }
    }

    fn documented(self) -> String {
        let name = match self {
            Self::Nginx => "nginx.conf",
            Self::Caddy => "Caddyfile",
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proxies").join(name);
        std::fs::read_to_string(path).expect("a configuration")
    }
}

/// Replaces what has to be there.
fn put(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the configuration has {from}");
    text.replace(from, to)
}

impl Front {
    /// Starts it before the worker at `worker`, for pages of `origin`.
    pub async fn start(kind: Kind, program: &Path, worker: SocketAddr, origin: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        programs::certificate(folder.path());
        let here = folder.path().display().to_string();
        let address = programs::free_port();
        let mut text = put(&kind.documented(), "127.0.0.1:8080", &worker.to_string());
        text = put(&text, "/etc/ssl/walcast", &here);
        let mut command = programs::command(program);
        match kind {
            Kind::Nginx => {
                text = put(&text, DOCUMENTED_ORIGIN, origin);
                text = put(&text, "/var/log/nginx", &here);
                text = put(&text, "listen 443", &format!("listen {address}"));
                let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let paths: String =
                    temporary.iter().map(|name| format!("{name}_temp_path {here}/{name};\n")).collect();
                let main = format!(
                    "daemon off; master_process off; pid {here}/pid;\nevents {{}}\nhttp {{\n{paths}include {here}/walcast.conf;\n}}\n"
                );
                std::fs::write(folder.path().join("walcast.conf"), text).expect("a file");
                std::fs::write(folder.path().join("main.conf"), main).expect("a file");
                command.args(["-e", &format!("{here}/process.log"), "-p", &here]);
                command.args(["-c", &format!("{here}/main.conf")]);
            }
            Kind::Caddy => {
                text = put(&text, &DOCUMENTED_ORIGIN.replace('.', "\\."), &origin.replace('.', "\\."));
                text = put(&text, "/var/log/caddy", &here);
                text = put(&text, "https://events.example.com", &format!("https://{address}"));
                // Port 80 and the port of its API are this machine's.
                text = format!("{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}");
                std::fs::write(folder.path().join("Caddyfile"), text).expect("a file");
                command.args(["run", "--adapter", "caddyfile", "--config", &format!("{here}/Caddyfile")]);
                command.env("HOME", &here).env("XDG_DATA_HOME", &here).env("XDG_CONFIG_HOME", &here);
            }
        }
        let log = std::fs::File::create(folder.path().join("output.log")).expect("a file");
        let child = command.stderr(Stdio::from(log)).spawn().expect("the proxy starts");
        let front = Self { address, folder, _child: child };
        eventually("the proxy listens", || async { TcpStream::connect(address).await.ok() }).await;
        front
    }

    /// The access log that the configuration asks for.
    pub fn access_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("walcast.log")).expect("an access log")
    }

    /// All that it wrote, wherever.
    pub fn everything_logged(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).expect("a folder").flatten();
        let logs = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "log"));
        logs.map(|path| std::fs::read_to_string(path).expect("a log")).collect()
    }
}
