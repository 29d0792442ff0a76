//! k-means as an unsupervised probe: Lloyd's iterations by cosine or by distance, on rows in memory.
//!
//! By cosine (spherical k-means, Dhillon and Modha, 2001), rows are directions and a centre is the direction of the sum
//! of its rows: what the [`ClusterProbe`] approaches by gradient steps on batches. By distance, a centre is the mean of
//! its rows. Both begin with greedy k-means++, take the best of some restarts, and give a centre that has lost all its
//! rows the row that is farthest from its own.
//!
//! Scores are affine in the token, `x · c − ‖c‖² / 2` by distance, so that the best upsampled score is the centre
//! nearest to the upsampled token.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::error::expect_range;
use crate::kmeans_rows::{Centres, Pass, PreparedRows};
use crate::kmeans_seeding::seed_centres;
use crate::labelled_rows::check_finite;
use crate::{ClusterProbe, Error, LinearProbe, Probe, Result};

/// What is near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KMeansMetric {
    /// The largest cosine.
    Cosine,
    /// The smallest Euclidean distance.
    Euclidean,
}

/// A k-means that is not fitted yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KMeansParams {
    /// Number of clusters `m`, 1 to 256.
    pub clusters: usize,
    /// What is near.
    pub metric: KMeansMetric,
    /// Most iterations of one start.
    pub iterations: usize,
    /// Stop when the squared movements of all centres sum to this share of the mean variance of a feature
    /// (scikit-learn's rule); 0 goes on until no row changes its cluster.
    pub tolerance: f64,
    /// Starts, of which the one with the least inertia is kept; at least 1.
    pub restarts: usize,
    /// Of the draws.
    pub seed: u64,
}

/// Fitted centres.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeans {
    /// What is near.
    pub metric: KMeansMetric,
    /// `[m, k]`; by cosine of length 1.
    pub centres: Array2<f32>,
    /// `[m]`: rows nearest to each.
    pub counts: Vec<u64>,
    /// Mean over the rows of the squared distance to the nearest centre; by cosine that is `2 − 2 cos`.
    pub inertia: f64,
    /// Iterations of the best start.
    pub iterations: usize,
    /// Whether it stopped by itself.
    pub converged: bool,
}

impl KMeansParams {
    /// `clusters` clusters by `metric`: one start, at most 100 iterations, scikit-learn's tolerance of 1e-4, seed 0.
    #[must_use]
    pub fn new(clusters: usize, metric: KMeansMetric) -> Self {
        Self { clusters, metric, iterations: 100, tolerance: 1e-4, restarts: 1, seed: 0 }
    }

    /// Fits the centres. The same parameters and rows give the same bits, for any number of threads.
    ///
    /// * `rows`: `[n, k]`, for example tokens of the training images, a sample of them where they do not fit in memory.
    ///
    /// # Errors
    /// [`Error::Empty`] without rows; [`Error::Range`] for parameters out of range or features that are not finite.
    ///
    /// ```
    /// use ndarray::array;
    /// use probe::{KMeansMetric, KMeansParams};
    ///
    /// let rows = array![[0.0, 1.0], [0.2, 1.0], [9.0, 1.0], [9.4, 1.0]];
    /// let fitted = KMeansParams::new(2, KMeansMetric::Euclidean).fit(rows.view())?;
    /// assert_eq!(fitted.counts, [2, 2]);
    /// assert!((fitted.inertia - (0.01 + 0.04) / 2.0).abs() < 1e-6);
    /// # Ok::<(), probe::Error>(())
    /// ```
    pub fn fit(&self, rows: ArrayView2<'_, f32>) -> Result<KMeans> {
        expect_range((1..=256).contains(&self.clusters), "number of clusters", "1 to 256", self.clusters)?;
        expect_range(self.restarts > 0, "number of starts", "at least 1", self.restarts)?;
        let tolerance = self.tolerance;
        expect_range(
            tolerance.is_finite() && tolerance >= 0.0,
            "tolerance",
            "0 or a positive number",
            tolerance,
        )?;
        if rows.is_empty() {
            return Err(Error::Empty("set of rows"));
        }
        check_finite("rows", rows)?;
        let prepared = PreparedRows::new(rows, self.metric);
        let mut best = self.start(&prepared, rows.ncols(), 0);
        for restart in 1..self.restarts {
            let other = self.start(&prepared, rows.ncols(), restart);
            if other.inertia < best.inertia {
                best = other;
            }
        }
        // Back from prepared rows.
        best.centres += &ndarray::aview1(&prepared.shift);
        Ok(best)
    }

    /// One start; its centres are prepared ones.
    fn start(&self, rows: &PreparedRows<'_>, d: usize, restart: usize) -> KMeans {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(restart as u64);
        let mut centres = seed_centres(rows, self.clusters, d, &mut rng);
        let mut pass = rows.pass(&self.compared(&centres));
        let (mut iterations, mut converged) = (0, false);
        while iterations < self.iterations && !converged {
            iterations += 1;
            refill(rows, &mut pass);
            let moved = self.next(&pass, &centres);
            let movement = (&moved - &centres).iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
            centres = moved;
            let before = std::mem::replace(&mut pass, rows.pass(&self.compared(&centres)));
            converged = movement <= self.tolerance * rows.variance || before.labels == pass.labels;
        }
        let Pass { counts, .. } = &pass;
        KMeans {
            metric: self.metric,
            counts: counts.clone(),
            inertia: pass.inertia(),
            centres,
            iterations,
            converged,
        }
    }

    /// Centres as rows are compared with them.
    fn compared<'a>(&self, points: &'a Array2<f32>) -> Centres<'a> {
        let half = |row: ndarray::ArrayView1<'_, f32>| match self.metric {
            KMeansMetric::Cosine => 0.5, // of a direction: so that distances come out right
            KMeansMetric::Euclidean => (0.5 * row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>()) as f32,
        };
        Centres { points, offsets: points.outer_iter().map(half).collect() }
    }

    /// The centres of the sums; one that has none stays where it was.
    fn next(&self, pass: &Pass, before: &Array2<f32>) -> Array2<f32> {
        let mut centres = before.clone();
        for ((mut centre, sum), &count) in
            centres.outer_iter_mut().zip(pass.sums.outer_iter()).zip(&pass.counts)
        {
            let length = match self.metric {
                KMeansMetric::Cosine => sum.dot(&sum).sqrt(),
                KMeansMetric::Euclidean => count as f64,
            };
            if length > 1e-12 {
                centre.zip_mut_with(&sum, |to, &sum| *to = (sum / length) as f32);
            }
        }
        centres
    }
}

/// Gives every cluster without rows the row that is farthest from its centre, in order of distance; rows at their
/// centre stay.
fn refill(rows: &PreparedRows<'_>, pass: &mut Pass) {
    let empty: Vec<usize> = (0..pass.counts.len()).filter(|&m| pass.counts[m] == 0).collect();
    if empty.is_empty() {
        return;
    }
    let mut farthest: Vec<usize> = (0..pass.distances.len()).collect();
    farthest.sort_by(|&a, &b| pass.distances[b].total_cmp(&pass.distances[a]).then(a.cmp(&b)));
    let mut row = vec![0.0; pass.sums.ncols()];
    let mut next = farthest.into_iter();
    for cluster in empty {
        let alone = |&i: &usize| pass.counts[pass.labels[i] as usize] > 1;
        let Some(i) = next.find(alone).filter(|&i| pass.distances[i] > 0.0) else { return };
        let from = std::mem::replace(&mut pass.labels[i], cluster as u32) as usize;
        rows.load(i, &mut row);
        for (j, &x) in row.iter().enumerate() {
            pass.sums[[from, j]] -= f64::from(x);
            pass.sums[[cluster, j]] += f64::from(x);
        }
        pass.counts[from] -= 1;
        pass.counts[cluster] += 1;
    }
}

impl KMeans {
    /// The centres as a probe that compares by cosine; for centres fitted by distance, that is another assignment.
    #[must_use]
    pub fn cluster_probe(&self) -> ClusterProbe {
        ClusterProbe { centres: self.centres.clone() }
    }

    /// The probe with the same predictions, of one linear score per cluster.
    ///
    /// By distance it is `x · (c − a) − (‖c‖² − ‖a‖²) / 2` with `a` the mean centre: what is common to all is left out,
    /// for accuracy.
    #[must_use]
    pub fn linear_probe(&self) -> LinearProbe {
        let m = self.centres.nrows();
        if self.metric == KMeansMetric::Cosine {
            return LinearProbe { weight: self.centres.clone(), bias: Array1::zeros(m) };
        }
        let centres = self.centres.mapv(f64::from);
        let middle = centres.sum_axis(Axis(0)) / m.max(1) as f64;
        let apart = &centres - &middle;
        let bias = (&apart * &(&centres + &middle)).sum_axis(Axis(1)).mapv(|x| (-0.5 * x) as f32);
        LinearProbe { weight: apart.mapv(|x| x as f32), bias }
    }
}

impl Probe for KMeans {
    fn outputs(&self) -> usize {
        self.centres.nrows()
    }

    /// Those of [`KMeans::linear_probe`].
    fn scores(&self, tokens: ArrayView2<'_, f32>) -> Array2<f32> {
        self.linear_probe().scores(tokens)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{array, s};
    use rand::Rng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    const METRICS: [KMeansMetric; 2] = [KMeansMetric::Cosine, KMeansMetric::Euclidean];

    /// `m` groups of directions, of different lengths, and the group of each row.
    fn groups(n: usize, d: usize, m: usize, seed: u64) -> (Array2<f32>, Vec<usize>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let middles = Array2::<f32>::from_shape_simple_fn((m, d), || StandardNormal.sample(&mut rng));
        let of: Vec<usize> = (0..n).map(|_| rng.random_range(0..m)).collect();
        let rows = Array2::from_shape_fn((n, d), |(i, j)| {
            let noise: f32 = StandardNormal.sample(&mut rng);
            middles[[of[i], j]] + 0.1 * noise
        });
        (rows, of)
    }

    fn params(m: usize, metric: KMeansMetric) -> KMeansParams {
        KMeansParams { restarts: 3, ..KMeansParams::new(m, metric) }
    }

    #[test]
    fn finds_groups_that_are_there() {
        let (rows, of) = groups(3000, 12, 6, 0);
        for metric in METRICS {
            let fitted = params(6, metric).fit(rows.view()).unwrap();
            let scores = fitted.scores(rows.view());
            let mut seen = std::collections::BTreeSet::new();
            for (row, &group) in scores.outer_iter().zip(&of) {
                let best = (0..6).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
                seen.insert((group, best));
            }
            assert_eq!(seen.len(), 6, "{metric:?}: groups are clusters, {seen:?}");
            assert!(fitted.converged && fitted.counts.iter().sum::<u64>() == 3000);
        }
    }

    #[test]
    fn centres_are_means_and_inertia_is_what_it_says() {
        let (rows, _) = groups(900, 5, 4, 1);
        for metric in METRICS {
            let fitted = KMeansParams { tolerance: 0.0, ..params(7, metric) }.fit(rows.view()).unwrap();
            assert!(fitted.converged);
            let scores = fitted.scores(rows.view());
            let (mut sums, mut counts, mut inertia) = (Array2::<f64>::zeros((7, 5)), [0; 7], 0.0);
            for (x, row) in rows.outer_iter().zip(scores.outer_iter()) {
                let best = (0..7).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
                let z = x.mapv(f64::from);
                let z = if metric == KMeansMetric::Cosine { &z / z.dot(&z).sqrt() } else { z };
                let apart = &z - &fitted.centres.row(best).mapv(f64::from);
                inertia += apart.dot(&apart) / 900.0;
                counts[best] += 1;
                let mut sum = sums.row_mut(best);
                sum += &z;
            }
            assert_eq!(fitted.counts, counts);
            assert!((fitted.inertia - inertia).abs() < 1e-5 * inertia, "{} for {inertia}", fitted.inertia);
            for (m, mut sum) in sums.outer_iter_mut().enumerate() {
                let length =
                    if metric == KMeansMetric::Cosine { sum.dot(&sum).sqrt() } else { counts[m] as f64 };
                sum /= length;
                assert!((&sum - &fitted.centres.row(m).mapv(f64::from)).iter().all(|x| x.abs() < 1e-5));
            }
        }
    }

    #[test]
    fn by_cosine_lengths_do_not_matter_and_by_distance_offsets_do_not() {
        let (rows, _) = groups(500, 6, 4, 2);
        let mut scaled = rows.clone();
        scaled.outer_iter_mut().enumerate().for_each(|(i, mut row)| row *= 2f32.powi(i as i32 % 9 - 4));
        let fit = |metric, rows: &Array2<f32>| params(4, metric).fit(rows.view()).unwrap();
        assert_eq!(fit(KMeansMetric::Cosine, &rows), fit(KMeansMetric::Cosine, &scaled));
        let far = rows.mapv(|x| (x * 256.0).round() / 256.0);
        let shifted = far.mapv(|x| x + 1024.0);
        let [near, off] = [far, shifted].map(|rows| fit(KMeansMetric::Euclidean, &rows));
        assert_eq!(near.counts, off.counts);
        assert!(near.centres.iter().zip(&off.centres).all(|(a, b)| (a + 1024.0 - b).abs() < 1e-3));
        let scores = off.scores(off.centres.view());
        for (m, row) in scores.outer_iter().enumerate() {
            assert!(row.iter().all(|&score| score <= row[m]), "every centre is nearest to itself");
        }
    }

    #[test]
    fn more_starts_are_never_worse_and_seeds_differ() {
        let (rows, _) = groups(400, 3, 12, 3);
        for metric in METRICS {
            let fit = |restarts, seed| {
                KMeansParams { restarts, seed, ..KMeansParams::new(9, metric) }.fit(rows.view()).unwrap()
            };
            let one = fit(1, 0);
            assert!(fit(8, 0).inertia <= one.inertia);
            assert_ne!(fit(1, 1).centres, one.centres);
        }
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let (rows, _) = groups(9000, 20, 8, 4);
        for metric in METRICS {
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| params(11, metric).fit(rows.view()).unwrap())
            };
            assert_eq!(on(1), on(3));
        }
    }

    #[test]
    fn clusters_without_rows_are_filled_where_there_is_something_to_fill_them_with() {
        let rows = array![[0.0, 0.0], [0.0, 0.1], [9.0, 0.0], [0.0, 9.0]];
        let prepared = PreparedRows::new(rows.view(), KMeansMetric::Euclidean);
        let params = KMeansParams::new(3, KMeansMetric::Euclidean);
        let far = array![[0.0_f32, 0.0], [1e3, 1e3], [-1e3, 1e3]];
        let mut pass = prepared.pass(&params.compared(&far));
        assert_eq!(pass.counts, [4, 0, 0]);
        refill(&prepared, &mut pass);
        assert_eq!((pass.counts.clone(), pass.labels.clone()), (vec![2, 1, 1], vec![0, 0, 1, 2]));
        // Three rows that are two: the third cluster has none, and its centre is where another is.
        let same = array![[1.0, 1.0], [1.0, 1.0], [5.0, 5.0]];
        let fitted = params.fit(same.view()).unwrap();
        assert_eq!((fitted.counts.iter().sum::<u64>(), fitted.inertia), (3, 0.0));
    }

    #[test]
    fn rows_without_direction_have_no_say() {
        let mut rows = groups(50, 4, 2, 5).0;
        rows.slice_mut(s![..5, ..]).fill(0.0);
        let fitted = params(2, KMeansMetric::Cosine).fit(rows.view()).unwrap();
        assert!(fitted.centres.outer_iter().all(|c| (c.dot(&c) - 1.0).abs() < 1e-5));
        let zero = params(2, KMeansMetric::Cosine).fit(Array2::zeros((3, 4)).view()).unwrap();
        assert!(zero.centres.iter().all(|x| x.is_finite()) && zero.inertia.is_finite());
    }

    #[test]
    fn misfits_are_refused() {
        let rows = groups(10, 3, 2, 6).0;
        let fit = |params: KMeansParams, rows: &Array2<f32>| params.fit(rows.view()).map(drop);
        let good = params(2, KMeansMetric::Cosine);
        assert!(fit(KMeansParams { clusters: 0, ..good }, &rows).is_err());
        assert!(fit(KMeansParams { restarts: 0, ..good }, &rows).is_err());
        assert!(fit(KMeansParams { tolerance: f64::NAN, ..good }, &rows).is_err());
        assert!(matches!(fit(good, &Array2::zeros((0, 3))), Err(Error::Empty(_))));
        let mut broken = rows;
        broken[[3, 1]] = f32::INFINITY;
        assert!(matches!(fit(good, &broken), Err(Error::Range { what: "rows", .. })));
    }
}
