//! Exact nearest neighbours of rows, by products of blocks.
//!
//! A block of queries times a block of the set gives approximate distances in 32 bits; the best few of them, and some more than
//! asked for, are then computed anew in 64 bits and put in order, equal ones by their index. So distances do not suffer from
//! the cancellation in `‖a‖² + ‖b‖² − 2 ab`, duplicates have distance 0, and the result depends neither on the number of
//! threads nor on the queries beside one. This is no index: the cost is `n` products of width `d` per query.

use kernels::{Level, RowMap};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use crate::metric::Metric;
use crate::{Error, Result};

/// Rows of the set that are multiplied at a time.
const SET_BLOCK: usize = 4096;
/// Queries that are multiplied at a time.
const QUERY_BLOCK: usize = 768;
/// Candidates beyond those asked for, so that a rounding of a 32-bit distance loses no neighbour.
const MORE: usize = 8;

/// The `k` nearest rows of each query, nearest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// Indices into the set, `[n, k]`.
    pub indices: Array2<u32>,
    /// Distances, `[n, k]`.
    pub distances: Array2<f64>,
}

/// Rows `[n, d]` in which neighbours are searched.
#[derive(Debug, Clone, PartialEq)]
pub struct NeighbourSet {
    metric: Metric,
    /// Rows less `origin` (Euclidean) or of length 1 (cosine), `[n, d]`.
    rows: Array2<f32>,
    /// Subtracted from rows, `[d]`: products of centred rows cancel less. Zeros for the cosine.
    origin: Array1<f32>,
    /// `‖row‖² / 2` (Euclidean) or zeros, `[n]`.
    half: Vec<f32>,
    /// The rows in blocks, as right-hand sides of products.
    blocks: Vec<RowMap>,
}

/// Candidates of one query, nearest first.
#[derive(Clone)]
struct Best {
    most: usize,
    /// `(score, index)`; a low score is near.
    found: Vec<(f32, u32)>,
}

impl Best {
    fn new(most: usize) -> Self {
        Self { most, found: Vec::with_capacity(most + 1) }
    }

    /// Scores above this one need not be offered.
    fn bound(&self) -> f32 {
        if self.found.len() < self.most { f32::INFINITY } else { self.found[self.most - 1].0 }
    }

    /// Offers a candidate; of equal ones the first stays.
    fn offer(&mut self, score: f32, index: u32) {
        let at = self.found.partition_point(|&(other, _)| other <= score);
        self.found.insert(at, (score, index));
        self.found.truncate(self.most);
    }
}

impl NeighbourSet {
    /// The rows `[n, d]` as a set to search in.
    ///
    /// # Errors
    /// [`Error::NonFinite`]; [`Error::Invalid`] for no rows, or more than 32 bits count.
    pub fn new(rows: ArrayView2<'_, f32>, metric: Metric) -> Result<Self> {
        if rows.is_empty() || u32::try_from(rows.nrows()).is_err() {
            return Err(Error::Invalid {
                what: "the number of rows to search in",
                expected: "between 1 and 2^32 - 1",
                got: rows.nrows().to_string(),
            });
        }
        check_finite(rows)?;
        let d = rows.ncols();
        let origin = match metric {
            Metric::Cosine => Array1::zeros(d),
            Metric::Euclidean => {
                let sums = rows.fold_axis(Axis(0), 0.0_f64, |sum, &x| sum + f64::from(x));
                sums.mapv(|sum| (sum / rows.nrows() as f64) as f32)
            }
        };
        let rows = prepared(rows, metric, origin.view());
        let half = match metric {
            Metric::Cosine => vec![0.0; rows.nrows()],
            Metric::Euclidean => rows.rows().into_iter().map(|row| (squared(row) / 2.0) as f32).collect(),
        };
        let zeros = vec![0.0; d];
        let blocks = (rows.axis_chunks_iter(Axis(0), SET_BLOCK).into_par_iter())
            .map(|block| {
                let transposed = block.t().as_standard_layout().into_owned(); // [d, block]
                RowMap::new(
                    Level::current(),
                    &zeros,
                    transposed.as_slice().expect("an array in standard layout"),
                    block.nrows(),
                )
            })
            .collect();
        Ok(Self { metric, rows, origin, half, blocks })
    }

    /// `n`, the rows of the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.nrows()
    }

    /// Never: there is no empty set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// `d`, their width.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.rows.ncols()
    }

    /// The `k` nearest rows of the set for each of `queries`, `[q, d]`.
    ///
    /// # Errors
    /// [`Error::Width`], [`Error::NonFinite`], [`Error::Dimension`] unless `1 ≤ k ≤ n`.
    pub fn nearest(&self, queries: ArrayView2<'_, f32>, k: usize) -> Result<Neighbours> {
        if queries.ncols() != self.dim() {
            return Err(Error::Width { expected: self.dim(), got: queries.ncols() });
        }
        check_finite(queries)?;
        self.search(&prepared(queries, self.metric, self.origin.view()), k, |_| None)
    }

    /// The `k` nearest *other* rows of each row of the set itself.
    ///
    /// # Errors
    /// [`Error::Dimension`] unless `1 ≤ k < n`.
    pub fn nearest_of_each(&self, k: usize) -> Result<Neighbours> {
        if k >= self.len() {
            return Err(Error::Dimension { asked: k, available: self.len() - 1 });
        }
        self.search(&self.rows, k, |row| Some(row as u32))
    }

    /// Searches for prepared queries; `not` names a row that does not count for a query.
    fn search(
        &self,
        queries: &Array2<f32>,
        k: usize,
        not: impl Fn(usize) -> Option<u32> + Sync,
    ) -> Result<Neighbours> {
        if k == 0 || k > self.len() {
            return Err(Error::Dimension { asked: k, available: self.len() });
        }
        let (q, d) = queries.dim();
        let numbers = queries.as_slice().expect("queries in standard layout");
        let (mut indices, mut distances) = (Array2::zeros((q, k)), Array2::zeros((q, k)));
        let mut products = vec![0.0; QUERY_BLOCK.min(q) * SET_BLOCK.min(self.len())];
        for first in (0..q).step_by(QUERY_BLOCK) {
            let last = (first + QUERY_BLOCK).min(q);
            let mut best = vec![Best::new((k + MORE).min(self.len())); last - first];
            for (block, map) in self.blocks.iter().enumerate() {
                let width = map.sizes().1;
                let products = &mut products[..(last - first) * width]; // [queries, set]
                map.apply(&numbers[first * d..last * d], products);
                let half = &self.half[block * SET_BLOCK..][..width];
                (best.par_iter_mut().zip(products.par_chunks_exact(width)).enumerate()).for_each(
                    |(i, (best, products))| offer(best, block * SET_BLOCK, half, products, not(first + i)),
                );
            }
            let exact: Vec<Vec<(f64, u32)>> = (best.into_par_iter().enumerate())
                .map(|(i, best)| self.in_order(queries.row(first + i), &best.found))
                .collect();
            for (row, exact) in (first..last).zip(exact) {
                for (j, &(distance, index)) in exact.iter().take(k).enumerate() {
                    (indices[[row, j]], distances[[row, j]]) = (index, distance);
                }
            }
        }
        Ok(Neighbours { indices, distances })
    }

    /// Candidates by their distances in 64 bits, nearest first, equal ones by index.
    fn in_order(&self, query: ArrayView1<'_, f32>, found: &[(f32, u32)]) -> Vec<(f64, u32)> {
        let distance = |index: u32| (self.distance(query, self.rows.row(index as usize)), index);
        let mut exact: Vec<_> = found.iter().map(|&(_, index)| distance(index)).collect();
        exact.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        exact
    }

    /// Of each row of the set, the ranks of some others among its neighbours; the nearest other row has rank 1.
    ///
    /// * `others`: indices, `[n, k]`, not the row itself; the ranks have the same shape.
    ///
    /// # Panics
    /// If `others` has another number of rows, or names one that there is not.
    pub(crate) fn ranks_of_each(&self, others: ArrayView2<'_, u32>) -> Array2<u32> {
        let (n, d) = self.rows.dim();
        assert_eq!(others.nrows(), n, "others of each row");
        let numbers = self.rows.as_slice().expect("rows in standard layout");
        let mut ranks = Array2::zeros(others.dim());
        let block = (QUERY_BLOCK * SET_BLOCK / n).clamp(1, QUERY_BLOCK);
        let largest = self.half.iter().copied().fold(0.0_f32, f32::max);
        for first in (0..n).step_by(block) {
            let queries = &numbers[first * d..(first + block).min(n) * d];
            let scores: Vec<Vec<f32>> = (self.blocks.iter().enumerate())
                .map(|(block, map)| {
                    let width = map.sizes().1;
                    let mut products = vec![0.0; queries.len() / d * width]; // [queries, set]
                    map.apply(queries, &mut products);
                    for row in products.chunks_exact_mut(width) {
                        row.iter_mut()
                            .zip(&self.half[block * SET_BLOCK..])
                            .for_each(|(x, half)| *x = half - *x);
                    }
                    products
                })
                .collect();
            let mut places = ranks.slice_mut(ndarray::s![first..(first + block).min(n), ..]);
            places.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(i, mut ranks)| {
                let row = first + i;
                let scores = scores.iter().flat_map(|scores| {
                    let width = scores.len() / (queries.len() / d);
                    scores[i * width..(i + 1) * width].iter().copied()
                });
                let scores: Vec<f32> = scores.collect();
                // What 32 bits leave open is decided in 64.
                let open = match self.metric {
                    Metric::Cosine => 1e-5,
                    Metric::Euclidean => 1e-5 * (self.half[row] + largest),
                };
                for (rank, &other) in ranks.iter_mut().zip(others.row(row)) {
                    let exact =
                        |index: usize| (self.distance(self.rows.row(row), self.rows.row(index)), index);
                    let (score, own) = (scores[other as usize], exact(other as usize));
                    let nearer = scores.iter().enumerate().filter(|&(index, &x)| {
                        index != row && x <= score + open && (x < score - open || exact(index) < own)
                    });
                    *rank = 1 + nearer.count() as u32;
                }
            });
        }
        ranks
    }

    /// The distance of two prepared rows in 64 bits.
    fn distance(&self, a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f64 {
        match self.metric {
            Metric::Euclidean => {
                let square = |(&a, &b): (&f32, &f32)| (f64::from(a) - f64::from(b)).powi(2);
                a.iter().zip(b).map(square).sum::<f64>().sqrt()
            }
            Metric::Cosine => {
                let product: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                match (squared(a), squared(b)) {
                    (0.0, 0.0) => 0.0,
                    (0.0, _) | (_, 0.0) => 1.0,
                    _ if a == b => 0.0,
                    (a, b) => (1.0 - product / (a * b).sqrt()).max(0.0),
                }
            }
        }
    }
}

/// Offers the rows of one block, whose products with the query are at hand.
fn offer(best: &mut Best, first: usize, half: &[f32], products: &[f32], not: Option<u32>) {
    let mut bound = best.bound();
    for (i, (&half, &product)) in half.iter().zip(products).enumerate() {
        let score = half - product;
        // Until there are enough, infinity is welcome as well.
        if score < bound || best.found.len() < best.most {
            let index = (first + i) as u32;
            if not != Some(index) {
                best.offer(score, index);
                bound = best.bound();
            }
        }
    }
}

/// Rows as products need them: less `origin`, or of length 1.
fn prepared(rows: ArrayView2<'_, f32>, metric: Metric, origin: ArrayView1<'_, f32>) -> Array2<f32> {
    let mut rows = rows.as_standard_layout().into_owned();
    match metric {
        Metric::Euclidean => rows -= &origin,
        Metric::Cosine => rows.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut row| {
            let length = squared(row.view()).sqrt();
            if length > 0.0 {
                row.mapv_inplace(|x| (f64::from(x) / length) as f32);
            }
        }),
    }
    rows
}

/// `‖row‖²`.
fn squared(row: ArrayView1<'_, f32>) -> f64 {
    row.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// An error that names the first number that is not finite.
pub(crate) fn check_finite(rows: ArrayView2<'_, f32>) -> Result<()> {
    match rows.indexed_iter().find(|(_, x)| !x.is_finite()) {
        Some(((row, column), &value)) => Err(Error::NonFinite { row, column, value }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn rows(n: usize, d: usize, offset: f32) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
        Array2::from_shape_fn((n, d), |_| offset + rng.random_range(-1.0..1.0f32))
    }

    /// By the definition, in 64 bits.
    fn naive(set: &Array2<f32>, query: ArrayView1<'_, f32>, metric: Metric) -> Vec<(f64, u32)> {
        let mut all: Vec<(f64, u32)> = (set.rows().into_iter().enumerate())
            .map(|(i, row)| {
                let dot = |a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>| {
                    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
                };
                let distance = match metric {
                    Metric::Euclidean => {
                        (&row.mapv(f64::from) - &query.mapv(f64::from)).mapv(|x| x * x).sum().sqrt()
                    }
                    Metric::Cosine => 1.0 - dot(row, query) / (dot(row, row) * dot(query, query)).sqrt(),
                };
                (distance, i as u32)
            })
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all
    }

    #[test]
    fn the_definition() {
        for (metric, offset) in [(Metric::Euclidean, 100.0), (Metric::Cosine, 0.1)] {
            let (set, queries) = (rows(5000, 10, offset), rows(40, 10, offset));
            let found = NeighbourSet::new(set.view(), metric).unwrap().nearest(queries.view(), 7).unwrap();
            for (i, query) in queries.rows().into_iter().enumerate() {
                for (j, want) in naive(&set, query, metric).iter().take(7).enumerate() {
                    assert_eq!(found.indices[[i, j]], want.1, "{metric} {i} {j}");
                    let got = found.distances[[i, j]];
                    assert!((got - want.0).abs() < 1e-6, "{metric}: {got} is not {}", want.0);
                }
            }
        }
    }

    #[test]
    fn a_row_is_not_its_own_neighbour_but_its_duplicate_is() {
        for metric in [Metric::Euclidean, Metric::Cosine] {
            let mut set = rows(300, 5, 0.0);
            let copy = set.row(7).to_owned();
            set.row_mut(200).assign(&copy);
            let found = NeighbourSet::new(set.view(), metric).unwrap().nearest_of_each(3).unwrap();
            assert!(
                found
                    .indices
                    .rows()
                    .into_iter()
                    .enumerate()
                    .all(|(i, row)| !row.iter().any(|&j| j == i as u32))
            );
            assert_eq!((found.indices[[7, 0]], found.distances[[7, 0]]), (200, 0.0));
            assert_eq!((found.indices[[200, 0]], found.distances[[200, 0]]), (7, 0.0));
        }
    }

    #[test]
    fn constant_rows_and_rows_of_zeros() {
        for metric in [Metric::Euclidean, Metric::Cosine] {
            let found = NeighbourSet::new(Array2::zeros((20, 3)).view(), metric)
                .unwrap()
                .nearest_of_each(19)
                .unwrap();
            assert!(found.distances.iter().all(|&x| x == 0.0));
            assert_eq!(found.indices.row(3).to_vec()[..4], [0, 1, 2, 4]); // ties by index
        }
        let mut rows = rows(4, 3, 0.0);
        rows.row_mut(2).fill(0.0);
        let set = NeighbourSet::new(rows.view(), Metric::Cosine).unwrap();
        assert_eq!(set.nearest_of_each(1).unwrap().distances[[2, 0]], 1.0);
    }

    #[test]
    fn threads_and_companions_change_nothing() {
        let (set, queries) = (rows(4500, 6, 0.0), rows(900, 6, 0.0));
        let set = NeighbourSet::new(set.view(), Metric::Cosine).unwrap();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| set.nearest(queries.view(), 5).unwrap())
        };
        let all = run(1);
        assert_eq!(all, run(3));
        for i in [0, 400, 899] {
            let one = set.nearest(queries.slice(ndarray::s![i..=i, ..]), 5).unwrap();
            assert_eq!(one.distances.row(0), all.distances.row(i));
            assert_eq!(one.indices.row(0), all.indices.row(i));
        }
    }

    #[test]
    fn impossible_searches_are_errors() {
        let set = NeighbourSet::new(rows(5, 3, 0.0).view(), Metric::Cosine).unwrap();
        assert!(matches!(set.nearest_of_each(5), Err(Error::Dimension { asked: 5, available: 4 })));
        assert!(matches!(set.nearest(rows(2, 4, 0.0).view(), 1), Err(Error::Width { .. })));
        assert!(NeighbourSet::new(Array2::zeros((0, 3)).view(), Metric::Cosine).is_err());
        assert!(NeighbourSet::new(ndarray::array![[f32::NAN]].view(), Metric::Cosine).is_err());
    }
}
