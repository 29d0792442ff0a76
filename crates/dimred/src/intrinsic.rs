//! Intrinsic dimension: how many numbers would do to say where on its manifold a row lies, judged by distances to neighbours.
//!
//! *TwoNN*: the ratio `μ = r₂/r₁` of the distances to the second and the first neighbour has the distribution
//! `P(μ) = 1 − μ^(−D)` wherever the density is constant up to the second neighbour; `D` is the slope of
//! `−ln(1 − P)` over `ln μ` through the origin (Facco et al., 2017). *Maximum likelihood*: within the distance `T_k` of the
//! `k`-th neighbour, `1/D` is the mean of `ln(T_k/T_j)` (Levina and Bickel, 2004), averaged over rows as MacKay and Ghahramani
//! proposed. Both underestimate high dimensions, the more so the fewer rows there are.

use std::collections::HashSet;

use ndarray::{Array2, ArrayView2, Axis};

use crate::metric::Metric;
use crate::neighbours::{NeighbourSet, check_finite};
use crate::{Error, Result};

/// How intrinsic dimensions are estimated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IntrinsicDimensionParams {
    /// Share of the largest ratios that TwoNN leaves out, in `[0, 1)`: those of rows in thin places.
    pub discarded: f64,
    /// Fewest neighbours of the maximum-likelihood estimate, at least 3.
    pub fewest_neighbours: usize,
    /// Most neighbours of it; the estimate is the mean over the counts between.
    pub most_neighbours: usize,
}

/// The authors' choices.
impl Default for IntrinsicDimensionParams {
    fn default() -> Self {
        Self { discarded: 0.1, fewest_neighbours: 10, most_neighbours: 20 }
    }
}

/// Two estimates for the same rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IntrinsicDimension {
    /// By TwoNN.
    pub two_nn: f64,
    /// By maximum likelihood.
    pub maximum_likelihood: f64,
    /// Distinct rows that were used: a duplicate says nothing about the manifold.
    pub rows: usize,
}

/// The intrinsic dimension of rows `[n, d]`, by Euclidean distance.
///
/// The neighbours are exact, at a cost of `n²` products of width `d`: some thousand rows are meant.
///
/// # Errors
/// [`Error::NonFinite`]; [`Error::Invalid`] for parameters out of their ranges, or if not more rows are distinct than
/// neighbours are asked for.
///
/// References: Facco, d'Errico, Rodriguez and Laio, "Estimating the intrinsic dimension of datasets by a minimal neighborhood
/// information", Scientific Reports 7, 2017; Levina and Bickel, "Maximum likelihood estimation of intrinsic dimension", NIPS 2004;
/// MacKay and Ghahramani, comments on that paper, 2005.
pub fn intrinsic_dimension(
    rows: ArrayView2<'_, f32>,
    params: &IntrinsicDimensionParams,
) -> Result<IntrinsicDimension> {
    params.check()?;
    check_finite(rows)?;
    let rows = distinct(rows);
    if rows.nrows() <= params.most_neighbours {
        return Err(Error::Invalid {
            what: "the number of distinct rows",
            expected: "more than the neighbours that are asked for",
            got: format!("{} for {} neighbours", rows.nrows(), params.most_neighbours),
        });
    }
    let neighbours = NeighbourSet::new(rows.view(), Metric::Euclidean)?;
    let distances = neighbours.nearest_of_each(params.most_neighbours)?.distances; // [n, most]
    Ok(IntrinsicDimension {
        two_nn: two_nn(distances.view(), params.discarded),
        maximum_likelihood: maximum_likelihood(distances.view(), params),
        rows: rows.nrows(),
    })
}

impl IntrinsicDimensionParams {
    fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.discarded) {
            return Err(Error::Invalid {
                what: "the discarded share",
                expected: "a number in [0, 1)",
                got: self.discarded.to_string(),
            });
        }
        if self.fewest_neighbours < 3 || self.most_neighbours < self.fewest_neighbours {
            return Err(Error::Invalid {
                what: "the number of neighbours",
                expected: "a range that begins with 3 or more",
                got: format!("{} to {}", self.fewest_neighbours, self.most_neighbours),
            });
        }
        Ok(())
    }
}

/// The rows without repetitions, in their order.
fn distinct(rows: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut seen = HashSet::new();
    let first: Vec<usize> = (0..rows.nrows())
        .filter(|&i| {
            // 0 and -0 are the same number.
            let bits: Vec<u32> = rows.row(i).iter().map(|&x| (x + 0.0).to_bits()).collect();
            seen.insert(bits)
        })
        .collect();
    rows.select(Axis(0), &first)
}

/// * `distances`: `[n, ≥ 2]`, ascending and positive.
fn two_nn(distances: ArrayView2<'_, f64>, discarded: f64) -> f64 {
    let mut logs: Vec<f64> = distances.rows().into_iter().map(|row| (row[1] / row[0]).ln()).collect();
    logs.sort_by(f64::total_cmp);
    let n = logs.len();
    // The last point would lie at infinity: P = 1 there.
    let kept = ((n as f64 * (1.0 - discarded)) as usize).clamp(1, n - 1);
    let (mut xy, mut xx) = (0.0, 0.0);
    for (i, &x) in logs[..kept].iter().enumerate() {
        let y = -(1.0 - (i + 1) as f64 / n as f64).ln();
        (xy, xx) = (xy + x * y, xx + x * x);
    }
    xy / xx
}

/// * `distances`: `[n, most]`, ascending and positive.
fn maximum_likelihood(distances: ArrayView2<'_, f64>, params: &IntrinsicDimensionParams) -> f64 {
    let logs = distances.mapv(f64::ln);
    let counts = params.fewest_neighbours..=params.most_neighbours;
    let n = counts.clone().count() as f64;
    let estimates = counts.map(|k| {
        // The mean of the inverses, not of the dimensions: rows are one sample, not many.
        let inverse = |row: ndarray::ArrayView1<'_, f64>| {
            row.iter().take(k - 1).map(|t| row[k - 1] - t).sum::<f64>() / (k - 1) as f64
        };
        let mean = logs.rows().into_iter().map(inverse).sum::<f64>() / logs.nrows() as f64;
        1.0 / mean
    });
    estimates.sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::StandardNormal;

    /// `n` points `[n, wide]`: those of `point` behind a random linear embedding, with an offset.
    fn embedded(n: usize, wide: usize, mut point: impl FnMut(&mut ChaCha8Rng) -> Vec<f32>) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let points: Vec<Vec<f32>> = (0..n).map(|_| point(&mut rng)).collect();
        let d = points[0].len();
        // Columns of independent normals are nearly orthogonal and of one length in `wide` dimensions; the test's manifolds are
        // bent by no more than that, which changes no dimension.
        let basis = Array2::from_shape_fn((d, wide), |_| rng.sample::<f32, _>(StandardNormal));
        Array2::from_shape_vec((n, d), points.concat()).unwrap().dot(&basis) + 5.0
    }

    fn cube(d: usize) -> impl FnMut(&mut ChaCha8Rng) -> Vec<f32> {
        move |rng| (0..d).map(|_| rng.random_range(0.0..1.0f32)).collect()
    }

    fn estimate(rows: &Array2<f32>) -> IntrinsicDimension {
        intrinsic_dimension(rows.view(), &IntrinsicDimensionParams::default()).unwrap()
    }

    #[test]
    fn cubes_of_known_dimension() {
        for (d, within) in [(1, 0.1), (2, 0.2), (5, 0.6)] {
            let found = estimate(&embedded(3000, 60, cube(d)));
            assert!((found.two_nn - d as f64).abs() < within, "{d}: {found:?}");
            assert!((found.maximum_likelihood - d as f64).abs() < within, "{d}: {found:?}");
        }
        // The bias at the edges of a cube grows with its dimension.
        let found = estimate(&embedded(3000, 60, cube(10)));
        assert!((7.5..11.0).contains(&found.two_nn), "{found:?}");
        assert!((7.0..11.0).contains(&found.maximum_likelihood), "{found:?}");
    }

    #[test]
    fn a_sphere_has_one_dimension_less_than_its_space() {
        let found = estimate(&embedded(3000, 40, |rng| {
            let x: Vec<f32> = (0..4).map(|_| rng.sample(StandardNormal)).collect();
            let length = x.iter().map(|x| x * x).sum::<f32>().sqrt();
            x.iter().map(|x| x / length).collect()
        }));
        assert!(
            (found.two_nn - 3.0).abs() < 0.3 && (found.maximum_likelihood - 3.0).abs() < 0.3,
            "{found:?}"
        );
    }

    #[test]
    fn a_bent_line_is_a_line() {
        let found = estimate(&embedded(2000, 30, |rng| {
            let t = rng.random_range(0.0..6.0f32);
            vec![t.sin(), t.cos(), t]
        }));
        assert!(
            (found.two_nn - 1.0).abs() < 0.1 && (found.maximum_likelihood - 1.0).abs() < 0.1,
            "{found:?}"
        );
    }

    #[test]
    fn duplicates_change_nothing() {
        let rows = embedded(500, 20, cube(2));
        let twice = ndarray::concatenate![Axis(0), rows, rows];
        assert_eq!(estimate(&twice), estimate(&rows));
        assert_eq!(estimate(&rows).rows, 500);
    }

    #[test]
    fn impossible_requests_are_errors() {
        let params = IntrinsicDimensionParams::default();
        let error = intrinsic_dimension(Array2::ones((100, 4)).view(), &params).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the number of distinct rows is 1 for 20 neighbours, expected more than the neighbours that are asked for"
        );
        let rows = embedded(50, 5, cube(2));
        for wrong in [
            IntrinsicDimensionParams { discarded: 1.0, ..params },
            IntrinsicDimensionParams { fewest_neighbours: 2, ..params },
            IntrinsicDimensionParams { most_neighbours: 5, ..params },
        ] {
            assert!(matches!(intrinsic_dimension(rows.view(), &wrong), Err(Error::Invalid { .. })));
        }
    }

    #[test]
    fn the_same_for_any_number_of_threads() {
        let rows = embedded(900, 20, cube(3));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| estimate(&rows))
        };
        assert_eq!(run(1), run(3));
    }
}
