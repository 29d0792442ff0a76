//! Moments: count, mean and scatter matrix of rows, streamed in 64 bits with O(d²) memory.
//!
//! Each block of rows is centred by its own mean, its scatter `CᵀC` added, and the two means combined (Chan, Golub and
//! LeVeque, 1983): no cancellation, whatever the offset. The order of additions is that of the calls and of fixed
//! blocks; threads only share the tiles of one product, so the bits do not depend on how many there are.

use ndarray::{Array1, Array2, ArrayView2, Axis, Slice, s};
use rayon::prelude::*;

use crate::{Error, Result};

/// Rows centred together.
const BLOCK: usize = 1024;
/// Side of a tile of the scatter matrix; tiles below the diagonal are mirrored instead of computed.
const TILE: usize = 96;

/// Streaming mean and covariance.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    count: u64,
    mean: Array1<f64>,
    /// `Σ (x − mean)(x − mean)ᵀ`; only tiles on and above the diagonal are kept up to date.
    scatter: Array2<f64>,
}

/// Row and column range of one tile.
type Tile = (Slice, Slice);

impl Moments {
    /// Moments of no rows of width `d`.
    #[must_use]
    pub fn new(d: usize) -> Self {
        Self { count: 0, mean: Array1::zeros(d), scatter: Array2::zeros((d, d)) }
    }

    /// Adds rows `[n, d]`.
    ///
    /// # Errors
    /// [`Error::Width`], or [`Error::NonFinite`] naming the place; then nothing was added.
    pub fn add(&mut self, rows: ArrayView2<'_, f32>) -> Result<()> {
        if rows.ncols() != self.dim() {
            return Err(Error::Width { expected: self.dim(), got: rows.ncols() });
        }
        if let Some(((row, column), &value)) = rows.indexed_iter().find(|(_, x)| !x.is_finite()) {
            return Err(Error::NonFinite { row, column, value });
        }
        for block in rows.axis_chunks_iter(Axis(0), BLOCK) {
            self.add_block(block);
        }
        Ok(())
    }

    fn add_block(&mut self, rows: ArrayView2<'_, f32>) {
        let n = rows.nrows() as u64;
        if n == 0 {
            return;
        }
        let mut centred = rows.mapv(f64::from); // [n, d]
        let mean = centred.sum_axis(Axis(0)) / n as f64; // [d]
        centred -= &mean;
        self.combine(n, &mean, |(i, j)| centred.slice(s![.., i]).t().dot(&centred.slice(s![.., j])));
    }

    /// Adds the moments of other rows, as if they had been added here after these.
    ///
    /// # Panics
    /// If the widths differ.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.dim(), other.dim(), "moments of the same width");
        if other.count > 0 {
            self.combine(other.count, &other.mean, |(i, j)| other.scatter.slice(s![i, j]).to_owned());
        }
    }

    /// Chan's formula; `tile` gives the new rows' own scatter, tile by tile.
    fn combine(&mut self, n: u64, mean: &Array1<f64>, tile: impl Fn(Tile) -> Array2<f64> + Sync) {
        let total = (self.count + n) as f64;
        let delta = mean - &self.mean; // [d]
        let weight = self.count as f64 * n as f64 / total;
        let computed: Vec<Array2<f64>> = self.tiles().into_par_iter().map(&tile).collect();
        for ((i, j), mut part) in self.tiles().into_iter().zip(computed) {
            let (left, right) = (delta.slice(s![i]), delta.slice(s![j]));
            for (mut row, &l) in part.rows_mut().into_iter().zip(left) {
                row.scaled_add(weight * l, &right);
            }
            let mut target = self.scatter.slice_mut(s![i, j]);
            target += &part;
        }
        self.mean.scaled_add(n as f64 / total, &delta);
        self.count += n;
    }

    /// Tiles on and above the diagonal.
    fn tiles(&self) -> Vec<Tile> {
        let d = self.dim();
        let slice = |i: usize| Slice::from(i..(i + TILE).min(d));
        let starts = (0..d).step_by(TILE);
        starts.flat_map(|i| (i..d).step_by(TILE).map(move |j| (slice(i), slice(j)))).collect()
    }

    /// Width `d`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Number of rows added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Mean of each column, `[d]`.
    #[must_use]
    pub fn mean(&self) -> &Array1<f64> {
        &self.mean
    }

    /// Population variance of each column (divisor `n`), `[d]`.
    ///
    /// # Errors
    /// [`Error::TooFewRows`] below 2 rows.
    pub fn variance(&self) -> Result<Array1<f64>> {
        self.at_least_two()?;
        Ok(self.scatter.diag().mapv(|x| x / self.count as f64))
    }

    /// Population standard deviation of each column, with 1 for a constant one (as scikit-learn's `StandardScaler`), `[d]`.
    ///
    /// # Errors
    /// [`Error::TooFewRows`] below 2 rows.
    pub fn scale(&self) -> Result<Array1<f64>> {
        let n = self.count as f64;
        // scikit-learn's bound: what rounding alone would leave of a constant column.
        let constant = |variance: f64, mean: f64| {
            variance <= n * f64::EPSILON * variance + (n * mean * f64::EPSILON).powi(2)
        };
        let mut scale = self.variance()?;
        for (s, &mean) in scale.iter_mut().zip(&self.mean) {
            *s = if constant(*s, mean) { 1.0 } else { s.sqrt() };
        }
        Ok(scale)
    }

    /// Sample covariance (divisor `n − 1`), `[d, d]`.
    ///
    /// # Errors
    /// [`Error::TooFewRows`] below 2 rows.
    pub fn covariance(&self) -> Result<Array2<f64>> {
        self.at_least_two()?;
        let mut covariance = &self.scatter / (self.count - 1) as f64;
        for i in 0..self.dim() {
            for j in 0..i {
                covariance[[i, j]] = covariance[[j, i]];
            }
        }
        Ok(covariance)
    }

    fn at_least_two(&self) -> Result<()> {
        if self.count < 2 { Err(Error::TooFewRows(self.count)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn rows(n: usize, d: usize, offset: f32) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
        Array2::from_shape_fn((n, d), |(_, j)| offset + rng.random_range(-1.0..1.0f32) * (1.0 + j as f32))
    }

    fn close(a: &Array2<f64>, b: &Array2<f64>, relative: f64) {
        let largest = b.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
        let worst = a.iter().zip(b).fold(0.0_f64, |m, (x, y)| m.max((x - y).abs()));
        assert!(worst <= relative * largest, "off by {worst} of {largest}");
    }

    #[test]
    fn by_hand() {
        let mut moments = Moments::new(2);
        moments.add(array![[1.0_f32, 10.0], [3.0, 10.0], [5.0, 16.0]].view()).unwrap();
        assert_eq!(moments.count(), 3);
        assert_eq!(moments.mean(), &array![3.0, 12.0]);
        assert_eq!(moments.covariance().unwrap(), array![[4.0, 6.0], [6.0, 12.0]]);
        assert_eq!(moments.variance().unwrap(), array![8.0 / 3.0, 8.0]);
    }

    #[test]
    fn pieces_and_merged_parts_give_the_whole() {
        let rows = rows(2500, 130, 100.0);
        let mut whole = Moments::new(130);
        whole.add(rows.view()).unwrap();
        let (mut pieces, mut left, mut right) = (Moments::new(130), Moments::new(130), Moments::new(130));
        for piece in rows.axis_chunks_iter(Axis(0), 37) {
            pieces.add(piece).unwrap();
        }
        left.add(rows.slice(s![..900, ..])).unwrap();
        right.add(rows.slice(s![900.., ..])).unwrap();
        left.merge(&right);
        left.merge(&Moments::new(130));
        for other in [&pieces, &left] {
            assert_eq!(other.count(), 2500);
            close(&other.covariance().unwrap(), &whole.covariance().unwrap(), 1e-12);
            let worst = (other.mean() - whole.mean()).mapv(f64::abs).sum();
            assert!(worst < 1e-9, "{worst}");
        }
        let naive = {
            let x = rows.mapv(f64::from);
            let c = &x - &x.mean_axis(Axis(0)).unwrap();
            c.t().dot(&c) / 2499.0
        };
        close(&whole.covariance().unwrap(), &naive, 1e-12);
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let rows = rows(1500, 200, 3.0);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut moments = Moments::new(200);
                moments.add(rows.view()).unwrap();
                moments
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn a_huge_offset_does_not_cancel() {
        let mut moments = Moments::new(1);
        moments.add(array![[1e7_f32], [1e7 + 1.0], [1e7 + 2.0]].view()).unwrap();
        moments.add(array![[1e7_f32 + 3.0]].view()).unwrap();
        assert!((moments.covariance().unwrap()[[0, 0]] - 5.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_constant_column_has_scale_one() {
        let mut moments = Moments::new(2);
        moments.add(array![[0.1_f32, 1.0], [0.1, 2.0], [0.1, 3.0]].view()).unwrap();
        assert_eq!(moments.scale().unwrap()[0], 1.0);
        assert!((moments.scale().unwrap()[1] - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn bad_rows_are_refused_and_leave_no_trace() {
        let mut moments = Moments::new(2);
        let error = moments.add(array![[1.0_f32, 2.0], [3.0, f32::NAN]].view()).unwrap_err();
        assert_eq!(error.to_string(), "row 1 holds NaN in dimension 1; features must be finite");
        assert!(matches!(moments.add(array![[1.0_f32]].view()), Err(Error::Width { expected: 2, got: 1 })));
        assert_eq!(moments.count(), 0);
        assert!(matches!(moments.covariance(), Err(Error::TooFewRows(0))));
    }
}
