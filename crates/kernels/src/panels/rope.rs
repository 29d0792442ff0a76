//! Rotary positions on panels: pairs of features `(k, k + hd/2)` of queries and keys turned by a token's angles.

use pulp::Simd;

use super::PanelShape;
use super::tile::{vectorized, vectors, vectors_mut};
use super::work::for_each;
use crate::level::mul_add;

/// Turns queries and keys in place; values are left alone.
///
/// * `qkv`: panels of `shape`, `[q | k | v]` along the features, each split into heads.
/// * `cos`, `sin`: panels of one image's tokens, with `hd / 2` numbers each.
///
/// # Panics
/// If the shapes do not fit.
pub fn panel_rope(qkv: &mut [f32], shape: PanelShape, heads: usize, cos: &[f32], sin: &[f32]) {
    shape.check(qkv);
    assert!(heads > 0 && shape.dim.is_multiple_of(6 * heads), "{heads} heads of pairs in {shape:?}");
    let angles = PanelShape { images: 1, ..shape }.with_dim(shape.dim / 6 / heads);
    angles.check(cos);
    angles.check(sin);
    if qkv.is_empty() {
        return;
    }
    let panels = qkv.chunks_exact_mut(shape.panel_len()).enumerate().collect();
    for_each(panels, |(index, panel): (usize, &mut [f32])| {
        let at = index % shape.panels() * angles.panel_len();
        let [cos, sin] = [cos, sin].map(|table| &table[at..][..angles.panel_len()]);
        shape.level.run(Run { panel, cos, sin });
    });
}

struct Run<'a> {
    panel: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
}

vectorized!(Run => run);

#[inline(always)]
fn run<S: Simd, const R: usize, const NV: usize, const L: usize>(simd: S, run: Run<'_>) {
    let (cos, sin) = (vectors::<S, NV>(run.cos), vectors::<S, NV>(run.sin));
    let half = cos.len();
    let rows = vectors_mut::<S, NV>(run.panel);
    let turned = rows.len() / 3 * 2;
    for head in rows[..turned].chunks_exact_mut(2 * half) {
        let (first, second) = head.split_at_mut(half);
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            for v in 0..NV {
                let (x, y) = (a[v], b[v]);
                let less = simd.neg_f32s(simd.mul_f32s(y, sin[v]));
                a[v] = mul_add(simd, x, cos[v], less);
                b[v] = mul_add(simd, y, cos[v], simd.mul_f32s(x, sin[v]));
            }
        }
    }
}
