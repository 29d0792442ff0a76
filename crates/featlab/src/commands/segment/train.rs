//! `featlab segment train`: a model from cached features, or from pictures.

use anyhow::{Context as _, Result};
use backbone::Layer;
use dataset::{ClassTable, Dataset, Split, Transform};
use featcache::Cache;
use segment::stego::StegoConfig;
use serde_json::json;

use crate::Context;
use crate::cli::SegmentTrainArgs;
use crate::commands::asked::load;
use crate::config::StegoToml;
use crate::exit::{Status, integrity, usage};
use crate::records::{check_local, key_of};
use crate::sources;
use crate::stages::extract::Forward;
use crate::stages::features::Features;
use crate::stages::reduce::{feature_name, features_name};
use crate::stages::reducer_file::ReducerFile;
use crate::stages::segment::train::{self, Judged, Trained};
use crate::stages::segment::{Card, ImageSet, Model, evaluate, numbered};
use crate::stages::stego::CachedTokens;

/// Numbers of a code, where nothing says otherwise: the original's default.
const DIMS: usize = 70;

/// A training that was done, and what the model is to say of it.
struct Done {
    trained: Trained,
    card: Card,
    config: StegoConfig,
    /// A cache that has labels, if it was trained on one.
    labelled: Option<Cache>,
}

pub(super) fn run(args: &SegmentTrainArgs, context: &Context) -> Result<Status> {
    check_local(&args.out)?;
    if args.out.join("segmenter.json").exists() && !args.overwrite {
        return Err(usage(format!(
            "{} holds a model; name another folder or add --overwrite",
            args.out.display()
        )));
    }
    let val = args.cache_val.as_deref().map(|url| open(args, url, context)).transpose()?;
    let Done { trained, mut card, config, labelled } = match (&args.cache_train, &args.dataset) {
        (Some(url), _) => from_cache(args, &open(args, url, context)?, val.as_ref(), context)?,
        (None, Some(spec)) => from_pictures(args, spec, val.as_ref(), context)?,
        (None, None) => return Err(usage("--cache-train or --dataset is missing")),
    };
    let mut scored = Vec::new();
    if let Some(cache) = val.filter(|cache| cache.layout().has_label).or(labelled) {
        let features = Features::load(cache, "labelled features", context)?;
        let judged: Judged = train::score(&trained, card.dim, config.n_classes, &features, context)?;
        card.class_of_cluster = Some(judged.class_of_cluster);
        scored = judged.scored;
    } else {
        context.reporter.say("clusters have no names: featlab segment eval --save gives them some");
    }
    let (method, dim, steps) = (trained.reducer.method().to_owned(), card.dim, config.max_steps);
    let names = card.classes.names.clone();
    let Trained { reducer, linear, cluster } = trained;
    Model { card, reducer, linear, cluster: Some(cluster) }.write(&args.out, args.overwrite)?;
    let value = json!({
        "out": args.out,
        "method": method,
        "dim": dim,
        "steps": steps,
        "probes": scored.iter().map(|(name, scored)| evaluate::json(name, scored, &names)).collect::<Vec<_>>(),
    });
    context.output.result(&value, |_| {
        let mut lines = vec![format!("{}: {method}, {dim} dimensions, {steps} steps", args.out.display())];
        lines.extend(scored.iter().map(|(name, scored)| evaluate::line(name, scored)));
        lines.join("\n")
    })?;
    Ok(Status::Done)
}

fn open(args: &SegmentTrainArgs, url: &str, context: &Context) -> Result<Cache> {
    Ok(context.cache(url)?.with_column(&args.column)?)
}

fn config(args: &SegmentTrainArgs, dim: usize, classes: &ClassTable) -> Result<StegoConfig> {
    let settings: StegoToml = crate::toml_file::parse("", &args.set)?;
    Ok(StegoConfig {
        n_classes: classes.names.len(),
        extra_clusters: args.extra_clusters,
        ..settings.resolve(dim, Vec::new(), args.seed)?
    })
}

fn from_cache(
    args: &SegmentTrainArgs,
    cache: &Cache,
    val: Option<&Cache>,
    context: &Context,
) -> Result<Done> {
    let classes = classes(args, of_cache(cache), val)?;
    let layer = raw_layer(cache)?;
    check_features(&features_name(cache), val)?;
    let reducer = args.reducer.as_deref().map(|path| ReducerFile::read(path, cache)).transpose()?;
    let dim = match (&reducer, args.dims) {
        (_, Some(dim)) => dim,
        (Some(file), None) => file.reducer.max_dim(),
        (None, None) => DIMS,
    };
    let config = config(args, dim, &classes)?;
    if config.crf_weight > 0.0 {
        return Err(usage("crf_weight needs pictures: train with --dataset and --backbone"));
    }
    let trained = match reducer {
        None => {
            let features = Features::load_all(cache.clone(), "training features", context)?;
            let key = key_of(&(&config, &cache.manifest().cache_id, cache.column()))?;
            let labelled = (0..features.len()).any(|i| features.label_if_any(i).is_some());
            let (state, set) =
                (args.out.join("training.state"), CachedTokens { features: &features, labels: true });
            let device = backbone::device(&args.loading.device)?;
            train::stego(config.clone(), device, (&state, &key), (&set, features.len()), labelled, context)?
        }
        Some(file) => {
            let features = Features::load(cache.clone(), "training features", context)?;
            train::probes((file.reducer, dim), &config, &features, context)?
        }
    };
    let manifest = cache.manifest();
    let key = &manifest.key;
    let named = ["--backbone", "backbone"].iter().find_map(|name| manifest.provenance.get(*name));
    let transform = Transform {
        res: key.res as usize,
        resize: key.resize.parse().unwrap_or_default(),
        mean: key.mean,
        std: key.std,
        ..Transform::default()
    };
    let features = (key.architecture.clone(), key.checkpoint_sha256.clone(), layer);
    let backbone = named.unwrap_or(&key.architecture).clone();
    let mut card = Card::new(backbone, features, transform, dim, classes);
    card.made = made(args, format!("{} {}, cache {}", key.dataset, key.split, manifest.cache_id));
    let labelled = cache.layout().has_label.then(|| cache.clone());
    Ok(Done { trained, card, config, labelled })
}

/// The block and facet that a model will ask its network for.
///
/// # Errors
/// If the features were projected: a network has no such numbers.
fn raw_layer(cache: &Cache) -> Result<Layer> {
    if !cache.manifest().key.projections()?.is_empty() {
        return Err(usage(
            "the features of --cache-train were projected, and a model takes those of a network: train on the cache that they came \
             from, with --reducer",
        ));
    }
    let reading = cache.reading();
    Ok(Layer { block: reading.layer, facet: reading.facet.parse().map_err(|e| integrity(format!("{e}")))? })
}

/// Whether the cache that is scored has the features that are trained on.
fn check_features(trained: &str, val: Option<&Cache>) -> Result<()> {
    match val.map(features_name) {
        Some(scored) if scored != trained => Err(integrity(format!(
            "--cache-val has features {scored}, the model is trained on features {trained}: other weights, or another block or facet"
        ))),
        _ => Ok(()),
    }
}

fn from_pictures(
    args: &SegmentTrainArgs,
    spec: &str,
    val: Option<&Cache>,
    context: &Context,
) -> Result<Done> {
    let word = |e: dataset::Error| usage(e.to_string());
    let split: Split = args.split.parse().map_err(word)?;
    let dataset = sources::open(spec, split)?;
    for problem in dataset.problems() {
        context.reporter.warn(format!("skipped {}: {}", problem.id, problem.reason));
    }
    let (backbone, device) =
        load(args.backbone.as_deref().context("clap asks for it")?, &args.loading, context)?;
    let defaults = Transform::default();
    let (mean, std) = backbone.normalization.unwrap_or((defaults.mean, defaults.std));
    let (crop, resize) = (args.crop.parse().map_err(word)?, args.resize.parse().map_err(word)?);
    let transform = Transform { res: args.res, crop, resize, mean, std, ..defaults };
    let spec_of = backbone.backbone.spec();
    if args.res < spec_of.patch_size || !args.res.is_multiple_of(spec_of.patch_size) {
        return Err(usage(format!(
            "--res {}: expected a multiple of the patch of {} pixels",
            args.res, spec_of.patch_size
        )));
    }
    let trained_on = (spec_of.architecture.as_str(), backbone.fingerprint.as_str());
    let layer = Layer::default();
    check_features(&feature_name(trained_on, layer.block, &layer.facet.to_string()), val)?;
    let dim = args.dims.unwrap_or(DIMS);
    let classes = classes(args, dataset.classes().cloned(), val)?;
    let config = config(args, dim, &classes)?;
    let head_device = device.clone();
    let forward = Forward {
        backbone: &backbone,
        batch: Forward::batch_on(&device),
        device,
        transform: transform.clone(),
        layers: vec![Layer::default()],
        flip_average: false,
    };
    let key = key_of(&(&config, dataset.fingerprint()?, &transform, &backbone.fingerprint))?;
    let set = ImageSet::new(&*dataset, forward);
    let state = args.out.join("training.state");
    let labelled = Dataset::classes(&*dataset).is_some();
    let trained =
        train::stego(config.clone(), head_device, (&state, &key), (&set, set.len()), labelled, context)?;
    let features = (spec_of.architecture.clone(), backbone.fingerprint.clone(), Layer::default());
    let seen = Transform { crop: dataset::Crop::Center, ..transform };
    let mut card = Card::new(backbone.name.clone(), features, seen, dim, classes);
    card.made = made(args, format!("{} {}, from pictures", dataset.name(), args.split));
    Ok(Done { trained, card, config, labelled: None })
}

fn made(args: &SegmentTrainArgs, data: String) -> std::collections::BTreeMap<String, String> {
    let notes = [("data", data), ("seed", args.seed.to_string()), ("settings", args.set.join(" "))];
    notes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn of_cache(cache: &Cache) -> Option<ClassTable> {
    let classes = cache.manifest().classes.clone()?;
    Some(ClassTable { names: classes.names, palette: classes.palette })
}

/// The classes of what is trained on, or as many numbers as clusters were asked for.
fn classes(args: &SegmentTrainArgs, train: Option<ClassTable>, val: Option<&Cache>) -> Result<ClassTable> {
    match (train, val.and_then(of_cache)) {
        (Some(a), Some(b)) if a.names != b.names => Err(integrity(format!(
            "training and --cache-val have different classes: {} and {}",
            a.names.join(", "),
            b.names.join(", ")
        ))),
        (Some(classes), _) | (None, Some(classes)) => Ok(classes),
        (None, None) => Ok(numbered(args.clusters)),
    }
}
