//! Weighted nearest-neighbour classification of images, as DINO evaluates features (Caron et al., 2021).
//!
//! Rows are L2-normalised. A test row looks at its `k` training rows of largest cosine, and each of them votes
//! `exp(cos / T)` for its class; classes are ranked by the sum of their votes. The search is exact: all cosines are
//! computed, a tile of test rows against a tile of training rows at a time, and a row keeps only its best. One search
//! of the largest `k` serves all smaller ones, because the best `k` begin with the best `k - 1`.
//!
//! Ties go to the lower training row and to the lower class, so the result is the same for any number of threads.

use std::cmp::Ordering;

use kernels::{Matrix, MatrixMut, Threads, gemm};
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::error::{expect_range, expect_shape};
use crate::labelled_rows::check_finite;
use crate::top_accuracy::TOP;
use crate::{Error, LabelledRows, Result, TopAccuracy};

/// Test rows and training rows of a tile: its cosines (1 MiB) stay in the cache of a core.
pub(crate) const TILE: (usize, usize) = (128, 2048);

/// Shorter rows than this count as zero, as in `torch.nn.functional.normalize`.
const SHORTEST: f64 = 1e-12;

/// How neighbours vote. The default is DINO's: 10, 20, 100 and 200 neighbours, temperature 0.07.
#[derive(Debug, Clone, PartialEq)]
pub struct KnnVote {
    /// Numbers of neighbours; each gives a result of its own.
    pub ks: Vec<usize>,
    /// `T` of the vote `exp(cos / T)`. The smaller, the more the nearest decide.
    pub temperature: f64,
}

/// What the neighbours of the test rows voted for, for one `k`.
#[derive(Debug, Clone, PartialEq)]
pub struct KnnRanking {
    /// Number of neighbours.
    pub k: usize,
    /// For every test row the classes with votes, best first, five at most.
    ///
    /// The original also counts classes *without* votes among its five, in no particular order.
    pub ranked: Vec<Vec<u32>>,
}

impl Default for KnnVote {
    fn default() -> Self {
        Self { ks: vec![10, 20, 100, 200], temperature: 0.07 }
    }
}

impl KnnVote {
    /// The classes of the test rows, for every `k` in the order of [`KnnVote::ks`].
    ///
    /// * `test`: `[m, d]`, any `m`; `d` as in `train`.
    ///
    /// ```
    /// use ndarray::array;
    /// use probe::{KnnVote, LabelledRows};
    ///
    /// let rows = array![[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]];
    /// let train = LabelledRows { rows: rows.view(), classes: &[7, 7, 4] };
    /// let vote = KnnVote { ks: vec![1, 3], ..KnnVote::default() };
    /// let rankings = vote.rank(train, array![[0.1, 2.0]].view())?;
    /// assert_eq!((&rankings[0].ranked[0][..], &rankings[1].ranked[0][..]), (&[4][..], &[4, 7][..]));
    /// # Ok::<(), probe::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Range`](crate::Error::Range) if a `k` is 0 or larger than the training set, the temperature not
    /// positive or a feature not finite; [`Error::Shape`](crate::Error::Shape) and
    /// [`Error::Empty`](crate::Error::Empty) for arguments that do not fit.
    pub fn rank(&self, train: LabelledRows<'_>, test: ArrayView2<'_, f32>) -> Result<Vec<KnnRanking>> {
        self.check(train, test)?;
        let (names, dense) = dense_classes(train.classes);
        let most = self.ks.iter().copied().max().unwrap_or(0);
        let (train, test) = (normalised(train.rows), normalised(test));
        let tiles: Vec<_> = test.axis_chunks_iter(Axis(0), TILE.0).collect();
        let rows = tiles.into_par_iter().flat_map_iter(|tile| {
            nearest(tile, train.view(), most)
                .into_iter()
                .map(|neighbours| self.votes(&neighbours, &dense, &names))
        });
        let rows: Vec<Vec<Vec<u32>>> = rows.collect(); // [m][ks][<= 5]
        let mut rankings: Vec<KnnRanking> =
            self.ks.iter().map(|&k| KnnRanking { k, ranked: Vec::with_capacity(rows.len()) }).collect();
        for row in rows {
            rankings.iter_mut().zip(row).for_each(|(ranking, classes)| ranking.ranked.push(classes));
        }
        Ok(rankings)
    }

    pub(crate) fn check(&self, train: LabelledRows<'_>, test: ArrayView2<'_, f32>) -> Result<()> {
        if self.ks.is_empty() {
            return Err(Error::Empty("list of k"));
        }
        train.check("training set")?;
        expect_shape("test rows", &[test.nrows(), train.rows.ncols()], test.shape())?;
        check_finite("test set", test)?;
        let t = self.temperature;
        expect_range(t.is_finite() && t > 0.0, "temperature", "a positive number", t)?;
        let expected = format!("1 to {}, the number of training rows; choose a k in that range", train.len());
        self.ks.iter().try_for_each(|&k| expect_range((1..=train.len()).contains(&k), "k", &expected, k))
    }

    /// Sums of the votes of neighbours, nearest first, for each of some classes.
    pub(crate) fn sums(&self, neighbours: &[Neighbour], class_of_row: &[usize], classes: usize) -> Vec<f64> {
        // Counted from the nearest, so that a low temperature does not overflow: the same factor for all classes.
        let nearest = neighbours.first().map_or(0.0, |n| f64::from(n.cosine));
        let mut sums = vec![0.0; classes];
        for n in neighbours {
            sums[class_of_row[n.row]] += ((f64::from(n.cosine) - nearest) / self.temperature).exp();
        }
        sums
    }

    /// The best classes of one test row for every `k`, from its neighbours, nearest first.
    fn votes(&self, neighbours: &[Neighbour], dense: &[usize], names: &[u32]) -> Vec<Vec<u32>> {
        let one = |&k: &usize| {
            let sums = self.sums(&neighbours[..k], dense, names.len());
            // A far neighbour's vote may round to nothing; it is a vote all the same.
            let mut voted: Vec<usize> = neighbours[..k].iter().map(|n| dense[n.row]).collect();
            voted.sort_unstable();
            voted.dedup();
            voted.sort_by(|&a, &b| f64::total_cmp(&sums[b], &sums[a]));
            voted.into_iter().take(TOP).map(|class| names[class]).collect()
        };
        self.ks.iter().map(one).collect()
    }
}

impl KnnRanking {
    /// How often the ranking is right; top-5 looks at `min(5, k)` classes at most, as that many can have votes.
    ///
    /// * `classes`: `[m]` true classes of the test rows.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for another number of classes than test rows.
    pub fn accuracy(&self, classes: &[u32]) -> Result<TopAccuracy> {
        expect_shape("classes", &[self.ranked.len()], &[classes.len()])?;
        let place = |(ranked, class): (&Vec<u32>, &u32)| ranked.iter().position(|c| c == class);
        Ok(TopAccuracy::from_places(self.ranked.iter().zip(classes).map(place)))
    }
}

/// A training row as a test row sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbour {
    pub(crate) cosine: f32,
    pub(crate) row: usize,
}

impl Neighbour {
    /// Nearest first; of equally near ones, the lower row.
    fn order(&self, other: &Self) -> Ordering {
        other.cosine.total_cmp(&self.cosine).then(self.row.cmp(&other.row))
    }
}

/// The `k` nearest training rows of every test row, nearest first. Both are [`normalised`].
pub(crate) fn nearest(
    test: ArrayView2<'_, f32>,
    train: ArrayView2<'_, f32>,
    k: usize,
) -> Vec<Vec<Neighbour>> {
    let mut best: Vec<Best> = (0..test.nrows()).map(|_| Best::new(k)).collect();
    let d = test.ncols();
    let test = Matrix::new(test.as_slice().expect("standard layout"), test.nrows(), d);
    let mut cosines = vec![0.0; best.len() * TILE.1.min(train.nrows())];
    for (tile, rows) in train.axis_chunks_iter(Axis(0), TILE.1).enumerate() {
        let n = rows.nrows();
        let cosines = &mut cosines[..best.len() * n];
        let rows = Matrix::new(rows.to_slice().expect("standard layout"), n, d);
        gemm(MatrixMut::new(cosines, best.len(), n), 0.0, 1.0, test, rows.t(), Threads::One);
        for (best, cosines) in best.iter_mut().zip(cosines.chunks_exact(n)) {
            (tile * TILE.1..).zip(cosines).for_each(|(row, &cosine)| best.offer(Neighbour { cosine, row }));
        }
    }
    best.into_iter().map(Best::sorted).collect()
}

/// The best `k` of the neighbours offered so far, and up to as many that may have to go: those are thrown out
/// together, by selection, so that most offers cost one comparison.
struct Best {
    k: usize,
    kept: Vec<Neighbour>,
    /// What a neighbour must surpass: the cosine of the last of the best `k` when it was last looked for.
    bar: f32,
}

impl Best {
    fn new(k: usize) -> Self {
        Self { k, kept: Vec::with_capacity(2 * k), bar: f32::NEG_INFINITY }
    }

    /// Rows come in increasing order, so that one at the bar is behind the one that set it.
    fn offer(&mut self, neighbour: Neighbour) {
        if neighbour.cosine <= self.bar {
            return;
        }
        self.kept.push(neighbour);
        if self.kept.len() == 2 * self.k {
            self.kept.select_nth_unstable_by(self.k - 1, Neighbour::order);
            self.kept.truncate(self.k);
            self.bar = self.kept[self.k - 1].cosine;
        }
    }

    fn sorted(mut self) -> Vec<Neighbour> {
        self.kept.sort_unstable_by(Neighbour::order);
        self.kept.truncate(self.k);
        self.kept
    }
}

/// Rows of length 1; zero rows stay zero.
pub(crate) fn normalised(rows: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut rows = rows.as_standard_layout().into_owned();
    rows.outer_iter_mut().into_par_iter().for_each(|mut row| {
        let length = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(SHORTEST);
        row.mapv_inplace(|v| (f64::from(v) / length) as f32);
    });
    rows
}

/// The classes that occur, in increasing order, and for every row the index of its class among them.
fn dense_classes(classes: &[u32]) -> (Vec<u32>, Vec<usize>) {
    let mut names = classes.to_vec();
    names.sort_unstable();
    names.dedup();
    let dense = classes.iter().map(|class| names.partition_point(|name| name < class)).collect();
    (names, dense)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, array};

    use super::*;

    /// The row-major test tensor `sin(i + offset)`.
    fn sines(shape: (usize, usize), offset: f64) -> Array2<f32> {
        Array2::from_shape_fn(shape, |(i, j)| ((i * shape.1 + j) as f64 + offset).sin() as f32)
    }

    /// Rows that repeat nowhere: hashed numbers in `[-1, 1)`.
    fn noise(shape: (usize, usize), seed: u64) -> Array2<f32> {
        Array2::from_shape_fn(shape, |(i, j)| {
            let mut x = (i * shape.1 + j) as u64 ^ seed << 40;
            x = (x ^ x >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            x = (x ^ x >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((x >> 40) as f32) / f32::from(u16::MAX) / 128.0 - 1.0
        })
    }

    fn rank(
        ks: &[usize],
        temperature: f64,
        train: &Array2<f32>,
        classes: &[u32],
        test: &Array2<f32>,
    ) -> Vec<KnnRanking> {
        let vote = KnnVote { ks: ks.to_vec(), temperature };
        vote.rank(LabelledRows { rows: train.view(), classes }, test.view()).unwrap()
    }

    /// As the definition says, without tiles or selection.
    fn by_definition(
        k: usize,
        t: f64,
        train: &Array2<f32>,
        classes: &[u32],
        test: &Array2<f32>,
    ) -> Vec<Vec<u32>> {
        let unit = |row: ndarray::ArrayView1<'_, f32>| -> Array1<f64> {
            let row = row.mapv(f64::from);
            let length = row.dot(&row).sqrt();
            row / length
        };
        let one = |row: ndarray::ArrayView1<'_, f32>| {
            let row = unit(row);
            let mut all: Vec<(f64, u32)> = train
                .outer_iter()
                .zip(classes)
                .map(|(other, &class)| (row.dot(&unit(other)), class))
                .collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut votes = std::collections::BTreeMap::<u32, f64>::new();
            all[..k]
                .iter()
                .for_each(|(cosine, class)| *votes.entry(*class).or_default() += (cosine / t).exp());
            let mut votes: Vec<_> = votes.into_iter().collect();
            votes.sort_by(|a, b| b.1.total_cmp(&a.1));
            votes.into_iter().take(5).map(|(class, _)| class).collect()
        };
        test.outer_iter().map(one).collect()
    }

    #[test]
    fn the_published_vote() {
        // `tests/golden/classify/make.py` has the votes by torch.
        let rankings = rank(&[3], 0.07, &sines((6, 4), 0.0), &[0, 1, 2, 0, 1, 2], &sines((2, 4), 3.3));
        assert_eq!(rankings[0].ranked.iter().map(|r| r[0]).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(rankings[0].accuracy(&[1, 0]).unwrap().top1, 0.5);
    }

    #[test]
    fn tiles_and_selection_change_nothing() {
        let (train, test) = (noise((5000, 12), 1), noise((300, 12), 2));
        let classes: Vec<u32> = (0..5000).map(|i| i * 7 % 11 * 100).collect();
        let ks = [1, 7, 50, 200];
        for ranking in rank(&ks, 0.07, &train, &classes, &test) {
            assert_eq!(
                ranking.ranked,
                by_definition(ranking.k, 0.07, &train, &classes, &test),
                "{}",
                ranking.k
            );
        }
    }

    #[test]
    fn the_length_of_a_row_does_not_matter() {
        let (mut train, mut test) = (noise((60, 8), 3), noise((9, 8), 4));
        let classes: Vec<u32> = (0..60).map(|i| i % 4).collect();
        let before = rank(&[1, 5, 20], 0.1, &train, &classes, &test);
        train.outer_iter_mut().enumerate().for_each(|(i, mut row)| row *= 2f32.powi(i as i32 % 40 - 20));
        test *= 1024.0;
        assert_eq!(rank(&[1, 5, 20], 0.1, &train, &classes, &test), before);
    }

    #[test]
    fn the_order_of_the_training_rows_does_not_matter() {
        let (train, test) = (noise((3001, 8), 5), noise((40, 8), 6));
        let classes: Vec<u32> = (0..3001).map(|i| i % 6).collect();
        let order: Vec<usize> = (0..3001).map(|i| i * 1000 % 3001).collect();
        let shuffled: Vec<u32> = order.iter().map(|&i| classes[i]).collect();
        let other = rank(&[1, 30], 0.07, &train.select(Axis(0), &order), &shuffled, &test);
        assert_eq!(rank(&[1, 30], 0.07, &train, &classes, &test), other);
    }

    #[test]
    fn all_neighbours_at_a_high_temperature_vote_by_frequency() {
        let train = noise((100, 5), 7);
        let classes: Vec<u32> = (0..100)
            .map(|i| {
                if i < 20 {
                    3
                } else if i < 70 {
                    8
                } else {
                    1
                }
            })
            .collect();
        let rankings = rank(&[100], 1e9, &train, &classes, &noise((4, 5), 8));
        assert_eq!(rankings[0].ranked, vec![vec![8, 1, 3]; 4]);
    }

    #[test]
    fn equal_rows_are_taken_from_the_first_on() {
        let train = Array2::from_elem((5000, 3), 0.5);
        let classes: Vec<u32> = (0..5000).map(|i| u32::from(i >= 3)).collect();
        let rankings = rank(&[3, 6, 7], 0.07, &train, &classes, &array![[1.0, 1.0, 1.0]]);
        let ranked: Vec<_> = rankings.iter().map(|r| r.ranked[0].clone()).collect();
        assert_eq!(ranked, [vec![0], vec![0, 1], vec![1, 0]]); // 3 : 3 goes to the lower class
    }

    #[test]
    fn low_temperatures_do_not_overflow_and_zero_rows_have_no_direction() {
        let train = array![[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]];
        let rankings = rank(&[3], 1e-6, &train, &[0, 1, 2], &array![[0.1, 1.0], [1.0, 0.0]]);
        assert_eq!(rankings[0].ranked, [[1, 0, 2], [0, 1, 2]]);
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let (train, test) = (noise((2500, 16), 9), noise((513, 16), 10));
        let classes: Vec<u32> = (0..2500).map(|i| i % 9).collect();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| rank(&[10, 20, 100, 200], 0.07, &train, &classes, &test))
        };
        assert_eq!(on(1), on(5));
    }

    #[test]
    fn five_classes_at_most_are_looked_at() {
        let ranking = KnnRanking { k: 20, ranked: vec![vec![4, 3, 2, 1, 0], vec![9]] };
        assert_eq!(ranking.accuracy(&[0, 4]).unwrap(), TopAccuracy { top1: 0.0, top5: 0.5 });
        assert!(matches!(ranking.accuracy(&[0]), Err(Error::Shape { what: "classes", .. })));
    }

    #[test]
    fn misfits_are_refused_with_what_to_do() {
        let (train, test) = (noise((6, 4), 0), noise((2, 4), 1));
        let rank = |ks: &[usize], temperature, test: &Array2<f32>| {
            let vote = KnnVote { ks: ks.to_vec(), temperature };
            vote.rank(LabelledRows { rows: train.view(), classes: &[0; 6] }, test.view()).map(drop)
        };
        assert!(rank(&[6], 0.07, &test).is_ok());
        assert_eq!(
            rank(&[1, 20], 0.07, &test).unwrap_err().to_string(),
            "k is 20, expected 1 to 6, the number of training rows; choose a k in that range"
        );
        assert!(matches!(rank(&[], 0.07, &test), Err(Error::Empty("list of k"))));
        assert!(matches!(rank(&[0], 0.07, &test), Err(Error::Range { what: "k", .. })));
        assert!(matches!(rank(&[1], 0.0, &test), Err(Error::Range { what: "temperature", .. })));
        assert!(matches!(rank(&[1], 0.07, &noise((2, 5), 1)), Err(Error::Shape { what: "test rows", .. })));
        let broken = array![[0.0, f32::INFINITY, 0.0, 0.0]];
        assert!(matches!(rank(&[1], 0.07, &broken), Err(Error::Range { what: "test set", .. })));
        assert!(rank(&[1], 0.07, &Array2::zeros((0, 4))).is_ok());
    }
}
