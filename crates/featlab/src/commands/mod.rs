//! The commands, one file each: arguments in, printed result and exit status out.

mod asked;
mod attention;
mod cache;
mod classify;
#[cfg(feature = "cluster")]
mod cluster;
mod demo;
mod doctor;
mod extract;
mod pretrain;
mod probe;
mod reduce;
mod report;
mod segment;
#[cfg(feature = "cluster")]
mod sql;
mod sweep;

use anyhow::Result;

#[cfg(feature = "cluster")]
pub(crate) use {cache::gc::garbage, cache::project as projection, extract::Extraction, probe::ProbeStudy};

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
        #[cfg(feature = "cluster")]
        Command::Cluster(command) => cluster::run(command, context),
        #[cfg(feature = "cluster")]
        Command::Sql(args) => sql::run(args, context),
        Command::Doctor(args) => doctor::run(&args, context),
    }
}
