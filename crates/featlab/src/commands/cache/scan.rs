//! `featlab cache scan`: reads every row once, checked, and says how fast that was.

use std::time::Instant;

use anyhow::{Context as _, Result};
use featcache::{Order, ReadOptions, StreamOptions};
use serde_json::json;

use super::bytes;
use crate::Context;
use crate::cli::ScanArgs;
use crate::exit::Status;

pub(super) fn run(args: ScanArgs, context: &Context) -> Result<Status> {
    let cache = context.cache(&args.url)?;
    let order = if args.shuffle { Order::Shuffled { seed: args.seed, epoch: 0 } } else { Order::Stored };
    let columns = (!args.columns.is_empty()).then_some(args.columns);
    let options = StreamOptions {
        order,
        read: ReadOptions { columns, ..ReadOptions::default() },
        threads: args.threads,
        ..StreamOptions::default()
    };
    let started = Instant::now();
    let progress = context.reporter.start("scan", cache.rows() as u64, "rows");
    let (mut rows, mut read) = (0u64, 0u64);
    for record in cache.stream(&options)? {
        context.interrupt.check()?;
        let record = record.with_context(|| format!("cache {}", args.url))?;
        rows += 1;
        read += record.stored_bytes() as u64;
        progress.tick(1);
    }
    drop(progress);
    let seconds = started.elapsed().as_secs_f64();
    let fetched = context.local_copy.as_ref().map(featcache::LocalCopy::fetched_bytes);
    let value = json!({ "cache": args.url, "rows": rows, "bytes": read, "seconds": seconds, "fetched_bytes": fetched });
    context.output.result(&value, |_| {
        let speed = read as f64 / 1e6 / seconds;
        let fetched = fetched.map(|n| format!(", {} fetched", bytes(n))).unwrap_or_default();
        format!(
            "{}: {rows} rows, {} in {seconds:.2} s: {speed:.0} MB/s, {:.0} rows/s{fetched}",
            args.url,
            bytes(read),
            rows as f64 / seconds
        )
    })?;
    Ok(Status::Done)
}
