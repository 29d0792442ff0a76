//! Layer norm: `y = (x - mean) / √(var + ε) · w + b` over every row, the variance that of the population.
//!
//! Mean and variance are taken in two passes over the row, so that rows far from zero lose nothing. Sums run in
//! 16 lanes, which are added in a fixed order.

use rayon::prelude::*;

use crate::dispatch::simd;
use crate::lanes::LANES;
use crate::rows::{add_column_sums, add_sums, rows_per_task};

/// What the backward pass needs of every row: `[mean, 1 / √(var + ε)]`.
pub type NormStats = [f32; 2];

/// Sum of `f(i)` for `i < n`, in lanes.
#[inline(always)]
fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = n - n % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    for i in whole..n {
        lanes[i - whole] += f(i);
    }
    lanes.iter().sum()
}

/// Writes the normalised rows and the statistics of each.
///
/// * `x`, `y`: `[rows, d]`; `weight`, `bias`: `[d]`; `stats`: `[rows]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32], stats: &mut [NormStats]) {
    let d = weight.len();
    assert!(
        x.len() == y.len() && x.len() == stats.len() * d && bias.len() == d,
        "layer norm over rows of {d}"
    );
    let rows = rows_per_task(d);
    let tasks = y.par_chunks_mut(rows * d).zip(x.par_chunks(rows * d)).zip(stats.par_chunks_mut(rows));
    tasks.for_each(|((y, x), stats)| {
        simd(
            #[inline(always)]
            || {
                for ((y, x), stats) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(stats) {
                    let mean = sum(d, |i| x[i]) / d as f32;
                    let variance = sum(d, |i| (x[i] - mean) * (x[i] - mean)) / d as f32;
                    let scale = 1.0 / (variance + eps).sqrt();
                    for i in 0..d {
                        y[i] = ((x[i] - mean) * scale).mul_add(weight[i], bias[i]);
                    }
                    *stats = [mean, scale];
                }
            },
        );
    });
}

/// Adds the gradients of weight and bias, `[d]`, and *adds* the input's to `dx`, `[rows, d]`, which holds the skip
/// connection's.
///
/// # Panics
/// If the shapes do not fit.
pub fn layer_norm_backward(
    dy: &[f32],
    x: &[f32],
    stats: &[NormStats],
    weight: &[f32],
    (dweight, dbias): (&mut [f32], &mut [f32]),
    dx: &mut [f32],
) {
    let d = weight.len();
    assert!(
        dy.len() == x.len() && dx.len() == x.len() && x.len() == stats.len() * d,
        "layer norm over rows of {d}"
    );
    add_column_sums(dy, dbias);
    add_sums(
        dweight,
        stats.len(),
        #[inline(always)]
        |row, first, sums| {
            let [mean, scale] = stats[row];
            let at = row * d + first;
            let (dy, x) = (&dy[at..][..sums.len()], &x[at..][..sums.len()]);
            for ((sum, dy), x) in sums.iter_mut().zip(dy).zip(x) {
                *sum = (dy * scale).mul_add(x - mean, *sum);
            }
        },
    );
    let rows = rows_per_task(d);
    let inputs = dy.par_chunks(rows * d).zip(x.par_chunks(rows * d)).zip(stats.par_chunks(rows));
    dx.par_chunks_mut(rows * d).zip(inputs).for_each(|(dx, ((dy, x), stats))| {
        simd(
            #[inline(always)]
            || {
                let rows = dx.chunks_exact_mut(d).zip(dy.chunks_exact(d)).zip(x.chunks_exact(d)).zip(stats);
                for (((dx, dy), x), &[mean, scale]) in rows {
                    // g = dy · w; dx = scale (g - mean(g) - x̂ mean(g x̂)).
                    let along = sum(d, |i| dy[i] * weight[i]) / d as f32;
                    let across = sum(d, |i| dy[i] * weight[i] * ((x[i] - mean) * scale)) / d as f32;
                    for i in 0..d {
                        let unit = (x[i] - mean) * scale;
                        dx[i] += scale * (dy[i] * weight[i] - along - unit * across);
                    }
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_mean_0_and_variance_1_far_from_zero_too() {
        let d = 37;
        let x: Vec<f32> = (0..3 * d).map(|i| 1000.0 * (i / d) as f32 + (i as f32 * 1.3).sin()).collect();
        let (mut y, mut stats) = (vec![0.0; 3 * d], [[0.0; 2]; 3]);
        layer_norm(&x, &vec![1.0; d], &vec![0.0; d], 0.0, &mut y, &mut stats);
        for row in y.chunks_exact(d) {
            let mean = row.iter().sum::<f32>() / d as f32;
            let variance = row.iter().map(|y| (y - mean) * (y - mean)).sum::<f32>() / d as f32;
            assert!(mean.abs() < 1e-3 && (variance - 1.0).abs() < 1e-4, "{mean} {variance}");
        }
    }

    #[test]
    fn a_constant_row_is_the_bias() {
        let (mut y, mut stats) = ([0.0; 4], [[0.0; 2]; 1]);
        layer_norm(&[0.1; 4], &[2.0; 4], &[3.0; 4], 1e-6, &mut y, &mut stats);
        assert!(y.iter().all(|y| (y - 3.0).abs() < 1e-4), "{y:?}");
    }
}
