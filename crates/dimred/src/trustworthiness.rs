//! Trustworthiness: whether rows that are near in a projection were near before (Venna and Kaski, 2001).
//!
//! `T = 1 − 2/(nk(2n − 3k − 1)) · Σ_i Σ_j max(0, r(i, j) − k)` over the `k` nearest `j` of row `i` in the projection, where
//! `r(i, j)` is the rank of `j` among the neighbours of `i` before. 1 is best; a random projection of many rows
//! has about 0.5. It says nothing about near rows that were torn apart.

use ndarray::ArrayView2;

use crate::metric::Metric;
use crate::neighbours::NeighbourSet;
use crate::{Error, Result};

/// The trustworthiness of `projected` `[n, k']` for `rows` `[n, d]`, in `[0, 1]`.
///
/// * `k`: neighbours that count, `1 ≤ k < n / 2`
/// * `metric`: how rows are compared; in the projection it is the Euclidean distance
///
/// # Errors
/// [`Error::Invalid`] for another number of rows or a `k` out of its range; [`Error::NonFinite`].
///
/// ```
/// let rows = ndarray::Array2::from_shape_fn((50, 3), |(i, j)| ((i * 7 + j * 3) as f32).sin());
/// let same = dimred::trustworthiness(rows.view(), rows.view(), 5, dimred::Metric::Euclidean)?;
/// assert_eq!(same, 1.0);
/// # Ok::<(), dimred::Error>(())
/// ```
///
/// Reference: Venna and Kaski, "Neighborhood preservation in nonlinear projection methods", ICANN 2001.
pub fn trustworthiness(
    rows: ArrayView2<'_, f32>,
    projected: ArrayView2<'_, f32>,
    k: usize,
    metric: Metric,
) -> Result<f64> {
    let n = rows.nrows();
    if projected.nrows() != n {
        return Err(Error::Invalid {
            what: "the number of projected rows",
            expected: "that of the rows",
            got: format!("{} for {n}", projected.nrows()),
        });
    }
    if k == 0 || 2 * k >= n {
        return Err(Error::Invalid {
            what: "the number of neighbours",
            expected: "from 1 to less than half of the rows",
            got: format!("{k} of {n}"),
        });
    }
    let near = NeighbourSet::new(projected, Metric::Euclidean)?.nearest_of_each(k)?.indices; // [n, k]
    let ranks = NeighbourSet::new(rows, metric)?.ranks_of_each(near.view()); // [n, k]
    let beyond: f64 = ranks.iter().map(|&rank| f64::from(rank).max(k as f64) - k as f64).sum();
    let (n, k) = (n as f64, k as f64);
    Ok(1.0 - 2.0 / (n * k * (2.0 * n - 3.0 * k - 1.0)) * beyond)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, s};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(n: usize, d: usize, seed: u64) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_fn((n, d), |_| rng.random_range(-1.0..1.0f32))
    }

    #[test]
    fn by_hand() {
        // On a line 0 1 2 3 4; the projection puts 4 next to 0.
        let rows = ndarray::array![[0.0_f32], [1.0], [2.0], [3.0], [4.0]];
        let projected = ndarray::array![[0.0_f32], [1.0], [2.0], [3.0], [-0.5]];
        // Nearest in the projection: 0 → 4 (rank 4), 4 → 0 (rank 4), others keep a neighbour of rank 1 or 2.
        let got = trustworthiness(rows.view(), projected.view(), 1, Metric::Euclidean).unwrap();
        // 1 → 0 by index (rank 1), 2 → 1 (rank 1), 3 → 2 (rank 1).
        let want = 1.0 - 2.0 / (5.0 * (10.0 - 3.0 - 1.0)) * 6.0;
        assert!((got - want).abs() < 1e-12, "{got} is not {want}");
    }

    #[test]
    fn bounds_and_nonsense() {
        let rows = random(400, 8, 1);
        let same = trustworthiness(rows.view(), rows.slice(s![.., ..]), 10, Metric::Euclidean).unwrap();
        assert_eq!(same, 1.0);
        let chance = trustworthiness(rows.view(), random(400, 2, 2).view(), 10, Metric::Euclidean).unwrap();
        assert!((chance - 0.5).abs() < 0.05, "{chance}");
        let part = trustworthiness(rows.view(), rows.slice(s![.., ..6]), 10, Metric::Euclidean).unwrap();
        assert!(part > 0.8 && part < 1.0, "{part}");
        assert!(trustworthiness(rows.view(), rows.view(), 200, Metric::Cosine).is_err());
        assert!(trustworthiness(rows.view(), rows.slice(s![..9, ..]), 2, Metric::Cosine).is_err());
    }
}
