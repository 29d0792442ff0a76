//! Eigen-decomposition of symmetric matrices, largest eigenvalue first, with signs fixed.
//!
//! It is faer's: to tridiagonal form, then divide and conquer, in 64 bits on the calling thread, so that the bits do not depend
//! on how many threads there are. Signs follow scikit-learn's rule: in every eigenvector the entry of largest absolute
//! value is positive. Eigenvectors of equal eigenvalues are arbitrary but orthonormal.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::{Mat, Par};
use ndarray::{Array1, Array2};

use crate::{Error, Result};

/// Eigenvalues `[d]`, largest first, and eigenvectors as rows `[d, d]`, of the symmetric matrix `[d, d]`.
///
/// # Errors
/// [`Error::Decomposition`] for numbers that are not finite, or if the iteration fails.
pub(crate) fn eigen(matrix: &Array2<f64>) -> Result<(Array1<f64>, Array2<f64>)> {
    let d = matrix.nrows();
    if !matrix.iter().all(|x| x.is_finite()) {
        return Err(Error::Decomposition("the matrix holds numbers that are not finite".into()));
    }
    let copy = Mat::from_fn(d, d, |i, j| matrix[[i, j]]);
    let (mut values, mut vectors) = (Diag::<f64>::zeros(d), Mat::<f64>::zeros(d, d));
    let (par, params) = (Par::Seq, faer::Spec::default());
    let scratch = self_adjoint_evd_scratch::<f64>(d, ComputeEigenvectors::Yes, par, params);
    let mut buffer = MemBuffer::new(scratch);
    self_adjoint_evd(
        copy.as_ref(),
        values.as_mut(),
        Some(vectors.as_mut()),
        par,
        MemStack::new(&mut buffer),
        params,
    )
    .map_err(|e| Error::Decomposition(format!("{e:?}")))?;
    // Ascending there, descending here.
    let mut rows = Array2::zeros((d, d));
    for (i, mut row) in rows.rows_mut().into_iter().enumerate() {
        row.iter_mut().zip(vectors.col(d - 1 - i).iter()).for_each(|(to, &x)| *to = x);
    }
    fix_signs(&mut rows);
    Ok(((0..d).map(|i| values[d - 1 - i]).collect(), rows))
}

/// Makes the entry of largest absolute value of every row positive (the first of equals).
pub(crate) fn fix_signs(components: &mut Array2<f64>) {
    for mut component in components.rows_mut() {
        let largest = component.iter().fold(0.0_f64, |best, &x| if x.abs() > best.abs() { x } else { best });
        if largest < 0.0 {
            component.mapv_inplace(|x| -x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn by_hand() {
        let (values, vectors) = eigen(&array![[2.0, 1.0], [1.0, 2.0]]).unwrap();
        assert!((&values - &array![3.0, 1.0]).iter().all(|x| x.abs() < 1e-14));
        let half = 0.5_f64.sqrt();
        for (row, want) in vectors.rows().into_iter().zip([[half, half], [half, -half]]) {
            let off = (row[0].abs() - want[0]).abs() + (row[0] * row[1] - want[0] * want[1]).abs();
            assert!(off < 1e-14, "{row}");
        }
    }

    #[test]
    fn vectors_are_orthonormal_and_give_the_matrix_back() {
        for d in [1, 2, 17, 64, 130] {
            let a = Array2::from_shape_fn((d, d), |(i, j)| (((i * 37 + j * 91) % 101) as f64 / 50.0).cos());
            let matrix = a.t().dot(&a);
            let (values, vectors) = eigen(&matrix).unwrap();
            let back = (vectors.t().to_owned() * &values).dot(&vectors);
            let scale = values[0];
            assert!((&back - &matrix).iter().all(|x| x.abs() < 1e-12 * scale), "{d}");
            let gram = vectors.dot(&vectors.t()) - Array2::<f64>::eye(d);
            assert!(gram.iter().all(|x| x.abs() < 1e-12), "{d}");
            assert!(values.windows(2).into_iter().all(|w| w[0] >= w[1]), "{d}");
        }
    }

    #[test]
    fn degenerate_matrices() {
        let (values, vectors) = eigen(&Array2::zeros((5, 5))).unwrap();
        assert_eq!(values, Array1::<f64>::zeros(5));
        assert!((vectors.dot(&vectors.t()) - Array2::<f64>::eye(5)).iter().all(|x| x.abs() < 1e-14));
        assert!(matches!(eigen(&array![[f64::NAN]]), Err(Error::Decomposition(_))));
        assert_eq!(eigen(&array![[4.0]]).unwrap(), (array![4.0], array![[1.0]]));
    }
}
