//! What all pretraining methods have in common: a recipe that a TOML file spells, and a training in progress.
//!
//! A method is one file: its settings, a [`Recipe`], and its state with what a step does, a [`Training`]. Everything around it knows
//! these two traits only: the order of images, states on disk, tables, looks at labelled images, exports, warnings.

use std::fmt::Debug;

use backbone::{ResNetConfig, VitConfig};
use candle_core::Device;
use dataset::augment::{MultiCrop, SingleView};
use ndarray::{Array2, Array3, ArrayView3};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::TrainConfig;
use crate::params::Layout;
use crate::torch_file::TorchValue;
use crate::{Error, Result};

/// Longest run: its schedules are kept in memory.
const MAX_STEPS: usize = 100_000_000;

/// The views of one image in their order, each `[3, side, side]`.
pub type Views = Vec<Array3<f32>>;

/// The settings of a method: everything that changes its numbers, with the published defaults.
pub trait Recipe: Debug + Clone + PartialEq + Default + Serialize + DeserializeOwned + 'static {
    /// The method's word, as in `featlab pretrain WORD`.
    const METHOD: &'static str;

    /// Whether the settings can be and go together.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    fn check(&self) -> Result<()>;

    /// Length, batch and seed.
    fn train(&self) -> &TrainConfig;

    /// As [`Recipe::train`], to be changed.
    fn train_mut(&mut self) -> &mut TrainConfig;

    /// How images become views.
    fn augment(&self) -> Augment;

    /// Side that images must be a multiple of.
    ///
    /// # Errors
    /// [`Error::Config`] if the backbone's settings cannot be.
    fn granule(&self) -> Result<usize>;

    /// How images are seen when classes are predicted; methods without classes have none, and all others need images with
    /// a class each.
    fn test_view(&self) -> Option<Augment> {
        None
    }

    /// Whether images need a class each.
    fn is_supervised(&self) -> bool {
        self.test_view().is_some()
    }

    /// A run's start.
    ///
    /// # Errors
    /// [`Error::Config`] if the settings cannot be, or do not fit the images or the device.
    fn start(&self, data: &DataShape, device: &Device) -> Result<Box<dyn Training>>;
}

/// What a run needs to know of its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataShape {
    /// Training images.
    pub images: usize,
    /// Their classes; 0 if they have none.
    pub classes: usize,
}

/// How an image becomes views.
#[derive(Debug, Clone, PartialEq)]
pub enum Augment {
    /// Two large and some small ones.
    MultiCrop(Box<MultiCrop>),
    /// One.
    Single(SingleView),
}

impl Augment {
    /// The views of an image, `[h, w, 3]`.
    ///
    /// # Errors
    /// If the recipe cannot be followed, or the image has no pixels.
    pub fn views(&self, image: ArrayView3<'_, u8>, rng: &mut ChaCha8Rng) -> Result<Views> {
        Ok(match self {
            Self::MultiCrop(crops) => crops.views(image, rng)?,
            Self::Single(single) => vec![single.view(image, rng)?],
        })
    }
}

impl Augment {
    /// Mean and deviation that pixels were normalised by.
    #[must_use]
    pub fn statistics(&self) -> ([f32; 3], [f32; 3]) {
        match self {
            Self::MultiCrop(crops) => (crops.mean, crops.std),
            Self::Single(single) => (single.mean, single.std),
        }
    }
}

impl From<MultiCrop> for Augment {
    fn from(crops: MultiCrop) -> Self {
        Self::MultiCrop(Box::new(crops))
    }
}

/// A batch of images.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Their views.
    pub views: &'a [Views],
    /// Their numbers in the data set.
    pub images: &'a [usize],
    /// Their classes; empty without classes.
    pub classes: &'a [u32],
}

/// What a step says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Number of the step, from 0.
    pub step: usize,
    /// Epoch that it belongs to, from 0.
    pub epoch: usize,
    /// The loss.
    pub loss: f64,
    /// The other numbers, in the order of [`Training::columns`].
    pub values: Vec<f64>,
}

/// An image, its partner, and what became of them; pixels are normalised, `[3, side, side]`.
#[derive(Debug, Clone, PartialEq)]
pub struct MixedSample {
    /// The image.
    pub image: Array3<f32>,
    /// Its partner.
    pub partner: Array3<f32>,
    /// The mixture.
    pub mixed: Array3<f32>,
    /// The image's share at each pixel, `[side, side]`, where a mask was made.
    pub mask: Option<Array2<f32>>,
    /// λ.
    pub lambda: f64,
}

/// What does not change during a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The method's word.
    pub method: &'static str,
    /// Steps of the run.
    pub steps: usize,
    /// Steps of an epoch.
    pub steps_per_epoch: usize,
    /// Images that go through the networks at a time.
    pub part: usize,
    /// The loss of a network that knows nothing, and what it is called.
    pub uniform_loss: (&'static str, f64),
}

/// A backbone's weights as they leave a run.
#[derive(Debug, Clone, Copy)]
pub struct Exported<'a> {
    /// Which network: `teacher`, `student`, …
    pub network: &'static str,
    /// Names, places and numbers of parameters and running statistics; those named `backbone.…` are the backbone's.
    pub parts: [(&'a Layout, &'a [f32]); 2],
    /// The sizes.
    pub model: ExportedModel<'a>,
    /// What the head read: `class` or `mean`.
    pub readout: &'static str,
}

/// The sizes of an exported backbone.
#[derive(Debug, Clone, Copy)]
pub enum ExportedModel<'a> {
    /// A vision transformer's.
    Vit(&'a VitConfig),
    /// A ResNet's.
    ResNet(&'a ResNetConfig),
}

impl ExportedModel<'_> {
    /// The name for all of them.
    #[must_use]
    pub fn architecture(&self) -> String {
        match self {
            Self::Vit(vit) => vit.architecture(),
            Self::ResNet(resnet) => resnet.architecture(),
        }
    }
}

impl<'a> Exported<'a> {
    /// The backbone's tensors in the names of its own state dict: name, shape, numbers.
    pub fn tensors(&self) -> impl Iterator<Item = (&'a str, &'a [usize], &'a [f32])> {
        self.parts.into_iter().flat_map(|(layout, values)| {
            layout.tensors().iter().filter_map(move |tensor| {
                let name = tensor.name.strip_prefix(crate::network::BACKBONE)?;
                Some((name, tensor.shape.as_slice(), tensor.slot.of(values)))
            })
        })
    }
}

/// What a checkpoint for others says that the method does not know.
#[derive(Debug, Clone)]
pub struct Notes {
    /// The data sets' names.
    pub data: String,
    /// Epochs between numbered checkpoints.
    pub keep_every_epochs: usize,
}

/// Gives the views of the images at these places.
pub type Look<'a> = dyn FnMut(&[usize]) -> Result<Vec<Views>> + 'a;

/// A training in progress, whatever its method.
pub trait Training: Debug + Send {
    /// What does not change.
    fn plan(&self) -> Plan;

    /// Steps taken.
    fn step_number(&self) -> usize;

    /// Where the passes are computed, in a word.
    fn device(&self) -> String {
        "cpu".into()
    }

    /// What must happen before an epoch's first step.
    ///
    /// * `order`: the images of the epoch in their order; `look` gives their views.
    ///
    /// # Errors
    /// As [`Training::step`].
    fn begin_epoch(&mut self, _order: &[usize], _look: &mut Look<'_>) -> Result<()> {
        Ok(())
    }

    /// One step.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or a gradient is not finite; the parameters are then those of before.
    /// [`Error::Device`] if a device fails.
    fn step(&mut self, batch: Batch<'_>) -> Result<Report>;

    /// Names of the numbers of a [`Report`], besides step, epoch and loss.
    fn columns(&self) -> &'static [&'static str];

    /// An epoch in a few words; `mean` gives the mean of a column over it.
    fn summary(&self, mean: &dyn Fn(&str) -> f64) -> String;

    /// What is worth a warning before the start.
    fn cautions(&self) -> Vec<String> {
        Vec::new()
    }

    /// Takes note of a step; names a collapse when it is there.
    fn warning(&mut self, report: &Report) -> Option<String>;

    /// The classes that each head predicts; methods without classes have no heads.
    fn predict(&mut self, _views: &[Views]) -> Vec<(&'static str, Vec<u32>)> {
        Vec::new()
    }

    /// How a batch would be mixed now; methods that do not mix have nothing to show.
    fn mixed(&mut self, _views: &[Views]) -> Vec<MixedSample> {
        Vec::new()
    }

    /// Names and places of all parameters.
    fn layout(&self) -> &Layout;

    /// Vectors of the state, by name; the first are parameters.
    fn vectors(&self) -> Vec<(&'static str, &Vec<f32>)>;

    /// As [`Training::vectors`], in the same order.
    fn vectors_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)>;

    /// Whole numbers of the state, by name: `optimizer_steps` and what else there is.
    fn counts(&self) -> Vec<(&'static str, Vec<u64>)>;

    /// Puts step and whole numbers back.
    fn set_counts(&mut self, step: usize, counts: Vec<(&'static str, Vec<u64>)>);

    /// The backbone.
    fn exported(&self) -> Exported<'_>;

    /// A checkpoint in the layout of the method's original.
    fn checkpoint(&self, notes: &Notes) -> TorchValue<'_>;

    /// Whether every number of the networks is finite.
    ///
    /// # Errors
    /// [`Error::Diverged`] if one is not: such a state is worth nothing, and must not replace a better one.
    fn check_finite(&self) -> Result<()> {
        let step = self.step_number().saturating_sub(1);
        for (_, values) in self.vectors() {
            if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::Diverged { step, what: "a weight is", value: value.into() });
            }
        }
        Ok(())
    }
}

/// Steps of an epoch, of a run that can be.
///
/// # Errors
/// [`Error::Config`] if there are fewer images than a batch, or more steps than can be counted.
pub(crate) fn steps_per_epoch(train: &TrainConfig, images: usize) -> Result<usize> {
    let batch = train.batch_size;
    if images < batch {
        let reason = format!("{batch} is more than the {images} images of the data set; lower it");
        return Err(Error::Config { setting: "train.batch_size", reason });
    }
    if train.epochs.checked_mul(images / batch).is_none_or(|steps| steps > MAX_STEPS) {
        let reason = format!("{} makes more than {MAX_STEPS} steps", train.epochs);
        return Err(Error::Config { setting: "train.epochs", reason });
    }
    Ok(images / batch)
}

/// Refuses a device that a method cannot use.
///
/// # Errors
/// [`Error::Config`].
pub(crate) fn only_on_the_processor(method: &str, train: &TrainConfig, device: &Device) -> Result<()> {
    if !device.is_cpu() {
        let reason = format!("{method} trains on the processor only: choose --device cpu");
        return Err(Error::Config { setting: "--device", reason });
    }
    if train.precision != crate::Precision::F32 {
        let reason = "bf16 is for GPUs; the processor computes in f32: set it to f32".into();
        return Err(Error::Config { setting: "train.precision", reason });
    }
    Ok(())
}

/// A report's number by its column.
pub(crate) fn value(columns: &[&str], report: &Report, name: &str) -> f64 {
    let place = columns.iter().position(|column| *column == name);
    place.and_then(|place| report.values.get(place)).copied().unwrap_or(f64::NAN)
}
