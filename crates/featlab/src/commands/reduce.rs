//! `featlab reduce`: a reducer fitted on a cache, into one safetensors file.

use anyhow::Result;
use dimred::Reducer;
use serde_json::json;

use crate::Context;
use crate::cli::{Method, ReduceArgs};
use crate::exit::{Status, usage};
use crate::records::{check_local, write_atomically};
use crate::stages::reduce::Job;

pub(crate) fn run(args: ReduceArgs, context: &Context) -> Result<Status> {
    check_local(&args.out)?;
    if args.out.exists() && !args.overwrite {
        return Err(usage(format!("{} exists; name another file or add --overwrite", args.out.display())));
    }
    let cache = context.cache(&args.cache)?.with_column(&args.column)?;
    let dim = cache.layout().dim;
    let max_dim = args.dims.unwrap_or(dim);
    if max_dim == 0 || max_dim > dim {
        return Err(usage(format!(
            "--dims {max_dim}: the features have {dim} dimensions, expected 1 to {dim}"
        )));
    }
    let method = match args.method {
        Method::Pca => "pca",
        Method::Rp => "rp",
        Method::RpSparse => "rp-sparse",
    };
    let scaler = args.scaler.parse().map_err(|e| usage(format!("{e}")))?;
    let job = Job { method: method.to_owned(), scaler, seed: args.seed, max_dim };
    let reducer = job.fit(&cache, &mut None, context)?;
    write_atomically(&args.out, &reducer.to_bytes(&Job::provenance(&cache))?)?;
    let variance: Vec<(usize, f64)> = match &reducer {
        Reducer::Pca(pca) => {
            let ratio = pca.explained_variance_ratio();
            let dims =
                [3, 6, 12, 24, 48, 96, 192, 384, 768].into_iter().filter(|k| *k < max_dim).chain([max_dim]);
            dims.map(|k| (k, ratio.iter().take(k).sum())).collect()
        }
        _ => Vec::new(),
    };
    let value = json!({ "out": args.out, "method": method, "dim": dim, "max_dim": max_dim, "explained_variance_ratio": variance });
    context.output.result(&value, |_| {
        let mut lines = vec![format!("{}: {method}, {dim} → up to {max_dim} dimensions", args.out.display())];
        lines.extend(
            variance
                .iter()
                .map(|(k, share)| format!("  {k:5} components hold {:5.1} % of the variance", 100.0 * share)),
        );
        lines.join("\n")
    })?;
    Ok(Status::Done)
}
