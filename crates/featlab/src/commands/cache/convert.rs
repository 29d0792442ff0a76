//! `featlab cache convert`: the same features in another form, or in another place.

use std::ops::ControlFlow;

use anyhow::{Context as _, Result};
use featcache::{Cache, Form, Store};
use serde_json::json;

use super::{bytes, stored};
use crate::Context;
use crate::cli::ConvertArgs;
use crate::exit::Status;

pub(super) fn run(args: ConvertArgs, context: &Context) -> Result<Status> {
    let form: Form = args.layout.parse()?;
    let cache = context.cache(&args.url)?;
    let converted = converted(&args, &cache, form, context)?;
    let (from, to) = (stored(cache.manifest()), stored(converted.manifest()));
    let value = json!({ "cache": args.url, "out": args.out, "layout": form, "cache_id": converted.manifest().cache_id, "rows": converted.rows(), "bytes": to });
    context.output.result(&value, |_| {
        format!("{}: {} rows as {form}, {} (from {})", args.out, converted.rows(), bytes(to), bytes(from))
    })?;
    Ok(Status::Done)
}

/// Here, or on the cluster.
fn converted(args: &ConvertArgs, cache: &Cache, form: Form, context: &Context) -> Result<Cache> {
    #[cfg(feature = "cluster")]
    if let Some(cluster) = crate::cluster::Cluster::of(context)? {
        let job = crate::cluster::WritingJob::convert(args.clone());
        return Ok(cluster.write(job, "convert", &Store::open(&args.out)?)?.cache);
    }
    let shards = cache.manifest().shards.len();
    let progress = context.reporter.start("convert", shards as u64, "shards");
    let converted = featcache::convert(cache, Store::open(&args.out)?, form, &mut |_| {
        progress.tick(1);
        if context.interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .with_context(|| format!("converting {} to {}", args.url, args.out))?;
    drop(progress);
    match converted {
        Some(converted) => Ok(converted),
        None => {
            context.interrupt.check()?;
            anyhow::bail!("converting {} stopped before its end", args.url)
        }
    }
}
