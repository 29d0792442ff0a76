//! DINO's loss: the student's views predict the teacher's global views.
//!
//! `P = softmax((t - c) / τ_t)` for the teacher's logits `t`, `[2 B, K]`; the loss is the mean over the pairs of different views
//! `(q, v)` of the mean over images of `-Σ P_q log softmax(s_v / τ_s)`: `2 (V - 1)` pairs for `V` views. The centre `c`
//! follows the mean of raw logits *after* the loss. Logits are view-major: all images of view 1, then of view 2, …
//!
//! The gradient is written over the student's logits; no `[rows, K]` matrix besides the two is needed.

use kernels::{LANES, add_column_sums, exp, for_each_row, max, simd, softmax};

use crate::buffer::sized;

/// The running mean of the teacher's logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Center {
    /// `[K]`.
    pub values: Vec<f32>,
    /// How much of the old centre stays.
    pub momentum: f64,
    sum: Vec<f32>,
    rows: usize,
}

impl Center {
    /// A centre at 0.
    #[must_use]
    pub fn new(out_dim: usize, momentum: f64) -> Self {
        Self { values: vec![0.0; out_dim], momentum, sum: vec![0.0; out_dim], rows: 0 }
    }

    /// Takes note of a part of the batch: raw teacher logits, `[rows, K]`.
    pub fn observe(&mut self, logits: &[f32]) {
        add_column_sums(logits, &mut self.sum);
        self.rows += logits.len() / self.sum.len();
    }

    /// As [`Center::observe`], of column sums `[K]` over `rows` rows.
    pub(crate) fn observe_sums(&mut self, sums: &[f32], rows: usize) {
        self.sum.iter_mut().zip(sums).for_each(|(sum, more)| *sum += more);
        self.rows += rows;
    }

    /// `c ← m c + (1 - m) mean`, over what was observed since the last time.
    pub fn update(&mut self) {
        let (keep, rows) = (self.momentum, self.rows.max(1) as f64);
        for (center, sum) in self.values.iter_mut().zip(&mut self.sum) {
            *center = (keep * f64::from(*center) + (1.0 - keep) * f64::from(*sum) / rows) as f32;
            *sum = 0.0;
        }
        self.rows = 0;
    }

    /// `‖c‖₂`.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.values.iter().map(|&c| f64::from(c).powi(2)).sum::<f64>().sqrt()
    }
}

/// Turns the teacher's logits, `[rows, K]`, into targets, and writes the entropy of each row in nats.
pub fn teacher_targets(logits: &mut [f32], center: &[f32], temperature: f64, entropies: &mut Vec<f32>) {
    let k = center.len();
    let scale = (1.0 / temperature) as f32;
    for_each_row(logits, k, |_, row| {
        simd(
            #[inline(always)]
            || {
                for (t, c) in row.iter_mut().zip(center) {
                    *t = (*t - c) * scale;
                }
                softmax(row);
            },
        );
    });
    let targets = &*logits;
    for_each_row(sized(entropies, targets.len() / k), 1, |row, entropy| {
        let p = &targets[row * k..][..k];
        entropy[0] =
            -p.iter().filter(|p| **p > 0.0).map(|&p| f64::from(p) * f64::from(p).ln()).sum::<f64>() as f32;
    });
}

/// What the loss needs to know of a part of the batch.
#[derive(Debug, Clone, Copy)]
pub struct LossShape {
    /// Images in this part.
    pub images: usize,
    /// V: views of each, the two global ones first.
    pub views: usize,
    /// B: images of the whole step, over which the mean runs.
    pub batch: usize,
    /// τ_s.
    pub temperature: f64,
}

/// This part's share of the loss; the student's logits `[V · images, K]` become its gradient.
///
/// * `targets`: `[2 · images, K]`, from [`teacher_targets`].
/// * `losses`: `[V · images]`, scratch.
///
/// # Panics
/// If the shapes do not fit, or there are fewer than two views.
pub fn student_loss(logits: &mut [f32], targets: &[f32], shape: LossShape, losses: &mut Vec<f32>) -> f64 {
    let LossShape { images, views, batch, temperature } = shape;
    let k = targets.len() / (2 * images);
    assert!(views >= 2 && logits.len() == views * images * k, "logits of {views} views of {images} images");
    let pairs = 2 * (views - 1);
    let (inverse, share) = ((1.0 / temperature) as f32, 1.0 / (pairs * batch) as f64);
    // Every row's loss comes first, from which the gradient then follows in place: the two go together in one pass.
    let losses = sized(losses, views * images);
    let rows = k.max(1);
    rayon_rows(logits, rows, losses, |row, s| {
        let (view, image) = (row / images, row % images);
        // A global view does not predict itself.
        let weight = |q: usize| if q == view { 0.0 } else { 1.0 };
        let target = |q: usize| (&targets[(q * images + image) * k..][..k], weight(q));
        simd(
            #[inline(always)]
            || row_loss(s, target(0), target(1), inverse, share as f32),
        )
    });
    losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() * share
}

/// `f(row, numbers)` gives one number for every row.
fn rayon_rows(
    data: &mut [f32],
    columns: usize,
    out: &mut [f32],
    f: impl Fn(usize, &mut [f32]) -> f32 + Sync,
) {
    use rayon::prelude::*;
    data.par_chunks_mut(columns)
        .zip(out)
        .enumerate()
        .for_each(|(row, (numbers, out))| *out = f(row, numbers));
}

/// `Σ_q w_q CE(P_q, s / τ)`; `s` becomes `share / τ · (Σ w_q softmax(s / τ) - Σ w_q P_q)`.
#[inline(always)]
fn row_loss(s: &mut [f32], (p, wp): (&[f32], f32), (q, wq): (&[f32], f32), inverse: f32, share: f32) -> f32 {
    let top = max(s);
    let mut sums = [0.0_f32; LANES];
    let mut along = [0.0_f32; LANES];
    let whole = s.len() - s.len() % LANES;
    for start in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            let i = start + lane;
            let x = (s[i] - top) * inverse;
            along[lane] = wp.mul_add(p[i], wq * q[i]).mul_add(x, along[lane]);
            s[i] = exp(x);
            sums[lane] += s[i];
        }
    }
    for i in whole..s.len() {
        let x = (s[i] - top) * inverse;
        along[i - whole] = wp.mul_add(p[i], wq * q[i]).mul_add(x, along[i - whole]);
        s[i] = exp(x);
        sums[i - whole] += s[i];
    }
    let (sum, along) = (sums.iter().sum::<f32>(), along.iter().sum::<f32>());
    let n = wp + wq;
    let (soft, hard) = (n / sum * inverse * share, inverse * share);
    for i in 0..s.len() {
        s[i] = s[i].mul_add(soft, -wp.mul_add(p[i], wq * q[i]) * hard);
    }
    n * sum.ln() - along
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sin(i + off)`.
    fn s(n: usize, off: f64) -> Vec<f32> {
        (0..n).map(|i| (i as f64 + off).sin() as f32).collect()
    }

    /// Two images, three views, K = 4; numbers of the original's formulas in double precision.
    #[test]
    fn loss_entropy_centre_and_slope_of_the_original() {
        let (mut student, mut teacher) = (s(24, 0.0), s(16, 100.0));
        let mut center = Center::new(4, 0.9);
        center.values = vec![0.1, -0.2, 0.3, 0.0];
        center.observe(&teacher);
        let (mut entropies, mut losses) = (Vec::new(), Vec::new());
        teacher_targets(&mut teacher, &center.values, 0.04, &mut entropies);
        let shape = LossShape { images: 2, views: 3, batch: 2, temperature: 0.1 };
        let loss = student_loss(&mut student, &teacher, shape, &mut losses);
        center.update();
        let close = |got: f64, want: f64, limit: f64| assert!((got - want).abs() < limit, "{got} {want}");
        close(loss, 9.223_849_905_3, 1e-5);
        let entropy = entropies.iter().map(|&h| f64::from(h)).sum::<f64>() / 4.0;
        close(entropy, 0.225_437_283_8, 1e-5);
        close(loss - entropy, 8.998_412_621_6, 2e-5);
        for (got, want) in center.values.iter().zip([0.070_221, -0.174_974, 0.295_211, 0.022_216]) {
            close(f64::from(*got), want, 1e-6);
        }
        let norm = student.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        close(norm, 4.984_103_069_4, 1e-4);
        for (got, want) in student.iter().zip([-0.010_648_84, -0.818_607_0, 0.828_873_6, 0.000_382_24]) {
            close(f64::from(*got), want, 1e-5);
        }
    }
}
