//! What the options of `featlab extract` ask for, looked up: data set, backbone, and the job made of them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use backbone::{Layer, LoadOptions, Loaded, Precision};
use candle_core::Device;
use dataset::{Dataset, Transform};

use crate::Context;
use crate::cli::{FeatureArgs, LoadingArgs};
use crate::exit::usage;
use crate::sources;
use crate::stages::extract::{Forward, Job, Task};

/// Features that are asked for, with what is needed to compute them.
pub(super) struct Asked {
    args: FeatureArgs,
    dataset: Box<dyn Dataset>,
    backbone: Loaded,
    device: Device,
}

impl Asked {
    /// Finds the data set and loads the backbone.
    ///
    /// # Errors
    /// If one of them cannot be found or read.
    pub(super) fn open(args: FeatureArgs, context: &Context) -> Result<Self> {
        let split = args.split.parse().map_err(|e: dataset::Error| usage(e.to_string()))?;
        let named = |value: &Option<String>, option: &str| {
            value.clone().ok_or_else(|| usage(format!("{option} is missing")))
        };
        let dataset = sources::open(&named(&args.dataset, DATASET)?, split)?;
        for problem in dataset.problems() {
            context.reporter.warn(format!("skipped {}: {}", problem.id, problem.reason));
        }
        let (backbone, device) = load(&named(&args.backbone, BACKBONE)?, &args.loading, context)?;
        Ok(Self { args, dataset, backbone, device })
    }

    /// Calls data set and backbone otherwise in what is written down, now that they are open.
    #[cfg(feature = "cluster")]
    pub(super) fn call(&mut self, dataset: Option<String>, backbone: Option<String>) {
        if let Some(name) = &backbone {
            self.backbone.name.clone_from(name);
        }
        (self.args.dataset, self.args.backbone) = (dataset, backbone);
    }

    /// Inputs that are left out because they cannot be listed.
    pub(super) fn problems(&self) -> usize {
        self.dataset.problems().len()
    }

    /// The job that computes all of it, as a cache of the default form.
    ///
    /// # Errors
    /// If an option cannot be.
    pub(super) fn job(&self) -> Result<Job<'_>> {
        let args = &self.args;
        let defaults = Transform::default();
        let (mean, std) = self.backbone.normalization.unwrap_or((defaults.mean, defaults.std));
        let word = |e: dataset::Error| usage(e.to_string());
        let transform = Transform {
            res: args.res,
            crop: args.crop.parse().map_err(word)?,
            crop_ratio: args.crop_ratio,
            resize: args.resize.parse().map_err(word)?,
            mean,
            std,
        };
        Ok(Job {
            dataset: &*self.dataset,
            split: args.split.clone(),
            forward: Forward {
                backbone: &self.backbone,
                device: self.device.clone(),
                transform,
                layers: layers(args)?,
                flip_average: args.flip_average,
                batch: Forward::batch_on(&self.device),
            },
            images: args.images,
            recipe: recipe(args),
            dtype: args.dtype.parse().map_err(|e| usage(format!("{e}")))?,
            shard_rows: None,
            form: None,
            task: Task::ALL,
            overwrite: false,
            repair: false,
        })
    }
}

/// A backbone by its name, and the device it is on; says what a user should know of it.
///
/// # Errors
/// If there is no such device, precision or backbone.
pub(super) fn load(name: &str, how: &LoadingArgs, context: &Context) -> Result<(Loaded, Device)> {
    let device = backbone::device(&how.device)?;
    let precision = Precision::of(how.precision.as_deref().unwrap_or("auto"), &device)?;
    let options = LoadOptions { num_heads: how.num_heads, device: device.clone(), precision };
    let loaded = backbone::load(name, &options).with_context(|| format!("backbone {name}"))?;
    for note in &loaded.note {
        context.reporter.say(format!("note: {note}"));
    }
    Ok((loaded, device))
}

/// What is read of the network: every facet of every block that was named, the first of them first.
fn layers(args: &FeatureArgs) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    for &block in &args.layer {
        for facet in &args.facet {
            layers.push(Layer { block, facet: facet.parse().map_err(|e| usage(format!("{e}")))? });
        }
    }
    Ok(layers)
}

/// Names under which the manifest keeps what `cache repair` needs to know besides the key.
pub(super) const DATASET: &str = "--dataset";
pub(super) const BACKBONE: &str = "--backbone";
pub(super) const NUM_HEADS: &str = "--num-heads";

fn recipe(args: &FeatureArgs) -> BTreeMap<String, String> {
    let options = [
        (DATASET, args.dataset.clone()),
        (BACKBONE, args.backbone.clone()),
        (NUM_HEADS, args.loading.num_heads.map(|heads| heads.to_string())),
    ];
    options.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
