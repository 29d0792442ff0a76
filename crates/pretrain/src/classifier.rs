//! A trunk with one or two linear classifiers: AutoMix's encoders.

use crate::config::BackboneConfig;
use crate::drop_path::Drops;
use crate::hidden_mix::HiddenMix;
use crate::layers::Dense;
use crate::mixed_labels::{MixedLabels, mixed_cross_entropy};
use crate::network::BACKBONE;
use crate::params::Layout;
use crate::trunk::{Trunk, TrunkActivations, TrunkInput};
use crate::weights::Weights;
use crate::{Error, Result};

/// Which classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// Of clean images; the only one of hand-made mixes.
    One,
    /// Of mixtures.
    Mix,
}

/// The network without its weights.
#[derive(Debug, Clone)]
pub(crate) struct Classifier {
    pub(crate) layout: Layout,
    /// Running statistics of batch norms.
    pub(crate) buffers: Layout,
    pub(crate) trunk: Trunk,
    pub(crate) classes: usize,
    one: Dense,
    mix: Option<Dense>,
}

/// What a pass leaves for the way back; reused from one to the next.
#[derive(Debug, Default)]
pub(crate) struct ClassifierPass {
    trunk: TrunkActivations,
    readouts: Vec<f32>, // [b, d]
    logits: Vec<f32>,   // [b, C], then their gradient
    dreadouts: Vec<f32>,
}

impl ClassifierPass {
    /// The loss of the last forward pass, whose logits become the gradient times `weight`.
    pub(crate) fn loss(&mut self, labels: MixedLabels<'_>, weight: f64) -> f64 {
        mixed_cross_entropy(&mut self.logits, labels, weight)
    }

    /// The class with the largest logit of each image.
    pub(crate) fn predictions(&self, classes: usize) -> Vec<u32> {
        let first = |top: (u32, f32), (i, &x): (usize, &f32)| if x > top.1 { (i as u32, x) } else { top };
        let rows = self.logits.chunks_exact(classes);
        rows.map(|row| row.iter().enumerate().fold((0, f32::NEG_INFINITY), first).0).collect()
    }
}

impl Classifier {
    /// * `two`: whether there is a classifier of mixtures too.
    ///
    /// # Errors
    /// [`Error::Config`] if the backbone's sizes cannot be.
    pub(crate) fn new(backbone: &BackboneConfig, classes: usize, two: bool) -> Result<Self> {
        let (mut layout, mut buffers) = (Layout::default(), Layout::default());
        let trunk = Trunk::add(&mut layout, &mut buffers, BACKBONE, &backbone.trunk()?, backbone.readout);
        if classes == 0 {
            return Err(Error::Config { setting: "data.datasets", reason: "has no classes".into() });
        }
        let one = Dense::add(&mut layout, "head_one.fc_cls", trunk.dim(), classes);
        let mix = two.then(|| Dense::add(&mut layout, "head_mix.fc_cls", trunk.dim(), classes));
        Ok(Self { layout, buffers, trunk, classes, one, mix })
    }

    fn head(&self, head: Head) -> Dense {
        match (head, self.mix) {
            (Head::Mix, Some(mix)) => mix,
            _ => self.one,
        }
    }

    /// Logits of images `([b, 3, side, side], side)`, left in `pass`.
    pub(crate) fn forward(
        &self,
        weights: &mut Weights<'_>,
        (images, side): (&[f32], usize),
        drops: &Drops,
        mix: Option<&HiddenMix>,
        head: Head,
        pass: &mut ClassifierPass,
    ) {
        let input = TrunkInput { images, side, drops: (drops, 0), mix };
        self.trunk.forward(weights, input, &mut pass.trunk, &mut pass.readouts);
        self.head(head).forward(weights.params, &pass.readouts, &mut pass.logits);
    }

    /// Adds all gradients of the last forward pass; writes the images' where they are asked for.
    pub(crate) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        head: Head,
        pass: &mut ClassifierPass,
        dimages: Option<&mut Vec<f32>>,
    ) {
        let ClassifierPass { trunk, readouts, logits, dreadouts } = pass;
        self.head(head).backward(params, grads, logits, readouts, Some(dreadouts));
        self.trunk.backward(params, grads, dreadouts, trunk, dimages);
    }

    /// The map of a stage, `[b · t, C]`, and its grid.
    pub(crate) fn map(
        &self,
        weights: &mut Weights<'_>,
        (images, side): (&[f32], usize),
        drops: &Drops,
        stage: usize,
        pass: &mut ClassifierPass,
        map: &mut Vec<f32>,
    ) -> (usize, usize) {
        let input = TrunkInput { images, side, drops: (drops, 0), mix: None };
        self.trunk.map(weights, input, stage, &mut pass.trunk, map)
    }
}
