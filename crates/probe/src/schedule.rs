//! What probes train on and for how long: images by index, in seeded batches.
//!
//! Every epoch is a fresh permutation of all images, cut into batches; the last batch of an epoch may be
//! smaller. The order depends on the seed, the number of images and the batch size alone, so probes with
//! the same seed see the same batches whatever they are, alone or in company.

use std::ops::ControlFlow;

use ndarray::{Array3, ArrayView2};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::error::{expect_range, expect_shape};
use crate::{Error, Result};

/// What a probe trains on: images addressed by index.
pub trait TrainSet: Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width `k` of the tokens.
    fn dim(&self) -> usize;

    /// The patch grid `(gh, gw)`.
    fn grid(&self) -> (usize, usize);

    /// Size `(h, w)` of the label maps.
    fn label_size(&self) -> (usize, usize);

    /// Tokens and labels of the given images, in the given order.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    fn fetch(&self, indices: &[usize]) -> Result<Batch, Box<dyn std::error::Error + Send + Sync>>;
}

/// Some images.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// `[b, t, k]`, `t = gh·gw` in row-major order of the grid.
    pub tokens: Array3<f32>,
    /// `[b, h, w]`; 255, and any label that is not a class, is ignored.
    pub labels: Array3<u8>,
}

/// How a probe is trained. The default is STEGO's configuration (Hamilton et al., 2022): 5000 steps of 16
/// images, Adam at 5e-3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Optimiser steps; 0 leaves the probe as it was initialised.
    pub steps: usize,
    /// Images per step; the whole set, where that is smaller.
    pub batch_size: usize,
    /// Adam's learning rate, constant.
    pub learning_rate: f32,
    /// Seed of the batches and of the initial weights.
    pub seed: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { steps: 5000, batch_size: 16, learning_rate: 5e-3, seed: 0 }
    }
}

/// Progress: one finished step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The step, counted from 1.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Loss of the batch before the step; `None` if it has no labelled pixel.
    pub loss: Option<f64>,
}

impl Schedule {
    /// The generator of initial weights, apart from the one that orders the batches.
    pub(crate) fn weights_rng(&self) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(1);
        rng
    }

    /// Fails if nothing can be trained on `data` like this.
    pub(crate) fn check(&self, data: &dyn TrainSet) -> Result<()> {
        expect_range(self.batch_size > 0, "batch size", "at least 1", self.batch_size)?;
        let rate = self.learning_rate;
        expect_range(rate.is_finite() && rate > 0.0, "learning rate", "a positive number", rate)?;
        expect_range(data.dim() > 0, "token dimension", "at least 1", data.dim())?;
        match data.grid() {
            _ if data.is_empty() => Err(Error::Empty("training set")),
            (0, _) | (_, 0) => Err(Error::Empty("patch grid")),
            _ => Ok(()),
        }
    }

    /// Runs all steps: `update` makes one on a batch and returns its loss.
    pub(crate) fn run(
        &self,
        data: &dyn TrainSet,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
        mut update: impl FnMut(&Batch) -> Result<Option<f64>>,
    ) -> Result<()> {
        let mut batches = Batches::new(data.len(), self.batch_size, self.seed);
        for step in 1..=self.steps {
            let indices = batches.next();
            let batch = data.fetch(indices).map_err(|source| Error::Fetch { step, source })?;
            let ((gh, gw), (h, w)) = (data.grid(), data.label_size());
            expect_shape("tokens", &[indices.len(), gh * gw, data.dim()], batch.tokens.shape())?;
            expect_shape("labels", &[indices.len(), h, w], batch.labels.shape())?;
            let loss = update(&batch)?;
            if let Some(loss) = loss.filter(|loss| !loss.is_finite()) {
                return Err(Error::Diverged { step, loss });
            }
            if on_step(Step { step, steps: self.steps, loss }).is_break() {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }
}

/// The endless sequence of batches.
struct Batches {
    order: Vec<usize>,
    next: usize,
    batch_size: usize,
    rng: ChaCha8Rng,
}

impl Batches {
    fn new(n: usize, batch_size: usize, seed: u64) -> Self {
        Self { order: (0..n).collect(), next: n, batch_size, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    fn next(&mut self) -> &[usize] {
        if self.next == self.order.len() {
            self.order.shuffle(&mut self.rng);
            self.next = 0;
        }
        let from = self.next;
        self.next = (from + self.batch_size).min(self.order.len());
        &self.order[from..self.next]
    }
}

/// Adds images' gradients up, in image order; `None` for no image.
pub(crate) fn sum_in_order<'a>(
    mut gradients: impl Iterator<Item = ArrayView2<'a, f32>>,
) -> Option<ndarray::Array2<f32>> {
    let first = gradients.next()?.to_owned();
    Some(gradients.fold(first, |sum, gradient| sum + gradient))
}
