//! `featlab cache gc`: removing what belongs to nothing.

use std::time::Duration;

use anyhow::{Context as _, Result};
use featcache::Store;
use serde_json::json;

use super::bytes;
use crate::Context;
use crate::exit::Status;

pub(super) fn run(url: &str, min_age: Duration, dry_run: bool, context: &Context) -> Result<Status> {
    let garbage = removed(url, min_age, dry_run, context)?;
    let size: u64 = garbage.iter().map(|(_, size)| size).sum();
    let value = json!({ "place": url, "dry_run": dry_run, "bytes": size, "files": garbage.iter().map(|(file, _)| file).collect::<Vec<_>>() });
    context.output.result(&value, |_| {
        let mut lines: Vec<_> =
            garbage.iter().map(|(file, size)| format!("{file}  {}", bytes(*size))).collect();
        let done = if dry_run { "would be removed" } else { "removed" };
        lines.push(format!("{url}: {} files, {} {done}", garbage.len(), bytes(size)));
        lines.join("\n")
    })?;
    Ok(Status::Done)
}

/// Here, or on the cluster: files and their sizes.
fn removed(url: &str, min_age: Duration, dry_run: bool, context: &Context) -> Result<Vec<(String, u64)>> {
    #[cfg(feature = "cluster")]
    if let Some(cluster) = crate::cluster::Cluster::of(context)? {
        return cluster.gc(url, min_age, dry_run);
    }
    let _ = context;
    garbage(url, min_age, dry_run)
}

/// Removes what belongs to nothing below a place, or only lists it.
///
/// # Errors
/// If it cannot be listed, or something not removed.
pub(crate) fn garbage(url: &str, min_age: Duration, dry_run: bool) -> Result<Vec<(String, u64)>> {
    let mut garbage = Vec::new();
    for one in featcache::find(&Store::open(url)?).with_context(|| format!("listing {url}"))? {
        let place = one.store.display().to_owned();
        let files = featcache::gc(&one.store, min_age, dry_run).with_context(|| format!("cache {place}"))?;
        garbage.extend(files.into_iter().map(|(file, size)| (format!("{place}/{file}"), size)));
    }
    Ok(garbage)
}
