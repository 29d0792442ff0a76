//! `y = (x − mean) M` on rows as they lie in memory, for projections to few dimensions.
//!
//! The matrix is laid out once in panels of a few vectors of columns; a tile is some rows times one panel, and reads one
//! vector row of the matrix and one number of each row per step of the inner index. Rows are cut into tasks of a fixed
//! height, and every number of the result is one chain of multiply-adds in the order of `d`: the same bits for any
//! companions, any number of threads, and whatever columns the matrix has besides. This is not the linear layer of a
//! network: that reads and writes [panels of tokens](crate::PackedLinear).

use pulp::Simd;
use rayon::prelude::*;

use crate::Level;
use crate::level::mul_add;
use crate::panels::{panel_lanes, vectorized};

/// Rows of a task: whole tiles at every level; centred, they fit the second-level cache beside a panel of the matrix.
const TASK: usize = 48;

/// An affine map of rows `[n, d]` to `[n, k]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RowMap {
    level: Level,
    from: usize,
    to: usize,
    mean: Vec<f32>,
    panels: Vec<f32>, // [k / L, d, L]
}

impl RowMap {
    /// * `mean`: `[d]`; `matrix`: `[d, k]` in row-major order.
    ///
    /// # Panics
    /// If the lengths do not fit.
    #[must_use]
    pub fn new(level: Level, mean: &[f32], matrix: &[f32], to: usize) -> Self {
        let from = mean.len();
        assert_eq!(matrix.len(), from * to, "a matrix of {from} x {to}");
        let lanes = panel_lanes(level);
        let mut panels = vec![0.0; to.div_ceil(lanes) * from * lanes];
        for (p, panel) in panels.chunks_exact_mut((from * lanes).max(1)).enumerate() {
            let columns = p * lanes..((p + 1) * lanes).min(to);
            for (row, out) in matrix.chunks_exact(to.max(1)).zip(panel.chunks_exact_mut(lanes)) {
                out[..columns.len()].copy_from_slice(&row[columns.clone()]);
            }
        }
        Self { level, from, to, mean: mean.to_vec(), panels }
    }

    /// `(d, k)`.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.from, self.to)
    }

    /// Maps rows `[n, d]` to `out`, `[n, k]`, both in row-major order, with all threads of the current pool.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn apply(&self, rows: &[f32], out: &mut [f32]) {
        let Self { from, to, .. } = *self;
        assert_eq!(rows.len() * to, out.len() * from, "rows of {from} to rows of {to}");
        if out.is_empty() || from == 0 {
            out.fill(0.0);
            return;
        }
        assert!(rows.len().is_multiple_of(from), "{} numbers are not rows of {from}", rows.len());
        let tasks = rows.par_chunks(TASK * from).zip(out.par_chunks_mut(TASK * to));
        tasks.for_each_init(Vec::new, |centred, (rows, out)| {
            self.level.run(Run { map: self, rows, centred, out });
        });
    }
}

struct Run<'a> {
    map: &'a RowMap,
    rows: &'a [f32],
    centred: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

vectorized!(Run => run);

#[inline(always)]
fn run<S: Simd, const R: usize, const NV: usize, const L: usize>(simd: S, run: Run<'_>) {
    let Run { map, rows, centred, out } = run;
    let (d, k) = (map.from, map.to);
    let n = rows.len() / d;
    // Rows behind the last one keep what was there before: their results are not used.
    centred.resize(TASK * d, 0.0);
    for (row, centred) in rows.chunks_exact(d).zip(centred.chunks_exact_mut(d)) {
        for ((to, &x), &mean) in centred.iter_mut().zip(row).zip(&map.mean) {
            *to = x - mean;
        }
    }
    for (p, panel) in map.panels.chunks_exact(d * L).enumerate() {
        let panel: &[[S::f32s; NV]] = S::as_simd_f32s(panel).0.as_chunks().0;
        let columns = p * L..((p + 1) * L).min(k);
        for first in (0..n).step_by(R) {
            let tile = tile::<S, R, NV>(simd, &centred[first * d..], panel);
            for (tile, out) in tile.iter().zip(out[first * k..].chunks_exact_mut(k)) {
                let tile: &[f32] = pulp::bytemuck::cast_slice(tile);
                out[columns.clone()].copy_from_slice(&tile[..columns.len()]);
            }
        }
    }
}

/// `Σ_i rows[r][i] · panel[i][v]`.
#[inline(always)]
fn tile<S: Simd, const R: usize, const NV: usize>(
    simd: S,
    rows: &[f32],
    panel: &[[S::f32s; NV]],
) -> [[S::f32s; NV]; R] {
    let d = panel.len();
    let rows: [&[f32]; R] = std::array::from_fn(|r| &rows[r * d..][..d]);
    let mut sums = [[simd.splat_f32s(0.0); NV]; R];
    for i in 0..d {
        for r in 0..R {
            let factor = simd.splat_f32s(rows[r][i]);
            for v in 0..NV {
                sums[r][v] = mul_add(simd, factor, panel[i][v], sums[r][v]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin()).collect()
    }

    fn map(level: Level, d: usize, k: usize) -> RowMap {
        RowMap::new(level, &wave(d, 0.3), &wave(d * k, 0.7), k)
    }

    fn apply(map: &RowMap, rows: &[f32]) -> Vec<f32> {
        let (d, k) = map.sizes();
        let mut out = vec![f32::NAN; rows.len() / d.max(1) * k];
        map.apply(rows, &mut out);
        out
    }

    #[test]
    fn the_definition_at_every_level_and_odd_sizes() {
        for level in Level::available() {
            for (n, d, k) in [(1, 1, 1), (5, 3, 2), (48, 7, 16), (49, 40, 17), (130, 130, 33), (7, 20, 70)] {
                let (mean, matrix, rows) = (wave(d, 0.3), wave(d * k, 0.7), wave(n * d, 0.11));
                let got = apply(&map(level, d, k), &rows);
                for (i, row) in rows.chunks_exact(d).enumerate() {
                    for j in 0..k {
                        let want: f64 =
                            (0..d).map(|c| f64::from(row[c] - mean[c]) * f64::from(matrix[c * k + j])).sum();
                        let got = f64::from(got[i * k + j]);
                        assert!((got - want).abs() < 1e-5 * (1.0 + d as f64).sqrt(), "{level:?} {n} {d} {k}");
                    }
                }
            }
        }
    }

    #[test]
    fn companions_threads_and_further_columns_change_no_bit() {
        for level in Level::available() {
            let (n, d, k) = (301, 61, 40);
            let rows = wave(n * d, 0.13);
            let whole = apply(&map(level, d, k), &rows);
            for piece in [1, 5, 6, 47, 48, 100] {
                let parts: Vec<f32> =
                    rows.chunks(piece * d).flat_map(|rows| apply(&map(level, d, k), rows)).collect();
                assert_eq!(parts, whole, "{level:?} {piece}");
            }
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| apply(&map(level, d, k), &rows)), whole);
            }
            let (mean, matrix) = (wave(d, 0.3), wave(d * k, 0.7));
            let whole = apply(&RowMap::new(level, &mean, &matrix, k), &rows);
            for few in [1, 3, 16, 17, 39] {
                let prefix: Vec<f32> = matrix.chunks(k).flat_map(|row| row[..few].to_vec()).collect();
                let got = apply(&RowMap::new(level, &mean, &prefix, few), &rows);
                let want: Vec<f32> = whole.chunks(k).flat_map(|row| row[..few].to_vec()).collect();
                assert_eq!(got, want, "{level:?} {few}");
            }
        }
    }

    #[test]
    fn nothing_in_nothing_out() {
        let level = Level::current();
        assert!(apply(&map(level, 4, 3), &[]).is_empty());
        map(level, 4, 0).apply(&[], &mut []);
    }
}
