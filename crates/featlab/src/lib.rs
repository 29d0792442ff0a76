#![doc = include_str!("../README.md")]

mod bench;
pub mod cli;
mod commands;
mod config;
mod dim;
mod exit;
mod interrupt;
mod output;
mod pretrain_config;
mod progress;
mod records;
mod report;
mod sources;
mod stages;
mod study;
mod sweep;

use std::process::ExitCode;

use cli::Cli;
use interrupt::Interrupt;
use output::Output;
use progress::{Reporter, Verbosity};

/// What every command is given besides its arguments.
struct Context {
    output: Output,
    reporter: Reporter,
    interrupt: Interrupt,
}

/// Runs one command line and returns the process's exit code (see `exit.rs` for their meaning).
pub fn run(cli: Cli) -> ExitCode {
    let verbosity = match (cli.global.quiet, cli.global.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    start_logging(verbosity);
    let reporter = Reporter::new(verbosity);
    let outcome = Interrupt::install().map_err(anyhow::Error::from).and_then(|interrupt| {
        let context = Context { output: Output::new(cli.global.json), reporter, interrupt };
        commands::run(cli.command, &context)
    });
    match outcome {
        Ok(status) => status.code().into(),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            reporter.error(&exit::one_line(&error));
            exit::code(&error).into()
        }
    }
}

fn start_logging(verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity::Quiet => tracing::Level::ERROR,
        Verbosity::Normal => tracing::Level::WARN,
        Verbosity::Verbose => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false).init();
}
