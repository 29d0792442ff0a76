//! The curve `1 / (1 + a x^(2b))` that stands for the weight of two points at distance `x` in the layout.
//!
//! `a` and `b` are fitted by least squares to what is wanted: 1 up to `min_dist`, an exponential decay of scale `spread` beyond.

use crate::{Error, Result};

/// Distances at which the curves are compared, up to 3 spreads.
const POINTS: usize = 300;
/// Steps of the fit; a handful are needed.
const STEPS: usize = 200;

/// The two numbers of the curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Curve {
    pub(crate) a: f64,
    pub(crate) b: f64,
}

impl Curve {
    /// Fits the curve by the method of Levenberg and Marquardt, from `a = b = 1`.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless `0 ≤ min_dist ≤ spread` and `spread > 0`.
    pub(crate) fn fit(spread: f64, min_dist: f64) -> Result<Self> {
        if !(spread > 0.0 && spread.is_finite() && (0.0..=spread).contains(&min_dist)) {
            return Err(Error::Invalid {
                what: "min_dist",
                expected: "between 0 and the spread, which is positive",
                got: format!("{min_dist} with spread {spread}"),
            });
        }
        let wanted: Vec<(f64, f64)> = (0..POINTS)
            .map(|i| 3.0 * spread * i as f64 / (POINTS - 1) as f64)
            .map(|x| (x, if x < min_dist { 1.0 } else { (-(x - min_dist) / spread).exp() }))
            .collect();
        let (mut curve, mut damping) = (Self { a: 1.0, b: 1.0 }, 1e-3);
        let mut error = curve.error(&wanted);
        for _ in 0..STEPS {
            let step = curve.step(&wanted, damping);
            let next = Self { a: (curve.a + step.0).max(1e-6), b: (curve.b + step.1).max(1e-6) };
            let next_error = next.error(&wanted);
            if next_error <= error {
                let done = (error - next_error) < 1e-15 * error;
                (curve, error, damping) = (next, next_error, damping * 0.3);
                if done {
                    break;
                }
            } else {
                damping *= 4.0;
            }
        }
        Ok(curve)
    }

    fn at(&self, x: f64) -> f64 {
        1.0 / (1.0 + self.a * x.powf(2.0 * self.b))
    }

    fn error(&self, wanted: &[(f64, f64)]) -> f64 {
        wanted.iter().map(|&(x, y)| (self.at(x) - y).powi(2)).sum()
    }

    /// The damped step towards smaller squares.
    fn step(&self, wanted: &[(f64, f64)], damping: f64) -> (f64, f64) {
        let (mut aa, mut ab, mut bb, mut ar, mut br) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &(x, y) in wanted {
            let value = self.at(x);
            let power = if x > 0.0 { x.powf(2.0 * self.b) } else { 0.0 };
            let by_a = -value * value * power;
            let by_b = if x > 0.0 { by_a * self.a * 2.0 * x.ln() } else { 0.0 };
            let rest = y - value;
            (aa, ab, bb) = (aa + by_a * by_a, ab + by_a * by_b, bb + by_b * by_b);
            (ar, br) = (ar + by_a * rest, br + by_b * rest);
        }
        let (aa, bb) = (aa * (1.0 + damping), bb * (1.0 + damping));
        let determinant = aa * bb - ab * ab;
        ((ar * bb - br * ab) / determinant, (br * aa - ar * ab) / determinant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_umap_learn() {
        // umap.umap_.find_ab_params(1.0, min_dist), 0.5.12
        for (min_dist, a, b) in [(0.0, 1.9328083975, 0.7904949732), (0.1, 1.5769434603, 0.8950608779)] {
            let curve = Curve::fit(1.0, min_dist).unwrap();
            assert!((curve.a / a - 1.0).abs() < 1e-4 && (curve.b / b - 1.0).abs() < 1e-4, "{curve:?}");
        }
    }

    #[test]
    fn a_spread_only_scales() {
        let (one, three) = (Curve::fit(1.0, 0.2).unwrap(), Curve::fit(3.0, 0.6).unwrap());
        for x in [0.1, 0.5, 1.0, 2.0] {
            assert!((one.at(x) - three.at(3.0 * x)).abs() < 1e-4);
        }
    }

    #[test]
    fn impossible_curves_are_errors() {
        for (spread, min_dist) in [(0.0, 0.0), (1.0, 1.1), (1.0, -0.1), (f64::NAN, 0.1)] {
            assert!(Curve::fit(spread, min_dist).is_err());
        }
    }
}
