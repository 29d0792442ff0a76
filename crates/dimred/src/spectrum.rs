//! Spectrum: what the eigenvalues of a covariance or correlation matrix say about features.
//!
//! Condition number `λ₁/λ_d`, numerical rank, and two counts of the dimensions in use that need no threshold: the participation
//! ratio `(Σλ)²/Σλ²` and the effective rank `exp(−Σ p ln p)`, `p = λ/Σλ` (Roy and Vetterli, 2007). These are linear
//! notions; curved data have a smaller [intrinsic dimension](crate::intrinsic_dimension).

use ndarray::Array1;

use crate::eigen::eigen;
use crate::moments::Moments;
use crate::scaler::Scaler;
use crate::{Error, Result};

/// Eigenvalues of a positive semi-definite matrix `[d, d]`, largest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    eigenvalues: Array1<f64>,
}

impl Spectrum {
    /// * `eigenvalues`: `[d]` in any order; what rounding left below 0 counts as 0.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none, or one that is not finite.
    pub fn new(eigenvalues: Array1<f64>) -> Result<Self> {
        if eigenvalues.is_empty() || !eigenvalues.iter().all(|x| x.is_finite()) {
            return Err(Error::Invalid {
                what: "a spectrum",
                expected: "at least one eigenvalue, all finite",
                got: format!("{eigenvalues}"),
            });
        }
        let mut values: Vec<f64> = eigenvalues.iter().map(|&x| x.max(0.0)).collect();
        values.sort_by(|a, b| b.total_cmp(a));
        Ok(Self { eigenvalues: values.into() })
    }

    /// Of the covariance of the rows ([`Scaler::None`]) or of their correlation, in which a constant column has variance 0.
    ///
    /// # Errors
    /// [`Error::TooFewRows`] below 2 rows; [`Error::Decomposition`] if the iteration fails.
    pub fn of_moments(moments: &Moments, scaler: Scaler) -> Result<Self> {
        let mut matrix = moments.covariance()?;
        if scaler != Scaler::None {
            let scale = moments.scale()?;
            for ((i, j), x) in matrix.indexed_iter_mut() {
                *x /= scale[i] * scale[j];
            }
        }
        Self::new(eigen(&matrix)?.0)
    }

    /// The eigenvalues, `[d]`, largest first.
    #[must_use]
    pub fn eigenvalues(&self) -> &Array1<f64> {
        &self.eigenvalues
    }

    /// The largest eigenvalue over the smallest; infinite if the smallest is 0.
    #[must_use]
    pub fn condition_number(&self) -> f64 {
        self.eigenvalues[0] / self.eigenvalues[self.eigenvalues.len() - 1]
    }

    /// Numerical rank: eigenvalues above `d · 2⁻²³` of the largest, what the rounding of 32-bit features may amount to.
    #[must_use]
    pub fn rank(&self) -> usize {
        let bound = self.eigenvalues[0] * self.eigenvalues.len() as f64 * f64::from(f32::EPSILON);
        self.eigenvalues.iter().filter(|&&x| x > bound).count()
    }

    /// The largest eigenvalue over the smallest of those that make the [rank](Self::rank); 1 if there are none.
    #[must_use]
    pub fn condition_number_within_rank(&self) -> f64 {
        match self.rank() {
            0 => 1.0,
            rank => self.eigenvalues[0] / self.eigenvalues[rank - 1],
        }
    }

    /// `(Σλ)²/Σλ²`, between 1 and `d`; 0 if all eigenvalues are 0.
    #[must_use]
    pub fn participation_ratio(&self) -> f64 {
        let shares = self.shares();
        let squares: f64 = shares.iter().map(|p| p * p).sum();
        if squares > 0.0 { 1.0 / squares } else { 0.0 }
    }

    /// The exponential of the entropy of the shares of variance, between 1 and `d`; 0 if all eigenvalues are 0.
    ///
    /// Reference: Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    #[must_use]
    pub fn effective_rank(&self) -> f64 {
        let shares = self.shares();
        if shares.sum() == 0.0 {
            return 0.0;
        }
        let entropy: f64 = shares.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum();
        entropy.exp()
    }

    /// The fewest components that hold a share of the variance, in `[0, 1]`.
    #[must_use]
    pub fn components_for(&self, share: f64) -> usize {
        let mut held = 0.0;
        // What is missing by rounding is not missing.
        let enough = share - 1e-12;
        let shares = self.shares();
        let taken = shares.iter().take_while(|&&p| {
            let more = held < enough;
            held += p;
            more
        });
        taken.count()
    }

    /// `λ/Σλ`, `[d]`; zeros if all are 0.
    fn shares(&self) -> Array1<f64> {
        let largest = self.eigenvalues[0].max(f64::MIN_POSITIVE);
        let scaled = &self.eigenvalues / largest; // squares must not overflow
        let total = scaled.sum();
        if total > 0.0 { scaled / total } else { scaled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};

    #[test]
    fn equal_eigenvalues_use_all_dimensions_and_one_uses_one() {
        let flat = Spectrum::new(Array1::from_elem(7, 3.0)).unwrap();
        assert_eq!((flat.condition_number(), flat.rank()), (1.0, 7));
        assert!(
            (flat.participation_ratio() - 7.0).abs() < 1e-12 && (flat.effective_rank() - 7.0).abs() < 1e-12
        );
        let line = Spectrum::new(array![0.0, 5.0, 0.0]).unwrap();
        assert_eq!((line.condition_number(), line.rank()), (f64::INFINITY, 1));
        assert_eq!((line.participation_ratio(), line.effective_rank()), (1.0, 1.0));
        assert_eq!(line.condition_number_within_rank(), 1.0);
    }

    #[test]
    fn by_hand() {
        let spectrum = Spectrum::new(array![1.0, 4.0, 2.0, 1.0]).unwrap();
        assert_eq!(spectrum.eigenvalues(), &array![4.0, 2.0, 1.0, 1.0]);
        assert_eq!(spectrum.condition_number(), 4.0);
        assert!((spectrum.participation_ratio() - 64.0 / 22.0).abs() < 1e-12);
        let entropy = 0.5 * 2.0_f64.ln() + 0.25 * 4.0_f64.ln() + 0.25 * 8.0_f64.ln();
        assert!((spectrum.effective_rank() - entropy.exp()).abs() < 1e-12);
        let counts = [0.0, 0.5, 0.51, 0.75, 0.875, 1.0].map(|share| spectrum.components_for(share));
        assert_eq!(counts, [0, 1, 2, 2, 3, 4]);
    }

    #[test]
    fn dependent_and_constant_columns_lower_the_rank() {
        let rows = Array2::from_shape_fn((500, 5), |(i, j)| {
            let (a, b) = ((i as f32 * 0.7).sin(), (i as f32 * 1.3).cos());
            [a, 100.0 * b, a + b, 7.0, a - 2.0 * b][j]
        });
        let mut moments = Moments::new(5);
        moments.add(rows.view()).unwrap();
        for scaler in [Scaler::None, Scaler::Train] {
            let spectrum = Spectrum::of_moments(&moments, scaler).unwrap();
            assert_eq!(spectrum.rank(), 2, "{scaler}");
            assert!(spectrum.condition_number() > 1e6);
            let within = spectrum.condition_number_within_rank();
            assert!((1.0..1e5).contains(&within), "{within}");
        }
    }

    #[test]
    fn nothing_varies() {
        let mut moments = Moments::new(3);
        moments.add(Array2::ones((4, 3)).view()).unwrap();
        let spectrum = Spectrum::of_moments(&moments, Scaler::Train).unwrap();
        assert_eq!(
            (spectrum.rank(), spectrum.participation_ratio(), spectrum.effective_rank()),
            (0, 0.0, 0.0)
        );
        assert_eq!(spectrum.condition_number_within_rank(), 1.0);
        assert!(Spectrum::new(array![]).is_err() && Spectrum::new(array![f64::NAN]).is_err());
        assert!(matches!(Spectrum::of_moments(&Moments::new(3), Scaler::None), Err(Error::TooFewRows(0))));
    }
}
