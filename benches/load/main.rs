//! The table of DESIGN.md's measures, made on this machine: ours beside the limit and beside peers, in one run.
//!
//! ```text
//! world (Postgres, worker) ─┐
//! peers (bare, axum, …) ────┴─ streams ─► crowd (checks and counts) ─► report
//! ```
//!
//! Run by `scripts/bench`; docs/performance.md says how each figure is made. Within a round servers take turns, and
//! who begins changes from round to round: a ratio compares the same moments of the machine. Any event lost, twice or
//! out of order on any stream ends the run with an error.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a bench: it stops where it can't go on, and its numbers are small"
)]
#![allow(unreachable_pub, reason = "nothing is outside of this binary")]

mod crowd;
mod histogram;
mod machine;
mod marker;
mod peers;
mod plot;
mod process;
mod report;
mod scenario;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use report::Report;
use scenario::{Scale, fanout, flat, idle, ingest, latency, many, storm};
use world::World;

/// walcast beside the limit and its peers
#[derive(Debug, Parser)]
struct Args {
    /// Proves that all of it runs, in small; times mean nothing
    #[arg(long)]
    short: bool,
    /// Only these works
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Work>,
    /// How often each is measured
    #[arg(long)]
    rounds: Option<u32>,
    /// Without nginx, Node and Debezium
    #[arg(long)]
    no_peers: bool,
    /// Where to put the report
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where to put the plot of cost as work grows
    #[arg(long)]
    plot: Option<PathBuf>,
    /// What cargo bench adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Work {
    Drain,
    Giant,
    Fanout,
    Idle,
    Latency,
    Storm,
    Filtered,
    Organizations,
    Slow,
    Flat,
}

fn main() -> ExitCode {
    let served = match std::env::args().nth(1).as_deref() {
        Some("serve-bare") => peers::bare::serve(),
        Some("serve-axum") => peers::axum::serve(),
        _ => {
            let args = Args::parse();
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Into::into)
                .and_then(|runtime| runtime.block_on(run(&args)))
        }
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let began = Instant::now();
    machine::raise_files()?;
    let mut scale = if args.short { Scale::SHORT } else { Scale::FULL };
    scale.peers &= !args.no_peers;
    scale.rounds = args.rounds.unwrap_or(scale.rounds);
    let world = World::start().await?;
    let mut report = Report::default();
    let mut works = <Work as clap::ValueEnum>::value_variants().to_vec();
    works.retain(|work| args.only.is_empty() || args.only.contains(work));
    for work in works {
        eprintln!("{work:?}, {:.0} s so far", began.elapsed().as_secs_f64());
        match work {
            Work::Drain => ingest::small(&world, scale, &mut report).await?,
            Work::Giant => ingest::giant(&world, scale, &mut report).await?,
            Work::Fanout => fanout::run(&world, scale, &mut report).await?,
            Work::Idle => idle::run(&world, scale, &mut report).await?,
            Work::Latency => latency::run(&world, scale, &mut report).await?,
            Work::Storm => storm::run(&world, scale, &mut report).await?,
            Work::Filtered => many::filtered(&world, scale, &mut report).await?,
            Work::Organizations => many::organizations(&world, scale, &mut report).await?,
            Work::Slow => many::slow_reader(&world, scale, &mut report).await?,
            Work::Flat => {
                let series = flat::run(&world, scale, &mut report).await?;
                if let Some(path) = &args.plot {
                    std::fs::write(path, plot::svg(&series))?;
                }
            }
        }
    }
    let machine = machine::description(&world.version().await?);
    let text = format!(
        "{machine}\n\nMedians of {} rounds (least to greatest); {:.0} s in all.\n{}",
        scale.rounds,
        began.elapsed().as_secs_f64(),
        report.markdown()
    );
    println!("{text}");
    if let Some(path) = &args.out {
        std::fs::write(path, text)?;
    }
    Ok(())
}
