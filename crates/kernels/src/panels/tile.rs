//! The tile in the registers: `R` rows of factors times `NV` vectors of a panel, summed over the inner index.
//!
//! A tile reads one vector row of the panel and `R` single numbers per step, and does `R · NV` multiply-adds with them.
//! How large it is follows from the number of registers: accumulators, one panel row and one factor must fit.

use pulp::Simd;

use super::prefetch::{LATER, READ, WRITE, part, prefetch};
use crate::Level;
use crate::level::mul_add;

/// `L`, the lanes of a panel at a level: tokens, columns of a matrix, channels.
pub(crate) fn panel_lanes(level: Level) -> usize {
    match level {
        Level::Avx512 => 32,
        Level::Avx2 | Level::Neon | Level::Portable => 16,
    }
}

/// Rows of a linear layer's tile at a level.
pub(super) fn linear_rows(level: Level) -> usize {
    match level {
        Level::Avx512 => 12,
        Level::Avx2 | Level::Neon => 6,
        Level::Portable => 2,
    }
}

/// Makes `$function::<S, R, NV, L>(simd, $arguments)` what [`Level::run`] does with a structure of arguments, with the sizes
/// of the level that `S` stands for, `R` for linear layers, projections and convolutions.
macro_rules! vectorized {
    ($arguments:ident => $function:ident) => {
        impl pulp::WithSimd for $arguments<'_> {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: pulp::Simd>(self, simd: S) {
                match S::F32_LANES {
                    16 => $function::<S, 12, 2, 32>(simd, self),
                    4 => $function::<S, 6, 4, 16>(simd, self),
                    _ if std::any::TypeId::of::<S>() == std::any::TypeId::of::<pulp::Scalar256b>() => {
                        $function::<S, 2, 2, 16>(simd, self)
                    }
                    _ => $function::<S, 6, 2, 16>(simd, self),
                }
            }
        }
    };
}
pub(crate) use vectorized;

/// Steps of the inner index between two requests for numbers ahead.
const STEPS: usize = 64;

/// Accumulators.
pub(super) type Tile<S, const R: usize, const NV: usize> = [[<S as Simd>::f32s; NV]; R];

/// What a tile asks the caches for while it is summed.
pub(super) struct Ahead<'a, V> {
    /// Written when the tile is done.
    pub write: &'a [V],
    /// Read when the tile is done.
    pub read: &'a [V],
    /// Read by the next tiles.
    pub later: &'a [f32],
}

/// Adds `Σ_k factors[k][r] · panel[k][v]` to the first `USED` vectors of every row.
///
/// * `factors`: `[k, R]`; `panel`: `[k, NV]` vectors.
#[inline(always)]
pub(super) fn packed<S: Simd, const R: usize, const NV: usize, const USED: usize>(
    simd: S,
    factors: &[[f32; R]],
    panel: &[[S::f32s; NV]],
    ahead: &Ahead<'_, [S::f32s; NV]>,
    tile: &mut Tile<S, R, USED>,
) {
    let mut sums = *tile;
    let times = factors.len().div_ceil(STEPS).max(1);
    let share = ahead.later.len().div_ceil(times);
    for (time, (factors, panel)) in factors.chunks(STEPS).zip(panel.chunks(STEPS)).enumerate() {
        prefetch::<LATER, _>(part(ahead.later, time, share));
        prefetch::<WRITE, _>(part(ahead.write, time, 1));
        prefetch::<READ, _>(part(ahead.read, time, 1));
        for (factors, row) in factors.iter().zip(panel) {
            for r in 0..R {
                let factor = simd.splat_f32s(factors[r]);
                for v in 0..USED {
                    sums[r][v] = mul_add(simd, factor, row[v], sums[r][v]);
                }
            }
        }
    }
    *tile = sums;
}

/// A panel's numbers as vector rows.
#[inline(always)]
pub(super) fn vectors<S: Simd, const NV: usize>(panel: &[f32]) -> &[[S::f32s; NV]] {
    S::as_simd_f32s(panel).0.as_chunks().0
}

/// A panel's numbers as vector rows that are written.
#[inline(always)]
pub(super) fn vectors_mut<S: Simd, const NV: usize>(panel: &mut [f32]) -> &mut [[S::f32s; NV]] {
    S::as_mut_simd_f32s(panel).0.as_chunks_mut().0
}
