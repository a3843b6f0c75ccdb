//! The binary: the commands, and the worker that they run.

use std::process::ExitCode;

use walcast::app::{self, Listening, RunOptions};
use walcast::cli::{self, Serve};

fn main() -> ExitCode {
    cli::main(|Serve { config, reference, listening, shutdown }| {
        let listening = listening.map(|tell| -> Listening {
            Box::new(move |address| {
                // Whoever asked may be gone by now.
                let _ = tell.send(address);
            })
        });
        Box::pin(app::run(config, RunOptions { reference, listening }, shutdown))
    })
}
