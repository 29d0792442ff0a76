//! Layer norm: `y = (x - mean) / √(var + ε) · w + b` over every row, the variance that of the population.
//!
//! Mean and variance are taken in two passes over the row, so that rows far from zero lose nothing. Sums run in
//! 16 lanes, which are added in a fixed order. On the way back the parameters' gradients are summed per task, and
//! the tasks' sums added in their order.

use rayon::prelude::*;

use crate::dispatch::simd;
use crate::lanes::LANES;
use crate::rows::rows_per_task;

/// What the backward pass needs of every row: `[mean, 1 / √(var + ε)]`.
pub type NormStats = [f32; 2];

/// `Σ term(x)` over a row.
#[inline(always)]
fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for chunk in whole {
        for lane in 0..LANES {
            lanes[lane] += term(chunk[lane]);
        }
    }
    for (sum, &x) in lanes.iter_mut().zip(rest) {
        *sum += term(x);
    }
    lanes.iter().sum()
}

/// `(Σ g, Σ g x̂)` over a row, with `g = dy · w`.
#[inline(always)]
fn slopes(dy: &[f32], weight: &[f32], x: &[f32], [mean, scale]: NormStats) -> (f32, f32) {
    let (mut along, mut across) = ([0.0; LANES], [0.0; LANES]);
    let (dy, weight, x) = (dy.as_chunks::<LANES>(), weight.as_chunks::<LANES>(), x.as_chunks::<LANES>());
    for ((dy, weight), x) in dy.0.iter().zip(weight.0).zip(x.0) {
        for lane in 0..LANES {
            let g = dy[lane] * weight[lane];
            along[lane] += g;
            across[lane] += g * ((x[lane] - mean) * scale);
        }
    }
    for (lane, ((dy, weight), x)) in dy.1.iter().zip(weight.1).zip(x.1).enumerate() {
        let g = dy * weight;
        along[lane] += g;
        across[lane] += g * ((x - mean) * scale);
    }
    (along.iter().sum(), across.iter().sum())
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
                    let mean = sum(x, |x| x) / d as f32;
                    let variance = sum(x, |x| (x - mean) * (x - mean)) / d as f32;
                    let scale = 1.0 / (variance + eps).sqrt();
                    for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                        *y = ((x - mean) * scale).mul_add(*weight, *bias);
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
    let rows = rows_per_task(d);
    // The parameters' gradients of every task, [tasks, 2, d]; they are added in order.
    let mut partial = vec![0.0; stats.len().div_ceil(rows) * 2 * d];
    let inputs = dy.par_chunks(rows * d).zip(x.par_chunks(rows * d)).zip(stats.par_chunks(rows));
    let outputs = dx.par_chunks_mut(rows * d).zip(partial.par_chunks_mut(2 * d));
    outputs.zip(inputs).for_each(|((dx, partial), ((dy, x), stats))| {
        let (dweight, dbias) = partial.split_at_mut(d);
        simd(
            #[inline(always)]
            || {
                let rows = dx.chunks_exact_mut(d).zip(dy.chunks_exact(d)).zip(x.chunks_exact(d)).zip(stats);
                for (((dx, dy), x), &stats) in rows {
                    // dx = scale (g - mean(g) - x̂ mean(g x̂)).
                    let (along, across) = slopes(dy, weight, x, stats);
                    let ([mean, scale], along, across) = (stats, along / d as f32, across / d as f32);
                    let sums = dweight.iter_mut().zip(&mut *dbias);
                    for ((((dx, dy), x), weight), (dweight, dbias)) in
                        dx.iter_mut().zip(dy).zip(x).zip(weight).zip(sums)
                    {
                        let unit = (x - mean) * scale;
                        *dx += scale * (dy * weight - along - unit * across);
                        *dweight += dy * unit;
                        *dbias += dy;
                    }
                }
            },
        );
    });
    for partial in partial.chunks_exact(2 * d) {
        let (weight, bias) = partial.split_at(d);
        dweight.iter_mut().zip(weight).for_each(|(sum, more)| *sum += more);
        dbias.iter_mut().zip(bias).for_each(|(sum, more)| *sum += more);
    }
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
