//! One pass of k-means over all rows: which centre is nearest, and the sums that the next centres are made of.
//!
//! Rows are seen *prepared*: as directions (`x / ‖x‖`) or centred (`x − mean`, so that an offset costs no digits).
//! Nearest by cosine or by distance is then the same thing, the largest `z · c − b` with `b` 0 or `‖c‖² / 2`. A block
//! of prepared rows stays in a core's cache while it is compared with all centres (one matrix product) and added to the
//! sums of its nearest ones, so that the rows are read from memory once.
//!
//! Tasks are ranges of rows whose number depends on `n` alone, and their 64-bit sums are added in order: the same bits
//! for any number of threads.

use kernels::{Matrix, MatrixMut, Threads, gemm};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::kmeans::KMeansMetric;

/// Rows prepared and compared together.
const BLOCK: usize = 256;
/// Rows of a task, unless that makes too many of them.
const TASK: usize = 2048;
/// Most tasks: each has its own sums.
const TASKS: usize = 256;
/// Shorter rows than this have no direction.
const SHORTEST: f64 = 1e-12;

/// Rows as k-means sees them.
pub(crate) struct PreparedRows<'a> {
    rows: ArrayView2<'a, f32>,
    /// `[d]`, subtracted; zero for directions.
    pub(crate) shift: Vec<f32>,
    /// `[n]`, multiplied; empty for distances.
    scale: Vec<f32>,
    /// `[n]`: squared lengths of prepared rows.
    squares: Vec<f32>,
    /// Mean over the features of the variance of prepared rows.
    pub(crate) variance: f64,
}

/// Centres that rows are compared with.
pub(crate) struct Centres<'a> {
    /// `[m, d]`, prepared.
    pub(crate) points: &'a Array2<f32>,
    /// `[m]`, what is taken from the product.
    pub(crate) offsets: Vec<f32>,
}

/// What a pass found.
pub(crate) struct Pass {
    /// `[m, d]`: sum of the prepared rows nearest to each centre.
    pub(crate) sums: Array2<f64>,
    /// `[m]`.
    pub(crate) counts: Vec<u64>,
    /// `[n]`: the nearest centre; the lowest of equally near ones.
    pub(crate) labels: Vec<u32>,
    /// `[n]`: squared distance to it, of prepared rows.
    pub(crate) distances: Vec<f32>,
}

impl Pass {
    /// Mean over the rows of the squared distance to the nearest centre.
    pub(crate) fn inertia(&self) -> f64 {
        self.distances.iter().map(|&d| f64::from(d)).sum::<f64>() / self.distances.len() as f64
    }
}

impl<'a> PreparedRows<'a> {
    /// * `rows`: `[n, d]`, finite, `n ≥ 1`.
    pub(crate) fn new(rows: ArrayView2<'a, f32>, metric: KMeansMetric) -> Self {
        let d = rows.ncols();
        let (n, cosine) = (rows.nrows() as f64, metric == KMeansMetric::Cosine);
        let length = |i: usize| rows.row(i).iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let inverse = |i: usize| if length(i) > SHORTEST { (1.0 / length(i)) as f32 } else { 0.0 };
        let scale: Vec<f32> =
            if cosine { (0..rows.nrows()).into_par_iter().map(inverse).collect() } else { Vec::new() };
        let mut prepared = Self { rows, shift: vec![0.0; d], scale, squares: Vec::new(), variance: 0.0 };
        if !cosine {
            let (sums, _) = prepared.moments();
            prepared.shift = sums.iter().map(|&sum| (sum / n) as f32).collect();
        }
        let (sums, squares) = prepared.moments();
        prepared.squares = squares;
        let squares = prepared.squares.iter().map(|&square| f64::from(square)).sum::<f64>();
        let of_mean = sums.iter().map(|sum| (sum / n).powi(2)).sum::<f64>();
        prepared.variance = (squares / n - of_mean).max(0.0) / d.max(1) as f64;
        prepared
    }

    /// Sums of the features, `[d]`, and squared lengths, `[n]`.
    fn moments(&self) -> (Vec<f64>, Vec<f32>) {
        let d = self.rows.ncols();
        let tasks: Vec<(Vec<f64>, Vec<f32>)> = self
            .tasks()
            .into_par_iter()
            .map(|(from, to)| {
                let (mut row, mut sums, mut squares) =
                    (vec![0.0; d], vec![0.0; d], Vec::with_capacity(to - from));
                for i in from..to {
                    self.load(i, &mut row);
                    add(&row, &mut sums);
                    squares.push(square(&row));
                }
                (sums, squares)
            })
            .collect();
        let mut total = (vec![0.0; d], Vec::with_capacity(self.len()));
        for (sums, squares) in tasks {
            total.0.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
            total.1.extend(squares);
        }
        total
    }

    /// Number of rows `n`.
    pub(crate) fn len(&self) -> usize {
        self.rows.nrows()
    }

    /// The prepared row `i`, `[d]`.
    pub(crate) fn load(&self, i: usize, out: &mut [f32]) {
        let row = self.rows.row(i);
        match (row.as_slice(), self.scale.get(i)) {
            (Some(row), Some(&scale)) => out.iter_mut().zip(row).for_each(|(to, &x)| *to = x * scale),
            (Some(row), None) => {
                out.iter_mut().zip(row).zip(&self.shift).for_each(|((to, &x), &shift)| *to = x - shift);
            }
            (None, Some(&scale)) => out.iter_mut().zip(&row).for_each(|(to, &x)| *to = x * scale),
            (None, None) => {
                out.iter_mut().zip(&row).zip(&self.shift).for_each(|((to, &x), &shift)| *to = x - shift)
            }
        }
    }

    /// Ranges of rows.
    fn tasks(&self) -> Vec<(usize, usize)> {
        let n = self.len();
        let rows = TASK.max(n.div_ceil(TASKS).next_multiple_of(BLOCK));
        (0..n).step_by(rows).map(|from| (from, (from + rows).min(n))).collect()
    }

    /// Compares all rows with the centres.
    pub(crate) fn pass(&self, centres: &Centres<'_>) -> Pass {
        let (m, d) = centres.points.dim();
        let tasks: Vec<Pass> =
            self.tasks().into_par_iter().map(|(from, to)| self.task(from, to, centres)).collect();
        let mut total = Pass {
            sums: Array2::zeros((m, d)),
            counts: vec![0; m],
            labels: Vec::with_capacity(self.len()),
            distances: Vec::with_capacity(self.len()),
        };
        for task in tasks {
            total.sums += &task.sums;
            total.counts.iter_mut().zip(task.counts).for_each(|(total, count)| *total += count);
            total.labels.extend(task.labels);
            total.distances.extend(task.distances);
        }
        total
    }

    fn task(&self, from: usize, to: usize, centres: &Centres<'_>) -> Pass {
        let (m, d) = centres.points.dim();
        let points = centres.points.as_slice().expect("made in standard layout");
        let mut pass = Pass {
            sums: Array2::zeros((m, d)),
            counts: vec![0; m],
            labels: Vec::new(),
            distances: Vec::new(),
        };
        let sums = pass.sums.as_slice_mut().expect("made in standard layout");
        let (mut block, mut products) = (vec![0.0; BLOCK * d], vec![0.0; m * BLOCK]);
        let (mut best, mut arg) = ([0.0_f32; BLOCK], [0_u32; BLOCK]);
        for start in (from..to).step_by(BLOCK) {
            let n = BLOCK.min(to - start);
            let (block, products) = (&mut block[..n * d], &mut products[..m * n]);
            (block.chunks_exact_mut(d.max(1)).zip(start..)).for_each(|(row, i)| self.load(i, row));
            let product = (Matrix::new(points, m, d), Matrix::new(block, n, d).t());
            gemm(MatrixMut::new(products, m, n), 0.0, 1.0, product.0, product.1, Threads::One); // [m, n]
            nearest(products, &centres.offsets, &mut best[..n], &mut arg[..n]);
            for (i, row) in block.chunks_exact(d.max(1)).enumerate() {
                let centre = arg[i] as usize;
                add(row, &mut sums[centre * d..][..d]);
                pass.counts[centre] += 1;
                pass.labels.push(arg[i]);
                pass.distances.push((self.squares[start + i] - 2.0 * best[i]).max(0.0));
            }
        }
        pass
    }
}

/// The largest product less its offset for every row, and which it is; the first of equal ones.
///
/// * `products`: `[m, n]`; `offsets`: `[m]`; `best`, `arg`: `[n]`.
fn nearest(products: &[f32], offsets: &[f32], best: &mut [f32], arg: &mut [u32]) {
    best.fill(f32::NEG_INFINITY);
    arg.fill(0);
    kernels::simd(
        #[inline(always)]
        || {
            for (index, (scores, &offset)) in (0_u32..).zip(products.chunks_exact(best.len()).zip(offsets)) {
                for ((best, arg), &score) in best.iter_mut().zip(arg.iter_mut()).zip(scores) {
                    let score = score - offset;
                    let better = score > *best;
                    *best = if better { score } else { *best };
                    *arg = if better { index } else { *arg };
                }
            }
        },
    );
}

/// Adds a row to 64-bit sums.
fn add(row: &[f32], sums: &mut [f64]) {
    kernels::simd(
        #[inline(always)]
        || {
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += f64::from(x);
            }
        },
    );
}

/// `Σ x²` in lanes of 32 bits.
fn square(row: &[f32]) -> f32 {
    kernels::simd(
        #[inline(always)]
        || kernels::dot(row, row),
    )
}

#[cfg(test)]
mod tests {
    use ndarray::{Axis, array};

    use super::*;

    fn rows(n: usize, d: usize) -> Array2<f32> {
        Array2::from_shape_fn((n, d), |(i, j)| ((i * d + j) as f32 * 12.9898).sin() * 3.0 + 1.0)
    }

    #[test]
    fn every_row_goes_to_the_nearest_centre() {
        let (rows, points) = (rows(5000, 7), rows(9, 7).mapv(|x| -x));
        let prepared = PreparedRows::new(rows.view(), KMeansMetric::Euclidean);
        let offsets = points.outer_iter().map(|c| 0.5 * c.dot(&c)).collect();
        let pass = prepared.pass(&Centres { points: &points, offsets });
        let mut sums = Array2::<f64>::zeros((9, 7));
        let mut row = vec![0.0; 7];
        for i in 0..5000 {
            prepared.load(i, &mut row);
            let z = ndarray::ArrayView1::from(&row[..]);
            let distance = |c: usize| (&z - &points.row(c)).mapv(|x| f64::from(x).powi(2)).sum();
            let near = (0..9).map(distance).fold(f64::INFINITY, f64::min);
            let label = pass.labels[i] as usize;
            assert!(distance(label) <= near + 1e-5 && (f64::from(pass.distances[i]) - near).abs() < 1e-4);
            sums.row_mut(label).zip_mut_with(&z, |sum, &x| *sum += f64::from(x));
        }
        assert_eq!(pass.counts.iter().sum::<u64>(), 5000);
        assert!((sums - pass.sums).iter().all(|x| x.abs() < 1e-9));
    }

    #[test]
    fn prepared_rows_are_centred_or_of_length_one() {
        let rows = rows(300, 5);
        let centred = PreparedRows::new(rows.view(), KMeansMetric::Euclidean);
        let mean = rows.mapv(f64::from).mean_axis(Axis(0)).unwrap();
        assert!(centred.shift.iter().zip(&mean).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-6));
        let variance = rows.mapv(f64::from).var_axis(Axis(0), 0.0).mean().unwrap();
        assert!((centred.variance - variance).abs() < 1e-5 * variance);
        let with_zero = array![[3.0, 4.0], [0.0, 0.0]];
        let directions = PreparedRows::new(with_zero.view(), KMeansMetric::Cosine);
        let mut row = [9.0; 2];
        directions.load(0, &mut row);
        assert!((row[0] - 0.6).abs() < 1e-7 && (row[1] - 0.8).abs() < 1e-7);
        directions.load(1, &mut row);
        assert_eq!(row, [0.0, 0.0]);
        // Columns of a wider array are rows like any others.
        let reversed = with_zero.t();
        PreparedRows::new(reversed, KMeansMetric::Cosine).load(1, &mut row);
        assert_eq!(row, [1.0, 0.0]);
    }

    #[test]
    fn ties_go_to_the_lower_centre() {
        let mut out = ([0.0; 2], [9; 2]);
        nearest(&[1.0, 2.0, 1.0, 3.0, 1.0, 2.0], &[0.0, 1.0, 0.0], &mut out.0, &mut out.1);
        assert_eq!(out, ([1.0, 2.0], [0, 0]));
    }
}
