//! Random projection: `x ↦ x · Rᵀ / √k` with one seeded matrix `R` whose first `k` rows serve target dimension `k`.
//!
//! Entries have variance 1, so squared norms are preserved in expectation at every `k` (Johnson–Lindenstrauss; linfa's own
//! projections do not scale so). Row `i` is drawn from its own ChaCha stream: a prefix does not depend on how many rows
//! follow, and a seed means the same matrix everywhere. The data are needed only for the column scaling.

use ndarray::{Array1, Array2, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::affine::Affine;
use crate::moments::Moments;
use crate::scaler::Scaler;
use crate::{Error, Result};

/// Distribution of the entries.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum RandomProjectionKind {
    /// N(0, 1).
    #[default]
    Gaussian,
    /// `±1/√density` with probability `density/2` each, else 0 (Achlioptas, 2003; Li, Hastie and Church, 2006).
    Sparse {
        /// Share of entries that are not 0, in `(0, 1]`; `1/√d` if not given.
        density: Option<f64>,
    },
}

/// An unfitted random projection.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomProjectionParams {
    /// Distribution of the entries.
    pub kind: RandomProjectionKind,
    /// Seed of the matrix.
    pub seed: u64,
    /// What is done to columns first; with [`Scaler::None`] not even the mean is subtracted.
    pub scaler: Scaler,
    /// Rows of the matrix: the largest target dimension.
    pub max_dim: usize,
}

/// A random projection of rows of width `d` to any `k` up to `max_dim`.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomProjection {
    pub(crate) sparse: bool,
    pub(crate) seed: u64,
    pub(crate) scaler: Scaler,
    /// `[d]`, zeros without scaling.
    pub(crate) mean: Array1<f64>,
    /// `[d]`, ones without scaling.
    pub(crate) scale: Array1<f64>,
    /// `[max_dim, d]`, entries of variance 1.
    pub(crate) matrix: Array2<f64>,
}

impl RandomProjectionParams {
    /// Draws the matrix for rows of width `d`; `moments` are needed for [`Scaler::Train`] only.
    ///
    /// # Errors
    /// [`Error::MissingMoments`], [`Error::Width`] if they have another width, [`Error::Dimension`] for `max_dim = 0`,
    /// [`Error::Invalid`] for a density outside `(0, 1]`.
    pub fn fit(&self, d: usize, moments: Option<&Moments>) -> Result<RandomProjection> {
        if self.max_dim == 0 {
            return Err(Error::Dimension { asked: 0, available: d });
        }
        let (mean, scale) = match (self.scaler, moments) {
            (Scaler::Train, None) => return Err(Error::MissingMoments),
            (Scaler::Train, Some(m)) if m.dim() != d => {
                return Err(Error::Width { expected: d, got: m.dim() });
            }
            (Scaler::Train, Some(m)) => (m.mean().clone(), m.scale()?),
            _ => (Array1::zeros(d), Array1::ones(d)),
        };
        let mut matrix = Array2::zeros((self.max_dim, d));
        for (i, mut row) in matrix.rows_mut().into_iter().enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(i as u64);
            match self.kind {
                RandomProjectionKind::Gaussian => row.mapv_inplace(|_: f64| rng.sample(StandardNormal)),
                RandomProjectionKind::Sparse { density } => {
                    let density = checked(density.unwrap_or(1.0 / (d as f64).sqrt()))?;
                    row.mapv_inplace(|_| sparse_entry(rng.random(), density));
                }
            }
        }
        let sparse = matches!(self.kind, RandomProjectionKind::Sparse { .. });
        Ok(RandomProjection { sparse, seed: self.seed, scaler: self.scaler, mean, scale, matrix })
    }
}

fn checked(density: f64) -> Result<f64> {
    if density > 0.0 && density <= 1.0 {
        return Ok(density);
    }
    Err(Error::Invalid { what: "density", expected: "a number in (0, 1]", got: density.to_string() })
}

/// The entry for a uniform draw from `[0, 1)`.
fn sparse_entry(uniform: f64, density: f64) -> f64 {
    let value = 1.0 / density.sqrt();
    match uniform {
        u if u < density / 2.0 => value,
        u if u < density => -value,
        _ => 0.0,
    }
}

impl RandomProjection {
    /// The map to `k` dimensions: the first `k` rows of the matrix, divided by `√k`.
    ///
    /// # Errors
    /// [`Error::Dimension`] unless `1 ≤ k ≤ max_dim`.
    pub fn at(&self, k: usize) -> Result<Affine> {
        if k == 0 || k > self.max_dim() {
            return Err(Error::Dimension { asked: k, available: self.max_dim() });
        }
        let components = &self.matrix.slice(s![..k, ..]) / (k as f64).sqrt();
        Ok(Affine::with_scaler(self.scaler, self.mean.view(), self.scale.view(), components.view()))
    }

    /// The largest target dimension.
    #[must_use]
    pub fn max_dim(&self) -> usize {
        self.matrix.nrows()
    }

    /// The matrix `[max_dim, d]`, entries of variance 1.
    #[must_use]
    pub fn matrix(&self) -> &Array2<f64> {
        &self.matrix
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Projection;
    use ndarray::Array2;

    fn params(kind: RandomProjectionKind, seed: u64, max_dim: usize) -> RandomProjectionParams {
        RandomProjectionParams { kind, seed, scaler: Scaler::None, max_dim }
    }

    #[test]
    fn squared_norms_are_preserved_in_expectation() {
        let row = Array2::from_shape_fn((1, 100), |(_, j)| ((j % 7) as f32) - 2.0);
        let norm: f32 = row.iter().map(|x| x * x).sum();
        for kind in [RandomProjectionKind::Gaussian, RandomProjectionKind::Sparse { density: None }] {
            for k in [1, 8, 50] {
                let ratios = (0..400).map(|seed| {
                    let map = params(kind, seed, k).fit(100, None).unwrap().at(k).unwrap();
                    Projection::transform(&map, row.view()).unwrap().iter().map(|x| x * x).sum::<f32>() / norm
                });
                let mean = ratios.sum::<f32>() / 400.0;
                let allowed = 5.0 * (2.0 / (k as f32 * 400.0)).sqrt() * 1.3; // 5 standard errors, and sparse ones are wider
                assert!((mean - 1.0).abs() < allowed, "{kind:?} {k}: {mean}");
            }
        }
    }

    #[test]
    fn a_prefix_does_not_depend_on_the_largest_dimension() {
        for kind in [RandomProjectionKind::Gaussian, RandomProjectionKind::Sparse { density: Some(0.3) }] {
            let (small, large) =
                (params(kind, 5, 4).fit(30, None).unwrap(), params(kind, 5, 20).fit(30, None).unwrap());
            assert_eq!(small.matrix(), &large.matrix().slice(s![..4, ..]));
            assert_eq!(small.at(3).unwrap(), large.at(3).unwrap());
            assert_ne!(small, params(kind, 6, 4).fit(30, None).unwrap());
        }
    }

    #[test]
    fn sparse_entries_have_the_density_and_the_values_that_they_promise() {
        let projection =
            params(RandomProjectionKind::Sparse { density: Some(0.25) }, 1, 200).fit(100, None).unwrap();
        let entries = projection.matrix();
        assert!(entries.iter().all(|&x| x == 0.0 || x.abs() == 2.0));
        let share = |sign: f64| entries.iter().filter(|&&x| x * sign > 0.0).count() as f64 / 20_000.0;
        assert!((share(1.0) - 0.125).abs() < 0.015 && (share(-1.0) - 0.125).abs() < 0.015);
    }

    #[test]
    fn train_scaling_standardises_first() {
        let rows = Array2::from_shape_fn((50, 3), |(i, j)| {
            (i as f32 * 0.3 + j as f32).sin() * (10 * j + 1) as f32 + 4.0
        });
        let mut moments = Moments::new(3);
        moments.add(rows.view()).unwrap();
        let scaled =
            RandomProjectionParams { scaler: Scaler::Train, ..params(RandomProjectionKind::Gaussian, 0, 2) };
        let map = scaled.fit(3, Some(&moments)).unwrap();
        let z = Projection::transform(&map.at(2).unwrap(), rows.view()).unwrap();
        let by_hand = ((rows.mapv(f64::from) - moments.mean()) / &moments.scale().unwrap())
            .dot(&map.matrix().t())
            / 2_f64.sqrt();
        assert!((z.mapv(f64::from) - by_hand).iter().all(|x| x.abs() < 1e-5));
        assert!(matches!(scaled.fit(3, None), Err(Error::MissingMoments)));
        assert!(matches!(scaled.fit(4, Some(&moments)), Err(Error::Width { expected: 4, got: 3 })));
    }

    #[test]
    fn impossible_parameters_are_errors() {
        let gaussian = RandomProjectionKind::Gaussian;
        assert!(params(gaussian, 0, 0).fit(3, None).is_err());
        assert!(params(RandomProjectionKind::Sparse { density: Some(1.5) }, 0, 2).fit(3, None).is_err());
        assert!(matches!(
            params(gaussian, 0, 2).fit(3, None).unwrap().at(3),
            Err(Error::Dimension { asked: 3, available: 2 })
        ));
    }
}
