//! Upper bounds of cosines that cost a fraction of them.
//!
//! With an orthonormal basis `Q` of few directions, what two unit vectors have in common lies within it or beside it:
//!
//! ```text
//! x·y = (Qᵀx)·(Qᵀy) + x⊥·y⊥ ≤ (Qᵀx)·(Qᵀy) + |x⊥| |y⊥|
//! ```
//!
//! which is the product of the rows `[Qᵀx, |x⊥|]`. The closer the vectors lie to the basis, the tighter the bound; it holds for any. A good one
//! is found by subspace iteration on a sample, its size by trying on the sample what bounds of that size would save. What
//! rounding may take from a bound is allowed for, so that no pair is lost.

use kernels::{LANES, Matrix, MatrixMut, Threads, gemm, simd};
use rayon::prelude::*;

use super::best::any_reaches;

/// Numbers of a bound's row that are tried, the length beside the basis included.
const WIDTHS: [usize; 3] = [16, 32, 64];

/// Vectors that bases are sought with, every so many of which bounds are tried on.
const SAMPLE: usize = 1024;
const TRIED_EVERY: usize = 8;

/// Passes of the subspace iteration.
const PASSES: usize = 2;

/// What it costs to compare a pair by itself, in pairs of a matrix product.
const ALONE: f64 = 6.0;

/// The share of the cost of all products from which on bounds are not worth it.
const TOO_DEAR: f64 = 0.7;

/// Rows that a task turns into bounds.
const BLOCK: usize = 512;

/// Rows of bounds.
pub(super) struct Screen {
    width: usize,
    /// `[n, width]`.
    rows: Vec<f32>,
    /// What rounding may take from a bound.
    slack: f32,
}

impl Screen {
    /// Bounds for the search of the `k` nearest among rows `[n, d]` of length one at most, if they are worth it.
    pub(super) fn of(rows: &[f32], d: usize, k: usize) -> Option<Self> {
        let n = rows.len() / d;
        if n < 2 * SAMPLE {
            return None;
        }
        let sample = Sample::of(rows, d);
        let limits = sample.limits((k * SAMPLE).div_ceil(n));
        let tried = WIDTHS.into_iter().filter(|width| 2 * width < d).map(|width| {
            let basis = sample.basis(width - 1);
            let kept = sample.share_kept(&bounds(&sample.rows, d, &basis), width, &limits);
            (width as f64 / d as f64 + ALONE * kept, width, basis)
        });
        let (cost, width, basis) = tried.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let slack = (d + width) as f32 * f32::EPSILON;
        (cost < TOO_DEAR).then(|| Self { width, rows: bounds(rows, d, &basis), slack })
    }

    /// `[n, width]`; their products bound those of the vectors.
    pub(super) fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Numbers of a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The pairs (row, column) of a tile of bounds that reach the limit of their row or of their column.
    pub(super) fn survivors(
        &self,
        tile: &[f32],
        across: usize,
        (of_rows, of_columns): (&[f32], &[f32]),
        pairs: &mut Vec<(u32, u32)>,
    ) {
        let of_columns: Vec<f32> = of_columns.iter().map(|least| least - self.slack).collect();
        simd(
            #[inline(always)]
            || {
                for (i, (row, least)) in tile.chunks_exact(across).zip(of_rows).enumerate() {
                    let of_row = [least - self.slack; LANES];
                    for (c, chunk) in row.chunks(LANES).enumerate() {
                        let of_columns = &of_columns[c * LANES..];
                        if any_reaches(chunk, &of_row) || any_reaches(chunk, of_columns) {
                            for (lane, bound) in chunk.iter().enumerate() {
                                if *bound >= of_row[0] || *bound >= of_columns[lane] {
                                    pairs.push((i as u32, (c * LANES + lane) as u32));
                                }
                            }
                        }
                    }
                }
            },
        );
    }
}

/// Some of the vectors, evenly taken.
struct Sample {
    /// `[SAMPLE, d]`.
    rows: Vec<f32>,
    d: usize,
}

impl Sample {
    fn of(rows: &[f32], d: usize) -> Self {
        let n = rows.len() / d;
        let rows = (0..SAMPLE).flat_map(|i| &rows[i * n / SAMPLE * d..][..d]).copied().collect();
        Self { rows, d }
    }

    /// Every so many of rows of `width` numbers, against all of them: `[SAMPLE / TRIED_EVERY, SAMPLE]`.
    fn products(rows: &[f32], width: usize) -> Vec<f32> {
        let few: Vec<f32> = rows.chunks_exact(width).step_by(TRIED_EVERY).flatten().copied().collect();
        let tried = SAMPLE / TRIED_EVERY;
        let mut tile = vec![0.0; tried * SAMPLE];
        let (a, b) = (Matrix::new(&few, tried, width), Matrix::new(rows, SAMPLE, width));
        gemm(MatrixMut::new(&mut tile, tried, SAMPLE), 0.0, 1.0, a, b.t(), Threads::One);
        tile
    }

    /// What the `k` nearest within the sample reach, for every so many of its vectors.
    fn limits(&self, k: usize) -> Vec<f32> {
        let mut tile = Self::products(&self.rows, self.d);
        let limit = |row: &mut [f32]| *row.select_nth_unstable_by(k.min(SAMPLE - 1), |a, b| b.total_cmp(a)).1;
        tile.chunks_exact_mut(SAMPLE).map(limit).collect()
    }

    /// The share of pairs whose bounds reach the limits of one of the two, about.
    fn share_kept(&self, bounds: &[f32], width: usize, limits: &[f32]) -> f64 {
        let tile = Self::products(bounds, width);
        let reach = |(row, limit): (&[f32], &f32)| row.iter().filter(|bound| *bound >= limit).count();
        let kept: usize = tile.chunks_exact(SAMPLE).zip(limits).map(reach).sum();
        2.0 * kept as f64 / tile.len() as f64
    }

    /// Orthonormal directions `[wanted, d]` near which the vectors lie.
    fn basis(&self, wanted: usize) -> Vec<f32> {
        let d = self.d;
        let all = Matrix::new(&self.rows, SAMPLE, d);
        // Vectors of the sample span some of what it spans; each pass turns them towards its longest axes.
        let first = (0..wanted).flat_map(|i| &self.rows[i * SAMPLE / wanted * d..][..d]);
        let mut basis: Vec<f32> = first.copied().collect();
        orthonormalise(&mut basis, d);
        let mut along = vec![0.0; SAMPLE * wanted];
        for _ in 0..PASSES {
            let known = Matrix::new(&basis, wanted, d);
            gemm(MatrixMut::new(&mut along, SAMPLE, wanted), 0.0, 1.0, all, known.t(), Threads::One);
            let along = Matrix::new(&along, SAMPLE, wanted);
            gemm(MatrixMut::new(&mut basis, wanted, d), 0.0, 1.0, along.t(), all, Threads::One);
            orthonormalise(&mut basis, d);
        }
        basis
    }
}

/// Gram–Schmidt, twice, in double precision; directions that are none become 0.
fn orthonormalise(basis: &mut [f32], d: usize) {
    let mut done: Vec<Vec<f64>> = Vec::new();
    for row in basis.chunks_exact_mut(d) {
        let mut rest: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let whole = length(&rest);
        for _ in 0..2 {
            for other in &done {
                let shared: f64 = rest.iter().zip(other).map(|(a, b)| a * b).sum();
                rest.iter_mut().zip(other).for_each(|(x, y)| *x -= shared * y);
            }
        }
        let left = length(&rest);
        let scale = if left > 1e-6 * whole { 1.0 / left } else { 0.0 };
        rest.iter_mut().for_each(|x| *x *= scale);
        row.iter_mut().zip(&rest).for_each(|(to, x)| *to = *x as f32);
        if scale > 0.0 {
            done.push(rest);
        }
    }
}

/// Rows `[Qᵀx, |x⊥|]`, `[n, w + 1]`, of rows `[n, d]` and a basis `[w, d]`.
fn bounds(rows: &[f32], d: usize, basis: &[f32]) -> Vec<f32> {
    let w = basis.len() / d;
    let width = w + 1;
    // A last direction of zeros makes room for the length.
    let padded = [basis, &vec![0.0; d]].concat();
    let basis = Matrix::new(&padded, width, d);
    let mut out = vec![0.0; rows.len() / d * width];
    let square = |v: &[f32]| v.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    out.par_chunks_mut(BLOCK * width).zip(rows.par_chunks(BLOCK * d)).for_each(|(out, rows)| {
        let n = rows.len() / d;
        let factors = (Matrix::new(rows, n, d), basis.t());
        gemm(MatrixMut::new(out, n, width), 0.0, 1.0, factors.0, factors.1, Threads::One);
        for (bound, row) in out.chunks_exact_mut(width).zip(rows.chunks_exact(d)) {
            bound[w] = (square(row) - square(&bound[..w])).max(0.0).sqrt() as f32;
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold() {
        let (n, d) = (2 * SAMPLE + 100, 100);
        let mut rows: Vec<f32> = (0..n * d)
            .map(|at| {
                let (i, c) = (at / d, at % d);
                ((i * 7) as f32).sin() * (c as f32).cos() + 0.1 * ((i * c) as f32 * 0.7).sin() + 0.3
            })
            .collect();
        for row in rows.chunks_exact_mut(d) {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x /= length);
        }
        let (width, slack) = (16, (d + 16) as f64 * f64::from(f32::EPSILON));
        let bounded = bounds(&rows, d, &Sample::of(&rows, d).basis(width - 1));
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        let row = |rows: &[f32], width: usize, i: usize| rows[i * width..][..width].to_vec();
        for i in (0..n).step_by(13) {
            for j in (0..n).step_by(17) {
                let bound = dot(&row(&bounded, width, i), &row(&bounded, width, j));
                let cosine = dot(&row(&rows, d, i), &row(&rows, d, j));
                assert!(bound + slack >= cosine, "{i} {j}: {bound} {cosine}");
            }
        }
    }

    #[test]
    fn a_basis_is_orthonormal() {
        let d = 20;
        let mut basis: Vec<f32> = (0..5 * d).map(|i| ((i * i) as f32).sin()).collect();
        basis.extend_from_within(..d); // one twice
        orthonormalise(&mut basis, d);
        for i in 0..6 {
            for j in 0..6 {
                let product: f32 = (0..d).map(|c| basis[i * d + c] * basis[j * d + c]).sum();
                let expected = f32::from(u8::from(i == j && i < 5));
                assert!((product - expected).abs() < 1e-6, "{i} {j}: {product}");
            }
        }
    }
}
