//! How long probes are trained, and on which images when.
//!
//! Every epoch is a fresh permutation of all images, cut into batches; the last batch of an epoch may be
//! smaller. The order depends on its seed, the number of images and the batch size alone. It is not the seed of a probe's
//! weights: all probes of a study see the same batches, so that a batch is read once for all of them and differences
//! between methods are not differences of order.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::error::expect_range;
use crate::{BankSet, Error, Result};

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
    /// Seed of the order of the images.
    pub order_seed: u64,
    /// The step before which weights and optimisers are made anew (STEGO's `reset_probe_steps`).
    pub reset_step: Option<usize>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { steps: 5000, batch_size: 16, learning_rate: 5e-3, order_seed: 0, reset_step: None }
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
    /// The generator of a seed's initial weights, apart from the one that orders the batches; `draw` counts how often they are
    /// made anew.
    pub(crate) fn weights_rng(seed: u64, draw: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1 + draw);
        rng
    }

    /// Fails if nothing can be trained on `data` like this.
    pub(crate) fn check(&self, data: &dyn BankSet) -> Result<()> {
        expect_range(self.batch_size > 0, "batch size", "at least 1", self.batch_size)?;
        let rate = self.learning_rate;
        expect_range(rate.is_finite() && rate > 0.0, "learning rate", "a positive number", rate)?;
        for dim in data.dims() {
            expect_range(dim > 0, "token dimension", "at least 1", dim)?;
        }
        match data.grid() {
            _ if data.is_empty() => Err(Error::Empty("training set")),
            (0, _) | (_, 0) => Err(Error::Empty("patch grid")),
            _ => Ok(()),
        }
    }
}

/// The endless sequence of batches.
pub(crate) struct Batches {
    order: Vec<usize>,
    next: usize,
    batch_size: usize,
    rng: ChaCha8Rng,
}

impl Batches {
    pub(crate) fn new(n: usize, batch_size: usize, seed: u64) -> Self {
        Self { order: (0..n).collect(), next: n, batch_size, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    pub(crate) fn next(&mut self) -> &[usize] {
        if self.next == self.order.len() {
            self.order.shuffle(&mut self.rng);
            self.next = 0;
        }
        let from = self.next;
        self.next = (from + self.batch_size).min(self.order.len());
        &self.order[from..self.next]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ndarray::{Array, Array3, s};
    use rand::Rng;

    use super::*;
    use crate::RowSet;

    /// Images whose tokens are noisy copies of one direction per class, on a grid that the classes share in
    /// halves: upper and lower.
    pub(crate) struct Halves {
        pub(crate) tokens: Array3<f32>, // [n, 16, 4]
        pub(crate) labels: Array3<u8>,  // [n, 8, 8]
    }

    impl Halves {
        pub(crate) fn new(n: usize) -> Self {
            let mut labels = Array3::zeros((n, 8, 8));
            for (i, mut map) in labels.outer_iter_mut().enumerate() {
                map.slice_mut(s![..4, ..]).fill((i % 3) as u8);
                map.slice_mut(s![4.., ..]).fill(((i + 1) % 3) as u8);
                map[[0, i % 8]] = 255;
            }
            let tokens = Array::from_shape_fn((n, 16, 4), |(i, t, k)| {
                let class = (i + t / 8) % 3;
                f32::from(u8::from(k == class)) + 0.3 * ((i * 97 + t * 13 + k * 7) as f32).sin()
            });
            Self { tokens, labels }
        }

        pub(crate) fn set(&self) -> RowSet<'_> {
            RowSet { tokens: self.tokens.view(), grid: (4, 4), labels: self.labels.view() }
        }
    }

    fn take(n: usize, batch_size: usize, seed: u64, count: usize) -> Vec<Vec<usize>> {
        let mut batches = Batches::new(n, batch_size, seed);
        (0..count).map(|_| batches.next().to_vec()).collect()
    }

    #[test]
    fn every_epoch_is_a_new_permutation() {
        let batches = take(10, 4, 0, 6);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2, 4, 4, 2]);
        let epochs: Vec<Vec<usize>> = batches.chunks(3).map(|epoch| epoch.concat()).collect();
        assert_ne!(epochs[0], epochs[1]);
        for mut epoch in epochs {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn batches_follow_from_the_seed() {
        assert_eq!(take(10, 4, 7, 9), take(10, 4, 7, 9));
        assert_ne!(take(10, 4, 7, 9), take(10, 4, 8, 9));
        assert_eq!(take(3, 16, 0, 2).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    }

    #[test]
    fn weights_are_drawn_apart_from_batches_and_follow_the_seed() {
        let draw = |mut rng: ChaCha8Rng| rng.random::<u64>();
        let weights = |seed, again| draw(Schedule::weights_rng(seed, again));
        assert_eq!(weights(3, 0), weights(3, 0));
        assert_ne!(weights(3, 0), weights(4, 0));
        assert_ne!(weights(3, 0), weights(3, 1));
        assert_ne!(weights(3, 0), draw(ChaCha8Rng::seed_from_u64(3)));
    }

    #[test]
    fn nothing_to_train_on_is_refused() {
        let (data, schedule) = (Halves::new(5), Schedule::default());
        assert!(schedule.check(&data.set()).is_ok());
        assert!(matches!(schedule.check(&Halves::new(0).set()), Err(Error::Empty("training set"))));
        for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let schedule = Schedule { learning_rate: wrong, ..schedule };
            assert!(matches!(schedule.check(&data.set()), Err(Error::Range { what: "learning rate", .. })));
        }
        let schedule = Schedule { batch_size: 0, ..schedule };
        assert!(matches!(schedule.check(&data.set()), Err(Error::Range { what: "batch size", .. })));
    }
}
