//! The cluster probe's loss: how far tokens are from their centres, by cosine.
//!
//! With `x̂ = x / max(‖x‖, ε)`, the cosines are `s_n = ⟨μ̂_n, x̂⟩` and the loss is `-mean Σ_n p_n s_n` over
//! tokens. Without `α`, `p` is one for the nearest centre: `∂L/∂s_n = -p_n`. With `α`,
//! `p = softmax(α s)`, and `p` moves as well: `∂L/∂s_n = -p_n (1 + α (s_n - Σ p s))`. Both times divided by
//! the number of tokens. The way from `μ̂` back to `μ` takes out the part along `μ̂` and divides by `‖μ‖`.
//!
//! Labels and upsampling have no part in this.

use ndarray::{Array2, ArrayView2, ArrayView3, ArrayViewMut1, Axis};
use rayon::prelude::*;

use crate::error::expect_shape;
use crate::exp::exp;
use crate::{ClusterProbe, Error, Result};

/// ε of the normalisation.
pub(crate) const EPSILON: f32 = 1e-12;

/// Loss of a [`ClusterProbe`] on a batch, with its slope in the centres.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterGradient {
    /// Minus the mean over tokens of `Σ p s`.
    pub loss: f64,
    /// `[m, k]`.
    pub centres: Array2<f32>,
}

/// Loss of a [`ClusterProbe`] on some tokens, with its slope in everything.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterLoss {
    /// Minus the mean over tokens of `Σ p s`.
    pub loss: f64,
    /// `[n, m]`: how much of a token belongs to each cluster. Rows sum to one.
    pub probabilities: Array2<f32>,
    /// `[m, k]`.
    pub grad_centres: Array2<f32>,
    /// `[n, k]`.
    pub grad_tokens: Array2<f32>,
}

impl ClusterProbe {
    /// Loss of a batch and its gradient in the centres; what training needs.
    ///
    /// * `tokens`: `[b, t, k]`. `alpha`: `None` for the nearest centre alone (as in training), else the
    ///   sharpness of the softmax.
    ///
    /// # Errors
    /// [`Error::Shape`] if tokens and centres have different `k`, [`Error::Empty`] without tokens.
    pub fn gradient(&self, tokens: ArrayView3<'_, f32>, alpha: Option<f32>) -> Result<ClusterGradient> {
        let (b, t, k) = tokens.dim();
        expect_shape("tokens", &[b, t, self.centres.ncols()], &[b, t, k])?;
        if b * t == 0 {
            return Err(Error::Empty("batch of tokens"));
        }
        let unit_centres = unit_rows(self.centres.view());
        // One image is one task; their sums are added in image order, for the same bits on any number of threads.
        let images: Vec<_> = (0..b)
            .into_par_iter()
            .map(|i| {
                let image = Weighed::new(tokens.index_axis(Axis(0), i), &unit_centres, alpha);
                (image.sum, image.slope_in_unit_centres())
            })
            .collect();
        let mut slope = Array2::zeros(self.centres.dim());
        let mut sum = 0.0;
        for (image_sum, image_slope) in &images {
            sum += image_sum;
            slope += image_slope;
        }
        let scale = -1.0 / (b * t) as f32;
        Ok(ClusterGradient {
            loss: -sum / (b * t) as f64,
            centres: through_unit_rows(self.centres.view(), slope * scale),
        })
    }

    /// Loss of some tokens and its gradient in the centres and in the tokens.
    ///
    /// * `tokens`: `[n, k]`. `alpha`: as for [`ClusterProbe::gradient`].
    ///
    /// # Errors
    /// [`Error::Shape`] if tokens and centres have different `k`, [`Error::Empty`] without tokens.
    pub fn loss(&self, tokens: ArrayView2<'_, f32>, alpha: Option<f32>) -> Result<ClusterLoss> {
        let (n, k) = tokens.dim();
        expect_shape("tokens", &[n, self.centres.ncols()], &[n, k])?;
        if n == 0 {
            return Err(Error::Empty("batch of tokens"));
        }
        let unit_centres = unit_rows(self.centres.view());
        let weighed = Weighed::new(tokens, &unit_centres, alpha);
        let scale = -1.0 / n as f32;
        let in_unit_centres = weighed.slope_in_unit_centres() * scale;
        let in_unit_tokens = weighed.slope.dot(&unit_centres) * scale; // [n, k]
        Ok(ClusterLoss {
            loss: -weighed.sum / n as f64,
            probabilities: weighed.probabilities,
            grad_centres: through_unit_rows(self.centres.view(), in_unit_centres),
            grad_tokens: through_unit_rows(tokens, in_unit_tokens),
        })
    }

    /// Logarithm of `softmax(alpha · cosine)`: `[n, m]`.
    ///
    /// * `tokens`: `[n, k]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if tokens and centres have different `k`.
    pub fn log_probs(&self, tokens: ArrayView2<'_, f32>, alpha: f32) -> Result<Array2<f32>> {
        expect_shape("tokens", &[tokens.nrows(), self.centres.ncols()], tokens.shape())?;
        let mut logits = unit_rows(tokens).dot(&unit_rows(self.centres.view()).t()) * alpha;
        for mut row in logits.rows_mut() {
            let max = row.fold(f32::NEG_INFINITY, |max, &v| max.max(v));
            let log_sum = max + row.fold(0.0, |sum, &v| sum + exp(v - max)).ln();
            row -= log_sum;
        }
        Ok(logits)
    }
}

/// Tokens weighed against unit centres.
struct Weighed {
    /// `[n, k]`, of length one (or zero).
    unit_tokens: Array2<f32>,
    /// Sum over tokens of `Σ p s`: minus `n` times the loss.
    sum: f64,
    /// `[n, m]`, `p`.
    probabilities: Array2<f32>,
    /// `[n, m]`, the slope of `sum` in the cosines.
    slope: Array2<f32>,
}

impl Weighed {
    fn new(tokens: ArrayView2<'_, f32>, unit_centres: &Array2<f32>, alpha: Option<f32>) -> Self {
        let unit_tokens = unit_rows(tokens);
        let cosines = unit_tokens.dot(&unit_centres.t()); // [n, m]
        let mut probabilities = Array2::zeros(cosines.dim());
        let mut slope = Array2::zeros(cosines.dim());
        let mut sum = 0.0;
        for ((s, mut p), mut slope) in
            cosines.outer_iter().zip(probabilities.outer_iter_mut()).zip(slope.outer_iter_mut())
        {
            weigh(s.as_slice().expect("standard layout"), alpha, &mut p);
            let expected = p.dot(&s);
            sum += f64::from(expected);
            for ((slope, &p), &s) in slope.iter_mut().zip(&p).zip(s) {
                *slope = p * (1.0 + alpha.map_or(0.0, |alpha| alpha * (s - expected)));
            }
        }
        Self { unit_tokens, sum, probabilities, slope }
    }

    fn slope_in_unit_centres(&self) -> Array2<f32> {
        self.slope.t().dot(&self.unit_tokens) // [m, k]
    }
}

/// `p` of one token from its cosines, both `[m]`.
fn weigh(cosines: &[f32], alpha: Option<f32>, p: &mut ArrayViewMut1<'_, f32>) {
    // The first of equals, and a NaN over everything, so that it is seen in the loss.
    let better = |a: f32, b: f32| a > b || a.is_nan();
    let best = (1..cosines.len()).fold(0, |best, n| if better(cosines[n], cosines[best]) { n } else { best });
    match alpha {
        None => p[best] = 1.0,
        Some(alpha) => {
            p.iter_mut().zip(cosines).for_each(|(p, s)| *p = exp(alpha * (s - cosines[best])));
            let sum = p.sum();
            *p /= sum;
        }
    }
}

/// Rows divided by their lengths, or by ε where that is larger.
pub(crate) fn unit_rows(rows: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut unit = rows.as_standard_layout().into_owned();
    for mut row in unit.rows_mut() {
        let length = row.dot(&row).sqrt();
        row /= if length < EPSILON { EPSILON } else { length };
    }
    unit
}

/// The gradient in rows, from the gradient in [`unit_rows`] of them.
pub(crate) fn through_unit_rows(rows: ArrayView2<'_, f32>, mut grad: Array2<f32>) -> Array2<f32> {
    for (row, mut grad) in rows.outer_iter().zip(grad.rows_mut()) {
        let length = row.dot(&row).sqrt();
        if length > EPSILON {
            let along: f32 = grad.dot(&row) / (length * length);
            grad.scaled_add(-along, &row);
        }
        grad /= length.max(EPSILON);
    }
    grad
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, array};

    use super::*;

    const ALPHAS: [Option<f32>; 3] = [None, Some(0.5), Some(4.0)];

    fn probe() -> ClusterProbe {
        ClusterProbe {
            centres: Array::from_shape_fn((5, 4), |(n, k)| 1.5 * ((n * 5 + k * 3 + n * k) as f32).sin()),
        }
    }

    fn tokens(n: usize) -> Array2<f32> {
        Array::from_shape_fn((n, 4), |(i, k)| 2.0 * ((i * 11 + k * 7 + i * k) as f32).cos())
    }

    /// Compares every entry of `slope` with a difference quotient of `loss` around `x`.
    fn check(x: &Array2<f32>, slope: &Array2<f32>, loss: impl Fn(&Array2<f32>) -> f64) {
        for (index, &slope) in slope.indexed_iter() {
            let [up, down] = [0.005, -0.005].map(|shift| {
                let mut x = x.clone();
                x[index] += shift;
                loss(&x)
            });
            let measured = (up - down) / 0.01;
            assert!((measured - f64::from(slope)).abs() < 5e-5, "{index:?}: {measured} for {slope}");
        }
    }

    #[test]
    fn gradients_are_slopes_of_the_loss() {
        let (probe, x) = (probe(), tokens(6));
        for alpha in ALPHAS {
            let out = probe.loss(x.view(), alpha).unwrap();
            check(&probe.centres, &out.grad_centres, |c| {
                ClusterProbe { centres: c.clone() }.loss(x.view(), alpha).unwrap().loss
            });
            check(&x, &out.grad_tokens, |x| probe.loss(x.view(), alpha).unwrap().loss);
        }
    }

    #[test]
    fn images_add_up_to_the_batch() {
        let (probe, x) = (probe(), tokens(12));
        for alpha in ALPHAS {
            let whole = probe.loss(x.view(), alpha).unwrap();
            let images = x.view().into_shape_with_order((3, 4, 4)).unwrap();
            let out = probe.gradient(images, alpha).unwrap();
            assert!((out.loss - whole.loss).abs() < 1e-7);
            assert!((out.centres - whole.grad_centres).iter().all(|v| v.abs() < 1e-7));
        }
    }

    #[test]
    fn without_alpha_only_the_nearest_centre_learns() {
        let probe = ClusterProbe { centres: array![[2.0, 0.0], [0.0, 0.5], [-1.0, -1.0]] };
        let out = probe.loss(array![[3.0, 4.0]].view(), None).unwrap();
        assert!((out.loss + 0.8).abs() < 1e-6);
        assert_eq!(out.probabilities, array![[0.0, 1.0, 0.0]]);
        // Minus the part of (3/5, 4/5) across (0, 1), over the centre's length.
        assert!(
            (out.grad_centres - array![[0.0, 0.0], [-1.2, 0.0], [0.0, 0.0]]).iter().all(|v| v.abs() < 1e-6)
        );
    }

    #[test]
    fn probabilities_sum_to_one_and_their_logarithms_agree() {
        let (probe, x) = (probe(), tokens(6));
        let out = probe.loss(x.view(), Some(3.0)).unwrap();
        assert!(out.probabilities.sum_axis(Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-6));
        let logs = probe.log_probs(x.view(), 3.0).unwrap();
        assert!((logs.mapv(f32::exp) - out.probabilities).iter().all(|v| v.abs() < 1e-6));
    }

    #[test]
    fn lengths_of_tokens_do_not_matter_and_zero_tokens_are_harmless() {
        let (probe, mut x) = (probe(), tokens(3));
        let before = probe.loss(x.view(), None).unwrap();
        x *= 100.0;
        assert!((probe.loss(x.view(), None).unwrap().loss - before.loss).abs() < 1e-6);
        x.fill(0.0);
        let zero = probe.loss(x.view(), None).unwrap();
        assert_eq!(zero.loss, 0.0);
        assert!(zero.grad_centres.iter().all(|&v| v == 0.0));
    }

    #[test]
    fn misfits_are_refused() {
        let probe = probe();
        assert!(matches!(probe.loss(Array2::zeros((3, 5)).view(), None), Err(Error::Shape { .. })));
        assert!(matches!(probe.log_probs(Array2::zeros((3, 5)).view(), 1.0), Err(Error::Shape { .. })));
        assert!(matches!(probe.loss(tokens(0).view(), None), Err(Error::Empty(_))));
        assert!(matches!(probe.gradient(Array::zeros((2, 0, 4)).view(), None), Err(Error::Empty(_))));
        assert!(matches!(probe.gradient(Array::zeros((2, 3, 5)).view(), None), Err(Error::Shape { .. })));
        let broken = array![[0.0, 1.0, f32::NAN, 0.0]];
        assert!(probe.loss(broken.view(), None).unwrap().loss.is_nan());
    }
}
