//! `walcast run`: the worker in the foreground.

use super::exit::Usage;
use super::settings::{Settings, database, start_logging};
use super::{Serve, Worker, signals};
use crate::telemetry::logging;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Serve the reference domain: its catalog, presets and memberships, below your own settings
    #[arg(long)]
    pub(super) reference: bool,
}

pub(super) async fn execute(settings: &Settings, args: &Args, worker: Worker) -> anyhow::Result<()> {
    start_logging(logging::DEFAULT)?;
    let config = settings.load(args.reference)?;
    database(&config)?;
    if !args.reference && config.catalog.path.is_none() {
        let text =
            "no catalog: set catalog.path to your own, or say run --reference for the reference domain's";
        return Err(Usage(text.to_owned()).into());
    }
    if !config.access.admits_anybody() {
        let text = "nobody could be let in: set access.jwt_secret (WALCAST_ACCESS_JWT_SECRET), access.jwt_public_keys, \
                    access.jwks_url, access.authjs or access.session_query";
        return Err(Usage(text.to_owned()).into());
    }
    let shutdown = signals::shutdown()?;
    worker(Serve { config, reference: args.reference, listening: None, shutdown }).await
}
