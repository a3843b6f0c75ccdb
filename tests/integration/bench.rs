//! The test bench: a cluster, a worker, clients that assert what is on the wire, faults on purpose.
//!
//! ```text
//! server::database() ─► TestApp ─► worker in this process (or WorkerProcess: the binary, to be killed)
//!                          │
//!                          ├─► sse::Stream: whole frames          proxy::Proxy: between worker and Postgres
//!                          └─► watcher::Watcher: other people's clients, through front::Front: nginx and Caddy
//! ```

pub mod app;
pub mod drain;
pub mod front;
pub mod http;
pub mod page;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod server;
pub mod sse;
pub mod watcher;

use std::future::Future;
use std::time::Duration;

/// How long a signal may take to come before a test says it never will. Long, because machines are shared: it is
/// only waited out by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until `probe` answers, asking again every few milliseconds: for states that have no signal of their own.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let asked = async {
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}
