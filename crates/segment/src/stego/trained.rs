//! Parameters in training, with the moments of their Adam: everything that has to be kept to go on.

use super::error::{Result, expect_shape};

/// Parameters in training.
#[derive(Debug, Clone, PartialEq)]
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
        self.steps = self.steps.saturating_add(1);
        let moments = (self.mean.as_mut_slice(), self.square.as_mut_slice());
        probe::adam_step((learning_rate, self.steps), &mut self.parameters, gradient, moments);
    }

    /// Fails if it is not the state of `n` parameters.
    pub(super) fn check(&self, what: &'static str, n: usize) -> Result<()> {
        expect_shape(what, &[n; 3], &[self.parameters.len(), self.mean.len(), self.square.len()])
    }
}
