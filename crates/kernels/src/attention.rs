//! Multi-head self-attention: `softmax(scale · q kᵀ) v` for every image and head.
//!
//! Queries, keys and values come in one matrix as the fused projection leaves it, `[images · n, 3 · d]` in the order
//! `[q | k | v]`, each split into heads. Images are shared out over the threads; the `n x n` scores of one head at a time
//! stay in the core's cache and are computed again by the backward pass instead of being stored.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::dispatch::simd;
use crate::lanes::{softmax, softmax_backward};
use crate::matrix::{Matrix, MatrixMut, Threads, gemm};

thread_local! {
    /// Scores and their gradients, kept from one image to the next.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Sizes of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// `n`: tokens per image, with the class token.
    pub tokens: usize,
    /// Number of heads.
    pub heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// `d`: the heads side by side.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.heads * self.head_dim
    }

    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Part 0 (queries), 1 (keys) or 2 (values) of a head in one image's `[n, 3 d]`.
    fn part<'a>(&self, qkv: &'a [f32], part: usize, head: usize) -> Matrix<'a> {
        Matrix::columns(qkv, 3 * self.dim(), part * self.dim() + head * self.head_dim, self.head_dim)
    }

    fn part_mut<'a>(&self, qkv: &'a mut [f32], part: usize, head: usize) -> MatrixMut<'a> {
        MatrixMut::columns(qkv, 3 * self.dim(), part * self.dim() + head * self.head_dim, self.head_dim)
    }

    /// Writes a head's softmax weights, `[n, n]`, rows = queries.
    fn weights(&self, qkv: &[f32], head: usize, weights: &mut [f32]) {
        let n = self.tokens;
        let (q, k) = (self.part(qkv, 0, head), self.part(qkv, 1, head));
        gemm(MatrixMut::new(weights, n, n), 0.0, self.scale(), q, k.t(), Threads::One);
        simd(
            #[inline(always)]
            || {
                for row in weights.chunks_exact_mut(n) {
                    softmax(row);
                }
            },
        );
    }
}

/// Calls `f` with two `[n, n]` buffers of this thread.
fn with_scratch<R>(n: usize, f: impl FnOnce(&mut [f32], &mut [f32]) -> R) -> R {
    SCRATCH.with_borrow_mut(|[a, b]| {
        let len = n * n;
        for buffer in [&mut *a, &mut *b] {
            if buffer.len() < len {
                buffer.resize(len, 0.0);
            }
        }
        f(&mut a[..len], &mut b[..len])
    })
}

/// Writes the heads' outputs side by side, `[images · n, d]`.
///
/// * `qkv`: `[images · n, 3 · d]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn attention(qkv: &[f32], shape: AttentionShape, out: &mut [f32]) {
    let (n, d) = (shape.tokens, shape.dim());
    assert!(
        qkv.len() == 3 * out.len() && out.len().is_multiple_of(n * d),
        "attention over images of {n} x {d}"
    );
    out.par_chunks_mut(n * d).zip(qkv.par_chunks(3 * n * d)).for_each(|(out, qkv)| {
        with_scratch(n, |weights, _| {
            for head in 0..shape.heads {
                shape.weights(qkv, head, weights);
                let out = MatrixMut::columns(out, d, head * shape.head_dim, shape.head_dim);
                gemm(out, 0.0, 1.0, Matrix::new(weights, n, n), shape.part(qkv, 2, head), Threads::One);
            }
        });
    });
}

/// Writes the gradient of `qkv`, `[images · n, 3 · d]`.
///
/// * `dout`: the gradient of the outputs, `[images · n, d]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn attention_backward(dout: &[f32], qkv: &[f32], shape: AttentionShape, dqkv: &mut [f32]) {
    let (n, d) = (shape.tokens, shape.dim());
    assert!(qkv.len() == 3 * dout.len() && dqkv.len() == qkv.len(), "attention over images of {n} x {d}");
    let images = dqkv.par_chunks_mut(3 * n * d).zip(qkv.par_chunks(3 * n * d)).zip(dout.par_chunks(n * d));
    images.for_each(|((dqkv, qkv), dout)| {
        with_scratch(n, |weights, scores| {
            for head in 0..shape.heads {
                head_backward(dout, qkv, shape, head, dqkv, (weights, scores));
            }
        });
    });
}

/// One head of one image: `p = softmax(s)`, `dv = pᵀ do`, `dp = do vᵀ`, `dq = scale ds k`, `dk = scale dsᵀ q`.
fn head_backward(
    dout: &[f32],
    qkv: &[f32],
    shape: AttentionShape,
    head: usize,
    dqkv: &mut [f32],
    (p, ds): (&mut [f32], &mut [f32]),
) {
    let n = shape.tokens;
    let dout = Matrix::columns(dout, shape.dim(), head * shape.head_dim, shape.head_dim);
    let [q, k, v] = [0, 1, 2].map(|part| shape.part(qkv, part, head));
    shape.weights(qkv, head, p);
    gemm(MatrixMut::new(ds, n, n), 0.0, 1.0, dout, v.t(), Threads::One);
    gemm(shape.part_mut(dqkv, 2, head), 0.0, 1.0, Matrix::new(p, n, n).t(), dout, Threads::One);
    simd(
        #[inline(always)]
        || {
            for (p, dp) in p.chunks_exact(n).zip(ds.chunks_exact_mut(n)) {
                softmax_backward(p, dp);
            }
        },
    );
    let ds = Matrix::new(ds, n, n);
    gemm(shape.part_mut(dqkv, 0, head), 0.0, shape.scale(), ds, k, Threads::One);
    gemm(shape.part_mut(dqkv, 1, head), 0.0, shape.scale(), ds.t(), q, Threads::One);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: AttentionShape = AttentionShape { tokens: 19, heads: 2, head_dim: 5 };

    fn wave(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37 + phase).sin()).collect()
    }

    /// The definition, in double precision, for one image.
    fn by_definition(qkv: &[f64]) -> Vec<f64> {
        let AttentionShape { tokens: n, heads, head_dim } = SHAPE;
        let d = heads * head_dim;
        let mut out = vec![0.0; n * d];
        for head in 0..heads {
            let at =
                |token: usize, part: usize, i: usize| qkv[token * 3 * d + part * d + head * head_dim + i];
            for query in 0..n {
                let score = |key: usize| (0..head_dim).map(|i| at(query, 0, i) * at(key, 1, i)).sum::<f64>();
                let e: Vec<f64> = (0..n).map(|key| (score(key) / (head_dim as f64).sqrt()).exp()).collect();
                let total: f64 = e.iter().sum();
                for i in 0..head_dim {
                    out[query * d + head * head_dim + i] =
                        (0..n).map(|key| e[key] / total * at(key, 2, i)).sum();
                }
            }
        }
        out
    }

    #[test]
    fn forward_is_the_definition_and_images_do_not_mix() {
        let (n, d) = (SHAPE.tokens, SHAPE.dim());
        let qkv = wave(2 * n * 3 * d, 0.3);
        let mut out = vec![f32::NAN; 2 * n * d];
        attention(&qkv, SHAPE, &mut out);
        for image in 0..2 {
            let qkv: Vec<f64> = qkv[image * n * 3 * d..][..n * 3 * d].iter().map(|&x| f64::from(x)).collect();
            for (want, got) in by_definition(&qkv).iter().zip(&out[image * n * d..]) {
                assert!((want - f64::from(*got)).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn backward_is_the_slope() {
        let (n, d) = (SHAPE.tokens, SHAPE.dim());
        let (qkv, dout) = (wave(n * 3 * d, 0.3), wave(n * d, 1.7));
        let mut dqkv = vec![f32::NAN; n * 3 * d];
        attention_backward(&dout, &qkv, SHAPE, &mut dqkv);
        let exact: Vec<f64> = qkv.iter().map(|&x| f64::from(x)).collect();
        let loss =
            |qkv: &[f64]| by_definition(qkv).iter().zip(&dout).map(|(y, &w)| y * f64::from(w)).sum::<f64>();
        for i in 0..qkv.len() {
            let at = |h: f64| {
                let mut moved = exact.clone();
                moved[i] += h;
                loss(&moved)
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - f64::from(dqkv[i])).abs() < 1e-5, "{i}: {slope} {}", dqkv[i]);
        }
    }
}
