//! Boundary IoU: the overlap of the *edges* of what is and what was predicted (Cheng et al., 2021).
//!
//! The band of a class is what an erosion of its mask by `d` pixels takes away: its pixels that have one of another
//! class, or the outside of the image, in the square of `2 d + 1` pixels around them. With `G` and `P` the masks and
//! `G_d` and `P_d` their bands, the score is `|G_d ∩ P_d| / |G_d ∪ P_d|` per class. `d` is a share of the image's
//! diagonal, 0.02 as published. The square is that of the published code, which erodes by 3×3 ones `d` times.
//!
//! The bands of all classes are found at once, in time that depends on neither `d` nor `c`: a pixel lies in the band of
//! its own class unless the square around it is of one class, which run lengths along rows and then along columns tell.
//!
//! Counts of one image add to those of others, so that the score of a set, and a [`bootstrap`](crate::bootstrap) of it,
//! work as for the mean IoU.

use ndarray::{Array2, ArrayView2, Axis, Zip};

use crate::error::{expect_range, expect_shape};
use crate::patch_labels::NO_CLASS;
use crate::{ConfusionMatrix, Result};

/// What bands are made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoundaryParams {
    /// Number of classes `c`, 1 to 255; other labels are ignored.
    pub classes: usize,
    /// Width of the band as a share of the image's diagonal, at least one pixel; published: 0.02.
    pub width: f64,
}

/// Scores of the bands of a set, as fractions in `[0, 1]`.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundaryScores {
    /// Mean of the defined ones; NaN if there is none.
    pub mean_iou: f64,
    /// `[c]`; `None` for a class with a band in neither truth nor prediction.
    pub per_class_iou: Vec<Option<f64>>,
}

impl BoundaryParams {
    /// Bands as published, of `classes` classes.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        Self { classes, width: 0.02 }
    }

    /// Band pixels of one image, `[c + 1, c + 1]`: row = class whose true band a pixel lies in, column = class whose
    /// predicted band; the last row and column stand for no band. Add them up with [`ConfusionMatrix::merge`] and read
    /// them with [`boundary_scores`].
    ///
    /// Pixels whose truth is not a class are no part of any mask; masks end there as they do at the edge of the image, in
    /// the truth and in the prediction.
    ///
    /// * `truth`, `predicted`: `[h, w]`. A prediction of `c` or more (an unmatched cluster) is of no class.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for maps of different size, [`Error::Range`](crate::Error::Range) for
    /// unfit parameters.
    ///
    /// ```
    /// let truth = ndarray::Array2::from_shape_fn((8, 8), |(_, x)| u8::from(x > 3));
    /// let predicted = ndarray::Array2::from_shape_fn((8, 8), |(_, x)| u8::from(x > 4));
    /// let counts = probe::BoundaryParams::new(2).count(truth.view(), predicted.view())?;
    /// let scores = probe::boundary_scores(&counts);
    /// assert_eq!(scores.per_class_iou[0], Some(14. / (20. + 22. - 14.))); // bands of one pixel
    /// # Ok::<(), probe::Error>(())
    /// ```
    pub fn count(&self, truth: ArrayView2<'_, u8>, predicted: ArrayView2<'_, u8>) -> Result<ConfusionMatrix> {
        let c = self.classes;
        expect_shape("predicted labels", truth.shape(), predicted.shape())?;
        expect_range((1..=255).contains(&c), "number of classes", "1 to 255", c)?;
        let positive = self.width.is_finite() && self.width > 0.0;
        expect_range(positive, "width of the band", "a positive share of the diagonal", self.width)?;
        let class = |label: u8| if usize::from(label) < c { label } else { NO_CLASS };
        let truth = truth.mapv(class);
        let predicted = Zip::from(&truth)
            .and(predicted)
            .map_collect(|&truth, &predicted| if truth == NO_CLASS { NO_CLASS } else { class(predicted) });
        let distance = self.distance(truth.dim());
        let (inner_truth, inner_predicted) = (eroded(&truth, distance), eroded(&predicted, distance));
        let mut counts = Array2::<u64>::zeros((c + 1, c + 1));
        let band = |label: u8, inner: bool| if inner || label == NO_CLASS { c } else { usize::from(label) };
        Zip::from(&truth).and(&inner_truth).and(&predicted).and(&inner_predicted).for_each(
            |&t, &it, &p, &ip| {
                counts[[band(t, it), band(p, ip)]] += 1;
            },
        );
        counts[[c, c]] = 0; // in no band at all: of no interest
        Ok(ConfusionMatrix::from_counts(counts))
    }

    /// Width of the band in pixels, for images of `size` `(h, w)`.
    fn distance(&self, size: (usize, usize)) -> usize {
        let diagonal = ((size.0 * size.0 + size.1 * size.1) as f64).sqrt();
        // Half to even, as the published code rounds.
        (self.width * diagonal).round_ties_even().max(1.0) as usize
    }
}

/// Boundary IoU of summed counts, as [`BoundaryParams::count`] gives them.
#[must_use]
pub fn boundary_scores(counts: &ConfusionMatrix) -> BoundaryScores {
    let mut per_class_iou = counts.scores().per_class_iou;
    per_class_iou.pop(); // no band
    let defined: Vec<f64> = per_class_iou.iter().flatten().copied().collect();
    BoundaryScores { mean_iou: defined.iter().sum::<f64>() / defined.len() as f64, per_class_iou }
}

/// The pixels, `[h, w]`, around which a square of `2 distance + 1` pixels lies in the image and has one label.
fn eroded(labels: &Array2<u8>, distance: usize) -> Array2<bool> {
    let along_rows = uniform(labels, distance, Axis(1)); // the row of the square
    // A column of the square is of one label if its rows are and if their centres agree; marked by a value that no label has.
    let mut rows = labels.mapv(u16::from);
    Zip::from(&mut rows).and(&along_rows).for_each(|row, &uniform| {
        if !uniform {
            *row = u16::MAX;
        }
    });
    let mut inner = uniform(&rows, distance, Axis(0));
    inner.zip_mut_with(&along_rows, |inner, &uniform| *inner &= uniform);
    inner
}

/// Whether the values from `distance` before to `distance` behind each one, along an axis, are all there and the same.
fn uniform<T: Copy + PartialEq>(values: &Array2<T>, distance: usize, axis: Axis) -> Array2<bool> {
    let mut out = Array2::from_elem(values.dim(), false);
    let n = values.len_of(axis);
    for (line, mut out) in values.lanes(axis).into_iter().zip(out.lanes_mut(axis)) {
        let mut run = 0; // equal values up to here
        for i in 0..n {
            run = if i > 0 && line[i] == line[i - 1] { run + 1 } else { 1 };
            if run > 2 * distance {
                out[i - distance] = true;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use ndarray::s;
    use rand::Rng;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// A label map of overlapping rectangles, with some ignored ones.
    fn map(h: usize, w: usize, classes: u8, seed: u64) -> Array2<u8> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut labels = Array2::zeros((h, w));
        for i in 0..12 {
            let (y, x) = (rng.random_range(0..h), rng.random_range(0..w));
            let (y2, x2) = (rng.random_range(y..h) + 1, rng.random_range(x..w) + 1);
            let label = if i == 5 { 255 } else { rng.random_range(0..classes) };
            labels.slice_mut(s![y..y2, x..x2]).fill(label);
        }
        labels
    }

    /// The published code, on one mask: pad by zeros, erode by 3 × 3 ones `d` times, subtract.
    fn band(mask: &Array2<bool>, d: usize) -> Array2<bool> {
        let (h, w) = mask.dim();
        let mut inner = mask.clone();
        for _ in 0..d {
            let before = inner.clone();
            for ((y, x), out) in inner.indexed_iter_mut() {
                let at = |y: usize, x: usize| y >= 1 && x >= 1 && y <= h && x <= w && before[[y - 1, x - 1]];
                *out = (y..y + 3).all(|y| (x..x + 3).all(|x| at(y, x)));
            }
        }
        Array2::from_shape_fn((h, w), |at| mask[at] && !inner[at])
    }

    #[test]
    fn bands_are_those_of_the_published_code() {
        for (seed, width) in [(0, 0.02), (1, 0.05), (2, 0.1), (3, 0.6)] {
            let (truth, predicted) = (map(37, 52, 4, seed), map(37, 52, 5, 100 + seed));
            let params = BoundaryParams { classes: 4, width };
            let scores = boundary_scores(&params.count(truth.view(), predicted.view()).unwrap());
            let d = params.distance((37, 52));
            for class in 0..4 {
                let g = band(&truth.mapv(|label| label == class), d);
                let p = Zip::from(&truth).and(&predicted).map_collect(|&t, &p| t != 255 && p == class);
                let p = band(&p, d);
                let both = g.iter().zip(&p).filter(|&(&g, &p)| g && p).count();
                let either = g.iter().zip(&p).filter(|&(&g, &p)| g || p).count();
                let expected = (either > 0).then(|| both as f64 / either as f64);
                assert_eq!(
                    scores.per_class_iou[usize::from(class)],
                    expected,
                    "class {class}, width {width}"
                );
            }
        }
    }

    #[test]
    fn a_band_as_wide_as_the_image_gives_the_mean_iou() {
        let (truth, predicted) = (map(20, 30, 3, 7), map(20, 30, 3, 8));
        let bands = BoundaryParams { classes: 3, width: 1.0 }.count(truth.view(), predicted.view()).unwrap();
        let mut counts = ConfusionMatrix::new(3, 256);
        counts.add(truth.view(), predicted.view()).unwrap();
        assert_eq!(boundary_scores(&bands).mean_iou, counts.scores().mean_iou);
    }

    #[test]
    fn a_perfect_prediction_scores_one_and_a_shift_by_more_than_the_band_shows() {
        let truth = map(60, 60, 3, 4);
        let params = BoundaryParams::new(3);
        let perfect = boundary_scores(&params.count(truth.view(), truth.view()).unwrap());
        assert_eq!(perfect.mean_iou, 1.0);
        let left = Array2::from_shape_fn((60, 60), |(_, x)| u8::from(x >= 30));
        let near = Array2::from_shape_fn((60, 60), |(_, x)| u8::from(x >= 36));
        let scores = boundary_scores(&BoundaryParams::new(2).count(left.view(), near.view()).unwrap());
        let mut counts = ConfusionMatrix::new(2, 2);
        counts.add(left.view(), near.view()).unwrap();
        assert!(scores.mean_iou < counts.scores().mean_iou, "{scores:?}");
    }

    #[test]
    fn images_add_up_and_absent_classes_are_undefined() {
        let params = BoundaryParams::new(4);
        let (a, b) = (map(30, 20, 2, 1), map(25, 40, 2, 2));
        let mut sum = params.count(a.view(), a.view()).unwrap();
        sum.merge(
            &params
                .count(b.view(), b.t().as_standard_layout().into_shape_with_order((25, 40)).unwrap().view())
                .unwrap(),
        );
        let scores = boundary_scores(&sum);
        assert_eq!(scores.per_class_iou[2..], [None, None]);
        assert!(scores.mean_iou > 0.0 && scores.mean_iou < 1.0);
        let nothing = Array2::from_elem((5, 5), 255);
        let counts = params.count(nothing.view(), nothing.view()).unwrap();
        assert!(boundary_scores(&counts).mean_iou.is_nan());
        assert!(params.count(Array2::zeros((0, 3)).view(), Array2::zeros((0, 3)).view()).is_ok());
    }

    #[test]
    fn misfits_are_refused() {
        let map = map(4, 4, 2, 0);
        assert!(BoundaryParams::new(2).count(map.view(), map.slice(s![..2, ..])).is_err());
        assert!(BoundaryParams::new(0).count(map.view(), map.view()).is_err());
        assert!(BoundaryParams { classes: 2, width: 0.0 }.count(map.view(), map.view()).is_err());
    }
}
