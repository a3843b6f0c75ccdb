//! The commands: what a person types, what they read, and the code that a shell sees.
//!
//! The commands know configuration, database and HTTP; the worker itself is handed in by `main`, since only `app`
//! wires it.

pub mod cluster;
mod demo;
mod exit;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod migrate;
mod run;
mod settings;
pub mod setup;
mod signals;
mod tail;
mod token;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::sync::oneshot;

pub use exit::{Refused, Usage};

use crate::config::Config;
use settings::Settings;

/// Ends a worker when it resolves.
pub type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a worker is asked to do.
pub struct Serve {
    pub config: Config,
    /// With the reference domain's catalog.
    pub reference: bool,
    /// Told the address of HTTP once it is bound.
    pub listening: Option<oneshot::Sender<SocketAddr>>,
    pub shutdown: Shutdown,
}

/// Runs the worker until its shutdown, or fails.
pub type Worker = fn(Serve) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// Committed PostgreSQL rows as typed events on authenticated Server-Sent-Events streams.
#[derive(Debug, Parser)]
#[command(name = "walcast", version, about, disable_help_subcommand = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it all: a private Postgres, the reference domain, a writer that lives it, the worker
    Demo(demo::Args),
    /// Serve streams until SIGTERM or Ctrl-C
    Run(run::Args),
    /// Create or update walcast's own schema in the database
    Migrate(migrate::Args),
    /// Make what the worker needs in the database: publication, slot, replica identity, grants
    Setup(setup::Args),
    /// Sign a token for development, with access.jwt_secret
    Token(token::Args),
    /// Follow an organization's events in the terminal
    Tail(tail::Args),
}

/// The whole program: parses the command line, runs the command, tells what went wrong.
#[must_use]
pub fn main(worker: Worker) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help asked for is no error. That it can't be written is nothing to tell anybody.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let done = runtime().and_then(|runtime| {
        let done = runtime.block_on(execute(cli, worker));
        // A blocking task that hangs must not hold the end up.
        runtime.shutdown_background();
        done
    });
    exit::report(done)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

async fn execute(cli: Cli, worker: Worker) -> anyhow::Result<()> {
    let Cli { settings, command } = cli;
    match command {
        Command::Demo(args) => demo::execute(settings, args, worker).await,
        Command::Run(args) => run::execute(&settings, &args, worker).await,
        Command::Migrate(args) => migrate::execute(&settings, &args).await,
        Command::Setup(args) => setup::execute(&settings, args).await,
        Command::Token(args) => token::execute(&settings, args),
        Command::Tail(args) => tail::execute(&settings, args).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_may_stand_before_and_after_the_command() {
        for line in
            ["walcast --listen 127.0.0.1:1 run --reference", "walcast run --reference --listen 127.0.0.1:1"]
        {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.settings.listen.as_deref(), Some("127.0.0.1:1"));
            assert!(matches!(cli.command, Command::Run(run::Args { reference: true })));
        }
    }
}
