//! How many dimensions a random projection needs so that no distance is off by more than a factor `1 ± eps`.

use crate::{Error, Result};

/// The smallest safe number of components for `n` points: `k ≥ 4 ln n / (eps²/2 − eps³/3)`, rounded down.
///
/// * `n`: number of points, at least 1
/// * `eps`: largest relative distortion of squared distances, in `(0, 1)`
///
/// # Errors
/// [`Error::Invalid`] outside these ranges.
///
/// ```
/// assert_eq!(dimred::johnson_lindenstrauss_min_dim(1_000_000, 0.5)?, 663);
/// # Ok::<(), dimred::Error>(())
/// ```
///
/// Reference: Dasgupta and Gupta, "An elementary proof of the Johnson–Lindenstrauss lemma", 2003; the rounding is scikit-learn's.
pub fn johnson_lindenstrauss_min_dim(n: usize, eps: f64) -> Result<usize> {
    if !(eps > 0.0 && eps < 1.0) {
        return Err(Error::Invalid {
            what: "eps",
            expected: "a number between 0 and 1",
            got: eps.to_string(),
        });
    }
    if n == 0 {
        return Err(Error::Invalid { what: "n", expected: "at least 1 point", got: n.to_string() });
    }
    let denominator = eps * eps / 2.0 - eps * eps * eps / 3.0;
    Ok((4.0 * (n as f64).ln() / denominator) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_scikit_learn() {
        // sklearn.random_projection.johnson_lindenstrauss_min_dim, 1.9.1
        for (n, eps, k) in [(100, 0.1, 3947), (1000, 0.25, 1061), (10_000, 0.9, 227), (1, 0.5, 0)] {
            assert_eq!(johnson_lindenstrauss_min_dim(n, eps).unwrap(), k, "{n} {eps}");
        }
    }

    #[test]
    fn out_of_range_is_refused() {
        for eps in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(johnson_lindenstrauss_min_dim(10, eps).is_err());
        }
        assert!(johnson_lindenstrauss_min_dim(0, 0.5).is_err());
    }
}
