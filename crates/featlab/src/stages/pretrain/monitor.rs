//! A look at the features while they are learned: which class do a patch's nearest neighbours have?
//!
//! Patch tokens of some training images vote for those of some validation images, by cosine and with DINO's weights
//! `exp(cos / 0.07)`. A patch's class is that of the pixel at its centre. It is a yardstick for one run over time, not a
//! result to publish. Of a method with classes it also tells how many images (or tiles) of the validation split each of its
//! heads names right; a folder of class folders has nothing but that.

use anyhow::{Context as _, Result};
use backbone::{Backbone, Layer, ResNet, Vit};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use dataset::{Dataset, Resize, Split, Transform};
use ndarray::{Array2, Axis};
use pretrain::{Augment, ExportedModel, Images, Tiles, Training, Views};
use probe::{KnnVote, LabelledRows};
use serde::Serialize;

use crate::Context;
use crate::exit::usage;
use crate::pretrain_config::{DataConfig, MonitorConfig};
use crate::sources;

/// Patches of an image that take part, spread evenly.
const PATCHES: usize = 64;

/// Pixels without a class.
const IGNORE: u8 = 255;

/// Heads that a method may have, in the order in which it reports them.
pub(crate) const HEADS: [&str; 4] = ["one_q", "mix_q", "one_k", "mix_k"];

/// Images that are classified at a time.
const BATCH: usize = 64;

/// Images in the picture of mixtures.
const SHOWN: usize = 8;

/// One look.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Look {
    pub(crate) epoch: usize,
    pub(crate) step: usize,
    /// k-NN accuracy of patches, where there are label maps.
    pub(crate) knn: Option<f64>,
    /// Share of images whose class each head names.
    pub(crate) heads: Vec<(&'static str, f64)>,
}

/// The labelled images, ready for the network.
pub(crate) struct Monitor {
    pub(crate) every_epochs: usize,
    train: Vec<Labelled>,
    val: Vec<Labelled>,
    k: usize,
    /// Whole images with their classes, as a classifier sees them.
    tested: Vec<(Views, u32)>,
    /// Some of them, from all over the split.
    shown: Option<Vec<Views>>,
}

/// `[1, 3, res, res]` and the label map.
struct Labelled {
    image: Tensor,
    label: Array2<u8>,
}

impl Monitor {
    /// * `test_view`: how images are seen when they are classified, for methods that do.
    ///
    /// # Errors
    /// If the data set cannot be opened, or has nothing to look at.
    pub(crate) fn open(
        config: &MonitorConfig,
        data: &DataConfig,
        test_view: Option<Augment>,
        context: &Context,
    ) -> Result<Self> {
        let open = |split: &str| -> Result<Box<dyn Dataset>> {
            let split: Split = split.parse().map_err(|e: dataset::Error| usage(e.to_string()))?;
            sources::open(&config.dataset, split)
                .with_context(|| format!("monitor.dataset {}", config.dataset))
        };
        let (train, val) = (open(&config.train_split)?, open(&config.val_split)?);
        let tested = match test_view {
            Some(view) => tested(&*val, data, view, context)?,
            None => Vec::new(),
        };
        let parts = [(&train, &config.train_split), (&val, &config.val_split)];
        let mut loaded = Vec::new();
        for (dataset, split) in parts {
            let images = load(&**dataset, config, context)?;
            if images.is_empty() && tested.is_empty() {
                let dataset = &config.dataset;
                return Err(usage(format!(
                    "monitor.dataset {dataset}: no image of split {split} has a label map"
                )));
            }
            loaded.push(images);
        }
        let (val, train) = (loaded.pop().unwrap_or_default(), loaded.pop().unwrap_or_default());
        let stride = (tested.len() / SHOWN).max(1);
        let shown: Vec<Views> =
            tested.iter().step_by(stride).take(SHOWN).map(|(views, _)| views.clone()).collect();
        let shown = Some(shown).filter(|shown| shown.len() > 1);
        Ok(Self { every_epochs: config.every_epochs, train, val, k: config.k, tested, shown })
    }

    /// Images to show mixtures of.
    pub(crate) fn first_views(&self) -> Option<&[Views]> {
        self.shown.as_deref()
    }

    /// Share of validation images whose class each head names; nothing for methods without classes.
    ///
    /// # Errors
    /// An interruption.
    pub(crate) fn heads(
        &self,
        training: &mut dyn Training,
        context: &Context,
    ) -> Result<Vec<(&'static str, f64)>> {
        let mut right: Vec<(&'static str, usize)> = Vec::new();
        for part in self.tested.chunks(BATCH) {
            context.interrupt.check()?;
            let views: Vec<Views> = part.iter().map(|(views, _)| views.clone()).collect();
            for (place, (head, predicted)) in training.predict(&views).into_iter().enumerate() {
                let hits = part.iter().zip(predicted).filter(|((_, class), predicted)| class == predicted);
                let hits = hits.count();
                match right.get_mut(place) {
                    Some((_, sum)) => *sum += hits,
                    None => right.push((head, hits)),
                }
            }
        }
        let n = self.tested.len().max(1) as f64;
        Ok(right.into_iter().map(|(head, hits)| (head, hits as f64 / n)).collect())
    }

    /// Share of validation patches whose class their neighbours name; none without label maps.
    ///
    /// # Errors
    /// If an image does not fit the network.
    pub(crate) fn accuracy(&self, training: &dyn Training, context: &Context) -> Result<Option<f64>> {
        if self.train.is_empty() || self.val.is_empty() {
            return Ok(None);
        }
        let backbone = backbone(training)?;
        let (train, val) = (rows(&*backbone, &self.train, context)?, rows(&*backbone, &self.val, context)?);
        let vote = KnnVote { ks: vec![self.k.min(train.1.len())], ..KnnVote::default() };
        let ranking = vote.rank(LabelledRows { rows: train.0.view(), classes: &train.1 }, val.0.view())?;
        Ok(Some(ranking[0].accuracy(&val.1)?.top1))
    }
}

/// Images and tiles with a class, cut as those that are trained on.
fn tested(
    dataset: &dyn Dataset,
    data: &DataConfig,
    view: Augment,
    context: &Context,
) -> Result<Vec<(Views, u32)>> {
    let tiles = Tiles { grid: data.tiles, size: data.tile_size };
    let (images, _) = Images::load(dataset, tiles, usize::MAX, || context.interrupt.check())?;
    let images = images.labelled_only()?;
    let places: Vec<usize> = (0..images.len()).collect();
    let views = images.views(&places, &view, 0, 0)?;
    Ok(views.into_iter().zip(images.classes(&places)).collect())
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
fn backbone(training: &dyn Training) -> Result<Box<dyn Backbone>> {
    let exported = training.exported();
    let tensor = |(name, shape, values): (&str, &[usize], &[f32])| {
        Tensor::from_slice(values, shape, &Device::Cpu).map(|tensor| (name.to_owned(), tensor))
    };
    let tensors = exported.tensors().map(tensor).collect::<candle_core::Result<_>>()?;
    let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    Ok(match exported.model {
        ExportedModel::Vit(config) => Box::new(Vit::new(weights, config)?),
        ExportedModel::ResNet(config) => Box::new(ResNet::new(weights, config)?),
    })
}

/// Patch features `[n, d]` and their classes.
fn rows(backbone: &dyn Backbone, images: &[Labelled], context: &Context) -> Result<(Array2<f32>, Vec<u32>)> {
    let (d, mut values, mut classes) = (backbone.spec().embed_dim, Vec::new(), Vec::new());
    for Labelled { image, label } in images {
        context.interrupt.check()?;
        let features = backbone.forward_features(image, Layer::default())?;
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
