//! `featlab cache ls|info|verify|gc`: what is stored, whether it is sound, and what belongs to nothing.

use std::time::Duration;

use anyhow::{Context as _, Result};
use featcache::{Cache, DamageKind, Manifest, Store};
use serde_json::json;

use crate::Context;
use crate::cli::CacheCommand;
use crate::exit::Status;

pub(crate) fn run(command: CacheCommand, context: &Context) -> Result<Status> {
    match command {
        CacheCommand::Ls { url } => ls(&url, context),
        CacheCommand::Info { url } => info(&url, context),
        CacheCommand::Verify { url } => verify(&url, context),
        CacheCommand::Gc { url, dry_run, min_age } => {
            gc(&url, Duration::from_secs(min_age), dry_run, context)
        }
    }
}

fn ls(url: &str, context: &Context) -> Result<Status> {
    let found = featcache::find(&Store::open(url)?).with_context(|| format!("listing {url}"))?;
    if found.is_empty() {
        context.reporter.say(format!("no caches below {url}"));
    }
    for one in found {
        if !one.complete {
            let value = json!({ "path": one.path, "complete": false });
            context.output.result(&value, |_| format!("{:40}  incomplete", one.path))?;
            continue;
        }
        let cache = match Cache::open(one.store) {
            Ok(cache) => cache,
            Err(error) => {
                let value = json!({ "path": one.path, "complete": false, "error": error.to_string() });
                context.output.result(&value, |_| format!("{:40}  {error}", one.path))?;
                continue;
            }
        };
        let m = cache.manifest();
        let value = json!({ "path": one.path, "complete": true, "cache_id": m.cache_id, "key": m.key, "rows": m.rows, "bytes": stored(m) });
        context.output.result(&value, |_| {
            let (key, size) = (&m.key, bytes(stored(m)));
            format!(
                "{:40}  {} {} {} px  {} {} {}  {} rows  {size}",
                one.path, key.dataset, key.split, key.res, key.architecture, key.facet, key.dtype, m.rows
            )
        })?;
    }
    Ok(Status::Done)
}

/// Bytes of all shards.
fn stored(manifest: &Manifest) -> u64 {
    manifest.shards.iter().map(|shard| shard.bytes).sum()
}

fn info(url: &str, context: &Context) -> Result<Status> {
    let cache = Cache::open(Store::open(url)?).with_context(|| format!("cache {url}"))?;
    let manifest = cache.manifest();
    context.output.result(manifest, |m| {
        let mut lines = vec![
            format!("cache      {}", m.cache_id),
            format!("rows       {} in {} shards, {}", m.rows, m.shards.len(), bytes(stored(m))),
            format!(
                "tokens     [{}, {}] {} on a {} × {} grid",
                m.layout.tokens(),
                m.layout.dim,
                m.key.dtype,
                m.layout.grid.0,
                m.layout.grid.1
            ),
        ];
        if let Ok(serde_json::Value::Object(key)) = serde_json::to_value(&m.key) {
            lines.extend(key.iter().map(|(name, value)| format!("key        {name} = {value}")));
        }
        lines.extend(m.provenance.iter().map(|(name, value)| format!("from       {name} = {value}")));
        lines.extend(m.skipped.iter().map(|t| format!("skipped    {}: {}", t.image_id, t.reason)));
        lines.push(format!("written by {}", m.created_with));
        lines.join("\n")
    })?;
    Ok(Status::Done)
}

fn verify(url: &str, context: &Context) -> Result<Status> {
    let cache = Cache::open(Store::open(url)?).with_context(|| format!("cache {url}"))?;
    let shards = cache.manifest().shards.len();
    let progress = context.reporter.start("verify", shards as u64, "shards");
    let mut stopped = Ok(());
    let damage = cache.verify(&mut |_| {
        progress.tick(1);
        stopped = context.interrupt.check();
    })?;
    drop(progress);
    stopped?;
    let (orphans, damage): (Vec<_>, Vec<_>) =
        damage.into_iter().partition(|one| one.kind == DamageKind::Orphan);
    for one in &orphans {
        context.reporter.say(format!("note: {one}"));
    }
    for one in &damage {
        context.reporter.warn(one.to_string());
    }
    let value = json!({ "cache": url, "cache_id": cache.manifest().cache_id, "shards": shards, "damage": damage.iter().map(ToString::to_string).collect::<Vec<_>>() });
    context.output.result(&value, |_| match damage.len() {
        0 => format!("{url}: sound, {} rows in {shards} shards", cache.rows()),
        n => format!(
            "{url}: {n} problems in {shards} shards; the same extraction with --repair computes them again"
        ),
    })?;
    Ok(if damage.is_empty() { Status::Done } else { Status::Damaged })
}

fn gc(url: &str, min_age: Duration, dry_run: bool, context: &Context) -> Result<Status> {
    let mut garbage = Vec::new();
    for one in featcache::find(&Store::open(url)?).with_context(|| format!("listing {url}"))? {
        let place = one.store.display().to_owned();
        let files = featcache::gc(&one.store, min_age, dry_run).with_context(|| format!("cache {place}"))?;
        garbage.extend(files.into_iter().map(|(file, size)| (format!("{place}/{file}"), size)));
    }
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

/// A size as people read it.
fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}
