//! The origin of a front end: serves `clients/page.html`, and hears from it what its `EventSource`s see.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::SET_COOKIE;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::programs;
use super::watcher::{AHEAD, Seen, Target};

/// A page's server.
pub struct Page {
    pub origin: String,
    site: Arc<Site>,
    server: JoinHandle<()>,
}

struct Site {
    html: String,
    cookie: Option<String>,
    shown: Mutex<Option<(Vec<Target>, Sender<Seen>)>>,
}

impl Drop for Page {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Page {
    /// By HTTP. `cookie` is what it sets: cookies are shared between the ports of a host.
    pub async fn start(cookie: Option<&str>) -> Self {
        let listener = listener().await;
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        Self::serve(listener, origin, cookie)
    }

    /// By HTTPS, with a certificate of its own.
    pub async fn start_tls(cookie: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        programs::certificate(folder.path());
        let chain = CertificateDer::pem_file_iter(folder.path().join("cert.pem")).expect("a certificate");
        let chain = chain.collect::<Result<_, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(folder.path().join("key.pem")).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate with its key");
        let listener = listener().await;
        let origin = format!("https://{}", listener.local_addr().expect("an address"));
        let listener = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
        Self::serve(listener, origin, cookie)
    }

    fn serve<L>(listener: L, origin: String, cookie: Option<&str>) -> Self
    where
        L: axum::serve::Listener<Addr = SocketAddr>,
    {
        let cookie = cookie.map(str::to_owned);
        let site = Arc::new(Site { html: page_html(), cookie, shown: Mutex::default() });
        let router = Router::new()
            .route("/", get(html_page))
            .route("/targets", get(targets))
            .route("/saw", post(saw))
            .with_state(Arc::clone(&site));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { origin, site, server }
    }

    /// What the page opens from now on, and what it sees.
    pub fn show(&self, targets: Vec<Target>) -> Receiver<Seen> {
        let (sender, seen) = mpsc::channel(AHEAD);
        *self.site.shown.lock().expect("not poisoned") = Some((targets, sender));
        seen
    }
}

fn page_html() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/page.html");
    std::fs::read_to_string(path).expect("a page")
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

async fn html_page(State(site): State<Arc<Site>>) -> (http::HeaderMap, Html<String>) {
    let mut headers = http::HeaderMap::new();
    if let Some(cookie) = &site.cookie {
        headers.insert(SET_COOKIE, cookie.parse().expect("a cookie"));
    }
    (headers, Html(site.html.clone()))
}

async fn targets(State(site): State<Arc<Site>>) -> Json<Vec<Target>> {
    let shown = site.shown.lock().expect("not poisoned");
    Json(shown.as_ref().map(|(targets, _)| targets.clone()).unwrap_or_default())
}

async fn saw(State(site): State<Arc<Site>>, body: String) {
    let seen: Seen = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body:?}"));
    let sender = site.shown.lock().expect("not poisoned").as_ref().map(|(_, sender)| sender.clone());
    if let Some(sender) = sender {
        let _ = sender.send(seen).await;
    }
}

/// A listener whose connections speak TLS; one that can't is let go.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((socket, peer)) = self.listener.accept().await
                && let Ok(stream) = self.acceptor.accept(socket).await
            {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
