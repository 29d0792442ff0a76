//! Affine: the one map behind every linear reducer, `x ↦ ((x − mean) / scale) · componentsᵀ`.
//!
//! The scale is folded into the matrix; the mean is subtracted first, so that large common offsets cost no precision.
//! Every number of the result is one sum in the order of `d`, so it depends neither on the row's companions nor on the
//! columns beside it, to the last bit: the first `k` columns of a wider map are the narrower map. The exception is a
//! batch-scaled map, which standardises each call's rows by themselves.

use kernels::{Level, RowMap};
use linfa::traits::Transformer;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

use crate::scaler::Scaler;
use crate::{Error, Result};

/// A fitted map `[n, d] → [n, k]`.
pub trait Projection {
    /// Width `d` of the rows that go in.
    fn input_dim(&self) -> usize;

    /// Width `k` of the rows that come out.
    fn output_dim(&self) -> usize;

    /// Projects rows `[n, d]` to `[n, k]`.
    ///
    /// # Errors
    /// [`Error::Width`] if the rows are not `d` wide.
    fn transform(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>>;
}

/// An affine map; what every fitted reducer is at one target dimension.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    /// `[d]`; zeros for a batch-scaled map.
    mean: Array1<f32>,
    /// `[d, k]`: components transposed, each input column divided by its scale.
    matrix: Array2<f32>,
    /// The same, laid out for products.
    map: RowMap,
    batch_scaled: bool,
}

impl Affine {
    /// The map of `components` `[k, d]` after subtracting `mean` `[d]` and dividing by `scale` `[d]`.
    pub(crate) fn new(
        mean: ArrayView1<'_, f64>,
        scale: ArrayView1<'_, f64>,
        components: ArrayView2<'_, f64>,
    ) -> Self {
        Self::of(mean.mapv(|x| x as f32), (&components / &scale).t().mapv(|x| x as f32), false)
    }

    /// The map that standardises every call's rows by themselves, then applies `components` `[k, d]`.
    #[must_use]
    pub fn batch_scaled(components: ArrayView2<'_, f64>) -> Self {
        Self::of(Array1::zeros(components.ncols()), components.t().mapv(|x| x as f32), true)
    }

    fn of(mean: Array1<f32>, matrix: Array2<f32>, batch_scaled: bool) -> Self {
        let k = matrix.ncols();
        let matrix = matrix.as_standard_layout().into_owned(); // [d, k]
        let contiguous = "an array in standard layout";
        let map = RowMap::new(
            Level::current(),
            mean.as_slice().expect(contiguous),
            matrix.as_slice().expect(contiguous),
            k,
        );
        Self { mean, matrix, map, batch_scaled }
    }

    /// The map for a scaler: with the statistics of the fit, or with those of each call.
    pub(crate) fn with_scaler(
        scaler: Scaler,
        mean: ArrayView1<'_, f64>,
        scale: ArrayView1<'_, f64>,
        components: ArrayView2<'_, f64>,
    ) -> Self {
        match scaler {
            Scaler::Batch => Self::batch_scaled(components),
            Scaler::None | Scaler::Train => Self::new(mean, scale, components),
        }
    }

    /// The map to the first `k` of its numbers, each as it was.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn first(&self, k: usize) -> Self {
        Self::of(self.mean.clone(), self.matrix.slice(s![.., ..k]).to_owned(), self.batch_scaled)
    }

    /// Whether the result of a row depends on the rows beside it.
    #[must_use]
    pub fn is_batch_scaled(&self) -> bool {
        self.batch_scaled
    }

    /// What is subtracted from rows first, `[d]`; zeros for a batch-scaled map.
    #[must_use]
    pub fn mean(&self) -> &Array1<f32> {
        &self.mean
    }

    /// What rows are multiplied with then, `[d, k]`; scales are folded in.
    #[must_use]
    pub fn matrix(&self) -> &Array2<f32> {
        &self.matrix
    }

    fn project(&self, rows: ArrayView2<'_, f32>) -> Array2<f32> {
        let rows = rows.as_standard_layout();
        let mut out = Array2::zeros((rows.nrows(), self.output_dim())); // [n, k]
        let contiguous = "an array in standard layout";
        self.map.apply(rows.as_slice().expect(contiguous), out.as_slice_mut().expect(contiguous));
        out
    }
}

impl Projection for Affine {
    fn input_dim(&self) -> usize {
        self.matrix.nrows()
    }

    fn output_dim(&self) -> usize {
        self.matrix.ncols()
    }

    fn transform(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        if rows.ncols() != self.input_dim() {
            return Err(Error::Width { expected: self.input_dim(), got: rows.ncols() });
        }
        if self.batch_scaled {
            return Ok(self.project(standardised(rows).view()));
        }
        Ok(self.project(rows))
    }
}

/// linfa's verb for the same thing.
///
/// # Panics
/// If the rows are not `d` wide; use [`Projection::transform`] for an error instead.
impl Transformer<ArrayView2<'_, f32>, Array2<f32>> for Affine {
    fn transform(&self, rows: ArrayView2<'_, f32>) -> Array2<f32> {
        Projection::transform(self, rows).expect("rows as wide as those of the fit")
    }
}

/// Columns of `rows` with mean 0 and population standard deviation 1; a constant column becomes 0.
pub(crate) fn standardised(rows: ArrayView2<'_, f32>) -> Array2<f32> {
    let n = rows.nrows().max(1) as f64;
    let mean = rows.fold_axis(Axis(0), 0.0, |sum, &x| sum + f64::from(x)) / n; // [d]
    let mut square = Array1::<f64>::zeros(rows.ncols());
    for row in rows.rows() {
        square.zip_mut_with(&(&row.mapv(f64::from) - &mean), |sum, &x| *sum += x * x);
    }
    let inverse = square.mapv(|sum| if sum > 0.0 { 1.0 / (sum / n).sqrt() } else { 1.0 });
    let mut out = rows.to_owned();
    for mut row in out.rows_mut() {
        for ((x, &m), &i) in row.iter_mut().zip(&mean).zip(&inverse) {
            *x = ((f64::from(*x) - m) * i) as f32;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn rows(n: usize, d: usize) -> Array2<f32> {
        Array2::from_shape_fn((n, d), |(i, j)| ((i * 31 + j * 17) % 101) as f32 / 10.0 - 3.0)
    }

    #[test]
    fn by_hand() {
        let map = Affine::new(
            array![1.0, 2.0].view(),
            array![2.0, 4.0].view(),
            array![[1.0, 1.0], [0.0, -2.0]].view(),
        );
        let out = Projection::transform(&map, array![[3.0_f32, 6.0]].view()).unwrap();
        assert_eq!(out, array![[2.0, -2.0]]); // ((3-1)/2 + (6-2)/4, -2·(6-2)/4)
        assert_eq!((map.input_dim(), map.output_dim()), (2, 2));
    }

    #[test]
    fn a_row_does_not_depend_on_its_companions() {
        for (d, k) in [(5, 1), (64, 3), (130, 130), (33, 17)] {
            let components =
                Array2::from_shape_fn((k, d), |(i, j)| ((i * 7 + j * 3) % 13) as f64 / 7.0 - 0.8);
            let mean = Array1::from_shape_fn(d, |j| j as f64 / 50.0);
            let map = Affine::new(mean.view(), Array1::ones(d).view(), components.view());
            let rows = rows(201, d);
            let whole = Projection::transform(&map, rows.view()).unwrap();
            for piece in [1, 2, 63, 64, 65, 200] {
                for from in (0..201).step_by(piece) {
                    let to = (from + piece).min(201);
                    let part = Projection::transform(&map, rows.slice(s![from..to, ..])).unwrap();
                    assert_eq!(part, whole.slice(s![from..to, ..]), "{d} {k} {piece} {from}");
                }
            }
        }
    }

    #[test]
    fn the_first_columns_of_a_wider_map_are_the_narrower_map() {
        let (d, k) = (50, 40);
        let components = Array2::from_shape_fn((k, d), |(i, j)| ((i * 7 + j * 3) % 13) as f64 / 7.0 - 0.8);
        let mean = Array1::from_shape_fn(d, |j| j as f64 / 50.0);
        let at = |k: usize| {
            Affine::new(mean.view(), Array1::from_elem(d, 3.0).view(), components.slice(s![..k, ..]))
        };
        let rows = rows(77, d);
        let wide = Projection::transform(&at(k), rows.view()).unwrap();
        for few in [1, 5, 15, 16, 17, 33] {
            let narrow = Projection::transform(&at(few), rows.view()).unwrap();
            assert_eq!(narrow, wide.slice(s![.., ..few]), "{few}");
            assert_eq!(at(few).matrix(), &at(k).matrix().slice(s![.., ..few]));
        }
        assert_eq!(at(k).mean(), &mean.mapv(|x| x as f32));
    }

    #[test]
    fn rows_in_any_layout() {
        let map = Affine::new(
            Array1::zeros(6).view(),
            Array1::ones(6).view(),
            Array2::from_shape_fn((4, 6), |(i, j)| (i + 2 * j) as f64).view(),
        );
        let rows = rows(9, 6);
        let columns_first = rows.t().as_standard_layout().into_owned();
        let got = Projection::transform(&map, columns_first.t()).unwrap();
        assert_eq!(got, Projection::transform(&map, rows.view()).unwrap());
    }

    #[test]
    fn a_batch_scaled_map_standardises_its_own_rows() {
        let map = Affine::batch_scaled(Array2::eye(3).view());
        let mut x = rows(40, 3);
        x.column_mut(2).fill(5.0);
        let z = Projection::transform(&map, x.view()).unwrap();
        for column in z.columns() {
            assert!(column.mean().unwrap().abs() < 1e-6);
        }
        let variance = |c: usize| z.column(c).mapv(|v| v * v).mean().unwrap();
        assert!((variance(0) - 1.0).abs() < 1e-5 && (variance(1) - 1.0).abs() < 1e-5);
        assert_eq!(z.column(2).mapv(f32::abs).sum(), 0.0);
        assert!(map.is_batch_scaled());
    }

    #[test]
    fn a_wrong_width_is_an_error_with_both_numbers() {
        let map = Affine::new(Array1::zeros(3).view(), Array1::ones(3).view(), Array2::eye(3).view());
        let error = Projection::transform(&map, rows(2, 4).view()).unwrap_err();
        assert_eq!(error.to_string(), "rows have 4 dimensions, expected 3");
    }

    #[test]
    fn large_offsets_cost_no_precision() {
        let map = Affine::new(array![10_000.0].view(), array![0.001].view(), array![[1.0]].view());
        let out = Projection::transform(&map, array![[10_000.0_f32], [10_000.002]].view()).unwrap();
        let truth = (f64::from(10_000.002_f32) - 10_000.0) / 0.001;
        assert_eq!(out[[0, 0]], 0.0);
        assert!((f64::from(out[[1, 0]]) - truth).abs() < 1e-3);
    }
}
