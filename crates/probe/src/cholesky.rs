//! The factor `L` of a symmetric matrix `A = L Lᵀ`, and its inverse, in 64 bits and row by row.
//!
//! The leading blocks of both are the factor and the inverse of the leading blocks of `A`, which is what
//! [`Ridge`](crate::Ridge) lives on. A row that is (to rounding) a combination of earlier ones gets a zero row and a
//! zero pivot, and so does not take part in what follows; a matrix that is not positive semi-definite is not noticed.

use ndarray::Array2;

/// A pivot this small against its diagonal entry is rounding.
const RANK_TOLERANCE: f64 = 1e-12;

/// Replaces the lower triangle of `a`, `[d, d]`, by its factor; the upper one is left as it is.
pub(crate) fn factor(a: &mut Array2<f64>) {
    let d = a.nrows();
    let a = a.as_slice_mut().expect("made in standard layout");
    for i in 0..d {
        let (above, row) = a.split_at_mut(i * d);
        let row = &mut row[..d];
        kernels::simd(
            #[inline(always)]
            || {
                for j in 0..i {
                    let other = &above[j * d..][..=j];
                    let pivot = other[j];
                    let rest = row[j] - dot(&row[..j], &other[..j]);
                    row[j] = if pivot > 0.0 { rest / pivot } else { 0.0 };
                }
            },
        );
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        if pivot > RANK_TOLERANCE * row[i] {
            row[i] = pivot.sqrt();
        } else {
            row[..=i].fill(0.0);
        }
    }
}

/// The inverse of the factor in the lower triangle, `[d, d]`, zero above the diagonal and in rows without a pivot.
pub(crate) fn inverse_of_factor(factor: &Array2<f64>) -> Array2<f64> {
    let d = factor.nrows();
    let mut inverse = Array2::zeros((d, d));
    let out = inverse.as_slice_mut().expect("made in standard layout");
    for i in 0..d {
        let pivot = factor[[i, i]];
        if pivot == 0.0 {
            continue;
        }
        let (above, row) = out.split_at_mut(i * d);
        let row = &mut row[..=i];
        let factors = factor.row(i);
        kernels::simd(
            #[inline(always)]
            || {
                for k in 0..i {
                    let factor = factors[k];
                    for (to, &x) in row[..=k].iter_mut().zip(&above[k * d..][..=k]) {
                        *to -= factor * x;
                    }
                }
                for x in row[..i].iter_mut() {
                    *x /= pivot;
                }
            },
        );
        row[i] = 1.0 / pivot;
    }
    inverse
}

/// `Σ a b` in eight lanes that are added in order.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use ndarray::{array, s};

    use super::*;

    /// Positive definite, and not by accident.
    fn matrix(d: usize) -> Array2<f64> {
        let root = Array2::from_shape_fn((d, d + 2), |(i, j)| ((i * 31 + j * 17) as f64).sin());
        root.dot(&root.t())
    }

    fn lower(factor: &Array2<f64>) -> Array2<f64> {
        Array2::from_shape_fn(factor.dim(), |(i, j)| if j <= i { factor[[i, j]] } else { 0.0 })
    }

    #[test]
    fn factors_multiply_back_and_inverses_cancel() {
        for d in [1, 2, 9, 33] {
            let a = matrix(d) + Array2::<f64>::eye(d);
            let mut l = a.clone();
            factor(&mut l);
            let inverse = inverse_of_factor(&l);
            let l = lower(&l);
            assert!((l.dot(&l.t()) - &a).iter().all(|x| x.abs() < 1e-10));
            assert!((l.dot(&inverse) - Array2::<f64>::eye(d)).iter().all(|x| x.abs() < 1e-10));
        }
    }

    #[test]
    fn leading_blocks_have_leading_factors() {
        let (mut whole, mut part) = (matrix(20), matrix(20).slice(s![..13, ..13]).to_owned());
        factor(&mut whole);
        factor(&mut part);
        assert_eq!(lower(&part), lower(&whole).slice(s![..13, ..13]));
        assert_eq!(inverse_of_factor(&part), inverse_of_factor(&whole).slice(s![..13, ..13]));
    }

    #[test]
    fn dependent_rows_drop_out() {
        let mut a = array![[4.0, 8.0, 2.0], [8.0, 16.0, 4.0], [2.0, 4.0, 5.0]]; // the second is twice the first
        factor(&mut a);
        assert_eq!(lower(&a), array![[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 2.0]]);
        let inverse = inverse_of_factor(&a);
        assert_eq!(inverse.row(1).to_vec(), [0.0; 3]);
        let mut none = Array2::zeros((2, 2));
        factor(&mut none);
        assert_eq!(inverse_of_factor(&none), Array2::<f64>::zeros((2, 2)));
    }
}
