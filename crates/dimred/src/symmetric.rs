//! Symmetric: the upper triangle of a symmetric matrix of 64-bit sums, in square units that threads share out.
//!
//! Units are kept column by column of units; what lies below the diagonal, or behind the last column, is never read. It only
//! holds sums: products and decompositions are made elsewhere.

use kernels::SCATTER_UNIT;
use ndarray::{Array1, Array2};
use rayon::prelude::*;

/// Numbers of a unit.
const UNIT: usize = SCATTER_UNIT * SCATTER_UNIT;

/// A symmetric matrix `[d, d]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Symmetric {
    d: usize,
    /// Of column `q` of units, those in rows `0..=q`.
    units: Vec<f64>,
}

/// A unit of the matrix; row and column are counted in units.
pub(crate) struct Unit<'a> {
    pub(crate) row: usize,
    pub(crate) column: usize,
    /// `[SCATTER_UNIT, SCATTER_UNIT]`
    pub(crate) numbers: &'a mut [f64],
}

impl Symmetric {
    /// Zeros.
    pub(crate) fn new(d: usize) -> Self {
        let columns = d.div_ceil(SCATTER_UNIT);
        Self { d, units: vec![0.0; columns * (columns + 1) / 2 * UNIT] }
    }

    /// Calls `f(row, column, numbers)` for every unit, on all threads. Rows and columns are counted in units.
    pub(crate) fn for_each_unit(&mut self, f: impl Fn(usize, usize, &mut [f64]) + Sync) {
        self.for_each_hand(|units| {
            units.iter_mut().for_each(|unit| f(unit.row, unit.column, &mut *unit.numbers));
        });
    }

    /// Calls `f` for some units at a time, on all threads. Every thread gets about two calls, with about as many units on the
    /// diagonal.
    pub(crate) fn for_each_hand(&mut self, f: impl Fn(&mut [Unit<'_>]) + Sync) {
        let columns = self.d.div_ceil(SCATTER_UNIT);
        let places = (0..columns).flat_map(|q| (0..=q).map(move |p| (p, q)));
        let mut hands: Vec<Vec<Unit<'_>>> = Vec::new();
        hands.resize_with(2 * rayon::current_num_threads(), Vec::new);
        let count = hands.len();
        for (i, (numbers, (row, column))) in self.units.chunks_exact_mut(UNIT).zip(places).enumerate() {
            hands[i % count].push(Unit { row, column, numbers });
        }
        hands.par_iter_mut().with_max_len(1).for_each(|units| f(units));
    }

    /// Adds another one of the same width.
    pub(crate) fn add(&mut self, other: &Self) {
        assert_eq!(self.d, other.d, "symmetric matrices of the same width");
        self.units.iter_mut().zip(&other.units).for_each(|(sum, x)| *sum += x);
    }

    /// The number at `[i, j]`, whichever is larger.
    pub(crate) fn at(&self, i: usize, j: usize) -> f64 {
        let (i, j) = if i <= j { (i, j) } else { (j, i) };
        let (row, column) = (i / SCATTER_UNIT, j / SCATTER_UNIT);
        let unit = column * (column + 1) / 2 + row;
        self.units[unit * UNIT + i % SCATTER_UNIT * SCATTER_UNIT + j % SCATTER_UNIT]
    }

    /// All that is kept, for writing down.
    pub(crate) fn numbers(&self) -> &[f64] {
        &self.units
    }

    /// The same, for reading in.
    pub(crate) fn numbers_mut(&mut self) -> &mut [f64] {
        &mut self.units
    }

    /// The diagonal, `[d]`.
    pub(crate) fn diagonal(&self) -> Array1<f64> {
        (0..self.d).map(|i| self.at(i, i)).collect()
    }

    /// All of the matrix, `[d, d]`.
    pub(crate) fn to_matrix(&self) -> Array2<f64> {
        Array2::from_shape_fn((self.d, self.d), |(i, j)| self.at(i, j))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_cover_the_upper_triangle_once() {
        for d in [1, 47, 48, 49, 100] {
            let mut sums = Symmetric::new(d);
            sums.for_each_unit(|row, column, unit| {
                for (i, numbers) in unit.chunks_exact_mut(SCATTER_UNIT).enumerate() {
                    for (j, x) in numbers.iter_mut().enumerate() {
                        *x += ((row * SCATTER_UNIT + i) * 1000 + column * SCATTER_UNIT + j) as f64;
                    }
                }
            });
            let other = sums.clone();
            sums.add(&other);
            let matrix = sums.to_matrix();
            for ((i, j), &x) in matrix.indexed_iter() {
                assert_eq!(x, (2 * (i.min(j) * 1000 + i.max(j))) as f64);
            }
            assert_eq!(sums.diagonal(), matrix.diag());
        }
    }
}
