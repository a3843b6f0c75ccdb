//! A TCP proxy between the worker and Postgres, for faults on purpose.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use walcast::postgres::dsn::{Dsn, Host};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Forward,
    /// Bytes are taken and go nowhere: a network that lost its way, without a reset.
    BlackHole,
    /// What the server says is held back once it has said more than is let through.
    Hold,
    /// Connections are closed, new ones too.
    Cut,
}

/// Forwards to an address, until told otherwise.
pub struct Proxy {
    pub address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    /// Bytes of the server's that may still pass while it is held: none once something was held back.
    let_through: Arc<watch::Sender<u64>>,
    target: watch::Sender<SocketAddr>,
}

/// The address of a database's server.
pub async fn server_of(url: &str) -> SocketAddr {
    match Dsn::parse(url).expect("its URL").hosts.first() {
        Some(Host::Tcp { host, port }) => {
            let mut found = tokio::net::lookup_host((host.as_str(), *port)).await.expect("an address");
            found.next().expect("one at least")
        }
        other => panic!("tests reach the server by TCP: {other:?}"),
    }
}

/// A proxy to a database's server, and how a worker goes through it.
pub async fn proxied(url: &str) -> (Proxy, impl Fn(&Dsn) -> Dsn + 'static) {
    let proxy = Proxy::start(server_of(url).await).await;
    let address = proxy.address;
    let through = move |dsn: &Dsn| Dsn {
        hosts: vec![Host::Tcp { host: address.ip().to_string(), port: address.port() }],
        ..dsn.clone()
    };
    (proxy, through)
}

impl Proxy {
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let mode = Arc::new(watch::Sender::new(Mode::Forward));
        let modes = Arc::clone(&mode);
        let let_through = Arc::new(watch::Sender::new(0));
        let left = Arc::clone(&let_through);
        let (leads_to, target) = watch::channel(target);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *modes.borrow() == Mode::Cut {
                    continue;
                }
                let to = *target.borrow();
                let Ok(server) = TcpStream::connect(to).await else { continue };
                let (client_read, client_write) = client.into_split();
                let (server_read, server_write) = server.into_split();
                tokio::spawn(forward(client_read, server_write, modes.subscribe(), None));
                tokio::spawn(forward(server_read, client_write, modes.subscribe(), Some(Arc::clone(&left))));
            }
        });
        Self { address, mode, let_through, target: leads_to }
    }

    /// New connections go to another server.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Lets the server say so much more, on all connections together, and holds the rest back.
    pub fn hold_after(&self, bytes: u64) {
        self.let_through.send_replace(bytes);
        self.mode.send_replace(Mode::Hold);
    }

    /// Returns once something was held back.
    pub async fn holds(&self) {
        let mut left = self.let_through.subscribe();
        left.wait_for(|left| *left == 0).await.expect("its sender is here");
    }

    pub fn black_hole(&self) {
        self.mode.send_replace(Mode::BlackHole);
    }

    pub fn restore(&self) {
        self.mode.send_replace(Mode::Forward);
    }
}

/// `left` is of the server's side.
async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut mode: watch::Receiver<Mode>,
    left: Option<Arc<watch::Sender<u64>>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    // A connection that lost bytes is never mended: forwarding again would splice what no sender sent.
    let mut holed = false;
    loop {
        let read = tokio::select! {
            biased;
            _ = mode.wait_for(|mode| *mode == Mode::Cut) => return,
            read = from.read(&mut buffer) => read,
        };
        let Ok(count @ 1..) = read else { return };
        holed |= *mode.borrow() == Mode::BlackHole;
        if let Some(left) = left.as_ref().filter(|_| *mode.borrow() == Mode::Hold) {
            let before = *left.borrow();
            left.send_replace(before.saturating_sub(count as u64));
            if before < count as u64 && mode.wait_for(|mode| *mode != Mode::Hold).await.is_err() {
                return;
            }
        }
        if !holed && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
