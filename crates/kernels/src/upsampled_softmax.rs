//! Cross-entropy of logits that are upsampled bilinearly by whole factors, and its gradient, without an exponential for
//! every pixel.
//!
//! Between four neighbouring tokens a logit is `u = a + b x + c y + d x y`. Along a row of pixels it is linear, so `exp(u)` is
//! a geometric progression; from row to row its first term and its ratio are progressions as well. A cell of
//! `s × s` pixels takes four exponentials per class instead of `s²`, and one multiplication per pixel and class.
//!
//! A cell is what lies between four tokens: a [span](Spans) down by a span across. A vector holds the same column of
//! neighbouring spans of a row. Numbers are read relative to `M`, the largest logit at the cell's corners. Where logits
//! fall by so much within a cell that the progression would leave the range of `f32`, the exponentials are taken pixel
//! by pixel: whether that is so depends on the cell's logits alone.
//!
//! The loss is `Σ_pixel w (ln Σ_c exp u_c)`; what is taken away from it, `Σ w u_label`, is linear in the logits, does not
//! change while they are trained, and is the caller's ([`Spans::label_mass`]).

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::Level;
use crate::level::mul_add;
use crate::panels::math::{exp2, ln};
use crate::spans::{Spans, WIDEST, place, share};

/// A class all of whose corners lie so far below the largest one is nowhere seen in the sum.
const UNSEEN: f32 = 60.0;
/// The deepest corner that a progression may start from or arrive at.
const DEEPEST: f32 = 85.0;
/// How far the class of the largest corner may fall within a cell, so that every pixel has one that is seen.
const FALL: f32 = 40.0;

/// Buffers of the loss of one image, used again for the next.
#[derive(Debug, Default)]
pub struct UpsampledSoftmax {
    progress: Vec<f32>, // [c, 4, vector]: term, ratio, and the ratios of both from row to row
    powers: Vec<f32>,   // [c, CHUNK, vector]
    corners: Vec<f32>, // [c, 4, vector]: gradients in the upper left, upper right, lower left, lower right token
}

impl UpsampledSoftmax {
    /// `Σ_pixel w ln Σ_c exp u_c`, and its gradient in the scores.
    ///
    /// * `scores`: `[gh, c, row]`, with the outermost tokens repeated; `weights`: [`Spans::weights_len`].
    /// * `gradient`: is written, `[gh, c, row]`; zero beyond the tokens.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn run(
        &mut self,
        level: Level,
        spans: Spans,
        classes: usize,
        scores: &[f32],
        weights: &[f32],
        gradient: &mut [f32],
    ) -> f64 {
        let len = spans.scores_len(classes);
        assert!(classes > 0 && scores.len() == len && gradient.len() == len, "scores of {classes} classes");
        assert_eq!(weights.len(), spans.weights_len(), "weights of {spans:?}");
        gradient.fill(0.0);
        let loss =
            level.run(Run { buffers: self, spans, classes, scores, weights, gradient: &mut *gradient });
        spans.fold(gradient);
        loss
    }
}

struct Run<'a> {
    buffers: &'a mut UpsampledSoftmax,
    spans: Spans,
    classes: usize,
    scores: &'a [f32],
    weights: &'a [f32],
    gradient: &'a mut [f32],
}

impl WithSimd for Run<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let Spans { grid: (gh, _), factor: (sy, sx) } = self.spans;
        let (lanes, chunk) = (S::F32_LANES, sx.min(CHUNK));
        self.buffers.progress.resize(self.classes * 4 * lanes, 0.0);
        self.buffers.powers.resize(self.classes * chunk * lanes, 0.0);
        self.buffers.corners.resize(self.classes * 4 * lanes, 0.0);
        let mut loss = 0.0;
        for span in 0..=gh {
            // Pixel rows of the span that exist.
            let first = (span * sy).saturating_sub(sy - sy / 2);
            let last = ((span + 1) * sy - (sy - sy / 2)).min(gh * sy);
            if first == last {
                continue;
            }
            let rows = [span.saturating_sub(1), span.min(gh - 1)];
            for start in (0..self.spans.across()).step_by(lanes) {
                let mut cells = Cells {
                    simd,
                    spans: self.spans,
                    classes: self.classes,
                    rows,
                    start,
                    scores: self.scores,
                    weights: self.weights,
                    progress: S::as_mut_simd_f32s(&mut self.buffers.progress).0.as_chunks_mut().0,
                    powers: S::as_mut_simd_f32s(&mut self.buffers.powers).0,
                    corners: S::as_mut_simd_f32s(&mut self.buffers.corners).0.as_chunks_mut().0,
                };
                loss += cells.run(first..last);
                cells.write(self.gradient);
            }
        }
        loss
    }
}

/// Most columns of a span that are worked on at a time: their sums stay in the registers.
const CHUNK: usize = 8;

/// One vector of neighbouring cells.
struct Cells<'a, S: Simd> {
    simd: S,
    spans: Spans,
    classes: usize,
    /// The token rows above and below.
    rows: [usize; 2],
    /// The first of the spans across.
    start: usize,
    scores: &'a [f32],
    weights: &'a [f32],
    progress: &'a mut [[S::f32s; 4]],
    powers: &'a mut [S::f32s],
    corners: &'a mut [[S::f32s; 4]],
}

impl<S: Simd> Cells<'_, S> {
    /// The logits at the corners of the cells: upper left, upper right, lower left, lower right.
    #[inline(always)]
    fn corners_of(&self, class: usize) -> [S::f32s; 4] {
        let mut corners = [self.simd.splat_f32s(0.0); 4];
        for (i, corner) in corners.iter_mut().enumerate() {
            let row = (self.rows[i / 2] * self.classes + class) * self.spans.row_len();
            *corner = load::<S>(&self.scores[row + self.start + i % 2..]);
        }
        corners
    }

    /// Adds the cells' gradient to the tokens at their corners.
    #[inline(always)]
    fn write(&self, gradient: &mut [f32]) {
        for (class, corners) in self.corners.iter().enumerate() {
            for (i, &corner) in corners.iter().enumerate() {
                let row = (self.rows[i / 2] * self.classes + class) * self.spans.row_len();
                let to = &mut gradient[row + self.start + i % 2..][..S::F32_LANES];
                let to = &mut S::as_mut_simd_f32s(to).0[0];
                *to = self.simd.add_f32s(*to, corner);
            }
        }
    }

    /// The loss of pixel rows, whose gradient is left in `corners`.
    #[inline(always)]
    fn run(&mut self, rows: Range<usize>) -> f64 {
        let simd = self.simd;
        self.corners.fill([simd.splat_f32s(0.0); 4]);
        let (sy, sx) = self.spans.factor;
        let first = place(rows.start, sy).1;
        let steady = self.begin(share(first, sy));
        let (mut loss, mut weight) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        for y in rows {
            let below = share(place(y, sy).1, sy);
            let mut column = 0;
            while column < sx {
                let step = Step { y, below, column };
                let left = sx - column;
                let (add, count) = match steady {
                    Some(_) if left >= 8 => self.columns::<8, true>(step),
                    Some(_) if left >= 4 => self.columns::<4, true>(step),
                    Some(_) if left >= 2 => self.columns::<2, true>(step),
                    Some(_) => self.columns::<1, true>(step),
                    None => self.columns::<1, false>(step),
                };
                loss = simd.add_f32s(loss, add.0);
                weight = simd.add_f32s(weight, add.1);
                column += count;
            }
            if steady.is_some() {
                self.next_row();
            }
        }
        let (loss, weight) = (lanes_of::<S>(loss), lanes_of::<S>(weight));
        let top = match steady {
            Some(top) => lanes_of::<S>(top),
            None => [0.0; WIDEST],
        };
        let mut sum = 0.0;
        for lane in 0..WIDEST {
            if weight[lane] != 0.0 {
                sum += loss[lane] + weight[lane] * top[lane];
            }
        }
        sum
    }

    /// Sets the progressions up for their first row, or returns `None` if they would leave the range of numbers.
    ///
    /// Returns the largest corner of each cell, which all exponentials are relative to.
    #[inline(always)]
    fn begin(&mut self, below: f32) -> Option<S::f32s> {
        let simd = self.simd;
        let least_of_all = simd.splat_f32s(f32::NEG_INFINITY);
        let (mut top, mut floor) = (least_of_all, least_of_all);
        for class in 0..self.classes {
            let (least, most) = extremes(simd, self.corners_of(class));
            top = greater(simd, top, most);
            floor = greater(simd, floor, least);
        }
        let mut steep = simd.greater_than_f32s(simd.sub_f32s(top, floor), simd.splat_f32s(FALL));
        let (sy, sx) = self.spans.factor;
        let (across, down) = (simd.splat_f32s(1.0 / sx as f32), simd.splat_f32s(1.0 / sy as f32));
        let (right, below) = (simd.splat_f32s(share(0, sx)), simd.splat_f32s(below));
        let log2_e = simd.splat_f32s(std::f32::consts::LOG2_E);
        let (unseen_at, deep_at) = (simd.splat_f32s(-UNSEEN), simd.splat_f32s(-DEEPEST));
        for class in 0..self.classes {
            let mut corners = self.corners_of(class);
            for corner in &mut corners {
                *corner = simd.sub_f32s(*corner, top);
            }
            let (least, most) = extremes(simd, corners);
            let unseen = simd.less_than_f32s(most, unseen_at);
            let deep = simd.less_than_f32s(least, deep_at);
            steep = simd.or_m32s(steep, simd.and_m32s(deep, simd.not_m32s(unseen)));
            // Powers of two are as good as those of e, and cheaper.
            for corner in &mut corners {
                *corner = simd.mul_f32s(simd.select_f32s(unseen, unseen_at, *corner), log2_e);
            }
            let [a, b, c, d] = corners;
            let (left, edge) = (simd.sub_f32s(c, a), simd.sub_f32s(d, b));
            let (from, to) = (mul_add(simd, left, below, a), mul_add(simd, edge, below, b));
            let slope = simd.sub_f32s(to, from);
            let twist = simd.sub_f32s(edge, left);
            let first = [
                mul_add(simd, slope, right, from),
                simd.mul_f32s(slope, across),
                simd.mul_f32s(mul_add(simd, twist, right, left), down),
                simd.mul_f32s(simd.mul_f32s(twist, across), down),
            ];
            self.progress[class] = exp2(simd, first);
        }
        let flags = simd.select_f32s(steep, simd.splat_f32s(1.0), simd.splat_f32s(0.0));
        if simd.reduce_sum_f32s(flags) == 0.0 { Some(top) } else { None }
    }

    /// Moves the progressions to the next row of pixels.
    #[inline(always)]
    fn next_row(&mut self) {
        for progress in self.progress.iter_mut() {
            progress[0] = self.simd.mul_f32s(progress[0], progress[2]);
            progress[1] = self.simd.mul_f32s(progress[1], progress[3]);
        }
    }

    /// `J` columns of a row: what they add to the loss and to its weight, and their number.
    #[inline(always)]
    fn columns<const J: usize, const STEADY: bool>(&mut self, step: Step) -> ((S::f32s, S::f32s), usize) {
        let (simd, Step { y, below, column }) = (self.simd, step);
        let zero = simd.splat_f32s(0.0);
        let sx = self.spans.factor.1;
        let mut tops = [zero; J];
        let mut sums = [zero; J];
        if STEADY {
            for (progress, powers) in self.progress.iter().zip(self.powers.as_chunks_mut::<J>().0) {
                // A span's further columns go on where the ones before them ended.
                let mut term = if column == 0 { progress[0] } else { powers_after(simd, progress, column) };
                for j in 0..J {
                    powers[j] = term;
                    sums[j] = simd.add_f32s(sums[j], term);
                    term = simd.mul_f32s(term, progress[1]);
                }
            }
        } else {
            for (j, top) in tops.iter_mut().enumerate() {
                *top = simd.splat_f32s(f32::NEG_INFINITY);
                for class in 0..self.classes {
                    let logit = self.logit(class, below, share(column + j, sx));
                    // NaN is no more than anything; it shows in the sum.
                    *top = simd.select_f32s(simd.greater_than_f32s(logit, *top), logit, *top);
                }
                for class in 0..self.classes {
                    let logit = self.logit(class, below, share(column + j, sx));
                    let log2_e = simd.splat_f32s(std::f32::consts::LOG2_E);
                    let power = simd.mul_f32s(simd.sub_f32s(logit, *top), log2_e);
                    let [power] = exp2(simd, [power]);
                    self.powers[class * J + j] = power;
                    sums[j] = simd.add_f32s(sums[j], power);
                }
            }
        }
        let (mut loss, mut total) = (zero, zero);
        let (mut left, mut right) = ([zero; J], [zero; J]);
        let across = self.spans.across();
        let weights = &self.weights[(y * sx + column) * across + self.start..];
        let logs = ln(simd, sums);
        for j in 0..J {
            let weight = load::<S>(&weights[j * across..]);
            let log = simd.add_f32s(logs[j], tops[j]);
            loss = mul_add(simd, weight, log, loss);
            total = simd.add_f32s(total, weight);
            let part = simd.div_f32s(weight, sums[j]);
            right[j] = simd.mul_f32s(part, simd.splat_f32s(share(column + j, sx)));
            left[j] = simd.sub_f32s(part, right[j]);
        }
        let (above, below) = (simd.splat_f32s(1.0 - below), simd.splat_f32s(below));
        for (corners, powers) in self.corners.iter_mut().zip(self.powers.as_chunks::<J>().0) {
            let (mut l, mut r) = (zero, zero);
            for j in 0..J {
                l = mul_add(simd, powers[j], left[j], l);
                r = mul_add(simd, powers[j], right[j], r);
            }
            corners[0] = mul_add(simd, l, above, corners[0]);
            corners[1] = mul_add(simd, r, above, corners[1]);
            corners[2] = mul_add(simd, l, below, corners[2]);
            corners[3] = mul_add(simd, r, below, corners[3]);
        }
        ((loss, total), J)
    }

    #[inline(always)]
    fn logit(&self, class: usize, below: f32, right: f32) -> S::f32s {
        let (simd, [a, b, c, d]) = (self.simd, self.corners_of(class));
        let (from, to) = (blend(simd, a, c, below), blend(simd, b, d, below));
        blend(simd, from, to, right)
    }
}

/// What lies between two numbers.
#[inline(always)]
fn blend<S: Simd>(simd: S, from: S::f32s, to: S::f32s, share: f32) -> S::f32s {
    let near = simd.mul_f32s(from, simd.splat_f32s(1.0 - share));
    mul_add(simd, to, simd.splat_f32s(share), near)
}

/// The larger number; the first one if one of them is NaN.
#[inline(always)]
fn greater<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
    simd.select_f32s(simd.greater_than_f32s(b, a), b, a)
}

/// The smallest and the largest of four.
#[inline(always)]
fn extremes<S: Simd>(simd: S, corners: [S::f32s; 4]) -> (S::f32s, S::f32s) {
    let (mut least, mut most) = (corners[0], corners[0]);
    for &corner in &corners[1..] {
        least = simd.select_f32s(simd.less_than_f32s(corner, least), corner, least);
        most = greater(simd, most, corner);
    }
    (least, most)
}

#[inline(always)]
fn load<S: Simd>(numbers: &[f32]) -> S::f32s {
    S::as_simd_f32s(&numbers[..S::F32_LANES]).0[0]
}

#[inline(always)]
fn lanes_of<S: Simd>(vector: S::f32s) -> [f64; WIDEST] {
    let mut lanes = [0.0_f32; WIDEST];
    S::as_mut_simd_f32s(&mut lanes[..S::F32_LANES]).0[0] = vector;
    let mut wide = [0.0; WIDEST];
    for (wide, lane) in wide.iter_mut().zip(lanes) {
        *wide = f64::from(lane);
    }
    wide
}

/// Where columns begin.
#[derive(Clone, Copy)]
struct Step {
    /// The row of pixels.
    y: usize,
    /// How far it has come to the tokens below.
    below: f32,
    /// The first column of every span.
    column: usize,
}

/// A progression's term after some steps.
#[inline(always)]
fn powers_after<S: Simd>(simd: S, progress: &[S::f32s; 4], steps: usize) -> S::f32s {
    let mut term = progress[0];
    for _ in 0..steps {
        term = simd.mul_f32s(term, progress[1]);
    }
    term
}
