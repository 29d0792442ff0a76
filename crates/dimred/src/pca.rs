//! PCA: the eigenvectors of the covariance (or, with scaled columns, correlation) matrix, largest eigenvalue first.
//!
//! Fitted from streamed [`Moments`], so the rows need never be in memory together; components nest, so one fit serves
//! every `k`. Signs are fixed by scikit-learn's rule: in every component the entry of largest absolute value is positive.
//! Components beyond the rank of the data have eigenvalue 0 and are arbitrary but orthonormal.

use linfa::DatasetBase;
use linfa::traits::Fit;
use ndarray::{Array1, Array2, ArrayView2, Axis, s};

use crate::affine::Affine;
use crate::eigen::eigen;
use crate::linfa_pca;
use crate::moments::Moments;
use crate::scaler::Scaler;
use crate::spectrum::Spectrum;
use crate::{Error, Result};

/// How the components are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Solver {
    /// Eigen-decomposition of the covariance matrix: exact, all components, any number of rows.
    #[default]
    Covariance,
    /// linfa-reduction's iterative singular value decomposition of rows in memory, for the first `n_components`.
    Linfa {
        /// Components to compute.
        n_components: usize,
    },
}

/// An unfitted PCA. The default standardises columns with the statistics of the fit, as stego-studies does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PcaParams {
    /// What is done to columns before the decomposition.
    pub scaler: Scaler,
    /// How the components are computed from rows in memory; moments always take the covariance route.
    pub solver: Solver,
    /// Whether projections are divided by their standard deviations, so that all have variance 1. A component
    /// without variance (beyond the rounding of 32-bit features) keeps its scale, as a constant column does.
    pub whiten: bool,
}

/// A fitted PCA with `r` components of `d` dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    pub(crate) scaler: Scaler,
    pub(crate) whiten: bool,
    pub(crate) n_rows: u64,
    /// `[d]`
    pub(crate) mean: Array1<f64>,
    /// `[d]`, ones without scaling.
    pub(crate) scale: Array1<f64>,
    /// `[r, d]`
    pub(crate) components: Array2<f64>,
    /// `[≥ r]`: of all components that were computed, also after [`Pca::truncated`].
    pub(crate) explained_variance: Array1<f64>,
    /// Variance of all `d` (scaled) columns together.
    pub(crate) total_variance: f64,
}

impl PcaParams {
    /// Fits on streamed moments: all `d` components.
    ///
    /// # Errors
    /// [`Error::TooFewRows`] below 2 rows; [`Error::Decomposition`] if the iteration fails.
    pub fn fit_moments(&self, moments: &Moments) -> Result<Pca> {
        let covariance = moments.covariance()?;
        let scale = match self.scaler {
            Scaler::None => Array1::ones(moments.dim()),
            Scaler::Train | Scaler::Batch => moments.scale()?,
        };
        let scaled =
            Array2::from_shape_fn(covariance.dim(), |(i, j)| covariance[[i, j]] / (scale[i] * scale[j]));
        let total_variance = scaled.diag().sum();
        let (values, components) = eigen(&scaled)?; // [d], [d, d]
        Ok(Pca {
            scaler: self.scaler,
            whiten: self.whiten,
            n_rows: moments.count(),
            mean: moments.mean().clone(),
            scale,
            components,
            explained_variance: values.mapv(|v| v.max(0.0)),
            total_variance,
        })
    }

    /// Fits on rows `[n, d]` in memory, with the chosen solver.
    ///
    /// # Errors
    /// As [`Self::fit_moments`]; [`Error::NonFinite`]; [`Error::Dimension`] for more components than rows or columns.
    pub fn fit_rows(&self, rows: ArrayView2<'_, f32>) -> Result<Pca> {
        let mut moments = Moments::new(rows.ncols());
        moments.add(rows)?;
        match self.solver {
            Solver::Covariance => self.fit_moments(&moments),
            Solver::Linfa { n_components } => linfa_pca::fit(self, n_components, rows, &moments),
        }
    }
}

/// linfa's verb: fits on the records of a data set in memory.
impl<T> Fit<Array2<f32>, T, Error> for PcaParams {
    type Object = Pca;

    fn fit(&self, dataset: &DatasetBase<Array2<f32>, T>) -> Result<Pca> {
        self.fit_rows(dataset.records().view())
    }
}

impl Pca {
    /// The map to the first `k` components: `x ↦ ((x − mean) / scale) · components[:k]ᵀ`, each divided by its standard
    /// deviation if it whitens.
    ///
    /// # Errors
    /// [`Error::Dimension`] unless `1 ≤ k ≤ r`.
    pub fn at(&self, k: usize) -> Result<Affine> {
        self.check(k)?;
        let components = &self.components.slice(s![..k, ..]) / &self.divisors(k).insert_axis(Axis(1));
        Ok(Affine::with_scaler(self.scaler, self.mean.view(), self.scale.view(), components.view()))
    }

    /// The same PCA with only its first `k` components; explained variance stays known for all.
    ///
    /// # Errors
    /// [`Error::Dimension`] unless `1 ≤ k ≤ r`.
    pub fn truncated(mut self, k: usize) -> Result<Self> {
        self.check(k)?;
        self.components = self.components.slice(s![..k, ..]).to_owned();
        Ok(self)
    }

    /// What the first `k` projections are divided by, `[k]`: ones without whitening.
    fn divisors(&self, k: usize) -> Array1<f64> {
        if !self.whiten {
            return Array1::ones(k);
        }
        let variance = self.explained_variance.slice(s![..k]);
        let least = variance[0] * self.mean.len() as f64 * f64::from(f32::EPSILON);
        variance.mapv(|v| if v > least { v.sqrt() } else { 1.0 })
    }

    fn check(&self, k: usize) -> Result<()> {
        match (1..=self.n_components()).contains(&k) {
            true => Ok(()),
            false => Err(Error::Dimension { asked: k, available: self.n_components() }),
        }
    }

    /// The same PCA with or without whitening, which changes nothing of the fit.
    #[must_use]
    pub fn whitened(self, whiten: bool) -> Self {
        Self { whiten, ..self }
    }

    /// Whether projections are divided by their standard deviations.
    #[must_use]
    pub fn is_whitened(&self) -> bool {
        self.whiten
    }

    /// The spectrum of all components that were computed, also after [`Pca::truncated`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if there are none, or one is not finite.
    pub fn spectrum(&self) -> Result<Spectrum> {
        Spectrum::new(self.explained_variance.clone())
    }

    /// Number of components `r`.
    #[must_use]
    pub fn n_components(&self) -> usize {
        self.components.nrows()
    }

    /// Mean of the columns, `[d]`.
    #[must_use]
    pub fn mean(&self) -> &Array1<f64> {
        &self.mean
    }

    /// What columns are divided by, `[d]`.
    #[must_use]
    pub fn scale(&self) -> &Array1<f64> {
        &self.scale
    }

    /// Components `[r, d]`, orthonormal rows, largest variance first.
    #[must_use]
    pub fn components(&self) -> &Array2<f64> {
        &self.components
    }

    /// Variance (divisor `n − 1`) of the rows along each component.
    #[must_use]
    pub fn explained_variance(&self) -> &Array1<f64> {
        &self.explained_variance
    }

    /// Share of the variance of *all* columns that each component holds.
    #[must_use]
    pub fn explained_variance_ratio(&self) -> Array1<f64> {
        let total = if self.total_variance > 0.0 { self.total_variance } else { 1.0 };
        &self.explained_variance / total
    }

    /// Singular values of the centred (scaled) rows: `√((n − 1) · explained variance)`.
    #[must_use]
    pub fn singular_values(&self) -> Array1<f64> {
        let n = self.n_rows.saturating_sub(1) as f64;
        self.explained_variance.mapv(|v| (v * n).sqrt())
    }

    /// From projections `[n, k]` back to standardised rows `[n, d]`.
    ///
    /// # Errors
    /// [`Error::Dimension`] if `k` is more than there are components.
    pub fn inverse_standardised(&self, projected: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        let k = projected.ncols();
        self.check(k)?;
        Ok((&projected * &self.divisors(k)).dot(&self.components.slice(s![..k, ..])))
    }

    /// From projections `[n, k]` back to rows `[n, d]` in the units of the features.
    ///
    /// # Errors
    /// As [`Self::inverse_standardised`].
    pub fn inverse_transform(&self, projected: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        Ok(self.inverse_standardised(projected)? * &self.scale + &self.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Projection;
    use ndarray::array;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn rows(n: usize, d: usize) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let basis = Array2::from_shape_fn((d, d), |(i, _)| rng.random_range(-1.0..1.0f32) / (1.0 + i as f32));
        let hidden = Array2::from_shape_fn((n, d), |_| rng.random_range(-1.0..1.0f32));
        hidden.dot(&basis) + 2.0
    }

    fn fit(rows: &Array2<f32>, scaler: Scaler) -> Pca {
        PcaParams { scaler, ..PcaParams::default() }.fit_rows(rows.view()).unwrap()
    }

    #[test]
    fn components_are_orthonormal_and_sorted() {
        let pca = fit(&rows(500, 60), Scaler::Train);
        let gram = pca.components().dot(&pca.components().t());
        let worst = (gram - Array2::<f64>::eye(60)).mapv(f64::abs).fold(0.0_f64, |m, &x| m.max(x));
        assert!(worst < 1e-10, "{worst}");
        assert!(pca.explained_variance().windows(2).into_iter().all(|w| w[0] >= w[1]));
        for component in pca.components().rows() {
            let largest = component.iter().fold(0.0_f64, |b, &x| if x.abs() > b.abs() { x } else { b });
            assert!(largest > 0.0);
        }
    }

    #[test]
    fn projected_variance_is_the_explained_variance_and_shares_sum_to_one() {
        let rows = rows(400, 20);
        for scaler in [Scaler::None, Scaler::Train] {
            let pca = fit(&rows, scaler);
            let z = Projection::transform(&pca.at(20).unwrap(), rows.view()).unwrap().mapv(f64::from);
            let centred = &z - &z.mean_axis(Axis(0)).unwrap();
            let covariance = centred.t().dot(&centred) / 399.0;
            for i in 0..20 {
                let expected = pca.explained_variance()[i];
                assert!(
                    (covariance[[i, i]] - expected).abs() < 1e-4 * pca.explained_variance()[0],
                    "{scaler} {i}"
                );
            }
            assert!((pca.explained_variance_ratio().sum() - 1.0).abs() < 1e-10);
            assert!((pca.singular_values()[0].powi(2) / 399.0 - pca.explained_variance()[0]).abs() < 1e-9);
        }
    }

    #[test]
    fn all_components_without_scaling_preserve_distances() {
        let rows = rows(50, 12);
        let z = Projection::transform(&fit(&rows, Scaler::None).at(12).unwrap(), rows.view()).unwrap();
        for (i, j) in [(0, 1), (3, 40), (17, 30)] {
            let before = (&rows.row(i) - &rows.row(j)).mapv(|x| x * x).sum();
            let after = (&z.row(i) - &z.row(j)).mapv(|x| x * x).sum();
            assert!((before - after).abs() < 1e-4 * before, "{before} {after}");
        }
    }

    #[test]
    fn dimensions_nest() {
        let rows = rows(100, 16);
        let pca = fit(&rows, Scaler::Train);
        let all = Projection::transform(&pca.at(16).unwrap(), rows.view()).unwrap();
        let few =
            Projection::transform(&pca.clone().truncated(5).unwrap().at(3).unwrap(), rows.view()).unwrap();
        let worst = (&few - &all.slice(s![.., ..3])).mapv(f32::abs).fold(0.0_f32, |m, &x| m.max(x));
        assert!(worst < 1e-5, "{worst}");
        assert_eq!(
            pca.clone().truncated(5).unwrap().explained_variance_ratio(),
            pca.explained_variance_ratio()
        );
    }

    #[test]
    fn rank_deficient_data_and_constant_columns() {
        let mut rows = rows(6, 10); // rank 5 at most after centring
        rows.column_mut(4).fill(3.5);
        let pca = fit(&rows, Scaler::Train);
        assert!(pca.explained_variance().iter().skip(5).all(|&v| v < 1e-9));
        assert!(pca.components().iter().all(|x| x.is_finite()));
        let z = Projection::transform(&pca.at(10).unwrap(), rows.view()).unwrap();
        assert!(z.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn inverse_of_all_components_restores_the_rows() {
        let rows = rows(30, 8);
        let pca = fit(&rows, Scaler::Train);
        let z = Projection::transform(&pca.at(8).unwrap(), rows.view()).unwrap().mapv(f64::from);
        let back = pca.inverse_transform(z.view()).unwrap();
        let worst = (&back - &rows.mapv(f64::from)).mapv(f64::abs).fold(0.0_f64, |m, &x| m.max(x));
        assert!(worst < 1e-5, "{worst}");
    }

    #[test]
    fn whitened_projections_have_the_identity_as_covariance_and_an_inverse() {
        let mut rows = rows(300, 9);
        let sum = &rows.column(0) + &rows.column(1);
        rows.column_mut(5).assign(&sum); // one component has no variance
        for scaler in [Scaler::None, Scaler::Train] {
            let params = PcaParams { scaler, whiten: true, ..PcaParams::default() };
            let pca = params.fit_rows(rows.view()).unwrap();
            let z = Projection::transform(&pca.at(9).unwrap(), rows.view()).unwrap().mapv(f64::from);
            let covariance = z.t().dot(&z) / 299.0;
            for ((i, j), &x) in covariance.indexed_iter() {
                let want = if i == j && i < 8 { 1.0 } else { 0.0 };
                assert!((x - want).abs() < 2e-3, "{scaler} {i} {j}: {x}");
            }
            let back = pca.inverse_transform(z.view()).unwrap();
            let worst = (&back - &rows.mapv(f64::from)).mapv(f64::abs).fold(0.0_f64, |m, &x| m.max(x));
            assert!(worst < 1e-4, "{worst}");
            let plain = fit(&rows, scaler);
            assert_eq!(plain.explained_variance(), pca.explained_variance());
            assert!(pca.is_whitened() && !plain.is_whitened());
            assert_eq!(pca.spectrum().unwrap().rank(), 8);
        }
    }

    #[test]
    fn linfas_verbs_work() {
        let rows = rows(40, 6);
        let pca = PcaParams::default().fit(&DatasetBase::from(rows.clone())).unwrap();
        assert_eq!(pca, fit(&rows, Scaler::Train));
        let z = linfa::traits::Transformer::transform(&pca.at(2).unwrap(), rows.view());
        assert_eq!(z.dim(), (40, 2));
    }

    #[test]
    fn impossible_fits_are_errors() {
        assert!(matches!(
            PcaParams::default().fit_rows(array![[1.0_f32, 2.0]].view()),
            Err(Error::TooFewRows(1))
        ));
        let pca = fit(&rows(20, 4), Scaler::Train);
        let error = pca.at(5).unwrap_err();
        assert_eq!(error.to_string(), "target dimension 5 is not between 1 and 4");
        assert!(pca.at(0).is_err());
    }
}
