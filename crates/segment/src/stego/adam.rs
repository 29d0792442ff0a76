//! Adam with moments that can be written down: one optimiser for all parameters of a network.
//!
//! The arithmetic is that of [`probe::Adam`], number by number; that one keeps its moments to itself.

use kernels::simd;
use serde::{Deserialize, Serialize};

use super::error::{Result, expect_shape};

/// Decay of the first moment.
const BETA_1: f64 = 0.9;
/// Decay of the second moment.
const BETA_2: f64 = 0.999;
/// Keeps the step finite where a gradient was always zero.
const EPSILON: f32 = 1e-8;

/// Parameters in training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trained {
    /// The parameters, `[n]`.
    pub parameters: Vec<f32>,
    /// Steps of the optimiser.
    pub steps: i32,
    /// Mean of the gradients, `[n]`.
    pub mean: Vec<f32>,
    /// Mean square of the gradients, `[n]`.
    pub square: Vec<f32>,
}

impl Trained {
    /// Parameters before the first step.
    #[must_use]
    pub fn new(parameters: Vec<f32>) -> Self {
        let n = parameters.len();
        Self { parameters, steps: 0, mean: vec![0.0; n], square: vec![0.0; n] }
    }

    /// One step against `gradient`, `[n]`.
    pub(super) fn step(&mut self, learning_rate: f32, gradient: &[f32]) {
        assert_eq!(gradient.len(), self.parameters.len(), "a slope for every parameter");
        self.steps = self.steps.saturating_add(1);
        let step_size = (f64::from(learning_rate) / (1.0 - BETA_1.powi(self.steps))) as f32;
        let square_scale = (1.0 - BETA_2.powi(self.steps)).sqrt() as f32;
        let (rate_1, keep_2, rate_2) = ((1.0 - BETA_1) as f32, BETA_2 as f32, (1.0 - BETA_2) as f32);
        let Self { parameters, mean, square, .. } = self;
        simd(
            #[inline(always)]
            || {
                for (((p, &g), m), v) in parameters.iter_mut().zip(gradient).zip(mean).zip(square) {
                    *m += rate_1 * (g - *m);
                    *v = *v * keep_2 + rate_2 * g * g;
                    *p -= step_size * *m / (v.sqrt() / square_scale + EPSILON);
                }
            },
        );
    }

    /// Fails if it is not the state of `n` parameters.
    pub(super) fn check(&self, what: &'static str, n: usize) -> Result<()> {
        expect_shape(what, &[n; 3], &[self.parameters.len(), self.mean.len(), self.square.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_is_that_of_the_probes_optimiser() {
        let mut theirs: Vec<f32> = (0..37).map(|i| (i as f32).sin()).collect();
        let mut ours = Trained::new(theirs.clone());
        let mut adam = probe::Adam::new(5e-3, 37);
        for step in 0..30 {
            let gradient: Vec<f32> = (0..37).map(|i| ((i * 7 + step * 3) as f32).cos()).collect();
            adam.step(&mut theirs, &gradient);
            ours.step(5e-3, &gradient);
            assert_eq!(ours.parameters, theirs);
        }
    }
}
