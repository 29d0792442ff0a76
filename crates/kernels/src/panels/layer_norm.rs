//! Layer norm on panels: `y = (x - mean) / √(var + ε) · w + b` for every token, lane by lane.
//!
//! Mean and variance are taken one after the other, so that tokens far from zero lose nothing.

use pulp::Simd;

use super::PanelShape;
use super::tile::{vectorized, vectors, vectors_mut};
use super::work::for_each;
use crate::level::mul_add;

/// Partial sums that run side by side, so that additions need not wait for one another.
const CHAINS: usize = 4;

/// Writes the normalised tokens.
///
/// * `x`, `y`: panels of `shape`; `weight`, `bias`: `[d]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn panel_layer_norm(
    x: &[f32],
    shape: PanelShape,
    (weight, bias): (&[f32], &[f32]),
    eps: f32,
    y: &mut [f32],
) {
    shape.check(x);
    shape.check(y);
    assert!(weight.len() == shape.dim && bias.len() == shape.dim, "a norm of {} numbers", shape.dim);
    if y.is_empty() {
        return;
    }
    let len = shape.panel_len();
    for_each(x.chunks_exact(len).zip(y.chunks_exact_mut(len)).collect(), |(x, y)| {
        shape.level.run(Run { x, y, weight, bias, eps });
    });
}

struct Run<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
}

vectorized!(Run => run);

#[inline(always)]
fn run<S: Simd, const R: usize, const NV: usize, const L: usize>(simd: S, run: Run<'_>) {
    let Run { x, y, weight, bias, eps } = run;
    let (x, y) = (vectors::<S, NV>(x), vectors_mut::<S, NV>(y));
    let part = simd.splat_f32s(1.0 / x.len() as f32);
    let mean = sum::<S, NV>(simd, x, |x, _| x).map(|sum| simd.mul_f32s(sum, part));
    let square = |x, v: usize| {
        let away = simd.sub_f32s(x, mean[v]);
        simd.mul_f32s(away, away)
    };
    let variance = sum::<S, NV>(simd, x, square).map(|sum| simd.mul_f32s(sum, part));
    let one = simd.splat_f32s(1.0);
    let scale =
        variance.map(|var| simd.div_f32s(one, simd.sqrt_f32s(simd.add_f32s(var, simd.splat_f32s(eps)))));
    for (((x, y), &weight), &bias) in x.iter().zip(y).zip(weight).zip(bias) {
        let (weight, bias) = (simd.splat_f32s(weight), simd.splat_f32s(bias));
        for v in 0..NV {
            let unit = simd.mul_f32s(simd.sub_f32s(x[v], mean[v]), scale[v]);
            y[v] = mul_add(simd, unit, weight, bias);
        }
    }
}

/// The sum over a panel's rows of `term(vector, its place in the row)`.
#[inline(always)]
fn sum<S: Simd, const NV: usize>(
    simd: S,
    rows: &[[S::f32s; NV]],
    term: impl Fn(S::f32s, usize) -> S::f32s,
) -> [S::f32s; NV] {
    let mut sums = [[simd.splat_f32s(0.0); NV]; CHAINS];
    let (whole, rest) = rows.as_chunks::<CHAINS>();
    for rows in whole {
        for c in 0..CHAINS {
            for v in 0..NV {
                sums[c][v] = simd.add_f32s(sums[c][v], term(rows[c][v], v));
            }
        }
    }
    for row in rest {
        for v in 0..NV {
            sums[0][v] = simd.add_f32s(sums[0][v], term(row[v], v));
        }
    }
    let mut total = sums[0];
    for more in &sums[1..] {
        for v in 0..NV {
            total[v] = simd.add_f32s(total[v], more[v]);
        }
    }
    total
}
