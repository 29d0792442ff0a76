//! `featlab cache project`: a cache's tokens through a reducer, into a new cache.

use anyhow::{Context as _, Result};
use featcache::{Cache, Dtype, Form, Store};
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
    let projection = Projection::new(&args, source, reducer)?;
    let Outcome { cache, computed } = projected(&projection, context)
        .with_context(|| format!("projecting {} to {}", args.url, args.out))?;
    let manifest = projection.source.manifest();
    let (from, to) = (stored(manifest), stored(cache.manifest()));
    let (method, dim) = (projection.reducer.reducer.method(), projection.dim);
    let value = json!({
        "cache": args.url, "out": args.out, "method": method, "dim": dim, "cache_id": cache.manifest().cache_id,
        "rows": cache.rows(), "computed": computed, "bytes": to,
    });
    context.output.result(&value, |_| {
        let work = if computed == 0 { "nothing to compute, " } else { "" };
        format!(
            "{}: {work}{} rows by {method}, {} → {} dimensions, {} (from {})",
            args.out,
            cache.rows(),
            projection.source.layout().dim,
            dim,
            bytes(to),
            bytes(from)
        )
    })?;
    Ok(Status::Done)
}

/// Here, or on the cluster.
fn projected(projection: &Projection, context: &Context) -> Result<Outcome> {
    #[cfg(feature = "cluster")]
    if let Some(cluster) = crate::cluster::Cluster::of(context)? {
        let job = crate::cluster::WritingJob::project(projection.args.clone())?;
        let written = cluster.write(job, "project", &projection.store()?)?;
        return Ok(Outcome { cache: written.cache, computed: written.computed });
    }
    projection.job().run(projection.store()?, context)
}

/// The command with its cache and reducer open.
pub(crate) struct Projection {
    args: ProjectArgs,
    source: Cache,
    reducer: ReducerFile,
    dim: usize,
    dtype: Dtype,
    form: Form,
}

impl Projection {
    /// Of a cache and a reducer that belongs to it.
    ///
    /// # Errors
    /// If an option cannot be.
    pub(crate) fn new(args: &ProjectArgs, source: Cache, reducer: ReducerFile) -> Result<Self> {
        let word = |e: featcache::Error| usage(e.to_string());
        let manifest = source.manifest();
        Ok(Self {
            dim: args.dims.unwrap_or_else(|| reducer.reducer.max_dim()),
            dtype: args.dtype.as_deref().map_or(Ok(manifest.key.dtype), str::parse).map_err(word)?,
            form: args.layout.as_deref().map_or(Ok(manifest.form), str::parse).map_err(word)?,
            args: args.clone(),
            source,
            reducer,
        })
    }

    /// What is to be written.
    pub(crate) fn job(&self) -> Job<'_> {
        Job {
            source: &self.source,
            reducer: &self.reducer,
            dim: self.dim,
            dtype: self.dtype,
            form: self.form,
            overwrite: self.args.overwrite,
            repair: self.args.repair,
        }
    }

    /// Where it goes.
    ///
    /// # Errors
    /// If there is no such store.
    pub(crate) fn store(&self) -> Result<Store> {
        Ok(Store::open(&self.args.out)?)
    }
}
