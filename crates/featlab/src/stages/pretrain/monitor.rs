//! A look at the features while they are learned: which class do a patch's nearest neighbours have?
//!
//! Patch tokens of some training images vote for those of some validation images, by cosine and with DINO's weights
//! `exp(cos / 0.07)`. A patch's class is that of the pixel at its centre. It is a yardstick for one run over time, not a
//! result to publish.

use anyhow::{Context as _, Result};
use backbone::{Backbone, Layer, Vit};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use dataset::{Dataset, Resize, Split, Transform};
use ndarray::{Array2, Axis};
use pretrain::Training;
use probe::{KnnVote, LabelledRows};
use serde::Serialize;

use crate::Context;
use crate::exit::usage;
use crate::pretrain_config::MonitorConfig;
use crate::sources;

/// Patches of an image that take part, spread evenly.
const PATCHES: usize = 64;

/// Pixels without a class.
const IGNORE: u8 = 255;

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Look {
    pub(crate) epoch: usize,
    pub(crate) step: usize,
    pub(crate) knn: f64,
}

/// The labelled images, ready for the network.
pub(crate) struct Monitor {
    pub(crate) every_epochs: usize,
    train: Vec<Labelled>,
    val: Vec<Labelled>,
    k: usize,
}

/// `[1, 3, res, res]` and the label map.
struct Labelled {
    image: Tensor,
    label: Array2<u8>,
}

impl Monitor {
    /// # Errors
    /// If the data set cannot be opened or has no label maps.
    pub(crate) fn open(config: &MonitorConfig, context: &Context) -> Result<Self> {
        let part = |split: &str| -> Result<Vec<Labelled>> {
            let split: Split = split.parse().map_err(|e: dataset::Error| usage(e.to_string()))?;
            let dataset = sources::open(&config.dataset, split)
                .with_context(|| format!("monitor.dataset {}", config.dataset))?;
            let images = load(&*dataset, config, context)?;
            if images.is_empty() {
                let dataset = &config.dataset;
                return Err(usage(format!(
                    "monitor.dataset {dataset}: no image of split {split} has a label map"
                )));
            }
            Ok(images)
        };
        let (train, val) = (part(&config.train_split)?, part(&config.val_split)?);
        Ok(Self { every_epochs: config.every_epochs, train, val, k: config.k })
    }

    /// Share of validation patches whose class their neighbours name.
    ///
    /// # Errors
    /// If an image does not fit the network.
    pub(crate) fn accuracy(&self, training: &dyn Training, context: &Context) -> Result<f64> {
        let vit = backbone(training)?;
        let (train, val) = (rows(&vit, &self.train, context)?, rows(&vit, &self.val, context)?);
        let vote = KnnVote { ks: vec![self.k.min(train.1.len())], ..KnnVote::default() };
        let ranking = vote.rank(LabelledRows { rows: train.0.view(), classes: &train.1 }, val.0.view())?;
        Ok(ranking[0].accuracy(&val.1)?.top1)
    }
}

fn load(dataset: &dyn Dataset, config: &MonitorConfig, context: &Context) -> Result<Vec<Labelled>> {
    let transform = Transform { res: config.res, resize: Resize::Bilinear, ..Transform::default() };
    let mut images = Vec::new();
    let count = dataset.len().min(config.images);
    for i in (0..count).map(|i| i * dataset.len() / count) {
        context.interrupt.check()?;
        let sample = match dataset.load(i) {
            Ok(sample) => sample,
            Err(error) if error.is_sample() => continue, // a yardstick may have gaps; training reports them
            Err(error) => return Err(error.into()),
        };
        let view = transform.apply(i as u64, &sample)?.remove(0);
        let Some(label) = view.label else { continue };
        let pixels = view.image.into_raw_vec_and_offset().0;
        images.push(Labelled {
            image: Tensor::from_vec(pixels, (1, 3, config.res, config.res), &Device::Cpu)?,
            label,
        });
    }
    Ok(images)
}

/// The trained backbone as the network that extracts features.
fn backbone(training: &dyn Training) -> Result<Vit> {
    let exported = training.exported();
    let tensors = exported.layout.tensors().iter().filter_map(|tensor| {
        let name = tensor.name.strip_prefix("backbone.")?;
        let values = tensor.slot.of(exported.values);
        Some(Tensor::from_slice(values, tensor.shape.as_slice(), &Device::Cpu).map(|t| (name.to_owned(), t)))
    });
    let tensors = tensors.collect::<candle_core::Result<_>>()?;
    Ok(Vit::new(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), exported.vit)?)
}

/// Patch features `[n, d]` and their classes.
fn rows(vit: &Vit, images: &[Labelled], context: &Context) -> Result<(Array2<f32>, Vec<u32>)> {
    let (d, mut values, mut classes) = (vit.spec().embed_dim, Vec::new(), Vec::new());
    for Labelled { image, label } in images {
        context.interrupt.check()?;
        let features = vit.forward_features(image, Layer::default())?;
        let (gh, gw) = features.grid;
        let tokens: Vec<f32> = features.patches.flatten_all()?.to_vec1()?;
        let side = label.len_of(Axis(0)) / gh;
        let stride = (gh * gw).div_ceil(PATCHES);
        for patch in (0..gh * gw).step_by(stride) {
            let class = label[[patch / gw * side + side / 2, patch % gw * side + side / 2]];
            if class != IGNORE {
                values.extend_from_slice(&tokens[patch * d..][..d]);
                classes.push(u32::from(class));
            }
        }
    }
    Ok((Array2::from_shape_vec((classes.len(), d), values)?, classes))
}
