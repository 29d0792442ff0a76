//! What a patch token shows: its share of every class, by area, and the class it shows most of.
//!
//! Token `(i, q)` of a grid `[gh, gw]` sees the rectangle from `(i h/gh, q w/gw)` to `((i+1) h/gh, (q+1) w/gw)` of a
//! label map `[h, w]`. Where its edge cuts a pixel, the pixel counts by the part inside. In units of `1/(gh·gw)` of a
//! pixel all of these areas are integers, so the sums are exact for any ratio of the sizes, and so are ties.
//!
//! Pixels without a class (255, or any value of `c` or more) are no part of a histogram: it sums to the labelled share of the
//! patch. This is not a resized label map, which would take one pixel's word for the patch.

use ndarray::{Array2, ArrayView2};

use crate::error::{expect_range, expect_shape};
use crate::{Error, Result};

/// The label of what has no class.
pub(crate) const NO_CLASS: u8 = 255;

/// Share of every patch that each class covers, `[t, c]` with `t = gh·gw`; rows sum to the labelled share, at most 1.
///
/// * `labels`: `[h, w]`; values of `classes` or more are no class.
/// * `grid`: `(gh, gw)`; neither need divide `h` or `w`.
/// * `classes`: `c`, 1 to 255.
///
/// # Errors
/// [`Error::Range`](crate::Error::Range) for a grid or label map without elements, or an unfit number of classes.
///
/// ```
/// let labels = ndarray::array![[0, 1, 255]]; // three pixels, seen by two tokens of a pixel and a half
/// let shares = probe::patch_histograms(labels.view(), (1, 2), 2)?;
/// assert_eq!(shares, ndarray::array![[2. / 3., 1. / 3.], [0., 1. / 3.]]);
/// # Ok::<(), probe::Error>(())
/// ```
pub fn patch_histograms(
    labels: ArrayView2<'_, u8>,
    grid: (usize, usize),
    classes: usize,
) -> Result<Array2<f32>> {
    let whole = labels.len() as f64; // of a patch, in units of 1/(gh·gw) of a pixel
    Ok(areas(labels, grid, classes)?.mapv(|area| (area as f64 / whole) as f32))
}

/// The class that covers most of every patch, `[t]`; of equal ones the lowest, and 255 for a patch without any.
///
/// Arguments and errors as for [`patch_histograms`].
///
/// ```
/// let labels = ndarray::array![[0, 1, 255, 255]];
/// assert_eq!(probe::patch_majority(labels.view(), (1, 2), 2)?, [0, 255]);
/// # Ok::<(), probe::Error>(())
/// ```
pub fn patch_majority(labels: ArrayView2<'_, u8>, grid: (usize, usize), classes: usize) -> Result<Vec<u8>> {
    let areas = areas(labels, grid, classes)?;
    let largest = |row: ndarray::ArrayView1<'_, u64>| {
        let best = row.iter().enumerate().rev().max_by_key(|&(_, &area)| area);
        best.filter(|&(_, &area)| area > 0).map_or(NO_CLASS, |(class, _)| class as u8)
    };
    Ok(areas.outer_iter().map(largest).collect())
}

/// Weights of the classes that give each the same total, with mean 1 over what is labelled: `a_j = total / (present ·
/// total_j)`.
///
/// Multiply the columns of [`patch_histograms`] by them to balance a [`Gram`](crate::Gram). A class that does not occur
/// gets 0.
///
/// * `totals`: `[c]`, what there is of every class, for example the column sums of all histograms.
#[must_use]
pub fn balancing_weights(totals: &[f64]) -> Vec<f64> {
    let present = totals.iter().filter(|&&total| total > 0.0).count() as f64;
    let sum: f64 = totals.iter().sum();
    totals.iter().map(|&total| if total > 0.0 { sum / (present * total) } else { 0.0 }).collect()
}

/// Areas `[t, c]` in units of `1/(gh·gw)` of a pixel.
fn areas(labels: ArrayView2<'_, u8>, grid: (usize, usize), classes: usize) -> Result<Array2<u64>> {
    let ((gh, gw), (h, w)) = (grid, labels.dim());
    expect_range(gh * gw > 0, "grid", "at least one token", format!("{gh} x {gw}"))?;
    expect_range((1..=255).contains(&classes), "number of classes", "1 to 255", classes)?;
    if labels.is_empty() {
        return Err(Error::Empty("label map"));
    }
    let (rows, columns) = (overlaps(h, gh), overlaps(w, gw));
    let mut areas = Array2::zeros((gh * gw, classes)); // [t, c]
    for (line, rows) in labels.outer_iter().zip(&rows) {
        for (&label, columns) in line.iter().zip(&columns) {
            if usize::from(label) < classes {
                for &(i, height) in rows {
                    for &(q, width) in columns {
                        areas[[i * gw + q, usize::from(label)]] += height * width;
                    }
                }
            }
        }
    }
    Ok(areas)
}

/// For every pixel of an axis the patches it lies in, with the length of it inside, in units of `1/patches` of a pixel.
fn overlaps(pixels: usize, patches: usize) -> Vec<Vec<(usize, u64)>> {
    let within = |x: usize| {
        let (from, to) = (x * patches, (x + 1) * patches); // the pixel, where a patch is `pixels` long
        let first = from / pixels;
        let last = (to - 1) / pixels;
        let inside = |q: usize| to.min((q + 1) * pixels) - from.max(q * pixels);
        (first..=last).map(|q| (q, inside(q) as u64)).collect()
    };
    (0..pixels).map(within).collect()
}

/// Fails unless masses `[n, c]` of rows `[n, d]` are finite and not negative.
pub(crate) fn check_masses(masses: ArrayView2<'_, f32>, rows: usize, classes: usize) -> Result<()> {
    expect_shape("class masses", &[rows, classes], masses.shape())?;
    let broken = masses.iter().find(|m| !(m.is_finite() && **m >= 0.0));
    let got = broken.copied().unwrap_or_default();
    expect_range(broken.is_none(), "class mass", "a finite number that is not negative", got)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    fn map(h: usize, w: usize) -> Array2<u8> {
        Array2::from_shape_fn((h, w), |(y, x)| match (y * 5 + x * 3 + y * x) % 7 {
            6 => 255,
            class => class as u8,
        })
    }

    #[test]
    fn whole_pixels_are_counted() {
        let labels = map(8, 12);
        let shares = patch_histograms(labels.view(), (2, 3), 6).unwrap();
        for ((i, q), class) in [(0, 0), (0, 2), (1, 1)].into_iter().zip(0..6) {
            let patch = labels.slice(ndarray::s![i * 4..i * 4 + 4, q * 4..q * 4 + 4]);
            let count = patch.iter().filter(|&&label| usize::from(label) == class).count();
            assert_eq!(shares[[i * 3 + q, class]], count as f32 / 16.0);
        }
    }

    #[test]
    fn cut_pixels_count_by_their_part() {
        // Drawn on a grid so fine that both pixels and patches are whole there.
        for ((h, w), (gh, gw)) in [((5, 7), (3, 2)), ((4, 4), (3, 3)), ((2, 3), (5, 4)), ((1, 1), (2, 2))] {
            let labels = map(h, w);
            let shares = patch_histograms(labels.view(), (gh, gw), 6).unwrap();
            let mut fine = Array2::<f64>::zeros((gh * gw, 6));
            for (y, x) in (0..h * gh).flat_map(|y| (0..w * gw).map(move |x| (y, x))) {
                let label = labels[[y / gh, x / gw]];
                if label < 6 {
                    fine[[y / h * gw + x / w, usize::from(label)]] += 1.0 / (h * w) as f64;
                }
            }
            assert!(shares.iter().zip(&fine).all(|(&a, &b)| (f64::from(a) - b).abs() < 1e-6), "{h} x {w}");
        }
    }

    #[test]
    fn rows_sum_to_the_labelled_share() {
        let labels = array![[0, 255, 9, 1]];
        let shares = patch_histograms(labels.view(), (1, 2), 2).unwrap();
        assert_eq!(shares, array![[0.5, 0.0], [0.0, 0.5]]);
    }

    #[test]
    fn ties_are_exact_and_go_to_the_lowest_class() {
        // Three pixels per patch and a third: class 1 and 0 cover the same area of the middle patch.
        let labels = array![[2, 2, 2, 1, 0, 2, 2, 2]];
        assert_eq!(patch_majority(labels.view(), (1, 3), 3).unwrap(), [2, 0, 2]);
        let labels = array![[1, 0, 255, 255, 255, 255]];
        assert_eq!(patch_majority(labels.view(), (1, 3), 2).unwrap(), [0, 255, 255]);
    }

    #[test]
    fn balanced_classes_weigh_the_same() {
        let totals = [6.0, 0.0, 2.0];
        let weights = balancing_weights(&totals);
        assert_eq!(weights, [8.0 / 12.0, 0.0, 2.0]);
        let balanced: Vec<f64> = totals.iter().zip(&weights).map(|(t, w)| t * w).collect();
        assert_eq!(balanced, [4.0, 0.0, 4.0]);
        assert_eq!(balancing_weights(&[0.0, 0.0]), [0.0, 0.0]);
    }

    #[test]
    fn misfits_are_refused() {
        let labels = map(4, 4);
        assert!(matches!(patch_histograms(labels.view(), (0, 2), 3), Err(Error::Range { what: "grid", .. })));
        assert!(patch_majority(labels.view(), (2, 2), 0).is_err());
        let none = Array2::<u8>::zeros((0, 4));
        assert!(matches!(patch_histograms(none.view(), (1, 1), 3), Err(Error::Empty("label map"))));
        assert!(check_masses(array![[0.5, -0.1]].view(), 1, 2).is_err());
        assert!(check_masses(array![[0.5, f32::NAN]].view(), 1, 2).is_err());
        assert!(check_masses(array![[0.5, 0.0]].view(), 2, 2).is_err());
    }
}
