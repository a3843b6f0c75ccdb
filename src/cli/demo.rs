//! `walcast demo`: everything at once on a machine that has nothing running.
//!
//! ```text
//! Cluster ─► migrate ─► setup ─► worker (in this process) ◄─ tail, on this terminal
//!                         └────► writer, a few transactions a second
//! ```
//!
//! What was started ends in the opposite order: the worker confirms before its Postgres stops.

mod deed;
mod instructions;
mod scene;
mod writer;

use std::fs;
use std::io;
use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::oneshot;

use super::cluster::{Cluster, ClusterOptions};
use super::settings::{Settings, database, start_logging, variable};

use super::tail::{Credential, Follow, Signer, Style, local_url};
use super::{Serve, Worker, migrate, setup, signals};
use crate::config::{Config, Layers, Secret};
use crate::postgres::{Dsn, client};
use instructions::Instructions;
use writer::Writer;

const DATABASE: &str = "walcast";

/// Tried first for HTTP, so that the instructions of one demo serve the next.
const USUAL_PORT: u16 = 8080;

/// Whose token is printed, and of which organization.
const USER: &str = "ada";
const ORGANIZATION: &str = "acme";

/// Of the printed token: a day of trying things out.
const TOKEN_LASTS: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder for Postgres's data, kept for the next demo; without, a temporary one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The port of HTTP on 127.0.0.1; 8080, or any free one when that is taken
    #[arg(long, conflicts_with = "listen")]
    port: Option<u16>,
    /// Where Postgres's server programs are, also WALCAST_PG_BIN
    #[arg(long, value_name = "DIR")]
    pg_bin: Option<PathBuf>,
    /// The same story each time
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Only the writer, against DATABASE_URL
    #[arg(long, conflicts_with_all = ["data", "port", "pg_bin"])]
    writer_only: bool,
}

pub(super) async fn execute(settings: Settings, args: Args, worker: Worker) -> anyhow::Result<()> {
    start_logging("warn")?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let shutdown = signals::shutdown()?;
    if args.writer_only {
        let config = settings.load(false)?;
        let writer = Writer::new(database(&config)?, seed);
        writer.seed().await?;
        tokio::select! {
            () = shutdown => {}
            () = writer.run() => {}
        }
        return Ok(());
    }
    let mut shutdown = shutdown;
    let started = tokio::select! {
        () = &mut shutdown => return Ok(()),
        started = Demo::start(&settings, &args, seed, worker) => started?,
    };
    started.show(shutdown).await
}

/// Everything that runs.
struct Demo {
    worker: tokio::task::JoinHandle<anyhow::Result<()>>,
    stop_worker: oneshot::Sender<()>,
    writer: tokio::task::JoinHandle<()>,
    base: String,
    token: Secret,
    signer: Signer,
    cluster: Cluster,
    kept: Option<PathBuf>,
}

impl Demo {
    async fn start(settings: &Settings, args: &Args, seed: u64, worker: Worker) -> anyhow::Result<Self> {
        eprintln!("starting a private PostgreSQL …");
        let options = ClusterOptions {
            binaries: args.pg_bin.clone().or_else(|| variable("WALCAST_PG_BIN").map(PathBuf::from)),
            data_dir: args.data.clone(),
            password: Some(secret(args.data.as_deref(), "postgres-password")?),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(options).await?;
        let dsn = create_database(&cluster).await?;

        eprintln!("migrating and setting up …");
        migrate::run(&dsn, true).await?;
        let config = configure(settings, args, &cluster)?;
        setup::apply(&config, &dsn).await?;
        let story = Writer::new(dsn, seed);
        story.seed().await?;

        let key = config.access.jwt_secret.clone().ok_or_else(|| anyhow!("no key"))?;
        let signer = Signer {
            secret: key,
            user: USER.to_owned(),
            organization: Some(ORGANIZATION.to_owned()),
            role: None,
            access: config.access.clone(),
        };
        let token = signer.sign(TOKEN_LASTS)?;

        let (stop_worker, stop) = oneshot::channel();
        let (listening, bound) = oneshot::channel();
        let serve = Serve {
            config,
            reference: true,
            listening: Some(listening),
            shutdown: Box::pin(async {
                // The sender's drop means the same.
                let _ = stop.await;
            }),
        };
        let worker = tokio::spawn(worker(serve));
        let Ok(address) = bound.await else {
            return Err(worker.await?.err().unwrap_or_else(|| anyhow!("the worker ended")));
        };
        let writer = tokio::spawn(story.run());
        let kept = args.data.clone();
        Ok(Self { worker, stop_worker, writer, base: local_url(address), token, signer, cluster, kept })
    }

    /// Prints what to try and then the events, until the end.
    async fn show(self, shutdown: super::Shutdown) -> anyhow::Result<()> {
        let Self { mut worker, stop_worker, writer, base, token, signer, cluster, kept } = self;
        let style = Style::of(false, io::stdout().is_terminal(), std::env::var_os("NO_COLOR").as_deref());
        let program = program();
        let instructions = Instructions {
            program: &program,
            base: &base,
            token: token.expose(),
            organization: ORGANIZATION,
            database: &cluster.dsn(DATABASE),
            data: kept.as_deref(),
        };
        instructions.print(&mut io::stdout())?;
        let follow = Follow {
            base,
            credential: Credential::Signed(Box::new(signer)),
            parameters: vec![("organizationId".to_owned(), ORGANIZATION.to_owned())],
            since: None,
            style,
            quiet: true,
        };
        let mut out = io::stdout();
        let ended = tokio::select! {
            // Asked to end, nothing else matters any more.
            biased;
            () = shutdown => None,
            ended = &mut worker => Some(ended.unwrap_or_else(|error| Err(error.into()))),
            followed = follow.run(&mut out) => Some(followed),
        };
        writer.abort();
        let _ = stop_worker.send(());
        let outcome = match ended {
            Some(outcome) if worker.is_finished() => outcome,
            Some(outcome) => outcome.and(worker.await?),
            None => {
                eprintln!("stopping …");
                worker.await?
            }
        };
        tokio::task::spawn_blocking(move || drop(cluster)).await?;
        outcome
    }
}

async fn create_database(cluster: &Cluster) -> anyhow::Result<Dsn> {
    let admin = client::connect(&Dsn::parse(&cluster.dsn("postgres"))?).await?;
    if admin.query_opt("select 1 from pg_database where datname = $1", &[&DATABASE]).await?.is_none() {
        admin.batch_execute(&format!("create database {DATABASE}")).await?;
    }
    Ok(Dsn::parse(&cluster.dsn(DATABASE))?)
}

/// The reference domain's settings, the demo's own, then what the command line says. No file and no variables: the
/// demo is the same in every folder.
fn configure(settings: &Settings, args: &Args, cluster: &Cluster) -> anyhow::Result<Config> {
    let port = args.port.unwrap_or_else(|| if is_free(USUAL_PORT) { USUAL_PORT } else { 0 });
    let own = [
        ("http.listen", SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string()),
        ("http.drain", "200ms".to_owned()),
        ("access.jwt_secret", secret(args.data.as_deref(), "jwt-secret")?.expose().to_owned()),
    ];
    let mut flags: Vec<_> = own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    flags.extend(settings.flags().into_iter().filter(|(name, _)| name != "database.url"));
    flags.push(("database.url".to_owned(), cluster.dsn(DATABASE)));
    Ok(Layers { reference: true, flags, ..Layers::default() }.load()?)
}

/// How this program is called from any folder: by the name that a shell found it under, else by its whole path.
fn program() -> String {
    let called = std::env::args().next().filter(|called| !called.is_empty() && !called.contains('/'));
    let whole = || std::env::current_exe().ok().map(|path| path.display().to_string());
    called.or_else(whole).unwrap_or_else(|| "walcast".to_owned())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// 256 random bits as text; with a kept folder the same ones again, so that tokens outlive a restart.
fn secret(data: Option<&Path>, name: &str) -> anyhow::Result<Secret> {
    let fresh = || -> anyhow::Result<String> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("no randomness"))?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    };
    let Some(folder) = data else {
        return Ok(fresh()?.into());
    };
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = fresh()?;
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            let mut options = fs::OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(&path);
            file.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
                .with_context(|| path.display().to_string())?;
            Ok(text.into())
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_folder_keeps_its_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let first = secret(Some(&path), "jwt-secret").unwrap();
        assert_eq!(first.expose().len(), 64);
        assert_eq!(secret(Some(&path), "jwt-secret").unwrap(), first);
        assert_ne!(secret(Some(&path), "other").unwrap(), first);
        assert_ne!(secret(None, "jwt-secret").unwrap(), secret(None, "jwt-secret").unwrap());
    }
}
