//! Resizing a map with one [`Taps`] per axis, and the gradient of that.
//!
//! `y[c, i, j] = Σ rows(i, p) cols(j, q) x[c, p, q]`, summed over `p` and `q` in two passes of one axis
//! each. The weights do not depend on the map, so its gradient is the same sum read backwards:
//! `gx[c, p, q] = Σ rows(i, p) cols(j, q) gy[c, i, j]`, summed over `i` and `j`. The vertical passes
//! work on whole rows, which the compiler turns into vector instructions.

use ndarray::{Array3, ArrayView1, ArrayView3, ArrayViewMut1, Axis, Zip};

use crate::error::expect_shape;
use crate::{Result, Taps};

/// `x` resized to `[c, rows.output(), cols.output()]`.
///
/// * `x`: `[c, h, w]` with `h = rows.input()` and `w = cols.input()`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if `x` has other sides than the taps read.
pub fn resize(x: ArrayView3<'_, f32>, rows: &Taps, cols: &Taps) -> Result<Array3<f32>> {
    let c = x.dim().0;
    expect_shape("x", &[c, rows.input(), cols.input()], x.shape())?;
    let mut wide = Array3::zeros((c, rows.input(), cols.output()));
    Zip::from(wide.lanes_mut(Axis(2))).and(x.lanes(Axis(2))).for_each(|to, from| gather(to, from, cols));
    let mut y = Array3::zeros((c, rows.output(), cols.output()));
    Zip::from(y.outer_iter_mut()).and(wide.outer_iter()).for_each(|mut to, from| {
        for (i, mut row) in to.outer_iter_mut().enumerate() {
            for &(p, weight) in rows.at(i) {
                row.scaled_add(weight, &from.row(p));
            }
        }
    });
    Ok(y)
}

/// Gradient of [`resize`] with respect to the map: `[c, rows.input(), cols.input()]`.
///
/// It is the exact adjoint for all taps. (PyTorch's bicubic gradient ignores a given scale when the
/// size does not change, although its forward pass uses it.)
///
/// * `grad`: `[c, rows.output(), cols.output()]`, the gradient with respect to the resized map.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if `grad` has other sides than the taps write.
pub fn resize_backward(grad: ArrayView3<'_, f32>, rows: &Taps, cols: &Taps) -> Result<Array3<f32>> {
    let c = grad.dim().0;
    expect_shape("grad", &[c, rows.output(), cols.output()], grad.shape())?;
    let mut wide = Array3::zeros((c, rows.input(), cols.output()));
    Zip::from(wide.outer_iter_mut()).and(grad.outer_iter()).for_each(|mut to, from| {
        for (i, row) in from.outer_iter().enumerate() {
            for &(p, weight) in rows.at(i) {
                to.row_mut(p).scaled_add(weight, &row);
            }
        }
    });
    let mut gx = Array3::zeros((c, rows.input(), cols.input()));
    Zip::from(gx.lanes_mut(Axis(2))).and(wide.lanes(Axis(2))).for_each(|to, from| scatter(to, from, cols));
    Ok(gx)
}

/// One row of a map, `[w]`, read at the places of `cols`.
fn gather(mut to: ArrayViewMut1<'_, f32>, from: ArrayView1<'_, f32>, cols: &Taps) {
    for (j, value) in to.iter_mut().enumerate() {
        *value = cols.at(j).iter().map(|&(q, weight)| weight * from[q]).sum();
    }
}

/// The transpose of [`gather`]: adds each value to the places it was read from.
fn scatter(mut to: ArrayViewMut1<'_, f32>, from: ArrayView1<'_, f32>, cols: &Taps) {
    for (j, value) in from.iter().enumerate() {
        for &(q, weight) in cols.at(j) {
            to[q] += weight * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::{Align, Error, Mode};

    /// A map without symmetries, `[c, h, w]`.
    fn map(c: usize, h: usize, w: usize) -> Array3<f32> {
        Array3::from_shape_fn((c, h, w), |(k, i, j)| ((7 * k + 3 * i + j * j) as f32).sin())
    }

    fn dot(a: &Array3<f32>, b: &Array3<f32>) -> f64 {
        Zip::from(a).and(b).fold(0.0, |sum, &a, &b| sum + f64::from(a) * f64::from(b))
    }

    #[test]
    fn backward_is_the_adjoint() {
        for mode in [Mode::Nearest, Mode::Bilinear, Mode::Bicubic] {
            for align in [Align::HalfPixel, Align::Corners, Align::Scale(1.3)] {
                for (ho, wo) in [(11, 4), (3, 17), (5, 6)] {
                    let (rows, cols) = (Taps::new(mode, align, 5, ho), Taps::new(mode, align, 6, wo));
                    let (x, g) = (map(2, 5, 6), map(2, ho, wo) + 0.3);
                    let forward = dot(&resize(x.view(), &rows, &cols).unwrap(), &g);
                    let backward = dot(&x, &resize_backward(g.view(), &rows, &cols).unwrap());
                    assert!((forward - backward).abs() < 1e-5, "{mode:?} {align:?}");
                }
            }
        }
    }

    #[test]
    fn backward_is_the_slope_of_forward() {
        let rows = Taps::new(Mode::Bicubic, Align::HalfPixel, 3, 7);
        let cols = Taps::new(Mode::Bicubic, Align::Corners, 4, 2);
        let (x, g) = (map(1, 3, 4), map(1, 7, 2));
        let loss = |x: &Array3<f32>| dot(&resize(x.view(), &rows, &cols).unwrap(), &g);
        let slope = resize_backward(g.view(), &rows, &cols).unwrap();
        for (index, &slope) in slope.indexed_iter() {
            let mut moved = x.clone();
            moved[index] += 1.0; // the loss is linear in the map, so that any step will do
            assert!((loss(&moved) - loss(&x) - f64::from(slope)).abs() < 1e-5, "{index:?}");
        }
    }

    #[test]
    fn rows_and_columns_are_not_confused() {
        let x = array![[[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]]];
        let double = Taps::new(Mode::Nearest, Align::HalfPixel, 2, 4);
        let keep = Taps::new(Mode::Nearest, Align::HalfPixel, 3, 3);
        let y = resize(x.view(), &double, &keep).unwrap();
        assert_eq!(y.index_axis(Axis(2), 1), array![[1.0, 1.0, 11.0, 11.0]]);
        // Views with other strides give the same numbers.
        let turned = resize(x.view().permuted_axes([0, 2, 1]), &keep, &double).unwrap();
        assert_eq!(turned, y.permuted_axes([0, 2, 1]));
    }

    #[test]
    fn other_sides_are_refused() {
        let (rows, cols) = (
            Taps::new(Mode::Bilinear, Align::HalfPixel, 2, 4),
            Taps::new(Mode::Bilinear, Align::HalfPixel, 3, 6),
        );
        let refused = resize(map(1, 3, 2).view(), &rows, &cols).unwrap_err();
        assert_eq!(refused, Error::Shape { what: "x", expected: vec![1, 2, 3], got: vec![1, 3, 2] });
        assert_eq!(refused.to_string(), "x has shape [1, 3, 2], expected [1, 2, 3]");
        assert!(resize_backward(map(1, 2, 3).view(), &rows, &cols).is_err());
    }

    #[test]
    fn nothing_resizes_to_zeros() {
        let (none, cols) = (
            Taps::new(Mode::Bilinear, Align::HalfPixel, 0, 2),
            Taps::new(Mode::Bicubic, Align::HalfPixel, 3, 4),
        );
        assert_eq!(resize(map(1, 0, 3).view(), &none, &cols).unwrap(), Array3::<f32>::zeros((1, 2, 4)));
        assert_eq!(resize_backward(map(1, 2, 4).view(), &none, &cols).unwrap().dim(), (1, 0, 3));
    }
}
