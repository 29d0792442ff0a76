//! The linear probe's loss: upsample logits, softmax, cross-entropy over labelled pixels, and back.
//!
//! With `u = U ℓ` the bilinear upsampling of the logits `ℓ`, the loss of a pixel is
//! `ln Σ_j exp(u_j) - u_label`, its gradient in `u` is `softmax(u) - onehot(label)`, and the gradient in
//! `ℓ` is `Uᵀ` of that. All of it happens one pixel row at a time, for all columns at once: the largest
//! array is `[gh, c, w]`. Writing `[h, w, c]` of logits, probabilities and gradients to memory, as the
//! three operations one after the other do, costs many times the arithmetic.
//!
//! Images are independent, and their results are added in image order: the same bits for any number of
//! threads.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis};
use rayon::prelude::*;

use crate::error::{expect_range, expect_shape};
use crate::exp::exp;
use crate::upsample::Upsampler;
use crate::{Error, Result};

/// Loss of a batch, and its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossEntropy {
    /// Mean over labelled pixels; `None` if there are none (the original's is NaN, with zero gradient).
    pub loss: Option<f64>,
    /// Labelled pixels: those with a label below `c`.
    pub pixels: usize,
    /// `[b, t, c]`, the gradient of the mean; zero if there are no labelled pixels.
    pub grad_logits: Array3<f32>,
}

/// Cross-entropy of bilinearly upsampled logits (half-pixel centres) over pixels with `label < c`.
///
/// * `logits`: `[b, t, c]` with `t = gh·gw` and `1 <= c <= 255`.
/// * `grid`: `(gh, gw)`.
/// * `labels`: `[b, h, w]`; a label of `c` or more is ignored.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Range`] if the arguments do not fit together.
///
/// ```
/// let logits = ndarray::array![[[0.0, f32::ln(3.0)]]]; // one token, probabilities 1/4 and 3/4
/// let labels = ndarray::array![[[1, 0, 255]]];
/// let out = probe::masked_cross_entropy_upsampled(logits.view(), (1, 1), labels.view())?;
/// assert!((out.loss.unwrap() - (4.0_f64.ln() + (4.0_f64 / 3.0).ln()) / 2.0).abs() < 1e-6);
/// assert!((out.grad_logits[[0, 0, 0]] + 0.25).abs() < 1e-6); // 1/4 - 1/2
/// # Ok::<(), probe::Error>(())
/// ```
pub fn masked_cross_entropy_upsampled(
    logits: ArrayView3<'_, f32>,
    grid: (usize, usize),
    labels: ArrayView3<'_, u8>,
) -> Result<CrossEntropy> {
    let ((b, t, c), (_, h, w)) = (logits.dim(), labels.dim());
    expect_shape("logits", &[b, grid.0 * grid.1, c], &[b, t, c])?;
    expect_shape("labels", &[b, h, w], labels.shape())?;
    let loss = UpsampledLoss::new(grid, (h, w), c)?;
    let mut weights = [0.0; 256];
    weights[..c].fill(1.0);
    let images = (0..b).into_par_iter().map_init(Scratch::default, |scratch, i| {
        loss.image(logits.index_axis(Axis(0), i), labels.index_axis(Axis(0), i), &weights, scratch)
    });
    let images: Vec<ImageLoss> = images.collect();
    let (sum, pixels) = images.iter().fold((0.0, 0), |(s, n), image| (s + image.sum, n + image.pixels));
    let mut grad_logits = Array3::zeros((b, t, c));
    for (mut out, image) in grad_logits.outer_iter_mut().zip(&images) {
        out.scaled_add(1.0 / pixels.max(1) as f32, &image.grad_logits);
    }
    Ok(CrossEntropy { loss: (pixels > 0).then(|| sum / pixels as f64), pixels, grad_logits })
}

/// The loss for one grid, label size and number of classes.
pub(crate) struct UpsampledLoss {
    up: Upsampler,
    classes: usize,
}

/// What one image adds to the loss of its batch.
pub(crate) struct ImageLoss {
    /// Weighted sum, not mean, over labelled pixels.
    pub(crate) sum: f64,
    /// Labelled pixels.
    pub(crate) pixels: usize,
    /// `[t, c]`, the gradient of `sum`.
    pub(crate) grad_logits: Array2<f32>,
}

/// Buffers for one image, reused for the next.
#[derive(Default)]
pub(crate) struct Scratch {
    wide: Vec<f32>,      // [gh, c, w], logits
    wide_grad: Vec<f32>, // [gh, c, w]
    row: Row,
}

/// Buffers for one row of pixels.
#[derive(Default)]
struct Row {
    logits: Vec<f32>,  // [c, w], then exp(logit - max), minus the sum at the label
    max: Vec<f32>,     // [w]
    sum: Vec<f32>,     // [w]; 1 where ignored, once masked
    inverse: Vec<f32>, // [w], 0 where ignored
}

impl UpsampledLoss {
    pub(crate) fn new(grid: (usize, usize), size: (usize, usize), classes: usize) -> Result<Self> {
        expect_range((1..=255).contains(&classes), "number of classes", "1 to 255", classes)?;
        if grid.0 * grid.1 == 0 {
            return Err(Error::Empty("patch grid"));
        }
        Ok(Self { up: Upsampler::new(grid, size), classes })
    }

    /// * `logits`: `[t, c]`; `labels`: `[h, w]`, of the sizes this was made for.
    /// * `weights`: of a pixel of each label; 0 from `c` on.
    pub(crate) fn image(
        &self,
        logits: ArrayView2<'_, f32>,
        labels: ArrayView2<'_, u8>,
        weights: &[f32; 256],
        scratch: &mut Scratch,
    ) -> ImageLoss {
        let (c, w) = (self.classes, self.up.width());
        let Scratch { wide, wide_grad, row } = scratch;
        self.up.widen(logits, wide);
        wide_grad.clear();
        wide_grad.resize(wide.len(), 0.0);
        row.resize(c, w);
        let labels = labels.as_standard_layout();
        let (mut sum, mut pixels) = (0.0, 0);
        for (y, labels) in labels.outer_iter().enumerate() {
            let labels = labels.to_slice().expect("standard layout");
            let labelled = labels.iter().filter(|&&label| usize::from(label) < c).count();
            if labelled == 0 {
                continue;
            }
            let taps = self.up.row(y);
            let [upper, lower] = taps.map(|(i, _)| &wide[i * c * w..(i + 1) * c * w]);
            pixels += labelled;
            row.blend(taps.map(|(_, weight)| weight), upper, lower);
            sum -= row.target_logits(labels, weights, c);
            row.exponentiate();
            sum += row.log_sums(labels, weights);
            row.mask(labels, weights, c);
            for (i, weight) in taps {
                row.scatter(weight, &mut wide_grad[i * c * w..(i + 1) * c * w]);
            }
        }
        ImageLoss { sum, pixels, grad_logits: self.up.narrow(wide_grad, c) }
    }
}

impl Row {
    fn resize(&mut self, c: usize, w: usize) {
        self.logits.resize(c * w, 0.0);
        for buffer in [&mut self.max, &mut self.sum, &mut self.inverse] {
            buffer.resize(w, 0.0);
        }
    }

    /// Logits of this row from two rows `[c, w]`, and the largest of each pixel.
    fn blend(&mut self, [wu, wl]: [f32; 2], upper: &[f32], lower: &[f32]) {
        let w = self.max.len();
        self.max.fill(f32::NEG_INFINITY);
        let sources = upper.chunks_exact(w).zip(lower.chunks_exact(w));
        for (logits, (upper, lower)) in self.logits.chunks_exact_mut(w).zip(sources) {
            for (((logit, max), u), l) in logits.iter_mut().zip(&mut self.max).zip(upper).zip(lower) {
                *logit = wu * u + wl * l;
                *max = if *logit > *max { *logit } else { *max };
            }
        }
    }

    /// Weighted sum over labelled pixels of `logit[label] - max`.
    fn target_logits(&self, labels: &[u8], weights: &[f32; 256], c: usize) -> f64 {
        let w = self.max.len();
        let mut sum = 0.0;
        for (x, (&label, max)) in labels.iter().zip(&self.max).enumerate() {
            if usize::from(label) < c {
                let logit = self.logits[usize::from(label) * w + x] - max;
                sum += f64::from(weights[usize::from(label)] * logit);
            }
        }
        sum
    }

    /// Replaces logits by `exp(logit - max)` and adds these up per pixel.
    fn exponentiate(&mut self) {
        let w = self.max.len();
        self.sum.fill(0.0);
        for logits in self.logits.chunks_exact_mut(w) {
            for ((logit, max), sum) in logits.iter_mut().zip(&self.max).zip(&mut self.sum) {
                *logit = exp(*logit - max);
                *sum += *logit;
            }
        }
    }

    /// Takes ignored pixels out, and the sum away from the label's exponential: what remains,
    /// divided by the sum, is `softmax - onehot`.
    fn mask(&mut self, labels: &[u8], weights: &[f32; 256], c: usize) {
        let w = self.max.len();
        for (x, &label) in labels.iter().enumerate() {
            if usize::from(label) < c {
                self.logits[usize::from(label) * w + x] -= self.sum[x];
                self.inverse[x] = weights[usize::from(label)];
            } else {
                self.sum[x] = 1.0;
                self.inverse[x] = 0.0;
            }
        }
        for (inverse, sum) in self.inverse.iter_mut().zip(&self.sum) {
            *inverse /= sum;
        }
    }

    /// Weighted sum of `ln(sum)` over the row.
    fn log_sums(&self, labels: &[u8], weights: &[f32; 256]) -> f64 {
        let weight = |label: u8| weights[usize::from(label)];
        let logs = labels.iter().zip(&self.sum).filter(|&(&label, _)| weight(label) != 0.0);
        logs.map(|(&label, &sum)| f64::from(weight(label)) * f64::from(sum).ln()).sum()
    }

    /// Adds `weight` times the gradient of this row to a row of the widened gradient, `[c, w]`.
    fn scatter(&self, weight: f32, grad: &mut [f32]) {
        let w = self.max.len();
        for (grad, values) in grad.chunks_exact_mut(w).zip(self.logits.chunks_exact(w)) {
            for ((grad, value), inverse) in grad.iter_mut().zip(values).zip(&self.inverse) {
                *grad += weight * (value * inverse);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, array, s};

    use super::*;

    fn logits(b: usize, t: usize, c: usize) -> Array3<f32> {
        Array::from_shape_fn((b, t, c), |(i, j, k)| 3.0 * ((i * 31 + j * 7 + k * 5 + j * k) as f32).sin())
    }

    /// Labels `0..=c`, of which `c` and 255 are ignored.
    fn labels(b: usize, h: usize, w: usize, c: u8) -> Array3<u8> {
        Array::from_shape_fn((b, h, w), |(i, y, x)| match (i + 3 * y + y * x) % (usize::from(c) + 2) {
            k if k > usize::from(c) => 255,
            k => k as u8,
        })
    }

    fn loss(logits: &Array3<f32>, grid: (usize, usize), labels: &Array3<u8>) -> CrossEntropy {
        masked_cross_entropy_upsampled(logits.view(), grid, labels.view()).unwrap()
    }

    #[test]
    fn gradient_is_the_slope_of_the_loss() {
        for (grid, (h, w)) in [((3, 2), (7, 9)), ((2, 3), (2, 3)), ((4, 5), (3, 3))] {
            let (x, labels) = (logits(2, grid.0 * grid.1, 4), labels(2, h, w, 4));
            let out = loss(&x, grid, &labels);
            for (index, &slope) in out.grad_logits.indexed_iter() {
                let (mut up, mut down) = (x.clone(), x.clone());
                up[index] += 0.01;
                down[index] -= 0.01;
                let [up, down] = [up, down].map(|x| loss(&x, grid, &labels).loss.unwrap());
                let measured = (up - down) / 0.02;
                assert!((measured - f64::from(slope)).abs() < 2e-5, "{grid:?} {index:?}: {measured} {slope}");
            }
        }
    }

    #[test]
    fn equal_logits_lose_the_logarithm_of_the_classes() {
        let out = loss(&Array3::from_elem((1, 4, 7), 80.0), (2, 2), &labels(1, 6, 70, 7));
        assert!((out.loss.unwrap() - 7.0_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn ignored_pixels_do_not_count() {
        let (x, mut map) = (logits(1, 4, 3), labels(1, 8, 8, 3));
        let all = loss(&x, (2, 2), &map);
        assert_eq!(all.pixels, map.iter().filter(|&&label| label < 3).count());
        // Which value stands for "ignore" does not matter, and a wholly ignored image adds nothing.
        map.mapv_inplace(|label| if label >= 3 { 77 } else { label });
        assert_eq!(loss(&x, (2, 2), &map), all);
        let pair = ndarray::concatenate![Axis(0), x, &x + 1.0];
        let pair_map = ndarray::concatenate![Axis(0), map, map.mapv(|_| 255)];
        let both = loss(&pair, (2, 2), &pair_map);
        assert_eq!((both.loss, both.pixels), (all.loss, all.pixels));
        assert!(both.grad_logits.slice(s![1, .., ..]).iter().all(|&g| g == 0.0));
    }

    #[test]
    fn no_labelled_pixel_is_no_loss() {
        let out = loss(&logits(2, 4, 3), (2, 2), &Array3::from_elem((2, 5, 5), 255));
        assert_eq!((out.loss, out.pixels), (None, 0));
        assert!(out.grad_logits.iter().all(|&g| g == 0.0));
        assert_eq!(loss(&logits(1, 4, 3), (2, 2), &Array3::zeros((1, 0, 4))).loss, None);
    }

    #[test]
    fn extreme_logits_stay_finite_and_broken_ones_show() {
        let map = array![[[0, 1]]];
        let out = loss(&array![[[-3e4_f32, 3e4]]], (1, 1), &map);
        assert!((out.loss.unwrap() - 3e4).abs() < 1.0);
        for broken in [f32::NAN, f32::INFINITY] {
            assert!(!loss(&array![[[broken, 0.0]]], (1, 1), &map).loss.unwrap().is_finite());
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let (x, map) = (logits(5, 12, 6), labels(5, 24, 31, 6));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| loss(&x, (3, 4), &map))
        };
        assert_eq!(run(1), run(2));
        assert_eq!(run(1), run(5));
    }

    #[test]
    fn misfits_are_refused() {
        let fit = |t, c, b| {
            masked_cross_entropy_upsampled(logits(2, t, c).view(), (2, 2), labels(b, 4, 4, 3).view())
        };
        assert!(fit(4, 3, 2).is_ok());
        assert!(matches!(fit(5, 3, 2), Err(Error::Shape { what: "logits", .. })));
        assert!(matches!(fit(4, 3, 1), Err(Error::Shape { what: "labels", .. })));
        assert!(matches!(fit(4, 256, 2), Err(Error::Range { .. })));
        assert!(matches!(fit(4, 0, 2), Err(Error::Range { .. })));
    }
}
