//! Which patches of an image look like a chosen point, as a network's features see it.
//!
//! A query is a point `(x, y)` of `[-1, 1]²` in one image. Its feature is read between the patches ([`Points`]), and compared with every
//! patch of the same or another image: `a = ⟨f̂_q, f̂_j⟩`. What all patches have in common says nothing, so the mean over the
//! patches is taken off, and what is then below zero counts as zero. [`query_path`] moves a query from place to place,
//! frame by frame, for a film.
//!
//! How the maps are drawn is [`correspondence_picture`](crate::correspondence_picture)'s business.

use kernels::dot;
use ndarray::{Array2, ArrayView2};

use crate::stego::Points;
use crate::stego::error::{Result, expect_finite, expect_range, expect_shape};
use crate::stego::unit::make_unit;

/// How much every patch of `other` has in common with each query, beyond what all its patches have: `[q, t']`, 0 or more.
///
/// * `features`: `[t, d]`, the queries' image, on the patch grid `(gh, gw)`.
/// * `queries`: `(x, y)`; -1 and 1 are the centres of the outermost patches.
/// * `other`: `[t', d]`, the image that is looked at; it may be the same.
///
/// ```
/// use ndarray::array;
/// // Two kinds of patches, left and right; a query on the left finds the left ones.
/// let features = array![[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.0, 2.0]];
/// let map = segment::correspondence_maps(features.view(), (2, 2), &[[-1.0, -1.0]], features.view())?;
/// assert!(map[[0, 0]] > 0.4 && map[[0, 2]] > 0.4 && map[[0, 1]] == 0.0 && map[[0, 3]] == 0.0);
/// # Ok::<(), segment::stego::Error>(())
/// ```
///
/// # Errors
/// [`Shape`](crate::stego::Error::Shape) or [`Range`](crate::stego::Error::Range) if the arguments do not fit,
/// [`NotFinite`](crate::stego::Error::NotFinite) if a feature is no number.
pub fn correspondence_maps(
    features: ArrayView2<'_, f32>,
    grid: (usize, usize),
    queries: &[[f32; 2]],
    other: ArrayView2<'_, f32>,
) -> Result<Array2<f32>> {
    let (t, d) = other.dim();
    expect_range(d > 0, "number of features", "at least 1", d)?;
    expect_shape("features of the other image", &[t, features.ncols()], &[t, d])?;
    let of_queries = unit_samples(features, &Points::new(queries, grid)?)?;
    let mut of_patches: Vec<f32> = other.iter().copied().collect();
    make_unit(&mut of_patches, d);
    let mut maps = Array2::zeros((queries.len(), t));
    for (mut map, query) in maps.rows_mut().into_iter().zip(of_queries.rows()) {
        let query = query.to_slice().expect("rows of a fresh array");
        for (to, patch) in map.iter_mut().zip(of_patches.chunks_exact(d)) {
            *to = dot(query, patch);
        }
        let mean = map.iter().map(|&a| f64::from(a)).sum::<f64>() / t.max(1) as f64;
        let mean = expect_finite("the mean correspondence of a query", mean)? as f32;
        map.mapv_inplace(|a| (a - mean).max(0.0));
    }
    Ok(maps)
}

/// What points read of `[t, k]` tokens, as directions `[n, k]`.
pub(crate) fn unit_samples(tokens: ArrayView2<'_, f32>, points: &Points) -> Result<Array2<f32>> {
    let width = tokens.ncols();
    expect_range(width > 0, "number of features", "at least 1", width)?;
    let mut samples = points.sample(tokens)?;
    make_unit(samples.as_slice_mut().expect("a fresh array"), width);
    Ok(samples)
}

/// The places of a query in every frame of a film: it rests at each stop, and goes from one to the next in a straight line.
///
/// * `hold`: frames at each stop; `between`: frames between two of them, all at different places.
///
/// ```
/// let path = segment::query_path(&[[0.0, 0.0], [1.0, 0.0]], 2, 3);
/// assert_eq!(path.iter().map(|at| at[0]).collect::<Vec<_>>(), [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]);
/// // The published film: three stops, 60 frames each, 50 frames on the way.
/// assert_eq!(segment::query_path(&[[-0.7, -0.7], [-0.1, 0.0], [0.5, 0.8]], 60, 50).len(), 280);
/// ```
#[must_use]
pub fn query_path(stops: &[[f32; 2]], hold: usize, between: usize) -> Vec<[f32; 2]> {
    let mut path = Vec::new();
    for (i, &stop) in stops.iter().enumerate() {
        path.extend(std::iter::repeat_n(stop, hold));
        let Some(&next) = stops.get(i + 1) else { continue };
        path.extend((1..=between).map(|frame| {
            let part = frame as f32 / (between + 1) as f32;
            [0, 1].map(|axis| stop[axis] + part * (next[axis] - stop[axis]))
        }));
    }
    path
}

#[cfg(test)]
mod tests {
    use ndarray::Array;

    use super::*;

    fn features(t: usize, d: usize, seed: usize) -> Array2<f32> {
        Array::from_shape_fn((t, d), |(t, c)| 0.3 + ((t * 13 + c * 7 + t * c + seed * 29) as f32).sin())
    }

    /// The formula of the original, in `f64` and pixel by pixel: sample, normalise, product, mean off, clamp.
    #[test]
    fn maps_are_the_formula() {
        let (own, other) = (features(12, 5, 0), features(20, 5, 1));
        let queries = [[-0.1, 0.0], [0.5, 0.8], [-1.0, 1.0]];
        let maps = correspondence_maps(own.view(), (3, 4), &queries, other.view()).unwrap();
        let unit = |row: Vec<f64>| {
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.into_iter().map(|x| x / length).collect::<Vec<_>>()
        };
        for (q, [x, y]) in queries.into_iter().enumerate() {
            let (column, row) = (f64::from(x + 1.0) / 2.0 * 3.0, f64::from(y + 1.0) / 2.0 * 2.0);
            let (left, top) = (column.floor().min(2.0), row.floor().min(1.0));
            let (u, v) = (column - left, row - top);
            let at = |dy: usize, dx: usize, c: usize| {
                f64::from(own[[(top as usize + dy) * 4 + left as usize + dx, c]])
            };
            let query = unit(
                (0..5)
                    .map(|c| {
                        (1.0 - v) * ((1.0 - u) * at(0, 0, c) + u * at(0, 1, c))
                            + v * ((1.0 - u) * at(1, 0, c) + u * at(1, 1, c))
                    })
                    .collect(),
            );
            let scores: Vec<f64> = other
                .rows()
                .into_iter()
                .map(|row| {
                    let row = unit(row.iter().map(|&x| f64::from(x)).collect());
                    row.iter().zip(&query).map(|(a, b)| a * b).sum()
                })
                .collect();
            let mean = scores.iter().sum::<f64>() / 20.0;
            for (j, score) in scores.iter().enumerate() {
                let want = (score - mean).max(0.0);
                assert!((f64::from(maps[[q, j]]) - want).abs() < 1e-6, "{q} {j}: {} {want}", maps[[q, j]]);
            }
        }
    }

    #[test]
    fn a_query_on_a_patch_finds_that_patch_first_at_any_scale() {
        let own = features(20, 6, 3);
        let at = |t: usize| [(t % 5) as f32 / 2.0 - 1.0, (t / 5) as f32 / 1.5 - 1.0];
        let queries: Vec<_> = (0..20).map(at).collect();
        let maps = correspondence_maps(own.view(), (4, 5), &queries, own.view()).unwrap();
        for (t, map) in maps.rows().into_iter().enumerate() {
            let best = map.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            assert_eq!(best, t);
        }
        let large = correspondence_maps(own.view(), (4, 5), &queries, (&own * 64.0).view()).unwrap();
        assert_eq!(maps, large);
    }

    #[test]
    fn images_without_differences_have_empty_maps_and_odd_input_is_refused() {
        let flat = Array2::from_elem((6, 3), 0.5);
        let maps = correspondence_maps(flat.view(), (2, 3), &[[0.2, 0.1]], flat.view()).unwrap();
        assert!(maps.iter().all(|&a| a < 1e-6));
        let zero = Array2::zeros((6, 3));
        let maps = correspondence_maps(zero.view(), (2, 3), &[[0.2, 0.1]], zero.view()).unwrap();
        assert!(maps.iter().all(|&a| a == 0.0));
        let map = |own: &Array2<f32>, grid, other: &Array2<f32>| {
            correspondence_maps(own.view(), grid, &[[0.0, 0.0]], other.view())
        };
        assert!(map(&flat, (2, 2), &flat).is_err());
        assert!(map(&flat, (2, 3), &features(6, 4, 0)).is_err());
        assert!(map(&Array2::zeros((6, 0)), (2, 3), &Array2::zeros((6, 0))).is_err());
        let mut odd = flat.clone();
        odd[[0, 0]] = f32::NAN;
        assert!(map(&odd, (2, 3), &odd).unwrap_err().to_string().contains("correspondence"));
    }

    #[test]
    fn a_path_starts_and_ends_at_rest() {
        assert_eq!(query_path(&[], 3, 4), [] as [[f32; 2]; 0]);
        assert_eq!(query_path(&[[0.5, -1.0]], 2, 9), [[0.5, -1.0]; 2]);
        let path = query_path(&[[-1.0, 0.0], [1.0, 1.0]], 0, 3);
        assert_eq!(path, [[-0.5, 0.25], [0.0, 0.5], [0.5, 0.75]]);
    }
}
