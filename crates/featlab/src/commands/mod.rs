//! The commands, one file each: arguments in, printed result and exit status out.

mod asked;
mod attention;
mod cache;
mod classify;
mod demo;
mod doctor;
mod extract;
mod pretrain;
mod probe;
mod reduce;
mod report;
mod segment;
mod sweep;

use anyhow::Result;

use crate::Context;
use crate::cli::Command;
use crate::exit::Status;

/// Runs one command.
pub(crate) fn run(command: Command, context: &Context) -> Result<Status> {
    match command {
        Command::Demo(args) => demo::run(args, context),
        Command::Extract(args) => extract::run(args, context),
        Command::Cache(command) => cache::run(command, context),
        Command::Reduce(args) => reduce::run(args, context),
        Command::Probe(args) => probe::run(args, context),
        Command::Classify(args) => classify::run(args, context),
        Command::Attention(args) => attention::run(args, context),
        Command::Segment(command) => segment::run(command, context),
        Command::Sweep(args) => sweep::run(args, context),
        Command::Report(args) => report::run(args, context),
        Command::Pretrain(command) => pretrain::run(command, context),
        Command::Doctor(args) => doctor::run(&args, context),
    }
}
