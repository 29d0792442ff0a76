//! `featlab cache`: what is stored, whether it is sound, and what can be done with it.

mod convert;
pub(crate) mod gc;
mod info;
mod ls;
pub(crate) mod project;
mod repair;
mod scan;
mod verify;

use std::time::Duration;

use anyhow::Result;
use featcache::Manifest;

use crate::Context;
use crate::cli::CacheCommand;
use crate::exit::Status;

pub(crate) fn run(command: CacheCommand, context: &Context) -> Result<Status> {
    match command {
        CacheCommand::Ls { url } => ls::run(&url, context),
        CacheCommand::Info(args) => info::run(args, context),
        CacheCommand::Verify(args) => verify::run(args, context),
        CacheCommand::Repair(args) => repair::run(args, context),
        CacheCommand::Convert(args) => convert::run(args, context),
        CacheCommand::Project(args) => project::run(args, context),
        CacheCommand::Scan(args) => scan::run(args, context),
        CacheCommand::Gc { url, dry_run, min_age } => {
            gc::run(&url, Duration::from_secs(min_age), dry_run, context)
        }
    }
}

/// Bytes of all shards.
fn stored(manifest: &Manifest) -> u64 {
    manifest.shards.iter().map(|shard| shard.bytes).sum()
}

/// A size as people read it.
fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}
