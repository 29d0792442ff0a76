//! `featlab segment train`: a model from cached features.

use anyhow::Result;
use backbone::Layer;
use dataset::{ClassTable, Transform};
use dimred::Reducer;
use featcache::Cache;
use segment::stego::StegoConfig;
use serde_json::json;

use crate::Context;
use crate::cli::SegmentTrainArgs;
use crate::config::StegoToml;
use crate::exit::{Status, integrity, usage};
use crate::records::{check_local, key_of};
use crate::stages::features::Features;
use crate::stages::reducer_file::ReducerFile;
use crate::stages::segment::train::{self, Trained};
use crate::stages::segment::{Card, Model, evaluate};

/// Numbers of a code, where nothing says otherwise: the original's default.
const DIMS: usize = 70;

pub(super) fn run(args: &SegmentTrainArgs, context: &Context) -> Result<Status> {
    check_local(&args.out)?;
    if args.out.join("segmenter.json").exists() && !args.overwrite {
        return Err(usage(format!(
            "{} holds a model; name another folder or add --overwrite",
            args.out.display()
        )));
    }
    let open = |url: &str| Ok::<_, anyhow::Error>(context.cache(url)?.with_column(&args.column)?);
    let cache = open(&args.cache_train)?;
    let val = args.cache_val.as_deref().map(open).transpose()?;
    let classes = classes(args, &cache, val.as_ref())?;
    let reducer = args.reducer.as_deref().map(|path| ReducerFile::read(path, &cache)).transpose()?;
    let dim = match (&reducer, args.dims) {
        (_, Some(dim)) => dim,
        (Some(file), None) => file.reducer.max_dim(),
        (None, None) => DIMS,
    };
    let settings: StegoToml = crate::toml_file::parse("", &args.set)?;
    let config = StegoConfig {
        n_classes: classes.names.len(),
        extra_clusters: args.extra_clusters,
        ..settings.resolve(dim, Vec::new(), args.seed)?
    };
    let features = Features::load_all(cache.clone(), "training features", context)?;
    let trained = match reducer {
        None => {
            let key = key_of(&(&config, &cache.manifest().cache_id, cache.column()))?;
            train::stego(config.clone(), (&args.out.join("training.state"), &key), &features, context)?
        }
        Some(file) => {
            let features = Features::load(cache.clone(), "training features", context)?;
            train::probes((file.reducer, dim), &config, &features, context)?
        }
    };
    let mut model = model(args, &cache, &trained, dim, classes);
    let scored = match val.or_else(|| cache.layout().has_label.then(|| cache.clone())) {
        Some(cache) if cache.layout().has_label => {
            let features = Features::load(cache, "labelled features", context)?;
            let count = model.card.classes.names.len();
            let judged = train::score(&trained, dim, count, &features, context)?;
            model.card.class_of_cluster = Some(judged.class_of_cluster);
            judged.scored
        }
        _ => Vec::new(),
    };
    model.write(&args.out, args.overwrite)?;
    let value = json!({
        "out": args.out,
        "method": trained.reducer.method(),
        "dim": dim,
        "steps": config.max_steps,
        "probes": scored.iter()
            .map(|(name, scored)| evaluate::json(name, scored, &model.card.classes.names)).collect::<Vec<_>>(),
    });
    context.output.result(&value, |_| {
        let out = args.out.display();
        let method = trained.reducer.method();
        let mut lines = vec![format!("{out}: {method}, {dim} dimensions, {} steps", config.max_steps)];
        lines.extend(scored.iter().map(|(name, scored)| evaluate::line(name, scored)));
        lines.join("\n")
    })?;
    Ok(Status::Done)
}

/// The classes of the caches, or as many numbers as clusters were asked for.
fn classes(args: &SegmentTrainArgs, train: &Cache, val: Option<&Cache>) -> Result<ClassTable> {
    let of = |cache: &Cache| {
        let classes = cache.manifest().classes.clone()?;
        Some(ClassTable { names: classes.names, palette: classes.palette })
    };
    match (of(train), val.and_then(of)) {
        (Some(a), Some(b)) if a.names != b.names => Err(integrity(format!(
            "the caches have different classes: {} and {}",
            a.names.join(", "),
            b.names.join(", ")
        ))),
        (Some(classes), _) | (None, Some(classes)) => Ok(classes),
        (None, None) => Ok(crate::stages::segment::numbered(args.clusters)),
    }
}

fn model(
    args: &SegmentTrainArgs,
    cache: &Cache,
    trained: &Trained,
    dim: usize,
    classes: ClassTable,
) -> Model {
    let manifest = cache.manifest();
    let (key, reading) = (&manifest.key, cache.reading());
    let named = ["--backbone", "backbone"].iter().find_map(|name| manifest.provenance.get(*name));
    let layer = Layer { block: reading.layer, facet: reading.facet.parse().unwrap_or_default() };
    let defaults = Transform::default();
    let transform = Transform {
        res: key.res as usize,
        resize: key.resize.parse().unwrap_or_default(),
        mean: key.mean,
        std: key.std,
        ..defaults
    };
    let features = (key.architecture.clone(), key.checkpoint_sha256.clone(), layer);
    let backbone = named.unwrap_or(&key.architecture).clone();
    let mut card = Card::new(backbone, features, transform, dim, classes);
    card.made = [
        ("features", manifest.cache_id.clone()),
        ("dataset", format!("{} {}", key.dataset, key.split)),
        ("seed", args.seed.to_string()),
        ("settings", args.set.join(" ")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    let reducer: Reducer = trained.reducer.clone();
    Model { card, reducer, linear: trained.linear.clone(), cluster: Some(trained.cluster.clone()) }
}
