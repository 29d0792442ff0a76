//! Moments: count, mean and scatter matrix of rows, streamed into 64-bit sums with O(d²) memory.
//!
//! The rows of a call, in groups of at most [`GROUP`], are centred by the mean of all rows so far (the first ones by their
//! own), their scatter `CᵀC` is added, and the two means are combined (Chan, Golub and LeVeque, 1983): no cancellation,
//! whatever the offset, since what a group lies off the mean is scatter as well. Products within a block of some hundred
//! rows are 32-bit, as the features are; everything across blocks is 64-bit. The first [`EXACT_ROWS`] rows, where a few
//! roundings would show, and numbers whose squares 32 bits do not hold, are multiplied in 64 bits as well. The order of
//! additions is that of the calls and of blocks whose size depends on the call alone; threads only share the units of the
//! matrix, so the bits do not depend on how many there are.

mod bytes;

pub(crate) use bytes::{damaged, word};

use kernels::{CentredRows, Level, RankOne, SCATTER_UNIT};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use crate::symmetric::Symmetric;
use crate::{Error, Result};

/// Most rows centred together: a sum of so many 32-bit products keeps its precision.
const BLOCK: usize = 200;
/// Most rows laid out at a time.
const GROUP: usize = 8 * BLOCK;
/// As long as there are no more rows than these, products are 64-bit.
const EXACT_ROWS: u64 = 1024;

/// Streaming mean and covariance.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    count: u64,
    mean: Array1<f64>,
    /// `Σ (x − mean)(x − mean)ᵀ`.
    scatter: Symmetric,
    spare: Spare,
}

/// Buffers of the last call, for the next one. They are no part of the value.
#[derive(Debug, Default)]
struct Spare(Vec<CentredRows>);

impl Clone for Spare {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Spare {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// `weight · vectorᵀ vector`, owned.
struct Term {
    weight: f64,
    vector: Array1<f64>,
}

impl Term {
    fn view(&self) -> RankOne<'_> {
        RankOne {
            weight: self.weight,
            vector: self.vector.as_slice().expect("a vector made here is contiguous"),
        }
    }
}

impl Moments {
    /// Moments of no rows of width `d`.
    #[must_use]
    pub fn new(d: usize) -> Self {
        Self { count: 0, mean: Array1::zeros(d), scatter: Symmetric::new(d), spare: Spare::default() }
    }

    /// Adds rows `[n, d]`.
    ///
    /// # Errors
    /// [`Error::Width`], or [`Error::NonFinite`] naming the place; then nothing was added.
    pub fn add(&mut self, rows: ArrayView2<'_, f32>) -> Result<()> {
        let (n, d) = rows.dim();
        if d != self.dim() {
            return Err(Error::Width { expected: self.dim(), got: d });
        }
        if rows.is_empty() {
            self.count += n as u64;
            return Ok(());
        }
        // One way into the pool for all that is done in parallel.
        rayon::scope(|_| self.add_rows(rows))
    }

    /// Adds rows of the right width, not none.
    fn add_rows(&mut self, rows: ArrayView2<'_, f32>) -> Result<()> {
        // A number that is not finite is found group by group: what the groups before it added is undone.
        let before = (rows.nrows() > GROUP).then(|| self.clone());
        let rows = rows.as_standard_layout();
        for (i, group) in rows.axis_chunks_iter(Axis(0), GROUP).enumerate() {
            if let Err(error) = self.add_group(group, i * GROUP) {
                if let Some(before) = before {
                    *self = before;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Adds rows in standard layout; `first` is the number of the first one, for messages.
    fn add_group(&mut self, rows: ArrayView2<'_, f32>, first: usize) -> Result<()> {
        let (n, d) = rows.dim();
        let height = n.div_ceil(n.div_ceil(BLOCK)); // blocks of even height
        let numbers = rows.to_slice().expect("rows in standard layout");
        let mut spare = std::mem::take(&mut self.spare.0);
        let few = self.count < EXACT_ROWS;
        let shift: Vec<f32> = if few { vec![0.0; d] } else { to_f32(&self.mean) }; // [d]
        let mut blocks = lay_out(&mut spare, numbers, &shift, height);
        let mean = mean(blocks, n);
        if mean.iter().all(|mean| mean.is_finite()) {
            if few && self.count + n as u64 > EXACT_ROWS {
                blocks = lay_out(&mut spare, numbers, &to_f32(&mean), height);
            }
            let exact = self.count + n as u64 <= EXACT_ROWS || !blocks.iter().all(CentredRows::in_range);
            if exact {
                rows.axis_chunks_iter(Axis(0), height).for_each(|block| self.add_exactly(block));
            } else {
                self.add_blocks(blocks, &mean, n as u64);
            }
            self.spare.0 = spare;
            return Ok(());
        }
        self.spare.0 = spare;
        match rows.indexed_iter().find(|(_, x)| !x.is_finite()) {
            Some(((row, column), &value)) => Err(Error::NonFinite { row: first + row, column, value }),
            None => Ok(()), // a mean of finite 32-bit numbers is finite
        }
    }

    /// Adds blocks of `n` rows together, whose products are 32-bit.
    fn add_blocks(&mut self, blocks: &[CentredRows], mean: &Array1<f64>, n: u64) {
        // The products are about the shift, a 32-bit number beside the mean.
        let off = mean - &Array1::from_iter(blocks[0].shift().iter().map(|&x| f64::from(x)));
        let terms = [self.combine(n, mean), Term { weight: -(n as f64), vector: off }];
        let terms = [terms[0].view(), terms[1].view()];
        self.scatter.for_each_hand(|units| {
            for block in blocks {
                units.iter_mut().for_each(|unit| block.add_to(unit.row, unit.column, unit.numbers));
            }
            units.iter_mut().for_each(|unit| RankOne::add_to(&terms, unit.row, unit.column, unit.numbers));
        });
    }

    /// Adds one block in 64 bits throughout.
    fn add_exactly(&mut self, rows: ArrayView2<'_, f32>) {
        let mut centred = rows.mapv(f64::from); // [n, d]
        let mean = centred.sum_axis(Axis(0)) / rows.nrows() as f64; // [d]
        centred -= &mean;
        let term = self.combine(rows.nrows() as u64, &mean);
        let d = self.dim();
        let columns = |unit: usize| s![.., unit * SCATTER_UNIT..((unit + 1) * SCATTER_UNIT).min(d)];
        self.scatter.for_each_unit(|row, column, sums| {
            let product = centred.slice(columns(row)).t().dot(&centred.slice(columns(column)));
            add_unit(sums, product.view());
            add_unit(sums, term.unit(row, column).view());
        });
    }

    /// Adds the moments of other rows, as if they had been added here after these.
    ///
    /// # Panics
    /// If the widths differ.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.dim(), other.dim(), "moments of the same width");
        if other.count == 0 {
            return;
        }
        let term = self.combine(other.count, &other.mean);
        self.scatter.add(&other.scatter);
        self.scatter.for_each_unit(|row, column, sums| add_unit(sums, term.unit(row, column).view()));
    }

    /// Chan's formula for count and mean; returns what is to be added to the sum of the two scatters.
    fn combine(&mut self, n: u64, mean: &Array1<f64>) -> Term {
        let total = (self.count + n) as f64;
        let delta = mean - &self.mean; // [d]
        let weight = self.count as f64 * n as f64 / total;
        self.mean.scaled_add(n as f64 / total, &delta);
        self.count += n;
        Term { weight, vector: delta }
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
        Ok(self.scatter.diagonal() / self.count as f64)
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
        Ok(self.scatter.to_matrix() / (self.count - 1) as f64)
    }

    fn at_least_two(&self) -> Result<()> {
        if self.count < 2 { Err(Error::TooFewRows(self.count)) } else { Ok(()) }
    }
}

impl Term {
    /// One unit of the matrix.
    fn unit(&self, row: usize, column: usize) -> Array2<f64> {
        let d = self.vector.len();
        let part =
            |unit: usize| self.vector.slice(s![unit * SCATTER_UNIT..((unit + 1) * SCATTER_UNIT).min(d)]);
        let (left, right) = (part(row).insert_axis(Axis(1)), part(column).insert_axis(Axis(0)));
        &left * &right * self.weight
    }
}

fn to_f32(vector: &Array1<f64>) -> Vec<f32> {
    vector.iter().map(|&x| x as f32).collect()
}

/// Lays out rows in blocks of a height; `spare` grows where needed.
fn lay_out<'a>(
    spare: &'a mut Vec<CentredRows>,
    rows: &[f32],
    shift: &[f32],
    height: usize,
) -> &'a [CentredRows] {
    let rows = rows.par_chunks(height * shift.len());
    let blocks = rows.len();
    spare.resize_with(spare.len().max(blocks), || CentredRows::new(Level::current()));
    (spare.par_iter_mut().zip(rows).with_max_len(1)).for_each(|(block, rows)| block.lay_out(rows, shift));
    &spare[..blocks]
}

/// The mean of `n` rows in blocks, `[d]`.
fn mean(blocks: &[CentredRows], n: usize) -> Array1<f64> {
    let mut sums = blocks[0].sums().to_vec();
    for block in &blocks[1..] {
        sums.iter_mut().zip(block.sums()).for_each(|(sum, x)| *sum += x);
    }
    Array1::from_vec(sums) / n as f64
}

/// Adds `[≤ u, ≤ u]` numbers to a unit.
fn add_unit(sums: &mut [f64], numbers: ArrayView2<'_, f64>) {
    for (sums, numbers) in sums.chunks_exact_mut(SCATTER_UNIT).zip(numbers.rows()) {
        sums.iter_mut().zip(numbers).for_each(|(sum, x)| *sum += x);
    }
}
