//! Augmentation alignment: the code of an augmented image should be the code at the place where its pixels came from.
//!
//! The loss is `-mean cos(code(p), code_aug)` over the tokens of the augmented image, with `p` the places of these tokens in the
//! original one. [`aligned_points`] makes them from a map of coordinates that went through the same augmentation.
//!
//! The original samples with the two axes swapped, on coordinates stored as `(row, column)`: it reads at the transposed
//! place, which is the right one only where rows and columns were moved alike. Here the axes are what they are;
//! [`Points::swapped`] of the coordinates has the original's numbers.

use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;
use resample::{Align, Mode, Taps, resize};

use super::Points;
use super::error::{Error, Result, expect_finite, expect_range, expect_shape};
use super::unit::{make_unit, through_unit};

/// The loss with its slope in both codes.
#[derive(Debug, Clone, PartialEq)]
pub struct AlignmentGradient {
    /// Minus the mean cosine.
    pub loss: f64,
    /// `[b, t, k]`.
    pub grad_codes: Array3<f32>,
    /// `[b, t, k]`, of the augmented images.
    pub grad_codes_aug: Array3<f32>,
}

/// Where the tokens of an augmented image came from.
///
/// * `coordinates`: `[h, w, 2]`, `(row, column)` in `[-1, 1]`, augmented as the image was; they are resized bilinearly to the grid.
///
/// # Errors
/// [`Error::Shape`] if the last axis is not 2, [`Error::Range`] for nothing.
pub fn aligned_points(coordinates: ArrayView3<'_, f32>, grid: (usize, usize)) -> Result<Points> {
    let (h, w, _) = coordinates.dim();
    expect_shape("coordinates", &[h, w, 2], coordinates.shape())?;
    expect_range(h > 0 && w > 0, "map of coordinates", "at least one pixel", format!("{h} x {w}"))?;
    let taps = |from, to| Taps::new(Mode::Bilinear, Align::HalfPixel, from, to);
    let maps = coordinates.permuted_axes([2, 0, 1]);
    let small = resize(maps, &taps(h, grid.0), &taps(w, grid.1)).expect("the taps were made for this map");
    let at = |i: usize, j: usize| [small[[1, i, j]], small[[0, i, j]]];
    let points: Vec<_> = (0..grid.0).flat_map(|i| (0..grid.1).map(move |j| at(i, j))).collect();
    Points::new(&points, grid)
}

/// The alignment loss and its gradient in both codes.
///
/// * `codes`, `codes_aug`: `[b, t, k]`, of images and augmented images; `points`: of every image, the place of every token of the
///   augmented one.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Empty`] if they do not fit, [`Error::NotFinite`] if the loss is no number.
pub fn alignment_gradient(
    codes: ArrayView3<'_, f32>,
    codes_aug: ArrayView3<'_, f32>,
    points: &[Points],
) -> Result<AlignmentGradient> {
    let (b, t, k) = codes.dim();
    let t_aug = codes_aug.dim().1;
    expect_shape("codes_aug", &[b, t_aug, k], codes_aug.shape())?;
    expect_shape("points", &[b], &[points.len()])?;
    if b * t_aug * k == 0 {
        return Err(Error::Empty("batch of codes"));
    }
    let share = 1.0 / (b * t_aug) as f64;
    let image = |i: usize| -> Result<(f64, Vec<f32>, Vec<f32>)> {
        expect_shape("points of an image", &[t_aug], &[points[i].len()])?;
        let sampled = points[i].sample(codes.index_axis(Axis(0), i))?.into_raw_vec_and_offset().0;
        let aug: Vec<f32> = codes_aug.index_axis(Axis(0), i).iter().copied().collect();
        let (loss, slope, slope_aug) = cosine_slopes(&sampled, &aug, k, share);
        let mut grad = vec![0.0; t * k];
        points[i].add_back(&slope, k, &mut grad);
        Ok((loss, grad, slope_aug))
    };
    let images: Vec<_> = (0..b).into_par_iter().map(image).collect::<Result<_>>()?;
    let (mut loss, mut grads, mut grads_aug) = (0.0, Vec::new(), Vec::new());
    for (part, grad, grad_aug) in images {
        loss += part;
        grads.extend(grad);
        grads_aug.extend(grad_aug);
    }
    let array = |t, grads| Array3::from_shape_vec((b, t, k), grads).expect("all images");
    Ok(AlignmentGradient {
        loss: expect_finite("the alignment loss", loss)?,
        grad_codes: array(t, grads),
        grad_codes_aug: array(t_aug, grads_aug),
    })
}

/// `-share Σ cos(x, y)` over rows of `width`, and its gradients in both.
pub(super) fn cosine_slopes(x: &[f32], y: &[f32], width: usize, share: f64) -> (f64, Vec<f32>, Vec<f32>) {
    let (mut unit_x, mut unit_y) = (x.to_vec(), y.to_vec());
    make_unit(&mut unit_x, width);
    make_unit(&mut unit_y, width);
    let scale = -share as f32;
    let mut slope_x: Vec<f32> = unit_y.iter().map(|y| y * scale).collect();
    let mut slope_y: Vec<f32> = unit_x.iter().map(|x| x * scale).collect();
    let mut sum = 0.0;
    for at in (0..x.len()).step_by(width).map(|first| first..first + width) {
        let (x, y, unit_x, unit_y) =
            (&x[at.clone()], &y[at.clone()], &unit_x[at.clone()], &unit_y[at.clone()]);
        sum += f64::from(kernels::dot(unit_x, unit_y));
        through_unit(x, unit_x, &mut slope_x[at.clone()]);
        through_unit(y, unit_y, &mut slope_y[at]);
    }
    (-share * sum, slope_x, slope_y)
}
