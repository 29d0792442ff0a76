//! The linear probe: one linear classifier for all patch tokens (a 1×1 convolution), trained on pixels.
//!
//! `scores = tokens · weightᵀ + bias`; trained with the upsampled cross-entropy of
//! [`masked_cross_entropy_upsampled`](crate::masked_cross_entropy_upsampled). Upsampling the scores or the tokens
//! is the same thing, because both maps are linear and the weights of an upsampling sum to one.

use std::ops::ControlFlow;

use ndarray::{Array1, Array2, ArrayView2, ArrayView3, Axis};
use rand_distr::{Distribution, Uniform};
use rayon::prelude::*;

use crate::cross_entropy::{Scratch, UpsampledLoss};
use crate::error::expect_shape;
use crate::{Adam, Probe, Result, Schedule, Step, TrainSet};

/// A linear probe that is not trained yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearProbeParams {
    /// Number of classes `c`, 1 to 255; labels from there on are ignored.
    pub classes: usize,
    /// Steps, batches, learning rate and seed.
    pub schedule: Schedule,
}

/// A linear classifier of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearProbe {
    /// `[c, k]`.
    pub weight: Array2<f32>,
    /// `[c]`.
    pub bias: Array1<f32>,
}

/// Loss of a [`LinearProbe`] on a batch, with its slope.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearGradient {
    /// Mean over labelled pixels; `None` if there are none, and then the gradient is zero.
    pub loss: Option<f64>,
    /// `[c, k]`.
    pub weight: Array2<f32>,
    /// `[c]`.
    pub bias: Array1<f32>,
}

impl LinearProbeParams {
    /// Trains a probe. The same parameters and data give the same bits, for any number of threads.
    ///
    /// `on_step` is called after every step and stops the training by returning `Break`.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty) and [`Error::Range`](crate::Error::Range) for nothing to train on,
    /// [`Error::Fetch`](crate::Error::Fetch), [`Error::Diverged`](crate::Error::Diverged), and
    /// [`Error::Interrupted`](crate::Error::Interrupted) after a `Break`.
    pub fn fit(
        &self,
        data: &dyn TrainSet,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<LinearProbe> {
        self.schedule.check(data)?;
        let loss = UpsampledLoss::new(data.grid(), data.label_size(), self.classes)?;
        let mut probe = self.initial(data.dim());
        let rate = self.schedule.learning_rate;
        let mut adam = (Adam::new(rate, probe.weight.len()), Adam::new(rate, probe.bias.len()));
        self.schedule.run(data, on_step, |batch| {
            // A batch without labels still makes a step, with zero gradient: so does the original.
            let gradient = probe.slope(&loss, batch.tokens.view(), batch.labels.view());
            step(&mut adam.0, probe.weight.as_slice_mut(), gradient.weight.as_slice());
            step(&mut adam.1, probe.bias.as_slice_mut(), gradient.bias.as_slice());
            Ok(gradient.loss)
        })?;
        Ok(probe)
    }

    /// Weights and biases uniform in `±1/√k`: Kaiming-uniform with `a = √5`, the default of a convolution.
    fn initial(&self, dim: usize) -> LinearProbe {
        let bound = 1.0 / (dim as f32).sqrt();
        let uniform = Uniform::new(-bound, bound).expect("the bound is positive and finite");
        let mut rng = self.schedule.weights_rng();
        let weight = Array2::from_shape_simple_fn((self.classes, dim), || uniform.sample(&mut rng));
        let bias = Array1::from_shape_simple_fn(self.classes, || uniform.sample(&mut rng));
        LinearProbe { weight, bias }
    }
}

/// A step on arrays that were made here, in standard layout.
fn step(adam: &mut Adam, parameters: Option<&mut [f32]>, gradient: Option<&[f32]>) {
    adam.step(parameters.expect("standard layout"), gradient.expect("standard layout"));
}

impl LinearProbe {
    /// Loss on a batch, and its gradient in weight and bias.
    ///
    /// * `tokens`: `[b, t, k]` with `t = gh·gw`; `grid`: `(gh, gw)`; `labels`: `[b, h, w]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) or [`Error::Range`](crate::Error::Range) if they do not fit.
    pub fn gradient(
        &self,
        tokens: ArrayView3<'_, f32>,
        grid: (usize, usize),
        labels: ArrayView3<'_, u8>,
    ) -> Result<LinearGradient> {
        let (b, h, w) = labels.dim();
        expect_shape("tokens", &[b, grid.0 * grid.1, self.weight.ncols()], tokens.shape())?;
        expect_shape("bias", &[self.weight.nrows()], self.bias.shape())?;
        Ok(self.slope(&UpsampledLoss::new(grid, (h, w), self.outputs())?, tokens, labels))
    }

    /// As [`LinearProbe::gradient`], of arguments that fit. One image is one task, and the images' sums are
    /// added in image order.
    fn slope(
        &self,
        loss: &UpsampledLoss,
        tokens: ArrayView3<'_, f32>,
        labels: ArrayView3<'_, u8>,
    ) -> LinearGradient {
        let images = (0..tokens.dim().0).into_par_iter().map_init(Scratch::default, |scratch, i| {
            let (tokens, labels) = (tokens.index_axis(Axis(0), i), labels.index_axis(Axis(0), i));
            let image = loss.image(self.scores(tokens).view(), labels, scratch);
            let weight = image.grad_logits.t().dot(&tokens); // [c, k]
            (image.sum, image.pixels, weight, image.grad_logits.sum_axis(Axis(0)))
        });
        let images: Vec<_> = images.collect();
        let mut total = LinearGradient {
            loss: None,
            weight: Array2::zeros(self.weight.dim()),
            bias: Array1::zeros(self.outputs()),
        };
        let (mut sum, mut pixels) = (0.0, 0);
        for (image_sum, image_pixels, weight, bias) in &images {
            sum += image_sum;
            pixels += image_pixels;
            total.weight += weight;
            total.bias += bias;
        }
        total.weight /= pixels.max(1) as f32;
        total.bias /= pixels.max(1) as f32;
        total.loss = (pixels > 0).then(|| sum / pixels as f64);
        total
    }
}

impl Probe for LinearProbe {
    fn outputs(&self) -> usize {
        self.weight.nrows()
    }

    /// The logits.
    fn scores(&self, tokens: ArrayView2<'_, f32>) -> Array2<f32> {
        tokens.dot(&self.weight.t()) + &self.bias
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;
    use crate::schedule::tests::Halves;
    use crate::{Error, upsample_argmax};

    fn params(steps: usize, seed: u64) -> LinearProbeParams {
        LinearProbeParams {
            classes: 3,
            schedule: Schedule { steps, batch_size: 4, learning_rate: 0.05, seed },
        }
    }

    fn fit(params: LinearProbeParams, data: &Halves) -> LinearProbe {
        params.fit(data, &mut |_| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn learns_what_is_linear() {
        let data = Halves::new(12);
        let mut losses = Vec::new();
        let mut on_step = |step: Step| {
            losses.push(step.loss.unwrap());
            ControlFlow::Continue(())
        };
        let probe = params(150, 0).fit(&data, &mut on_step).unwrap();
        assert!(losses[149] < 0.3 * losses[0], "{} to {}", losses[0], losses[149]);
        for (tokens, labels) in data.tokens.outer_iter().zip(data.labels.outer_iter()) {
            let predicted = upsample_argmax(probe.scores(tokens).view(), (4, 4), (8, 8));
            let wrong = predicted.iter().zip(labels).filter(|(p, l)| **l != 255 && p != l).count();
            assert!(wrong <= 8, "{wrong} of 63 pixels");
        }
    }

    #[test]
    fn gradient_is_the_slope_of_the_loss() {
        let (data, mut probe) = (Halves::new(3), params(0, 5).initial(4));
        let gradient =
            |probe: &LinearProbe| probe.gradient(data.tokens.view(), (4, 4), data.labels.view()).unwrap();
        let slope = gradient(&probe);
        let mut measure = |at: &dyn Fn(&mut LinearProbe) -> &mut f32, slope: f32| {
            let before = *at(&mut probe);
            let [up, down] = [0.01, -0.01].map(|shift| {
                *at(&mut probe) = before + shift;
                gradient(&probe).loss.unwrap()
            });
            *at(&mut probe) = before;
            assert!(
                ((up - down) / 0.02 - f64::from(slope)).abs() < 1e-4,
                "{} for {slope}",
                (up - down) / 0.02
            );
        };
        for (index, &slope) in slope.weight.indexed_iter() {
            measure(&|probe| &mut probe.weight[index], slope);
        }
        for (index, &slope) in slope.bias.indexed_iter() {
            measure(&|probe| &mut probe.bias[index], slope);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_on_any_number_of_threads() {
        let data = Halves::new(9);
        let train = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fit(params(20, seed), &data))
        };
        assert_eq!(train(1, 3), train(4, 3));
        assert_ne!(train(1, 3), train(1, 4));
    }

    #[test]
    fn starts_uniform_within_its_bound() {
        let probe = fit(params(0, 0), &Halves::new(1));
        let all: Vec<f32> = probe.weight.iter().chain(&probe.bias).copied().collect();
        assert!(all.iter().all(|v| v.abs() <= 0.5) && all.iter().any(|v| v.abs() > 0.35));
        assert!(all.iter().any(|&v| v < 0.0) && all.iter().any(|&v| v > 0.0));
    }

    #[test]
    fn a_batch_without_labels_has_no_loss_and_does_not_stop_training() {
        let mut data = Halves::new(2);
        data.labels = Array3::from_elem((2, 8, 8), 255);
        let before = fit(params(0, 0), &data);
        let mut losses = Vec::new();
        let probe = params(2, 0).fit(&data, &mut |step| {
            losses.push(step.loss);
            ControlFlow::Continue(())
        });
        assert_eq!((probe.unwrap(), losses), (before, vec![None, None]));
    }

    #[test]
    fn broken_features_are_divergence() {
        let mut data = Halves::new(2);
        data.tokens[[1, 3, 2]] = f32::NAN;
        let result = params(5, 0).fit(&data, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(result, Err(Error::Diverged { step: 1, .. })), "{result:?}");
    }

    #[test]
    fn misfits_are_refused() {
        let probe = LinearProbe { weight: array![[1.0, 2.0]], bias: array![0.0] };
        let labels = Array3::zeros((1, 3, 3));
        let fit = |k| probe.gradient(Array3::zeros((1, 4, k)).view(), (2, 2), labels.view());
        assert!(fit(2).is_ok());
        assert!(matches!(fit(3), Err(Error::Shape { what: "tokens", .. })));
    }
}
