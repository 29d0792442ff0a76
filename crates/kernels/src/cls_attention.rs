//! Attention of one query per image, the class token's: `softmax(scale · q kᵀ) v` without the other rows.
//!
//! Keys and values come side by side, `[images · n, 2 · d]`. There is one row of scores per head, so plain loops do.

use rayon::prelude::*;

use crate::attention::AttentionShape;
use crate::dispatch::simd;
use crate::lanes::{dot, softmax, softmax_backward};

/// `to += scale · from`.
#[inline(always)]
fn add(to: &mut [f32], from: &[f32], scale: f32) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = scale.mul_add(*from, *to);
    }
}

/// Softmax weights of a head's query, `[n]`.
#[inline(always)]
fn weights(q: &[f32], kv: &[f32], shape: AttentionShape, head: usize, weights: &mut [f32]) {
    let (d, hd) = (shape.dim(), shape.head_dim);
    for (weight, row) in weights.iter_mut().zip(kv.chunks_exact(2 * d)) {
        *weight = dot(q, &row[head * hd..][..hd]) * shape.scale();
    }
    softmax(weights);
}

/// Writes the heads' outputs side by side, `[images, d]`.
///
/// * `queries`: `[images, d]`; `kv`: `[images · n, 2 · d]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn cls_attention(queries: &[f32], kv: &[f32], shape: AttentionShape, out: &mut [f32]) {
    let (n, d, hd) = (shape.tokens, shape.dim(), shape.head_dim);
    assert!(
        queries.len() == out.len() && kv.len() == 2 * n * out.len(),
        "class attention over images of {n} x {d}"
    );
    out.par_chunks_mut(d).zip(queries.par_chunks(d)).zip(kv.par_chunks(2 * n * d)).for_each_init(
        || vec![0.0; n],
        |p, ((out, q), kv)| {
            simd(
                #[inline(always)]
                || {
                    out.fill(0.0);
                    for (head, out) in out.chunks_exact_mut(hd).enumerate() {
                        weights(&q[head * hd..][..hd], kv, shape, head, p);
                        for (&p, row) in p.iter().zip(kv.chunks_exact(2 * d)) {
                            add(out, &row[d + head * hd..][..hd], p);
                        }
                    }
                },
            );
        },
    );
}

/// Writes the gradients of queries, `[images, d]`, and of keys and values, `[images · n, 2 · d]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn cls_attention_backward(
    dout: &[f32],
    queries: &[f32],
    kv: &[f32],
    shape: AttentionShape,
    dqueries: &mut [f32],
    dkv: &mut [f32],
) {
    let (n, d, hd) = (shape.tokens, shape.dim(), shape.head_dim);
    assert!(
        dqueries.len() == dout.len() && dkv.len() == kv.len(),
        "class attention over images of {n} x {d}"
    );
    assert!(queries.len() == dout.len() && kv.len() == 2 * n * dout.len(), "class attention over {n} x {d}");
    let inputs = dout.par_chunks(d).zip(queries.par_chunks(d)).zip(kv.par_chunks(2 * n * d));
    dqueries.par_chunks_mut(d).zip(dkv.par_chunks_mut(2 * n * d)).zip(inputs).for_each_init(
        || [vec![0.0; n], vec![0.0; n]],
        |[p, ds], ((dq, dkv), ((dout, q), kv))| {
            simd(
                #[inline(always)]
                || {
                    dq.fill(0.0);
                    for head in 0..shape.heads {
                        let at = head * hd..(head + 1) * hd;
                        let (q, dout, dq) = (&q[at.clone()], &dout[at.clone()], &mut dq[at]);
                        weights(q, kv, shape, head, p);
                        for (ds, row) in ds.iter_mut().zip(kv.chunks_exact(2 * d)) {
                            *ds = dot(dout, &row[d + head * hd..][..hd]);
                        }
                        softmax_backward(p, ds);
                        let rows = dkv.chunks_exact_mut(2 * d).zip(kv.chunks_exact(2 * d));
                        for ((&p, &ds), (drow, row)) in p.iter().zip(ds.iter()).zip(rows) {
                            let ds = ds * shape.scale();
                            let (dk, dv) = drow.split_at_mut(d);
                            for (dk, q) in dk[head * hd..][..hd].iter_mut().zip(q) {
                                *dk = ds * q;
                            }
                            for (dv, dout) in dv[head * hd..][..hd].iter_mut().zip(dout) {
                                *dv = p * dout;
                            }
                            add(dq, &row[head * hd..][..hd], ds);
                        }
                    }
                },
            );
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attention, attention_backward};

    const SHAPE: AttentionShape = AttentionShape { tokens: 21, heads: 3, head_dim: 18 };

    fn wave(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37 + phase).sin()).collect()
    }

    /// The class token's row of full attention, and the gradients when only that row has one.
    #[test]
    fn it_is_the_first_row_of_attention() {
        let (images, n, d) = (2, SHAPE.tokens, SHAPE.dim());
        let qkv = wave(images * n * 3 * d, 0.4);
        let dcls = wave(images * d, 1.1);
        let mut out = vec![0.0; images * n * d];
        attention(&qkv, SHAPE, &mut out);
        let mut dout = vec![0.0; images * n * d];
        let mut dqkv = vec![0.0; qkv.len()];
        (0..images).for_each(|i| dout[i * n * d..][..d].copy_from_slice(&dcls[i * d..][..d]));
        attention_backward(&dout, &qkv, SHAPE, &mut dqkv);

        let queries: Vec<f32> = (0..images).flat_map(|i| qkv[i * n * 3 * d..][..d].to_vec()).collect();
        let kv: Vec<f32> = qkv.chunks_exact(3 * d).flat_map(|row| row[d..].to_vec()).collect();
        let mut cls = vec![f32::NAN; images * d];
        cls_attention(&queries, &kv, SHAPE, &mut cls);
        let (mut dq, mut dkv) = (vec![f32::NAN; images * d], vec![f32::NAN; kv.len()]);
        cls_attention_backward(&dcls, &queries, &kv, SHAPE, &mut dq, &mut dkv);

        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        for image in 0..images {
            assert!(close(&cls[image * d..][..d], &out[image * n * d..][..d]));
            assert!(close(&dq[image * d..][..d], &dqkv[image * n * 3 * d..][..d]));
        }
        for (row, full) in dkv.chunks_exact(2 * d).zip(dqkv.chunks_exact(3 * d)) {
            assert!(close(row, &full[d..]));
        }
    }
}
