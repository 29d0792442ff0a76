//! Views of matrices in slices, and their product.
//!
//! A view has a row and a column stride, so that a transpose, a block of columns or one head of a fused `qkv` matrix costs
//! nothing. The product is the `gemm` crate's, an unsafe call: it takes pointers, and the
//! views have checked that every element lies in its slice.

use std::marker::PhantomData;

use gemm::Parallelism;

/// How a product may use the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread: for products within a parallel loop.
    One,
    /// All threads of the current pool.
    All,
}

/// A matrix that is read.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `[rows, columns]` in row-major order.
    ///
    /// # Panics
    /// If `data` has another length.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of {rows} x {columns}");
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The columns from `first` on, `columns` of them, of a row-major matrix with rows of `stride` numbers.
    ///
    /// # Panics
    /// If `data` is not a whole number of rows, or a row has fewer columns.
    #[must_use]
    pub fn columns(data: &'a [f32], stride: usize, first: usize, columns: usize) -> Self {
        let rows = whole_rows(data.len(), stride, first + columns);
        Self { data: &data[first.min(data.len())..], rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// The transpose.
    #[must_use]
    pub fn t(self) -> Self {
        let Self { data, rows, columns, row_stride, column_stride } = self;
        Self { data, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
    }
}

/// A matrix that is written.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    unique: PhantomData<&'a mut f32>,
}

impl<'a> MatrixMut<'a> {
    /// `[rows, columns]` in row-major order.
    ///
    /// # Panics
    /// If `data` has another length.
    #[must_use]
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of {rows} x {columns}");
        Self { data, rows, columns, row_stride: columns, unique: PhantomData }
    }

    /// As [`Matrix::columns`].
    ///
    /// # Panics
    /// As [`Matrix::columns`].
    #[must_use]
    pub fn columns(data: &'a mut [f32], stride: usize, first: usize, columns: usize) -> Self {
        let rows = whole_rows(data.len(), stride, first + columns);
        let start = first.min(data.len());
        Self { data: &mut data[start..], rows, columns, row_stride: stride, unique: PhantomData }
    }
}

fn whole_rows(len: usize, stride: usize, end: usize) -> usize {
    assert!(stride > 0 && len.is_multiple_of(stride), "{len} numbers are not rows of {stride}");
    assert!(end <= stride, "columns up to {end} of rows of {stride}");
    len / stride
}

/// `out = keep * out + scale * a b`. With `keep = 0` what was in `out` does not matter, NaN included.
///
/// # Panics
/// If the shapes do not fit.
pub fn gemm(out: MatrixMut<'_>, keep: f32, scale: f32, a: Matrix<'_>, b: Matrix<'_>, threads: Threads) {
    assert_eq!((out.rows, out.columns), (a.rows, b.columns), "the product's shape");
    assert_eq!(a.columns, b.rows, "the inner dimension");
    if out.rows == 0 || out.columns == 0 {
        return;
    }
    let inside = |len: usize, rows: usize, columns: usize, row_stride: usize, column_stride: usize| {
        rows == 0 || columns == 0 || (rows - 1) * row_stride + (columns - 1) * column_stride < len
    };
    assert!(
        inside(out.data.len(), out.rows, out.columns, out.row_stride, 1),
        "the product lies in its slice"
    );
    for m in [&a, &b] {
        assert!(
            inside(m.data.len(), m.rows, m.columns, m.row_stride, m.column_stride),
            "factors lie in theirs"
        );
    }
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(rayon::current_num_threads()),
    };
    let stride = |stride: usize| isize::try_from(stride).expect("strides are below the length of a slice");
    // SAFETY: the largest index of each view was just checked to lie in its slice, the smallest is 0, and `out` is
    // borrowed mutably, so that nothing else reads or writes it. Rows of `out` do not overlap: its columns
    // lie within a row stride.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            a.columns,
            out.data.as_mut_ptr(),
            1,
            stride(out.row_stride),
            keep != 0.0,
            a.data.as_ptr(),
            stride(a.column_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.column_stride),
            stride(b.row_stride),
            keep,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7).sin()).collect()
    }

    #[test]
    fn products_of_transposes_and_columns() {
        let (a, b) = (ramp(3 * 10), ramp(4 * 10));
        // Columns 2..7 of a [3, 10] by the transpose of columns 5..10 of b [4, 10].
        let mut out = vec![f32::NAN; 3 * 4];
        let (left, right) = (Matrix::columns(&a, 10, 2, 5), Matrix::columns(&b, 10, 5, 5).t());
        gemm(MatrixMut::new(&mut out, 3, 4), 0.0, 2.0, left, right, Threads::One);
        for i in 0..3 {
            for j in 0..4 {
                let sum: f32 = (0..5).map(|k| a[i * 10 + 2 + k] * b[j * 10 + 5 + k]).sum();
                assert!((out[i * 4 + j] - 2.0 * sum).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn what_is_there_is_kept_on_request_and_columns_beside_are_left_alone() {
        let mut out = vec![1.0; 2 * 5];
        let ones = [1.0; 2];
        let product = (Matrix::new(&ones, 2, 1), Matrix::new(&ones, 1, 2));
        gemm(MatrixMut::columns(&mut out, 5, 1, 2), 1.0, 3.0, product.0, product.1, Threads::All);
        assert_eq!(out, [1.0, 4.0, 4.0, 1.0, 1.0, 1.0, 4.0, 4.0, 1.0, 1.0]);
    }

    #[test]
    #[should_panic(expected = "the inner dimension")]
    fn shapes_are_checked() {
        let a = [0.0; 6];
        gemm(
            MatrixMut::new(&mut [0.0; 4], 2, 2),
            0.0,
            1.0,
            Matrix::new(&a, 2, 3),
            Matrix::new(&a[..4], 2, 2),
            Threads::One,
        );
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let (m, n, k) = (301, 203, 157);
        let (a, b) = (ramp(m * k), ramp(k * n));
        let product = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut out = vec![0.0; m * n];
            let (left, right) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
            pool.install(|| gemm(MatrixMut::new(&mut out, m, n), 0.0, 1.0, left, right, Threads::All));
            out
        };
        let one = product(1);
        assert!((2..6).all(|threads| product(threads) == one));
    }
}
