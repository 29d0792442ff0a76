//! Mean and scatter of rows that pass by once: all that PCA and standardisation need of them.
//!
//! `S = Σ (x − mean)(x − mean)ᵀ` in f64, `O(d²)` memory for any number of rows. Rows are centred block by
//! block before they are multiplied, and blocks are joined by the formula of Chan, Golub and LeVeque (1979),
//! `S = S₁ + S₂ + n₁n₂/(n₁+n₂) δδᵀ` with `δ` the difference of the means, so a mean far from zero costs no digits.
//! Blocks follow the order of the rows, and threads share the columns of `S`, never the sum: any number of
//! threads gives the same bits.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use rayon::prelude::*;

use crate::error::expect_shape;
use crate::scaler::{divisors, expect_finite};
use crate::{Error, Result};

/// Rows that are centred and multiplied together: a block of 384 columns stays in a core's cache.
const BLOCK: usize = 512;
/// Columns of the scatter that one thread computes at a time.
const PANEL: usize = 64;

/// Streaming count, mean `[d]` and scatter `[d, d]` of rows `[n, d]`.
///
/// ```
/// let mut moments = dimred::Moments::new(2);
/// moments.add(ndarray::array![[0.0, 1.0], [2.0, 1.0]].view())?;
/// moments.add(ndarray::array![[4.0, 4.0]].view())?;
/// assert_eq!(moments.mean(), ndarray::array![2.0, 2.0]);
/// assert_eq!(moments.covariance()?, ndarray::array![[4.0, 3.0], [3.0, 3.0]]);
/// # Ok::<(), dimred::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    count: u64,
    mean: Array1<f64>,
    /// `[d, d]`; only the upper triangle is kept up to date.
    scatter: Array2<f64>,
}

impl Moments {
    /// No rows yet, of `d` columns.
    pub fn new(d: usize) -> Self {
        Self { count: 0, mean: Array1::zeros(d), scatter: Array2::zeros((d, d)) }
    }

    /// Takes in rows `[n, d]`. How rows are cut into calls changes the last bits at most.
    ///
    /// # Errors
    /// [`Error::Shape`] for another `d`; [`Error::NotFinite`] for NaN and infinity, and then none of
    /// these rows counts.
    pub fn add(&mut self, rows: ArrayView2<'_, f32>) -> Result<()> {
        expect_shape("rows", &[rows.nrows(), self.dim()], rows.shape())?;
        expect_finite(rows)?;
        rows.axis_chunks_iter(Axis(0), BLOCK).for_each(|block| self.add_block(block));
        Ok(())
    }

    fn add_block(&mut self, rows: ArrayView2<'_, f32>) {
        let n = rows.nrows();
        // One more row than there is data: √(n₁n₂/(n₁+n₂)) δ, so that a single product adds both terms.
        let mut centred = Array2::<f64>::zeros((n + 1, self.dim()));
        let (mut data, mut joint) = centred.view_mut().split_at(Axis(0), n);
        data.zip_mut_with(&rows, |to, &x| *to = f64::from(x));
        let block_mean = data.sum_axis(Axis(0)) / n as f64;
        data -= &block_mean;
        let shift = block_mean - &self.mean;
        joint.row_mut(0).assign(&shift);
        joint *= self.join(n as u64, &shift).sqrt();
        add_gram(&mut self.scatter, centred.view());
    }

    /// Moves count and mean on by `n` rows whose mean is `shift` away; returns `n₁n₂/(n₁+n₂)`.
    fn join(&mut self, n: u64, shift: &Array1<f64>) -> f64 {
        let total = self.count + n;
        let share = n as f64 / total as f64;
        let weight = self.count as f64 * share;
        self.mean.scaled_add(share, shift);
        self.count = total;
        weight
    }

    /// Takes in everything that `other` has seen.
    ///
    /// # Errors
    /// [`Error::Shape`] for another `d`.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        expect_shape("moments", &[self.dim()], &[other.dim()])?;
        if other.count == 0 {
            return Ok(());
        }
        let shift = &other.mean - &self.mean;
        let weight = self.join(other.count, &shift);
        let column = shift.view().insert_axis(Axis(1)); // [d, 1]
        let row = shift.view().insert_axis(Axis(0)); // [1, d]
        general_mat_mul(weight, &column, &row, 1.0, &mut self.scatter);
        self.scatter += &other.scatter;
        Ok(())
    }

    /// Rows seen.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Columns `d`.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Mean `[d]`; zero before the first row.
    pub fn mean(&self) -> ArrayView1<'_, f64> {
        self.mean.view()
    }

    /// Population variance `[d]`, divided by `n` as in `numpy.var`.
    ///
    /// # Errors
    /// [`Error::TooFewRows`] for fewer than two rows.
    pub fn variance(&self) -> Result<Array1<f64>> {
        self.expect_two_rows()?;
        Ok(&self.scatter.diag() / self.count as f64)
    }

    /// What a column is divided by to be standardised, `[d]`: its population standard deviation, or 1 if
    /// it is constant.
    ///
    /// # Errors
    /// [`Error::TooFewRows`] for fewer than two rows.
    pub fn scale(&self) -> Result<Array1<f64>> {
        Ok(divisors(self.mean.view(), self.variance()?.view(), self.count))
    }

    /// Sample covariance `[d, d]`, divided by `n − 1` as in `numpy.cov`.
    ///
    /// # Errors
    /// [`Error::TooFewRows`] for fewer than two rows.
    pub fn covariance(&self) -> Result<Array2<f64>> {
        self.expect_two_rows()?;
        Ok(self.symmetric(|scatter, _, _| scatter / (self.count - 1) as f64))
    }

    /// Correlation `[d, d]`: the population covariance of the standardised columns. A constant column
    /// has correlation 0 with all columns, itself included.
    ///
    /// # Errors
    /// [`Error::TooFewRows`] for fewer than two rows.
    pub fn correlation(&self) -> Result<Array2<f64>> {
        let scale = self.scale()?;
        Ok(self.symmetric(|scatter, i, j| scatter / self.count as f64 / (scale[i] * scale[j])))
    }

    fn symmetric(&self, value: impl Fn(f64, usize, usize) -> f64) -> Array2<f64> {
        Array2::from_shape_fn(self.scatter.dim(), |(i, j)| {
            let (i, j) = (i.min(j), i.max(j));
            value(self.scatter[[i, j]], i, j)
        })
    }

    fn expect_two_rows(&self) -> Result<()> {
        if self.count < 2 {
            return Err(Error::TooFewRows { needed: 2, got: self.count });
        }
        Ok(())
    }
}

/// `scatter += rowsᵀ · rows` in the upper triangle (and in some of the lower).
fn add_gram(scatter: &mut Array2<f64>, rows: ArrayView2<'_, f64>) {
    let panels: Vec<_> = scatter.axis_chunks_iter_mut(Axis(1), PANEL).enumerate().collect();
    // The last panels are the tallest: they come first, so that no thread is left with one at the end.
    panels.into_par_iter().rev().for_each(|(i, mut panel)| {
        let columns = i * PANEL..i * PANEL + panel.ncols();
        let above = rows.slice(s![.., ..columns.end]);
        let mut upper = panel.slice_mut(s![..columns.end, ..]);
        general_mat_mul(1.0, &above.t(), &rows.slice(s![.., columns]), 1.0, &mut upper);
    });
}
