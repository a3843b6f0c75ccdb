//! The wiring: every task that lives long is spawned here.

use std::future::Future;
use std::net::SocketAddr;

use crate::config::Config;

/// Told once the worker listens.
pub type Listening = Box<dyn FnOnce(SocketAddr) + Send>;

#[derive(Default)]
pub struct RunOptions {
    pub reference: bool,
    pub listening: Option<Listening>,
}

/// Serves until `shutdown`.
///
/// # Errors
/// What can't be mended by waiting.
pub async fn run(_config: Config, _options: RunOptions, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    shutdown.await;
    Ok(())
}
