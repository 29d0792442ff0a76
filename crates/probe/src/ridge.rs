//! Ridge regression onto classes, in closed form, for all prefixes of the features at once.
//!
//! With the scatter `S` and the cross products `C` of a [`Gram`], the probe of the first `k` features minimises `Σ w ‖y
//! − b − V x‖² + p ‖V‖²`, so `Vᵀ = (S_k + p I)⁻¹ C_k` and `b` makes the means agree. The penalty is `p = λ tr(S) / d`:
//! `λ` is in units of the mean variance of a feature times the mass, and scaling all features changes no prediction.
//!
//! With `S + p I = L Lᵀ`, the leading blocks of `L`, of `L⁻¹` and of `u = L⁻¹ C` are those of the leading blocks of `S`: one
//! factorisation serves every `k`. What there is to choose `λ` by also accumulates along `k`: the degrees of freedom
//! `k − p ‖L_k⁻¹‖²`, the leverages and the predictions.
//!
//! A feature that is a combination of earlier ones (or constant) is left out when there is no penalty: its weights are zero.
//!
//! This is least squares on patches, not the upsampled cross-entropy of
//! [`LinearProbeParams`](crate::LinearProbeParams); the result is used in the same way.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use crate::cholesky::{factor, inverse_of_factor};
use crate::error::{expect_range, expect_shape};
use crate::labelled_rows::check_finite;
use crate::patch_labels::check_masses;
use crate::{Gram, LinearProbe, Result};

/// Rows of one task of the leave-one-out pass.
const BLOCK: usize = 256;

/// The solutions of one penalty, for every number of leading features.
#[derive(Debug, Clone, PartialEq)]
pub struct Ridge {
    penalty: f64,
    /// `L⁻¹`, `[d, d]`, lower triangle; rows of features that were left out are zero.
    inverse: Array2<f64>,
    /// `L⁻¹ C`, `[d, c]`.
    reduced: Array2<f64>,
    feature_mean: Array1<f64>,
    target_mean: Array1<f64>,
    target_scatter: f64,
    pub(crate) mass: f64,
    rows: u64,
}

impl Ridge {
    /// Solves for the penalty `lambda ≥ 0`.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty) for sums without rows, [`Error::Range`](crate::Error::Range) for a penalty
    /// that is negative or not finite.
    pub fn new(gram: &Gram, lambda: f64) -> Result<Self> {
        gram.check()?;
        expect_range(lambda.is_finite() && lambda >= 0.0, "ridge penalty", "0 or a positive number", lambda)?;
        let mut scatter = gram.features(); // [d, d]
        let penalty = lambda * scatter.diag().sum() / gram.dim().max(1) as f64;
        scatter.diag_mut().mapv_inplace(|s| s + penalty);
        factor(&mut scatter);
        let inverse = inverse_of_factor(&scatter);
        Ok(Self {
            penalty,
            reduced: inverse.dot(&gram.cross()),
            inverse,
            feature_mean: gram.feature_mean().to_owned(),
            target_mean: gram.target_mean(),
            target_scatter: gram.target_scatter(),
            mass: gram.mass(),
            rows: gram.rows(),
        })
    }

    /// The probe of the first `k` features.
    ///
    /// Features that are `s` times those of the sums (as prefixes of random projections are) want `weight / s`.
    ///
    /// # Panics
    /// If there are fewer than `k` features.
    #[must_use]
    pub fn probe(&self, k: usize) -> LinearProbe {
        let weight = self.weight(k);
        let bias = &self.target_mean - &weight.dot(&self.feature_mean.slice(s![..k]));
        LinearProbe { weight: weight.mapv(|w| w as f32), bias: bias.mapv(|b| b as f32) }
    }

    /// `[c, k]`.
    fn weight(&self, k: usize) -> Array2<f64> {
        self.reduced.slice(s![..k, ..]).t().dot(&self.inverse.slice(s![..k, ..k]))
    }

    /// Degrees of freedom of the fit of the first `k` features and the bias, from 1 to `k + 1`.
    ///
    /// # Panics
    /// If there are fewer than `k` features.
    #[must_use]
    pub fn degrees_of_freedom(&self, k: usize) -> f64 {
        let inverse = self.inverse.slice(s![..k, ..k]);
        let kept = inverse.diag().iter().filter(|&&x| x > 0.0).count() as f64;
        1.0 + kept - self.penalty * inverse.iter().map(|x| x * x).sum::<f64>()
    }

    /// Mean squared error of the first `k` features on the rows of the sums, per mass.
    ///
    /// # Panics
    /// If there are fewer than `k` features.
    #[must_use]
    pub fn training_error(&self, k: usize) -> f64 {
        let explained = self.reduced.slice(s![..k, ..]).iter().map(|u| u * u).sum::<f64>();
        let weight = self.weight(k).iter().map(|w| w * w).sum::<f64>();
        (self.target_scatter - explained - self.penalty * weight).max(0.0) / self.mass
    }

    /// Generalised cross-validation (Golub, Heath and Wahba, 1979): the training error over `(1 − freedom / n)²`; infinite
    /// where there are as many degrees of freedom as rows.
    ///
    /// # Panics
    /// If there are fewer than `k` features.
    #[must_use]
    pub fn gcv(&self, k: usize) -> f64 {
        let left = 1.0 - self.degrees_of_freedom(k) / self.rows as f64;
        if left > 0.0 { self.training_error(k) / (left * left) } else { f64::INFINITY }
    }

    /// The exact leave-one-out error of every number of features, summed over rows that were in the sums: `[d]`, entry
    /// `k − 1` for `k` features. Over all of them, divide by [`Gram::mass`].
    ///
    /// Each row is predicted by the fit without it, at the same penalty `p`: its miss is that of the fit with it over
    /// `1 − h`, where `h` is its leverage. Patches of one image are much alike, so this asks less than leaving out
    /// images does ([`Selection::Folds`](crate::Selection::Folds)).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) and [`Error::Range`](crate::Error::Range) for rows that do not fit or are
    /// not finite.
    pub fn leave_one_out(
        &self,
        rows: ArrayView2<'_, f32>,
        masses: ArrayView2<'_, f32>,
    ) -> Result<Array1<f64>> {
        let (d, c) = self.reduced.dim();
        expect_shape("rows", &[rows.nrows(), d], rows.shape())?;
        check_masses(masses, rows.nrows(), c)?;
        check_finite("rows", rows)?;
        let chunks: Vec<_> =
            rows.axis_chunks_iter(Axis(0), BLOCK).zip(masses.axis_chunks_iter(Axis(0), BLOCK)).collect();
        let sums: Vec<Array1<f64>> =
            chunks.into_par_iter().map(|(rows, masses)| self.left_out(rows, masses)).collect();
        Ok(sums.iter().fold(Array1::zeros(d), |sum, part| sum + part))
    }

    /// As [`Ridge::leave_one_out`], of one block.
    fn left_out(&self, rows: ArrayView2<'_, f32>, masses: ArrayView2<'_, f32>) -> Array1<f64> {
        let seen = (rows.mapv(f64::from) - &self.feature_mean).dot(&self.inverse.t()); // [n, d]
        let mut sums = Array1::zeros(seen.ncols());
        for (seen, masses) in seen.outer_iter().zip(masses.outer_iter()) {
            let weight = masses.mapv(f64::from).sum();
            if weight == 0.0 {
                continue;
            }
            let mut miss = masses.mapv(|m| f64::from(m) / weight) - &self.target_mean; // of the bias alone
            let mut leverage = weight / self.mass;
            for ((sum, &z), reduced) in sums.iter_mut().zip(&seen).zip(self.reduced.outer_iter()) {
                miss.scaled_add(-z, &reduced);
                leverage += weight * z * z;
                let left = 1.0 - leverage;
                *sum += if left > 1e-12 { weight * miss.dot(&miss) / (left * left) } else { f64::INFINITY };
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::gram::tests::{data, gram};
    use crate::{Error, Probe};

    /// The normal equations, by elimination, of the rows in `keep`: weights `[c, k]` and bias.
    fn by_definition(
        rows: &Array2<f32>,
        masses: &Array2<f32>,
        k: usize,
        p: f64,
        skip: usize,
    ) -> (Array2<f64>, Array1<f64>) {
        let c = masses.ncols();
        let (mut a, mut b) = (Array2::<f64>::zeros((k + 1, k + 1)), Array2::<f64>::zeros((k + 1, c)));
        for (i, (x, m)) in rows.outer_iter().zip(masses.outer_iter()).enumerate() {
            let (w, m) = (f64::from(m.sum()), m.mapv(f64::from));
            if i == skip || w == 0.0 {
                continue;
            }
            let x: Vec<f64> = x.iter().take(k).map(|&x| f64::from(x)).chain([1.0]).collect();
            for i in 0..=k {
                (0..=k).for_each(|j| a[[i, j]] += w * x[i] * x[j]);
                (0..c).for_each(|j| b[[i, j]] += x[i] * m[j]);
            }
        }
        (0..k).for_each(|i| a[[i, i]] += p);
        for i in 0..=k {
            let pivot = a[[i, i]];
            for r in (0..=k).filter(|&r| r != i) {
                let factor = a[[r, i]] / pivot;
                for j in 0..=k {
                    let x = a[[i, j]];
                    a[[r, j]] -= factor * x;
                }
                for j in 0..c {
                    let x = b[[i, j]];
                    b[[r, j]] -= factor * x;
                }
            }
        }
        let solution = Array2::from_shape_fn((k + 1, c), |(i, j)| b[[i, j]] / a[[i, i]]);
        (solution.slice(s![..k, ..]).t().to_owned(), solution.row(k).to_owned())
    }

    #[test]
    fn every_prefix_solves_its_normal_equations() {
        let (rows, masses) = data(200, 7, 3, 0);
        let gram = gram(&rows, &masses);
        for lambda in [0.0, 1e-3, 0.5] {
            let ridge = Ridge::new(&gram, lambda).unwrap();
            for k in 1..=7 {
                let (weight, bias) = by_definition(&rows, &masses, k, ridge.penalty, usize::MAX);
                let probe = ridge.probe(k);
                assert!(probe.weight.iter().zip(&weight).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-6));
                assert!(probe.bias.iter().zip(&bias).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-5));
                let error = gram.squared_error(&probe).unwrap();
                assert!(
                    (ridge.training_error(k) - error).abs() < 1e-6,
                    "{} for {error}",
                    ridge.training_error(k)
                );
            }
        }
    }

    #[test]
    fn leave_one_out_is_what_leaving_out_gives() {
        let (rows, masses) = data(40, 4, 3, 1);
        let gram = gram(&rows, &masses);
        let ridge = Ridge::new(&gram, 0.02).unwrap();
        let sums = ridge.leave_one_out(rows.view(), masses.view()).unwrap();
        for k in 1..=4 {
            let mut expected = 0.0;
            for i in (0..40).filter(|&i| masses.row(i).sum() > 0.0) {
                let (weight, bias) = by_definition(&rows, &masses, k, ridge.penalty, i);
                let w = f64::from(masses.row(i).sum());
                let x = rows.slice(s![i, ..k]).mapv(f64::from);
                let miss = masses.row(i).mapv(|m| f64::from(m) / w) - weight.dot(&x) - bias;
                expected += w * miss.dot(&miss);
            }
            assert!((sums[k - 1] - expected).abs() < 1e-7 * expected, "{} for {expected}", sums[k - 1]);
        }
    }

    #[test]
    fn cross_validation_of_equal_leverages_is_leave_one_out() {
        // A full factorial design: every row has the same leverage, and then the generalised form is exact.
        let rows = Array2::from_shape_fn((8, 3), |(i, j)| if i >> j & 1 == 1 { 1.0 } else { -1.0 });
        let masses =
            Array2::from_shape_fn((8, 2), |(i, j)| f32::from(u8::from((i == 3 || i > 5) == (j == 0))));
        let gram = gram(&rows, &masses);
        let ridge = Ridge::new(&gram, 0.3).unwrap();
        let exact = ridge.leave_one_out(rows.view(), masses.view()).unwrap()[2] / gram.mass();
        assert!((ridge.gcv(3) - exact).abs() < 1e-12, "{} for {exact}", ridge.gcv(3));
        assert!((Ridge::new(&gram, 0.0).unwrap().degrees_of_freedom(3) - 4.0).abs() < 1e-12);
        assert!(Ridge::new(&gram, 1e12).unwrap().degrees_of_freedom(3) < 1.0 + 1e-9);
    }

    #[test]
    fn scaling_all_features_changes_no_prediction() {
        let (rows, masses) = data(120, 5, 3, 2);
        let (large, lambda) = (rows.mapv(|x| x * 64.0), 0.1);
        let (a, b) = (Ridge::new(&gram(&rows, &masses), lambda), Ridge::new(&gram(&large, &masses), lambda));
        let (a, b) = (a.unwrap().probe(3), b.unwrap().probe(3));
        let (a, b) = (a.scores(rows.slice(s![.., ..3])), b.scores(large.slice(s![.., ..3])));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn features_that_add_nothing_are_left_out() {
        let (rows, masses) = data(100, 5, 3, 3);
        let mut wide = Array2::zeros((100, 7)); // a constant, then twice the first feature, among the five
        wide.slice_mut(s![.., 0]).fill(4.0);
        wide.slice_mut(s![.., 1..6]).assign(&rows);
        wide.slice_mut(s![.., 6]).assign(&(&rows.column(0) * 2.0));
        let fit = |rows: &Array2<f32>, k| Ridge::new(&gram(rows, &masses), 0.0).unwrap().probe(k);
        let (narrow, padded) = (fit(&rows, 5), fit(&wide, 7));
        assert!(padded.weight.column(0).iter().chain(padded.weight.column(6)).all(|&w| w == 0.0));
        let middle = padded.weight.slice(s![.., 1..6]);
        assert!(middle.iter().zip(&narrow.weight).all(|(a, b)| (a - b).abs() < 1e-6));
        // Nothing but a constant: the bias is the mean.
        let constant = Ridge::new(&gram(&Array2::from_elem((100, 2), 1.0), &masses), 0.0).unwrap();
        assert!(constant.probe(2).weight.iter().all(|&w| w == 0.0));
        assert!((constant.degrees_of_freedom(2) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn misfits_are_refused() {
        let (rows, masses) = data(30, 3, 2, 5);
        let gram = gram(&rows, &masses);
        assert!(matches!(Ridge::new(&Gram::new(3, 2), 0.1), Err(Error::Empty(_))));
        assert!(matches!(Ridge::new(&gram, f64::NAN), Err(Error::Range { what: "ridge penalty", .. })));
        let narrow = array![[1.0_f32]];
        assert!(Ridge::new(&gram, 0.1).unwrap().leave_one_out(narrow.view(), narrow.view()).is_err());
    }
}
