//! `featlab cache repair`: what is damaged or missing, computed again by the settings that stand in the cache.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use backbone::{Layer, Loaded, Precision};
use candle_core::Device;
use dataset::Transform;
use featcache::{Cache, FeatureKey, Store};

use crate::Context;
use crate::cli::{LoadingArgs, RepairArgs};
use crate::commands::asked::{BACKBONE, DATASET, NUM_HEADS, load};
use crate::commands::extract::report;
use crate::exit::{Status, usage};
use crate::sources;
use crate::stages::extract::{Forward, Job, Task};

pub(super) fn run(args: RepairArgs, context: &Context) -> Result<Status> {
    let started = std::time::Instant::now();
    let store = Store::open(&args.url)?;
    let place = || format!("cache {}", args.url);
    let key = featcache::key_at(&store).with_context(place)?;
    if !key.projections()?.is_empty() {
        return Err(usage(format!(
            "{}: its features were projected, no backbone computes them; `featlab cache project` with --repair does",
            args.url
        )));
    }
    let layout = featcache::layout_at(&store).with_context(place)?;
    // What is not in the key stands in the manifest, unless that is what is damaged.
    let recipe =
        Cache::open(store.clone()).map(|cache| cache.manifest().provenance.clone()).unwrap_or_default();
    let dataset_spec = named(args.dataset, &recipe, DATASET)?;
    let backbone_spec = named(args.backbone, &recipe, BACKBONE)?;
    let mut loading = args.loading;
    loading.num_heads = loading.num_heads.or_else(|| recipe.get(NUM_HEADS)?.parse().ok());
    let loading = with_precision_of(&key, loading);

    let split = key.split.parse().map_err(|e: dataset::Error| usage(e.to_string()))?;
    let dataset = sources::open(&dataset_spec, split)?;
    let (loaded, device) = load(&backbone_spec, &loading, context)?;
    let job = Job {
        dataset: &*dataset,
        split: key.split.clone(),
        forward: forward_of(&key, &loaded, device)?,
        images: layout.has_image,
        recipe: recipe.into_iter().filter(|(name, _)| name.starts_with("--")).collect(),
        dtype: key.dtype,
        shard_rows: None,
        form: None,
        task: Task::ALL,
        overwrite: false,
        repair: true,
    };
    let outcome = job.run(store, context)?;
    report(outcome, &args.url, dataset.problems().len(), started.elapsed().as_secs_f64(), context)
}

/// What was named now, or when the cache was made.
fn named(now: Option<String>, recipe: &BTreeMap<String, String>, option: &str) -> Result<String> {
    now.or_else(|| recipe.get(option).cloned())
        .ok_or_else(|| usage(format!("the cache does not say what it was made from; name it with {option}")))
}

/// How a backbone is loaded to compute what a key names: in its precision, unless another one is asked for.
pub(super) fn with_precision_of(key: &FeatureKey, mut loading: LoadingArgs) -> LoadingArgs {
    loading.precision.get_or_insert_with(|| Precision::of_architecture(&key.architecture).to_string());
    loading
}

/// A backbone with the settings of a key.
///
/// # Errors
/// If the key has words that this version does not know.
pub(super) fn forward_of<'a>(key: &FeatureKey, backbone: &'a Loaded, device: Device) -> Result<Forward<'a>> {
    let word = |e: dataset::Error| usage(e.to_string());
    let defaults = Transform::default();
    let (mean, std) = backbone.normalization.unwrap_or((defaults.mean, defaults.std));
    let main = [(key.layer, &key.facet)].into_iter();
    let layers = main.chain(key.more.iter().map(|one| (one.layer, &one.facet)));
    let layers = layers.map(|(block, facet)| Ok(Layer { block, facet: facet.parse()? }));
    Ok(Forward {
        backbone,
        batch: Forward::batch_on(&device),
        device,
        transform: Transform {
            res: key.res as usize,
            crop: key.crop.parse().map_err(word)?,
            crop_ratio: key.crop_ratio,
            resize: key.resize.parse().map_err(word)?,
            mean,
            std,
        },
        layers: layers.collect::<std::result::Result<_, backbone::Error>>()?,
        flip_average: key.flip_average,
    })
}
