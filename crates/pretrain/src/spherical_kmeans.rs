//! Spherical k-means as DeepCluster-v2 runs it at the start of an epoch.
//!
//! Rows and centroids have length 1. A round assigns every row to the centroid with the largest inner product (of equal ones
//! the first), puts each centroid at the mean of its rows, and brings all to length 1; a centroid without rows stays
//! where it is. After the last round rows are assigned once more. Nothing is seeded again, nothing is stopped early.

use kernels::{Matrix, MatrixMut, Threads, gemm};
use rayon::prelude::*;

use crate::buffer::sized;
use crate::swapped::normalize_rows;

/// The nearest centroid of each row.
///
/// * `rows`: `[n, d]`; `centroids`: `[K, d]`; `scores`: scratch.
pub fn nearest_centroids(rows: &[f32], centroids: &[f32], d: usize, scores: &mut Vec<f32>) -> Vec<u32> {
    let (n, k) = (rows.len() / d, centroids.len() / d);
    let table = Matrix::new(centroids, k, d).t();
    let product = MatrixMut::new(sized(scores, n * k), n, k);
    gemm(product, 0.0, 1.0, Matrix::new(rows, n, d), table, Threads::All);
    let nearest = |row: &[f32]| {
        let first = |top: (usize, f32), (i, &x): (usize, &f32)| if x > top.1 { (i, x) } else { top };
        row.iter().enumerate().fold((0, f32::NEG_INFINITY), first).0 as u32
    };
    scores.par_chunks_exact(k.max(1)).map(nearest).collect()
}

/// Moves the centroids through `rounds` rounds; returns the assignment to where they end.
///
/// * `rows`: `[n, d]`, of length 1; `centroids`: `[K, d]`.
pub fn spherical_kmeans(rows: &[f32], centroids: &mut [f32], d: usize, rounds: usize) -> Vec<u32> {
    let k = centroids.len() / d;
    let (mut scores, mut unit) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let nearest = nearest_centroids(rows, centroids, d, &mut scores);
        let (mut sums, mut counts) = (vec![0.0_f64; k * d], vec![0_usize; k]);
        for (row, &centroid) in rows.chunks_exact(d).zip(&nearest) {
            counts[centroid as usize] += 1;
            let sum = &mut sums[centroid as usize * d..][..d];
            sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        for (centroid, (sum, count)) in
            centroids.chunks_exact_mut(d).zip(sums.chunks_exact(d).zip(&counts)).filter(|(_, (_, n))| **n > 0)
        {
            centroid.iter_mut().zip(sum).for_each(|(c, sum)| *c = (sum / *count as f64) as f32);
        }
        normalize_rows(centroids, d, &mut unit);
        centroids.copy_from_slice(&unit);
    }
    nearest_centroids(rows, centroids, d, &mut scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_centroid_without_rows_stays_and_two_bundles_are_found() {
        let rows: Vec<f32> = [[1.0, 0.1], [1.0, -0.2], [0.1, 1.0], [-0.1, 1.0]].concat();
        let mut unit = Vec::new();
        normalize_rows(&rows, 2, &mut unit);
        let mut centroids = vec![0.8, 0.6, 0.6, 0.8, -1.0, 0.0];
        let nearest = spherical_kmeans(&unit, &mut centroids, 2, 10);
        assert_eq!(nearest, [0, 0, 1, 1]);
        assert_eq!(centroids[4..], [-1.0, 0.0]);
        let length = |c: &[f32]| c.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!(centroids.chunks_exact(2).all(|c| (length(c) - 1.0).abs() < 1e-6));
    }

    #[test]
    fn of_equal_centroids_the_first_is_taken() {
        assert_eq!(nearest_centroids(&[1.0, 0.0], &[0.0, 1.0, 1.0, 0.0, 1.0, 0.0], 2, &mut Vec::new()), [1]);
    }
}
