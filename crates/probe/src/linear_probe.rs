//! The linear probe: one linear classifier for all patch tokens (a 1×1 convolution), trained on pixels.
//!
//! `scores = tokens · weightᵀ + bias`; trained with the upsampled cross-entropy of
//! [`masked_cross_entropy_upsampled`](crate::masked_cross_entropy_upsampled). Upsampling the scores or the tokens
//! is the same thing, because both maps are linear and the weights of an upsampling sum to one.

use std::ops::ControlFlow;

use ndarray::{Array1, Array2, ArrayView2, ArrayView3};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Uniform};

use crate::bank::{fit_one, linear_gradient};
use crate::error::expect_shape;
use crate::{BankProbe, BankSet, CellKind, Probe, Result, RowSet, Schedule, Step};

/// A linear probe that is not trained yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearProbeParams {
    /// Number of classes `c`, 1 to 255; labels from there on are ignored.
    pub classes: usize,
    /// Seed of the initial weights.
    pub seed: u64,
    /// Steps, batches and learning rate.
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
    /// Trains a probe on the first source of a set: a bank of one. The same parameters and data give the same bits, for any
    /// number of threads.
    ///
    /// `on_step` is called after every step and stops the training by returning `Break`.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty) and [`Error::Range`](crate::Error::Range) for nothing to train on,
    /// [`Error::Fetch`](crate::Error::Fetch), [`Error::Diverged`](crate::Error::Diverged), and
    /// [`Error::Interrupted`](crate::Error::Interrupted) after a `Break`.
    pub fn fit(
        &self,
        data: &dyn BankSet,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<LinearProbe> {
        match fit_one(data, self.schedule, self.classes, (CellKind::Linear, self.seed), on_step)? {
            BankProbe::Linear(probe) => Ok(probe),
            BankProbe::Cluster(_) => unreachable!("the cell is linear"),
        }
    }
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
        expect_shape("labels", &[b, h, w], labels.shape())?;
        let gradient =
            linear_gradient(&RowSet { tokens: tokens.reborrow(), grid, labels: labels.reborrow() }, self)?;
        let weight = Array2::from_shape_vec(self.weight.dim(), gradient.matrix);
        Ok(LinearGradient {
            loss: gradient.loss,
            weight: weight.expect("a number per weight"),
            bias: gradient.bias.into(),
        })
    }

    /// Weights and biases uniform in `±1/√k`: Kaiming-uniform with `a = √5`, the default of a convolution.
    pub(crate) fn initial(classes: usize, dim: usize, rng: &mut ChaCha8Rng) -> Self {
        let bound = 1.0 / (dim as f32).sqrt();
        let uniform = Uniform::new(-bound, bound).expect("the bound is positive and finite");
        let weight = Array2::from_shape_simple_fn((classes, dim), || uniform.sample(rng));
        let bias = Array1::from_shape_simple_fn(classes, || uniform.sample(rng));
        Self { weight, bias }
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
            seed,
            schedule: Schedule { steps, batch_size: 4, learning_rate: 0.05, ..Schedule::default() },
        }
    }

    fn fit(params: LinearProbeParams, data: &Halves) -> LinearProbe {
        params.fit(&data.set(), &mut |_| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn learns_what_is_linear() {
        let data = Halves::new(12);
        let mut losses = Vec::new();
        let mut on_step = |step: Step| {
            losses.push(step.loss.unwrap());
            ControlFlow::Continue(())
        };
        let probe = params(150, 0).fit(&data.set(), &mut on_step).unwrap();
        assert!(losses[149] < 0.3 * losses[0], "{} to {}", losses[0], losses[149]);
        for (tokens, labels) in data.tokens.outer_iter().zip(data.labels.outer_iter()) {
            let predicted = upsample_argmax(probe.scores(tokens).view(), (4, 4), (8, 8));
            let wrong = predicted.iter().zip(labels).filter(|(p, l)| **l != 255 && p != l).count();
            assert!(wrong <= 8, "{wrong} of 63 pixels");
        }
    }

    #[test]
    fn gradient_is_the_slope_of_the_loss() {
        let (data, mut probe) = (Halves::new(3), fit(params(0, 5), &Halves::new(3)));
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
        let probe = params(2, 0).fit(&data.set(), &mut |step| {
            losses.push(step.loss);
            ControlFlow::Continue(())
        });
        assert_eq!((probe.unwrap(), losses), (before, vec![None, None]));
    }

    #[test]
    fn broken_features_are_divergence() {
        let mut data = Halves::new(2);
        data.tokens[[1, 3, 2]] = f32::NAN;
        let result = params(5, 0).fit(&data.set(), &mut |_| ControlFlow::Continue(()));
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
