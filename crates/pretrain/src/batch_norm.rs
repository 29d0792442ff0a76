//! Batch norm over rows: `y = (x - mean) / √(var + ε) · w + b` per column. Rows are images, or pixels of images.
//!
//! In training the statistics are the batch's (the variance that of the population), and running ones follow them (with the
//! unbiased variance). Running statistics are no parameters: student and teacher each keep their own. Sums run row after
//! row in double precision, side by side over columns.

use kernels::simd;
use rayon::prelude::*;

use crate::buffer::sized;
use crate::params::{Layout, Slot, two_mut};

const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// Columns that are summed side by side.
const COLUMNS: usize = 16;

/// Numbers of a task that goes over rows.
const TASK: usize = 16 * 1024;

/// Which statistics a batch norm uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The batch's; the running ones are updated.
    Train,
    /// The running ones.
    Eval,
}

/// Batch norm without its weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchNorm {
    weight: Slot,
    bias: Slot,
    running_mean: Slot,
    running_var: Slot,
    d: usize,
}

/// What [`BatchNorm::backward`] needs.
#[derive(Debug, Default)]
pub(crate) struct BatchNormActivations {
    unit: Vec<f32>,  // [rows, d], normalised
    scale: Vec<f32>, // [d], 1 / √(var + ε)
    sums: [Vec<f64>; 2],
}

impl BatchNorm {
    pub(crate) fn add(layout: &mut Layout, buffers: &mut Layout, name: &str, d: usize) -> Self {
        let weight = layout.add(format!("{name}.weight"), &[d]);
        let bias = layout.add(format!("{name}.bias"), &[d]);
        let running_mean = buffers.add(format!("{name}.running_mean"), &[d]);
        Self { weight, bias, running_mean, running_var: buffers.add(format!("{name}.running_var"), &[d]), d }
    }

    /// Normalises `x`, `[rows, d]`, in place.
    pub(crate) fn forward(
        &self,
        params: &[f32],
        buffers: &mut [f32],
        mode: Mode,
        x: &mut [f32],
        kept: &mut BatchNormActivations,
    ) {
        let (d, rows) = (self.d, x.len() / self.d);
        let BatchNormActivations { unit, scale, sums: [means, variances] } = kept;
        let (means, variances) = (sized(means, d), sized(variances, d));
        let (running_mean, running_var) = two_mut(buffers, self.running_mean, self.running_var);
        match mode {
            Mode::Eval => {
                means.iter_mut().zip(&*running_mean).for_each(|(mean, &running)| *mean = running.into());
                variances.iter_mut().zip(&*running_var).for_each(|(var, &running)| *var = running.into());
            }
            Mode::Train => {
                column_sums(x, d, means, |sum, x, _| *sum += x, &[]);
                means.iter_mut().for_each(|sum| *sum /= rows as f64);
                let centre = means.to_vec();
                column_sums(x, d, variances, |sum, x, mean| *sum += (x - mean) * (x - mean), &centre);
                for column in 0..d {
                    follow(&mut running_mean[column], means[column]);
                    follow(&mut running_var[column], variances[column] / (rows.max(2) - 1) as f64);
                    variances[column] /= rows as f64;
                }
            }
        }
        let scale = sized(scale, d);
        scale.iter_mut().zip(&*variances).for_each(|(s, var)| *s = (1.0 / (var + EPS).sqrt()) as f32);
        let means: Vec<f32> = means.iter().map(|&mean| mean as f32).collect();
        let (scale, means, weight, bias) = (&*scale, &*means, self.weight.of(params), self.bias.of(params));
        let unit = sized(unit, x.len());
        for_rows([x, unit], d, |[x, unit]| {
            for i in 0..d {
                unit[i] = (x[i] - means[i]) * scale[i];
                x[i] = unit[i].mul_add(weight[i], bias[i]);
            }
        });
    }

    /// Adds the parameters' gradients and turns `dy`, `[rows, d]`, into the input's. For [`Mode::Train`].
    pub(crate) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        kept: &mut BatchNormActivations,
        dy: &mut [f32],
    ) {
        let (d, rows) = (self.d, dy.len() / self.d);
        let weight = self.weight.of(params);
        let BatchNormActivations { unit, scale, sums: [sums, alongs] } = kept;
        let (sums, alongs) = (sized(sums, d), sized(alongs, d));
        column_sums(dy, d, sums, |sum, dy, _| *sum += dy, &[]);
        column_products(dy, unit, d, alongs);
        let (dweight, dbias) = two_mut(grads, self.weight, self.bias);
        for column in 0..d {
            dweight[column] += alongs[column] as f32;
            dbias[column] += sums[column] as f32;
            sums[column] /= rows as f64;
            alongs[column] /= rows as f64;
        }
        let narrow = |means: &[f64]| means.iter().map(|&mean| mean as f32).collect::<Vec<_>>();
        let (sums, alongs) = (narrow(sums), narrow(alongs));
        let factors: Vec<f32> = weight.iter().zip(&*scale).map(|(weight, scale)| weight * scale).collect();
        let (factors, sums, alongs) = (&*factors, &*sums, &*alongs);
        for_rows([dy, unit], d, |[dy, unit]| {
            for i in 0..d {
                dy[i] = factors[i] * (dy[i] - sums[i] - unit[i] * alongs[i]);
            }
        });
    }
}

/// Runs `f` on every row of two matrices, `[rows, d]` each.
fn for_rows([a, b]: [&mut [f32]; 2], d: usize, f: impl Fn([&mut [f32]; 2]) + Sync) {
    let rows = (TASK / d).max(1) * d;
    a.par_chunks_mut(rows).zip(b.par_chunks_mut(rows)).for_each(|(a, b)| {
        simd(
            #[inline(always)]
            || {
                for (a, b) in a.chunks_exact_mut(d).zip(b.chunks_exact_mut(d)) {
                    f([a, b]);
                }
            },
        );
    });
}

/// `f(sum, x, centre)` for every number of each column, row after row; without centres they are 0.
fn column_sums(
    x: &[f32],
    d: usize,
    sums: &mut [f64],
    f: impl Fn(&mut f64, f64, f64) + Sync + Copy,
    centre: &[f64],
) {
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(block, sums)| {
        let at = block * COLUMNS..block * COLUMNS + sums.len();
        let centre = if centre.is_empty() { [0.0; COLUMNS].as_slice() } else { &centre[at.clone()] };
        sums.fill(0.0);
        simd(
            #[inline(always)]
            || {
                for row in x.chunks_exact(d) {
                    for ((sum, &x), &centre) in sums.iter_mut().zip(&row[at.clone()]).zip(centre) {
                        f(sum, x.into(), centre);
                    }
                }
            },
        );
    });
}

/// `Σ a b` of each column, row after row.
fn column_products(a: &[f32], b: &[f32], d: usize, sums: &mut [f64]) {
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(block, sums)| {
        let at = block * COLUMNS..block * COLUMNS + sums.len();
        sums.fill(0.0);
        simd(
            #[inline(always)]
            || {
                for (a, b) in a.chunks_exact(d).zip(b.chunks_exact(d)) {
                    for ((sum, &a), &b) in sums.iter_mut().zip(&a[at.clone()]).zip(&b[at.clone()]) {
                        *sum += f64::from(a) * f64::from(b);
                    }
                }
            },
        );
    });
}

/// A running statistic's step towards that of a batch.
pub(crate) fn follow(running: &mut f32, now: f64) {
    *running = ((1.0 - MOMENTUM) * f64::from(*running) + MOMENTUM * now) as f32;
}
