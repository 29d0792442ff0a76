//! The `featlab` program: parse, run, turn the end into an exit code.

use std::process::ExitCode;

use clap::Parser;
use featlab::cli::Cli;

fn main() -> ExitCode {
    featlab::run(Cli::parse())
}
