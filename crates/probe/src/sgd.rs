//! Gradient descent with momentum, with the order of operations of `torch.optim.SGD`.
//!
//! `v ← μ v + g`, then `p ← p - lr · v`: the learning rate is outside the velocity, so that a schedule acts at once.

/// `μ`, the share of the velocity that stays.
const MOMENTUM: f32 = 0.9;

/// The optimiser of one array of parameters: its velocity.
///
/// μ = 0.9; no weight decay, no dampening, not Nesterov's.
///
/// ```
/// let mut sgd = probe::Sgd::new(1);
/// let mut parameters = [1.0];
/// sgd.step(&mut parameters, &[1.0], 1.0);
/// assert_eq!(parameters, [0.0]);
/// sgd.step(&mut parameters, &[0.0], 1.0);
/// assert_eq!(parameters, [-0.9]); // it keeps moving
/// ```
#[derive(Debug, Clone)]
pub struct Sgd {
    velocity: Vec<f32>,
}

impl Sgd {
    /// An optimiser for `n` parameters at rest.
    pub fn new(n: usize) -> Self {
        Self { velocity: vec![0.0; n] }
    }

    /// One step of `parameters` against `gradient`, both `[n]`.
    ///
    /// # Panics
    /// If either has another length than the optimiser was made for.
    pub fn step(&mut self, parameters: &mut [f32], gradient: &[f32], learning_rate: f32) {
        assert_eq!((parameters.len(), gradient.len()), (self.velocity.len(), self.velocity.len()), "lengths");
        for ((p, &g), v) in parameters.iter_mut().zip(gradient).zip(&mut self.velocity) {
            *v = MOMENTUM * *v + g;
            *p -= learning_rate * *v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_gradient_reaches_ten_times_its_length() {
        let (mut sgd, mut p) = (Sgd::new(1), [0.0]);
        (0..300).for_each(|_| sgd.step(&mut p, &[1.0], 0.0));
        sgd.step(&mut p, &[1.0], 0.1);
        assert!((p[0] + 1.0).abs() < 1e-5, "{}", p[0]);
    }
}
