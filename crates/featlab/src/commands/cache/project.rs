//! `featlab cache project`: a cache's tokens through a reducer, into a new cache.

use anyhow::{Context as _, Result};
use featcache::Store;
use serde_json::json;

use super::{bytes, stored};
use crate::Context;
use crate::cli::ProjectArgs;
use crate::exit::{Status, usage};
use crate::stages::project::{Job, Outcome};
use crate::stages::reducer_file::ReducerFile;

pub(super) fn run(args: ProjectArgs, context: &Context) -> Result<Status> {
    let source = context.cache(&args.url)?.with_column(&args.column)?;
    let reducer = ReducerFile::read(&args.reducer, &source)?;
    let manifest = source.manifest();
    let word = |e: featcache::Error| usage(e.to_string());
    let job = Job {
        source: &source,
        reducer: &reducer,
        dim: args.dims.unwrap_or_else(|| reducer.reducer.max_dim()),
        dtype: args.dtype.as_deref().map_or(Ok(manifest.key.dtype), str::parse).map_err(word)?,
        form: args.layout.as_deref().map_or(Ok(manifest.form), str::parse).map_err(word)?,
        overwrite: args.overwrite,
        repair: args.repair,
    };
    let Outcome { cache, computed } = job
        .run(Store::open(&args.out)?, context)
        .with_context(|| format!("projecting {} to {}", args.url, args.out))?;
    let (method, from, to) = (reducer.reducer.method(), stored(manifest), stored(cache.manifest()));
    let value = json!({
        "cache": args.url, "out": args.out, "method": method, "dim": job.dim, "cache_id": cache.manifest().cache_id,
        "rows": cache.rows(), "computed": computed, "bytes": to,
    });
    context.output.result(&value, |_| {
        let work = if computed == 0 { "nothing to compute, " } else { "" };
        format!(
            "{}: {work}{} rows by {method}, {} → {} dimensions, {} (from {})",
            args.out,
            cache.rows(),
            source.layout().dim,
            job.dim,
            bytes(to),
            bytes(from)
        )
    })?;
    Ok(Status::Done)
}
