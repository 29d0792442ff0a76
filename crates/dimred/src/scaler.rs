//! Column scaling: which mean and standard deviation a row is standardised with, if any.
//!
//! `z = (x − mean) / std` per column, with the *population* standard deviation (divided by `n`) as in
//! scikit-learn's `StandardScaler`. The original program standardises every batch by itself when it
//! projects, so that codes depend on a row's companions; that is kept for comparison as [`Scaler::Batch`].

use std::fmt;
use std::str::FromStr;

use ndarray::{Array1, ArrayView1, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where the mean and the standard deviation of the columns come from.
///
/// ```
/// assert_eq!("train".parse::<dimred::Scaler>()?, dimred::Scaler::Train);
/// assert_eq!(dimred::Scaler::Batch.to_string(), "batch");
/// # Ok::<(), dimred::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaler {
    /// Columns keep their units. (PCA still subtracts the mean; a random projection does not.)
    None,
    /// The statistics of the fit, for every row ever projected.
    #[default]
    Train,
    /// The statistics of whatever rows are projected together, as the original program does it.
    Batch,
}

impl Scaler {
    /// The word used in configurations and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Train => "train",
            Self::Batch => "batch",
        }
    }
}

impl fmt::Display for Scaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scaler {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        [Self::None, Self::Train, Self::Batch].into_iter().find(|scaler| scaler.name() == word).ok_or_else(
            || Error::Range {
                what: "scaler",
                expected: "none, train or batch".to_owned(),
                got: format!("\"{word}\""),
            },
        )
    }
}

/// Standard deviations `[d]` to divide by: 1 where a column is constant.
///
/// A column counts as constant if its variance is no more than what rounding makes of one, by
/// scikit-learn's bound `n ε var + (n ε mean)²`.
pub(crate) fn divisors(mean: ArrayView1<'_, f64>, variance: ArrayView1<'_, f64>, n: u64) -> Array1<f64> {
    let n_eps = n as f64 * f64::EPSILON;
    ndarray::Zip::from(mean).and(variance).map_collect(|&mean, &variance| {
        let constant = variance <= n_eps * variance + (n_eps * mean).powi(2);
        if constant { 1.0 } else { variance.sqrt() }
    })
}

/// Mean `[d]` and divisors `[d]` of the columns of `[n, d]`; mean 0 and divisor 1 for no rows.
pub(crate) fn standardisation(rows: ArrayView2<'_, f32>) -> (Array1<f64>, Array1<f64>) {
    let (n, d) = rows.dim();
    let mut mean = Array1::<f64>::zeros(d);
    let mut variance = Array1::<f64>::zeros(d);
    if n > 0 {
        rows.axis_iter(Axis(0)).for_each(|row| mean.zip_mut_with(&row, |sum, &x| *sum += f64::from(x)));
        mean /= n as f64;
        for row in rows.axis_iter(Axis(0)) {
            ndarray::Zip::from(&mut variance).and(&row).and(&mean).for_each(|sum, &x, &mean| {
                *sum += (f64::from(x) - mean).powi(2);
            });
        }
        variance /= n as f64;
    }
    let divisors = divisors(mean.view(), variance.view(), n as u64);
    (mean, divisors)
}

/// `Ok` if every number is finite; the error says where the first is not.
pub(crate) fn expect_finite(rows: ArrayView2<'_, f32>) -> Result<()> {
    // `&` without short circuit lets the compiler use vector instructions.
    let finite = rows.axis_iter(Axis(0)).fold(true, |ok, row| row.fold(ok, |ok, x| ok & x.is_finite()));
    if finite {
        return Ok(());
    }
    let ((row, column), _) =
        rows.indexed_iter().find(|(_, x)| !x.is_finite()).expect("one of them was found just now");
    Err(Error::NotFinite { row, column })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn words_round_trip_and_others_are_refused() {
        for scaler in [Scaler::None, Scaler::Train, Scaler::Batch] {
            assert_eq!(scaler.name().parse::<Scaler>().unwrap(), scaler);
            assert_eq!(serde_json::to_value(scaler).unwrap(), scaler.name());
        }
        let error = "fit".parse::<Scaler>().unwrap_err().to_string();
        assert_eq!(error, "scaler is \"fit\", expected none, train or batch");
    }

    #[test]
    fn standardised_columns_have_mean_0_and_population_variance_1() {
        let rows = array![[1.0_f32, 5.0, 3.0], [2.0, 5.0, 1.0], [6.0, 5.0, 2.0]];
        let (mean, scale) = standardisation(rows.view());
        assert_eq!(mean, array![3.0, 5.0, 2.0]);
        assert_eq!(scale, array![(14.0_f64 / 3.0).sqrt(), 1.0, (2.0_f64 / 3.0).sqrt()]);
    }

    #[test]
    fn rounding_noise_is_not_a_spread() {
        let (mean, noise) = (array![1e6], array![1e-20]);
        assert_eq!(divisors(mean.view(), noise.view(), 1000), array![1.0]);
        let spread = array![1e-10];
        assert_eq!(divisors(mean.view(), spread.view(), 1000), array![1e-5]);
    }

    #[test]
    fn the_first_bad_number_is_named() {
        let mut rows = ndarray::Array2::<f32>::zeros((4, 3));
        assert!(expect_finite(rows.view()).is_ok());
        rows[[2, 1]] = f32::NEG_INFINITY;
        rows[[3, 0]] = f32::NAN;
        assert!(matches!(expect_finite(rows.view()), Err(Error::NotFinite { row: 2, column: 1 })));
    }
}
