//! Multi-head self-attention on panels, `softmax(q kᵀ / √hd) v` per head; the `n × n` scores are never stored.
//!
//! A task is one head of one panel of queries. Its scores are computed with the keys as rows, `[n, L]`, so that the
//! softmax runs down the lanes; they become weights a chunk of keys at a time, and each chunk is multiplied with its
//! values while it lies in the first cache. Scores are in base 2: `2^(s log₂e - max)`.

use std::cell::RefCell;

use pulp::Simd;

use super::PanelShape;
use super::math::exp2;
use super::tile::{vectors, vectors_mut};
use super::work::for_each;
use crate::level::mul_add;

/// Key panels whose weights make a chunk.
const CHUNK: usize = 8;

thread_local! {
    /// Queries `[hd, L]`, sums `[hd, L]` and scores `[n, L]` of a task, kept from one to the next.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Writes the heads' outputs side by side, `[b, p, d, L]`.
///
/// * `qkv`: `[b, p, 3 d, L]` of `shape`: queries, keys and values one after the other, each split into `heads`.
///
/// # Panics
/// If the shapes do not fit.
pub fn panel_attention(qkv: &[f32], shape: PanelShape, heads: usize, out: &mut [f32]) {
    assert!(heads > 0 && shape.dim.is_multiple_of(3 * heads), "{heads} heads in {shape:?}");
    let d = shape.dim / 3;
    shape.check(qkv);
    shape.with_dim(d).check(out);
    if out.is_empty() {
        return;
    }
    let image = shape.panels() * shape.panel_len();
    let hd = d / heads;
    let parts = out.chunks_exact_mut(hd * shape.lanes()).enumerate();
    let mut tasks: Vec<Task<'_>> = parts
        .map(|(i, out)| {
            let (panel, head) = (i / heads, i % heads);
            let qkv = &qkv[panel / shape.panels() * image..][..image];
            Task { qkv, image: panel / shape.panels(), panel: panel % shape.panels(), head, out }
        })
        .collect();
    // Panels of one head after another: they read the same keys and values.
    tasks.sort_unstable_by_key(|task| (task.image, task.head, task.panel));
    let len = (2 * hd + shape.panels() * shape.lanes()) * shape.lanes();
    for_each(tasks, |task| {
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.len() < len {
                scratch.resize(len, 0.0);
            }
            shape.level.run(Run { task, shape, hd, scratch: &mut scratch[..len] });
        });
    });
}

/// One head of one panel of queries.
struct Task<'a> {
    /// Of the image, `[p, 3 d, L]`.
    qkv: &'a [f32],
    image: usize,
    panel: usize,
    head: usize,
    /// `[hd, L]`.
    out: &'a mut [f32],
}

struct Run<'a> {
    task: Task<'a>,
    shape: PanelShape,
    hd: usize,
    scratch: &'a mut [f32],
}

impl pulp::WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Rows of a tile, keys or dimensions of a value: they divide a panel, and their sums fit the registers.
        match S::F32_LANES {
            16 => run::<S, 8, 2, 32>(simd, self),
            4 => run::<S, 4, 4, 16>(simd, self),
            _ if std::any::TypeId::of::<S>() == std::any::TypeId::of::<pulp::Scalar256b>() => {
                run::<S, 2, 2, 16>(simd, self)
            }
            _ => run::<S, 4, 2, 16>(simd, self),
        }
    }
}

#[inline(always)]
fn run<S: Simd, const R: usize, const NV: usize, const L: usize>(simd: S, run: Run<'_>) {
    let Run { task, shape, hd, scratch } = run;
    let (queries, rest) = scratch.split_at_mut(hd * L);
    let (sums, scores) = rest.split_at_mut(hd * L);
    let part = |which: usize| (which * shape.dim / 3 + task.head * hd) * L;
    let panel_len = shape.panel_len();

    let scale = std::f32::consts::LOG2_E / (hd as f32).sqrt();
    let from = &task.qkv[task.panel * panel_len + part(0)..][..hd * L];
    queries.iter_mut().zip(from).for_each(|(to, from)| *to = from * scale);
    let queries = vectors::<S, NV>(queries);

    let mut top = [simd.splat_f32s(f32::NEG_INFINITY); NV];
    for (i, scores) in scores.chunks_exact_mut(L * L).enumerate() {
        let keys = &task.qkv[i * panel_len + part(1)..][..hd * L];
        let valid = shape.tokens_of(i);
        score_panel::<S, R, NV, L>(simd, queries, keys, valid, vectors_mut::<S, NV>(scores), &mut top);
    }

    let sums = vectors_mut::<S, NV>(sums);
    sums.fill([simd.splat_f32s(0.0); NV]);
    let mut total = [simd.splat_f32s(0.0); NV];
    let scores = &mut vectors_mut::<S, NV>(scores)[..shape.tokens];
    for (chunk, weights) in scores.chunks_mut(CHUNK * L).enumerate() {
        for row in &mut *weights {
            for v in 0..NV {
                row[v] = simd.sub_f32s(row[v], top[v]);
            }
            *row = exp2(simd, *row);
            for v in 0..NV {
                total[v] = simd.add_f32s(total[v], row[v]);
            }
        }
        let values = &task.qkv[chunk * CHUNK * panel_len..];
        let values = |i: usize| &values[i * panel_len + part(2)..][..hd * L];
        let whole = hd - hd % R;
        for (first, sums) in (0..whole).step_by(R).zip(sums.as_chunks_mut::<R>().0) {
            add_values::<S, R, NV, L>(simd, weights, values, first, sums);
        }
        for (first, sums) in (whole..hd).zip(sums[whole..].as_chunks_mut::<1>().0) {
            add_values::<S, 1, NV, L>(simd, weights, values, first, sums);
        }
    }

    let scale = total.map(|total| simd.div_f32s(simd.splat_f32s(1.0), total));
    for (out, sums) in vectors_mut::<S, NV>(task.out).iter_mut().zip(sums) {
        for v in 0..NV {
            out[v] = simd.mul_f32s(sums[v], scale[v]);
        }
    }
}

/// Scores of one panel of keys, `[L, L]`, keys as rows, and the largest so far of the first `valid` keys.
///
/// * `queries`: `[hd, NV]` vectors; `keys`: `[hd, L]`.
#[inline(always)]
fn score_panel<S: Simd, const R: usize, const NV: usize, const L: usize>(
    simd: S,
    queries: &[[S::f32s; NV]],
    keys: &[f32],
    valid: usize,
    scores: &mut [[S::f32s; NV]],
    top: &mut [S::f32s; NV],
) {
    let keys = keys.as_chunks::<L>().0;
    for (tile, scores) in scores.as_chunks_mut::<R>().0.iter_mut().enumerate() {
        if tile * R >= valid {
            break;
        }
        let mut sums = [[simd.splat_f32s(0.0); NV]; R];
        for (query, keys) in queries.iter().zip(keys) {
            let keys = &keys.as_chunks::<R>().0[tile];
            for r in 0..R {
                let key = simd.splat_f32s(keys[r]);
                for v in 0..NV {
                    sums[r][v] = mul_add(simd, key, query[v], sums[r][v]);
                }
            }
        }
        *scores = sums;
        for score in scores.iter().take(valid - tile * R) {
            for v in 0..NV {
                top[v] = simd.max_f32s(top[v], score[v]);
            }
        }
    }
}

/// Adds `Σ_key weights[key] · values[first + r][key]` to `R` rows of sums.
///
/// * `weights`: `[keys, NV]` vectors; `values`: the panels of the keys, `[hd, L]` each.
#[inline(always)]
fn add_values<'a, S: Simd, const R: usize, const NV: usize, const L: usize>(
    simd: S,
    weights: &[[S::f32s; NV]],
    values: impl Fn(usize) -> &'a [f32],
    first: usize,
    sums: &mut [[S::f32s; NV]; R],
) {
    let mut local = *sums;
    for (i, weights) in weights.chunks(L).enumerate() {
        let rows: &[[f32; L]; R] =
            values(i).as_chunks::<L>().0[first..].first_chunk().expect("R rows from the first");
        for (key, weight) in weights.iter().enumerate().take(L) {
            for r in 0..R {
                let value = simd.splat_f32s(rows[r][key]);
                for v in 0..NV {
                    local[r][v] = mul_add(simd, value, weight[v], local[r][v]);
                }
            }
        }
    }
    *sums = local;
}
