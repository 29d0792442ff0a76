//! What probes train on and for how long: images by index, in seeded batches.
//!
//! Every epoch is a fresh permutation of all images, cut into batches; the last batch of an epoch may be
//! smaller. The order depends on the seed, the number of images and the batch size alone, so probes with
//! the same seed see the same batches whatever they are, alone or in company.

use std::ops::ControlFlow;

use ndarray::Array3;
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

#[cfg(test)]
pub(crate) mod tests {
    use ndarray::{Array, Axis, s};
    use rand::Rng;

    use super::*;

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
    }

    impl TrainSet for Halves {
        fn len(&self) -> usize {
            self.tokens.dim().0
        }

        fn dim(&self) -> usize {
            self.tokens.dim().2
        }

        fn grid(&self) -> (usize, usize) {
            (4, 4)
        }

        fn label_size(&self) -> (usize, usize) {
            (8, 8)
        }

        fn fetch(&self, indices: &[usize]) -> Result<Batch, Box<dyn std::error::Error + Send + Sync>> {
            if indices.contains(&99) {
                return Err("image 99 is missing".into());
            }
            Ok(Batch {
                tokens: self.tokens.select(Axis(0), indices),
                labels: self.labels.select(Axis(0), indices),
            })
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
        let weights = |seed| draw(Schedule { seed, ..Schedule::default() }.weights_rng());
        assert_eq!(weights(3), weights(3));
        assert_ne!(weights(3), weights(4));
        assert_ne!(weights(3), draw(ChaCha8Rng::seed_from_u64(3)));
    }

    fn run(data: &dyn TrainSet, schedule: Schedule, losses: &[Option<f64>]) -> (Vec<Step>, Result<()>) {
        let (mut seen, mut losses) = (Vec::new(), losses.iter());
        let mut on_step = |step: Step| {
            seen.push(step);
            if step.step == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result = schedule.run(data, &mut on_step, |_| Ok(losses.next().copied().flatten()));
        (seen, result)
    }

    #[test]
    fn steps_are_reported_and_can_be_stopped() {
        let data = Halves::new(5);
        let schedule = Schedule { steps: 3, ..Schedule::default() };
        let (seen, result) = run(&data, schedule, &[Some(1.0), None, Some(0.5)]);
        assert!(result.is_ok());
        let expected = [(1, Some(1.0)), (2, None), (3, Some(0.5))];
        assert_eq!(seen, expected.map(|(step, loss)| Step { step, steps: 3, loss }));
        let (seen, result) = run(&data, Schedule { steps: 9, ..schedule }, &[]);
        assert!(matches!(result, Err(Error::Interrupted)) && seen.len() == 4);
    }

    #[test]
    fn divergence_and_unreadable_images_name_their_step() {
        let (seen, result) = run(&Halves::new(5), Schedule::default(), &[Some(1.0), Some(f64::NAN)]);
        assert!(matches!(result, Err(Error::Diverged { step: 2, .. })) && seen.len() == 1);
        let schedule = Schedule { batch_size: 100, ..Schedule::default() };
        let (_, result) = run(&Halves::new(100), schedule, &[]);
        let Err(Error::Fetch { step: 1, source }) = result else { panic!("{result:?}") };
        assert_eq!(source.to_string(), "image 99 is missing");
    }

    #[test]
    fn data_that_lie_about_their_shape_are_refused() {
        let mut data = Halves::new(5);
        data.labels = Array3::zeros((5, 8, 7));
        let (_, result) = run(&data, Schedule::default(), &[]);
        assert!(matches!(result, Err(Error::Shape { what: "labels", .. })));
        data = Halves::new(5);
        data.tokens = Array3::zeros((5, 15, 4));
        let (_, result) = run(&data, Schedule::default(), &[]);
        assert!(matches!(result, Err(Error::Shape { what: "tokens", .. })));
    }

    #[test]
    fn nothing_to_train_on_is_refused() {
        let (data, schedule) = (Halves::new(5), Schedule::default());
        assert!(schedule.check(&data).is_ok());
        assert!(matches!(schedule.check(&Halves::new(0)), Err(Error::Empty("training set"))));
        for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let schedule = Schedule { learning_rate: wrong, ..schedule };
            assert!(matches!(schedule.check(&data), Err(Error::Range { what: "learning rate", .. })));
        }
        let schedule = Schedule { batch_size: 0, ..schedule };
        assert!(matches!(schedule.check(&data), Err(Error::Range { what: "batch size", .. })));
    }
}
