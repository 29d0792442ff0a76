//! `featlab reduce`: a reducer fitted on a cache, or on a sample of it, into one safetensors file.

use anyhow::{Context as _, Result};
use dimred::{Reducer, Scaler};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::Context;
use crate::cli::{Method, ReduceArgs};
use crate::config::StegoToml;
use crate::exit::{Status, usage};
use crate::records::{check_local, key_of, write_atomically};
use crate::stages::features::Features;
use crate::stages::layout::{LayoutJob, LayoutMethod, Sample};
use crate::stages::reduce::{Job, noted};
use crate::stages::stego;

pub(crate) fn run(args: ReduceArgs, context: &Context) -> Result<Status> {
    check_local(&args.out)?;
    let cache = context.cache(&args.cache)?.with_column(&args.column)?;
    let recipe = recipe(&args, &cache)?;
    if args.out.exists() && !args.overwrite {
        // What cannot be read is not ours either.
        let file = std::fs::read(&args.out).unwrap_or_default();
        if noted(&file, "recipe").as_ref() != Some(&recipe) {
            return Err(usage(format!(
                "{} exists, made of other features or with other options; name another file or add --overwrite",
                args.out.display()
            )));
        }
        context.reporter.say("nothing to compute: the reducer is there");
        let sampled = noted(&file, "sample").and_then(|text| text.split(' ').next()?.parse().ok());
        let reducer =
            Reducer::from_bytes(&file).with_context(|| format!("reducer {}", args.out.display()))?;
        return report(&args, &reducer, sampled, context);
    }
    let dim = cache.layout().dim;
    let max_dim = args.dims.unwrap_or(dim);
    if max_dim == 0 || max_dim > dim {
        return Err(usage(format!(
            "--dims {max_dim}: the features have {dim} dimensions, expected 1 to {dim}"
        )));
    }
    if args.whiten && !matches!(args.method, Method::Pca) {
        return Err(usage("--whiten divides principal components: it goes with pca only".to_owned()));
    }
    if context.cluster.is_some() && !matches!(args.method, Method::Pca | Method::Rp | Method::RpSparse) {
        return Err(usage(
            "--cluster is for pca, rp and rp-sparse; other reducers are fitted on one machine",
        ));
    }
    let scaler = args.scaler.parse().map_err(|e| usage(format!("{e}")))?;
    let job = |method: &str| Job { method: method.to_owned(), scaler, seed: args.seed, max_dim };
    let mut sampled = None;
    let linear = |method: &str| -> Result<Reducer> {
        let job = job(method);
        job.fit(&cache, &mut shared_moments(&job, &cache, context)?, context)
    };
    let reducer = match args.method {
        Method::Pca => linear("pca")?,
        Method::Rp => linear("rp")?,
        Method::RpSparse => linear("rp-sparse")?,
        Method::Umap => {
            let (n_neighbors, min_dist, n_epochs) = (args.n_neighbors, args.min_dist, args.epochs);
            let method = LayoutMethod::Umap { n_neighbors, min_dist, n_epochs };
            let (reducer, rows) = layout(&args, 10_000, scaler, method)?.fit(&cache, context)?;
            sampled = Some(rows);
            reducer
        }
        Method::Stego => head(&args, cache.clone(), context)?,
        #[cfg(not(feature = "hnne"))]
        Method::Hnne => return Err(usage(crate::NO_HNNE)),
        #[cfg(feature = "hnne")]
        Method::Hnne => {
            let (reducer, rows) =
                layout(&args, 1_000_000, scaler, LayoutMethod::Hnne)?.fit(&cache, context)?;
            sampled = Some(rows);
            reducer
        }
    };
    let reducer = match reducer {
        Reducer::Pca(pca) => Reducer::Pca(pca.whitened(args.whiten)),
        other => other,
    };
    let mut provenance = Job::provenance(&cache);
    provenance.insert("recipe".into(), recipe);
    if let Some(rows) = sampled {
        provenance.insert(
            "sample".into(),
            format!("{rows} tokens of at most {} images, seed {}", args.images, args.seed),
        );
    }
    write_atomically(&args.out, &reducer.to_bytes(&provenance)?)?;
    report(&args, &reducer, sampled, context)
}

/// A hash of all that decides what the reducer is: the same command finds its file.
fn recipe(args: &ReduceArgs, cache: &featcache::Cache) -> Result<String> {
    let mut asked = serde_json::to_value(args)?;
    if let Some(asked) = asked.as_object_mut() {
        for place in ["cache", "out", "overwrite", "device", "from"] {
            asked.remove(place);
        }
    }
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|e| usage(format!("cannot read --from {}: {e}", path.display())))
    };
    let checkpoint = args.from.as_deref().map(read).transpose()?;
    let checkpoint = checkpoint.map(|bytes| format!("{:x?}", Sha256::digest(bytes).as_slice()));
    key_of(&(asked, &cache.manifest().cache_id, checkpoint))
}

/// Prints what is in the file.
fn report(args: &ReduceArgs, reducer: &Reducer, sampled: Option<usize>, context: &Context) -> Result<Status> {
    let (method, dim, max_dim) = (reducer.method(), reducer.input_dim(), reducer.max_dim());
    let variance: Vec<(usize, f64)> = match reducer {
        Reducer::Pca(pca) => {
            let ratio = pca.explained_variance_ratio();
            let dims =
                [3, 6, 12, 24, 48, 96, 192, 384, 768].into_iter().filter(|k| *k < max_dim).chain([max_dim]);
            dims.map(|k| (k, ratio.iter().take(k).sum())).collect()
        }
        _ => Vec::new(),
    };
    let value = json!({
        "out": args.out, "method": method, "dim": dim, "max_dim": max_dim, "explained_variance_ratio": variance, "sampled_rows": sampled,
    });
    context.output.result(&value, |_| {
        let out = args.out.display();
        let mut lines = vec![match sampled {
            None => format!("{out}: {method}, {dim} → up to {max_dim} dimensions"),
            Some(rows) => format!("{out}: {method} of {rows} tokens, {dim} → {max_dim} dimensions"),
        }];
        lines.extend(
            variance
                .iter()
                .map(|(k, share)| format!("  {k:5} components hold {:5.1} % of the variance", 100.0 * share)),
        );
        lines.join("\n")
    })?;
    Ok(Status::Done)
}

/// The moments that a fit needs, if a cluster finds them.
fn shared_moments(job: &Job, cache: &featcache::Cache, context: &Context) -> Result<Option<dimred::Moments>> {
    #[cfg(feature = "cluster")]
    if let Some(cluster) = crate::cluster::Cluster::of(context)? {
        return job.needs_moments().then(|| cluster.moments(cache)).transpose();
    }
    let _ = (job, cache, context);
    Ok(None)
}

/// A trained head as asked for.
fn head(args: &ReduceArgs, cache: featcache::Cache, context: &Context) -> Result<Reducer> {
    if let Some(path) = &args.from {
        return stego::from_checkpoint(path, cache.layout().dim);
    }
    let mut ladder = args.nested.clone();
    ladder.sort_unstable();
    ladder.dedup();
    let dim = match (args.dims, ladder.last()) {
        (Some(dim), None) => dim,
        (None, Some(&most)) => most,
        _ => {
            return Err(usage(
                "a STEGO head is trained for --dims K, or for --nested K1,K2,…; give one of them".to_owned(),
            ));
        }
    };
    let settings: StegoToml = crate::toml_file::parse("", &args.set)?;
    let config = settings.resolve(dim, ladder, args.seed)?;
    let features = Features::load_tokens(cache, "training features", context)?;
    let key = crate::records::key_of(&(&config, &features.cache().manifest().cache_id))?;
    let state = args.out.with_extension("state");
    let device = backbone::device(&args.device)?;
    let (job, set) = (
        stego::Job { config, state: (&state, &key), device },
        stego::CachedTokens { features: &features, labels: false },
    );
    Ok(job.run((&set, features.len()), context)?.head)
}

/// A layout as asked for, of `rows` tokens unless told otherwise.
fn layout(args: &ReduceArgs, rows: usize, scaler: Scaler, method: LayoutMethod) -> Result<LayoutJob> {
    let Some(dims) = args.dims else {
        return Err(usage(
            "--dims is missing: this method is fitted for one dimension, e.g. --dims 12".to_owned(),
        ));
    };
    let sample = Sample { images: args.images, tokens: args.rows.unwrap_or(rows), seed: args.seed };
    let metric = args.metric.parse().map_err(|e| usage(format!("--metric: {e}")))?;
    Ok(LayoutJob { sample, dims, scaler, metric, method })
}
