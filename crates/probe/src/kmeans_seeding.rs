//! Where k-means starts: k-means++ (Arthur and Vassilvitskii, 2007) in its greedy form, on a sample of the rows.
//!
//! The first centre is a row by chance; every further one is a row drawn in proportion to its squared distance from the
//! nearest centre so far. Of `2 + ln m` rows drawn so, the one that leaves the least total distance is taken (as
//! scikit-learn does). A sample of some ten thousand rows finds the same regions as all of them, and needs no pass over
//! the rows per centre.

use kernels::{Matrix, MatrixMut, Threads, gemm};
use ndarray::Array2;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::kmeans_rows::PreparedRows;

/// Rows that are looked at, at least.
const SAMPLE: usize = 16_384;
/// Rows of the sample per centre, at least.
const PER_CENTRE: usize = 64;

/// Prepared rows to start from, `[m, d]`. Fewer different rows than centres give equal centres.
pub(crate) fn seed_centres(rows: &PreparedRows<'_>, m: usize, d: usize, rng: &mut ChaCha8Rng) -> Array2<f32> {
    let sample = sample(rows, SAMPLE.max(PER_CENTRE * m), d, rng); // [s, d]
    let (s, points) = (sample.nrows(), sample.as_slice().expect("made in standard layout"));
    let squares: Vec<f64> =
        sample.outer_iter().map(|row| row.iter().map(|&x| f64::from(x).powi(2)).sum()).collect();
    let trials = 2 + (m as f64).ln() as usize;
    let mut nearest = vec![f64::INFINITY; s]; // squared distance to the nearest centre
    let mut chosen = Vec::with_capacity(m);
    for centre in 0..m {
        let candidates: Vec<usize> = if centre == 0 {
            vec![rng.random_range(0..s)]
        } else {
            (0..trials).map(|_| draw(&nearest, rng)).collect()
        };
        let mut products = vec![0.0; candidates.len() * s]; // [trials, s]
        let drawn: Vec<f32> = candidates.iter().flat_map(|&i| sample.row(i).to_vec()).collect();
        let factors = (Matrix::new(&drawn, candidates.len(), d), Matrix::new(points, s, d).t());
        gemm(
            MatrixMut::new(&mut products, candidates.len(), s),
            0.0,
            1.0,
            factors.0,
            factors.1,
            Threads::All,
        );
        let after = |trial: usize| -> Vec<f64> {
            let own = squares[candidates[trial]];
            let products = &products[trial * s..][..s];
            let distance = |i: usize| (squares[i] + own - 2.0 * f64::from(products[i])).max(0.0);
            (0..s).map(|i| if i == candidates[trial] { 0.0 } else { nearest[i].min(distance(i)) }).collect()
        };
        let total = |distances: &[f64]| distances.iter().sum::<f64>();
        let (mut best, mut taken) = (after(0), candidates[0]);
        for (trial, &candidate) in candidates.iter().enumerate().skip(1) {
            let other = after(trial);
            if total(&other) < total(&best) {
                (best, taken) = (other, candidate);
            }
        }
        nearest = best;
        chosen.push(taken);
    }
    sample.select(ndarray::Axis(0), &chosen)
}

/// Different rows by chance, in their order, `[s, d]`; all of them where there are no more than `most`.
fn sample(rows: &PreparedRows<'_>, most: usize, d: usize, rng: &mut ChaCha8Rng) -> Array2<f32> {
    let n = rows.len();
    let mut at: Vec<usize> =
        if n <= most { (0..n).collect() } else { rand::seq::index::sample(rng, n, most).into_vec() };
    at.sort_unstable();
    let mut sample = Array2::zeros((at.len(), d));
    for (mut row, i) in sample.outer_iter_mut().zip(at) {
        rows.load(i, row.as_slice_mut().expect("made in standard layout"));
    }
    sample
}

/// An index in proportion to the weights; any one if all are zero.
fn draw(weights: &[f64], rng: &mut ChaCha8Rng) -> usize {
    let total: f64 = weights.iter().sum();
    let point = rng.random_range(0.0..1.0) * total;
    let mut sum = 0.0;
    let reached = weights.iter().position(|&weight| {
        sum += weight;
        sum > point
    });
    reached.unwrap_or_else(|| rng.random_range(0..weights.len()))
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::KMeansMetric;

    #[test]
    fn far_groups_all_get_a_centre() {
        // Ten groups, one of them of three rows only: chance alone would miss it.
        let rows = Array2::from_shape_fn((20_003, 3), |(i, j)| {
            let group = if i >= 20_000 { 9 } else { i % 9 };
            100.0 * ((group * 3 + j * j) as f32).sin() + ((i * 7 + j) as f32).cos()
        });
        for seed in 0..5 {
            let prepared = PreparedRows::new(rows.view(), KMeansMetric::Euclidean);
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let centres = seed_centres(&prepared, 9, 3, &mut rng);
            for (i, a) in centres.outer_iter().enumerate() {
                assert!(
                    centres.outer_iter().take(i).all(|b| (&a - &b).mapv(|x| x * x).sum() > 100.0),
                    "{centres}"
                );
            }
        }
    }

    #[test]
    fn equal_rows_give_equal_centres() {
        let rows = Array2::from_elem((5, 2), 1.0);
        let prepared = PreparedRows::new(rows.view(), KMeansMetric::Cosine);
        let centres = seed_centres(&prepared, 7, 2, &mut ChaCha8Rng::seed_from_u64(0));
        assert!(centres.dim() == (7, 2) && centres.outer_iter().all(|row| row == centres.row(0)));
    }

    #[test]
    fn draws_are_in_proportion() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut times = [0_u32; 4];
        (0..8000).for_each(|_| times[draw(&[1.0, 0.0, 3.0, 4.0], &mut rng)] += 1);
        assert!(times[1] == 0 && times[0].abs_diff(1000) < 100 && times[2].abs_diff(3000) < 150, "{times:?}");
    }
}
