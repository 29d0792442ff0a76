//! Adam (Kingma and Ba, 2015), with the order of operations of `torch.optim.Adam`.
//!
//! `m ← m + (1 - β₁)(g - m)`, `v ← β₂ v + (1 - β₂) g²`, and
//! `p ← p - lr / (1 - β₁ˢ) · m / (√v / √(1 - β₂ˢ) + ε)` at step `s`. State and parameters are `f32`, the
//! bias corrections `f64`, as there: the order matters where weights must equal the original's.

/// Decay of the first moment.
const BETA_1: f64 = 0.9;
/// Decay of the second moment.
const BETA_2: f64 = 0.999;
/// Keeps the step finite where a gradient was always zero.
const EPSILON: f32 = 1e-8;

/// The optimiser of one array of parameters: its moments and its count of steps.
///
/// β = (0.9, 0.999), ε = 1e-8; no weight decay, no schedule.
///
/// ```
/// let mut adam = probe::Adam::new(0.1, 2);
/// let mut parameters = [1.0, 1.0];
/// adam.step(&mut parameters, &[3.0, 0.0]);
/// assert_eq!(parameters, [0.9, 1.0]); // the first step has the length of the learning rate
/// ```
#[derive(Debug, Clone)]
pub struct Adam {
    learning_rate: f32,
    steps: i32,
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl Adam {
    /// An optimiser for `n` parameters that has made no step yet.
    pub fn new(learning_rate: f32, n: usize) -> Self {
        Self { learning_rate, steps: 0, mean: vec![0.0; n], square: vec![0.0; n] }
    }

    /// Steps made so far.
    pub(crate) fn steps(&self) -> i32 {
        self.steps
    }

    /// Mean and mean square of the gradients, `[n]` each.
    pub(crate) fn moments(&self) -> (&[f32], &[f32]) {
        (&self.mean, &self.square)
    }

    /// Becomes an optimiser that has made `steps` steps.
    pub(crate) fn restore(&mut self, steps: i32, mean: &[f32], square: &[f32]) {
        self.steps = steps;
        self.mean.copy_from_slice(mean);
        self.square.copy_from_slice(square);
    }

    /// One step of `parameters` against `gradient`, both `[n]`.
    ///
    /// # Panics
    /// If either has another length than the optimiser was made for.
    pub fn step(&mut self, parameters: &mut [f32], gradient: &[f32]) {
        self.steps = self.steps.saturating_add(1);
        adam_step((self.learning_rate, self.steps), parameters, gradient, (&mut self.mean, &mut self.square));
    }
}

/// The step itself, for those who keep parameters and moments in places of their own.
///
/// * `(learning rate, number of this step, from 1 on)`; `(mean, square)`: the moments, `[n]` as parameters and gradient.
///
/// # Panics
/// If lengths differ.
pub fn adam_step(
    (learning_rate, step): (f32, i32),
    parameters: &mut [f32],
    gradient: &[f32],
    (mean, square): (&mut [f32], &mut [f32]),
) {
    let n = parameters.len();
    assert_eq!((gradient.len(), mean.len(), square.len()), (n, n, n), "lengths");
    let step_size = (f64::from(learning_rate) / (1.0 - BETA_1.powi(step))) as f32;
    let square_scale = (1.0 - BETA_2.powi(step)).sqrt() as f32;
    let (rate_1, keep_2, rate_2) = ((1.0 - BETA_1) as f32, BETA_2 as f32, (1.0 - BETA_2) as f32);
    kernels::simd(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_step_has_the_length_of_the_learning_rate() {
        for gradient in [-2e3_f32, -1e-3, 1e-2, 5.0] {
            let mut p = [0.0];
            Adam::new(0.25, 1).step(&mut p, &[gradient]);
            assert!((p[0] + 0.25 * gradient.signum()).abs() < 1e-5, "{gradient} moved to {}", p[0]);
        }
    }

    #[test]
    fn follows_the_textbook_in_f64() {
        let (mut adam, mut p) = (Adam::new(0.1, 1), [0.5_f32]);
        let (mut m, mut v, mut exact) = (0.0_f64, 0.0_f64, 0.5_f64);
        for step in 1..=20 {
            let g = (f64::from(step) * 0.7).sin();
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m_hat, v_hat) = (m / (1.0 - 0.9_f64.powi(step)), v / (1.0 - 0.999_f64.powi(step)));
            exact -= 0.1 * m_hat / (v_hat.sqrt() + 1e-8);
            adam.step(&mut p, &[g as f32]);
            assert!((f64::from(p[0]) - exact).abs() < 1e-5, "step {step}: {} and {exact}", p[0]);
        }
    }

    #[test]
    fn a_parameter_without_gradient_rests_until_it_gets_one() {
        let (mut adam, mut p) = (Adam::new(0.1, 2), [1.0, 1.0]);
        adam.step(&mut p, &[0.0, 1.0]);
        assert_eq!(p[0], 1.0);
        let before = p[1];
        adam.step(&mut p, &[0.0, 0.0]);
        assert!(p[1] < before, "the momentum of the first step is gone");
    }
}
