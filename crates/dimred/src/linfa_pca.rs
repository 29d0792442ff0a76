//! linfa-reduction's PCA behind our interface, for rows in memory.
//!
//! Its decomposition is used as it is; three things are put right here. Its explained variance divides by `k − 1`
//! instead of `n − 1`, its ratio is normalised over the kept components instead of all (so it always sums to 1), and its
//! signs are arbitrary. Variances come from the singular values, the total from the moments, signs from our rule.

use linfa::DatasetBase;
use linfa::traits::Fit;
use ndarray::{Array1, ArrayView2};

use crate::eigen::fix_signs;
use crate::moments::Moments;
use crate::pca::{Pca, PcaParams};
use crate::scaler::Scaler;
use crate::{Error, Result};

/// Fits the first `n_components` on rows `[n, d]`, whose moments are known.
pub(crate) fn fit(
    params: &PcaParams,
    n_components: usize,
    rows: ArrayView2<'_, f32>,
    moments: &Moments,
) -> Result<Pca> {
    let available = rows.nrows().min(rows.ncols());
    if n_components == 0 || n_components > available {
        return Err(Error::Dimension { asked: n_components, available });
    }
    let variance = moments.variance()?;
    let scale = match params.scaler {
        Scaler::None => Array1::ones(moments.dim()),
        Scaler::Train | Scaler::Batch => moments.scale()?,
    };
    let standardised = (rows.mapv(f64::from) - moments.mean()) / &scale; // [n, d]
    let fitted = (linfa_reduction::Pca::params(n_components).fit(&DatasetBase::from(standardised)))
        .map_err(|e| Error::Decomposition(e.to_string()))?;
    let degrees = (moments.count() - 1) as f64;
    let mut components = fitted.components().clone(); // [k, d]
    fix_signs(&mut components);
    let total_variance = (variance / scale.mapv(|s| s * s)).sum() * moments.count() as f64 / degrees;
    Ok(Pca {
        scaler: params.scaler,
        whiten: params.whiten,
        n_rows: moments.count(),
        mean: moments.mean().clone(),
        scale,
        components,
        explained_variance: fitted.singular_values().mapv(|s| s * s / degrees),
        total_variance,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pca::Solver;
    use ndarray::Array2;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Rows whose columns have well separated variances.
    fn rows() -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        Array2::from_shape_fn((600, 24), |(_, j)| {
            rng.random_range(-1.0..1.0f32) * 0.8_f32.powi(j as i32) * 5.0
        })
    }

    #[test]
    fn agrees_with_the_covariance_route() {
        let rows = rows();
        for scaler in [Scaler::None] {
            let exact = PcaParams { scaler, ..PcaParams::default() }.fit_rows(rows.view()).unwrap();
            let linfa = PcaParams { scaler, solver: Solver::Linfa { n_components: 4 }, whiten: false }
                .fit_rows(rows.view())
                .unwrap();
            for i in 0..4 {
                let cosine = exact.components().row(i).dot(&linfa.components().row(i));
                assert!(cosine > 1.0 - 1e-4, "component {i}: {cosine}");
                let (a, b) = (exact.explained_variance()[i], linfa.explained_variance()[i]);
                assert!((a - b).abs() < 1e-4 * a, "{a} {b}");
                let (a, b) = (exact.explained_variance_ratio()[i], linfa.explained_variance_ratio()[i]);
                assert!((a - b).abs() < 1e-4 * a, "{a} {b}");
            }
            assert!(linfa.explained_variance_ratio().sum() < 0.95);
        }
    }

    #[test]
    fn linfas_own_numbers_are_what_we_correct() {
        let x = rows().mapv(f64::from);
        let own = linfa_reduction::Pca::params(4).fit(&DatasetBase::from(x)).unwrap();
        assert!(
            (own.explained_variance_ratio().sum() - 1.0).abs() < 1e-9,
            "normalised over the kept components"
        );
        let ours = own.singular_values()[0].powi(2) / 599.0;
        assert!((own.explained_variance()[0] / ours - 599.0 / 3.0).abs() < 1e-6, "divided by k - 1");
    }

    #[test]
    fn more_components_than_columns_is_an_error() {
        let params = PcaParams { solver: Solver::Linfa { n_components: 25 }, ..PcaParams::default() };
        assert!(matches!(params.fit_rows(rows().view()), Err(Error::Dimension { asked: 25, available: 24 })));
    }
}
