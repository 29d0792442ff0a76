//! Upper bounds of cosines that cost a fraction of them.
//!
//! With an orthonormal basis `Q` of few directions, what two unit vectors have in common lies within it or beside it:
//!
//! ```text
//! x·y = (Qᵀx)·(Qᵀy) + x⊥·y⊥ ≤ (Qᵀx)·(Qᵀy) + |x⊥| |y⊥|
//! ```
//!
//! which is the product of the rows `[Qᵀx, |x⊥|]`. The closer the vectors lie to the basis, the tighter the bound; it holds for any. A good one
//! is found by subspace iteration on a sample. What rounding may take from a bound is added to it, so that no pair is lost.

use kernels::{LANES, Matrix, MatrixMut, Threads, gemm, simd};
use rayon::prelude::*;

use super::best::any_reaches;

/// Numbers of a bound's row, the length beside the basis included.
const WIDTH: usize = 64;

/// Vectors that a basis is sought with.
const SAMPLE: usize = 2048;

/// Passes of the subspace iteration.
const PASSES: usize = 2;

/// Rows that a task turns into bounds.
const BLOCK: usize = 512;

/// Mean squared length beside the basis from which on bounds rule out too little.
const MOST_BESIDE: f32 = 0.1;

/// Rows of bounds.
pub(super) struct Screen {
    /// `[n, WIDTH]`.
    rows: Vec<f32>,
    /// What rounding may take from a bound.
    slack: f32,
}

impl Screen {
    /// Bounds for rows `[n, d]` of length one at most, if they are worth it.
    pub(super) fn of(rows: &[f32], d: usize) -> Option<Self> {
        let n = rows.len() / d;
        if n < SAMPLE || d < 3 * WIDTH / 2 {
            return None;
        }
        let sample: Vec<f32> = (0..SAMPLE).flat_map(|i| &rows[i * n / SAMPLE * d..][..d]).copied().collect();
        let basis = basis(&sample, d);
        let of_sample = bounds(&sample, d, &basis);
        let beside: f32 = of_sample.chunks_exact(WIDTH).map(|row| row[WIDTH - 1] * row[WIDTH - 1]).sum();
        (beside <= MOST_BESIDE * SAMPLE as f32)
            .then(|| Self { rows: bounds(rows, d, &basis), slack: (d + WIDTH) as f32 * f32::EPSILON })
    }

    /// `[n, width]`; their products bound those of the vectors.
    pub(super) fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Numbers of a row.
    pub(super) fn width(&self) -> usize {
        WIDTH
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

/// Orthonormal directions `[WIDTH - 1, d]` near which the rows lie.
fn basis(sample: &[f32], d: usize) -> Vec<f32> {
    let n = sample.len() / d;
    let all = Matrix::new(sample, n, d);
    // Rows of the sample span some of what it spans; each pass turns them towards its longest axes.
    let mut basis: Vec<f32> =
        (0..WIDTH - 1).flat_map(|i| &sample[i * n / WIDTH * d..][..d]).copied().collect();
    orthonormalise(&mut basis, d);
    let mut along = vec![0.0; n * (WIDTH - 1)];
    for _ in 0..PASSES {
        let known = Matrix::new(&basis, WIDTH - 1, d);
        gemm(MatrixMut::new(&mut along, n, WIDTH - 1), 0.0, 1.0, all, known.t(), Threads::One);
        let along = Matrix::new(&along, n, WIDTH - 1);
        gemm(MatrixMut::new(&mut basis, WIDTH - 1, d), 0.0, 1.0, along.t(), all, Threads::One);
        orthonormalise(&mut basis, d);
    }
    basis
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

/// Rows `[Qᵀx, |x⊥|]`, `[n, WIDTH]`.
fn bounds(rows: &[f32], d: usize, basis: &[f32]) -> Vec<f32> {
    let mut padded = basis.to_vec();
    padded.resize(WIDTH * d, 0.0);
    let basis = Matrix::new(&padded, WIDTH, d);
    let mut out = vec![0.0; rows.len() / d * WIDTH];
    let square = |v: &[f32]| v.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    out.par_chunks_mut(BLOCK * WIDTH).zip(rows.par_chunks(BLOCK * d)).for_each(|(out, rows)| {
        let n = rows.len() / d;
        let factors = (Matrix::new(rows, n, d), basis.t());
        gemm(MatrixMut::new(out, n, WIDTH), 0.0, 1.0, factors.0, factors.1, Threads::One);
        for (bound, row) in out.chunks_exact_mut(WIDTH).zip(rows.chunks_exact(d)) {
            bound[WIDTH - 1] = (square(row) - square(&bound[..WIDTH - 1])).max(0.0).sqrt() as f32;
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold() {
        let (n, d) = (SAMPLE + 100, 100);
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
        let screen = Screen::of(&rows, d).unwrap();
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        let row = |rows: &[f32], width: usize, i: usize| rows[i * width..][..width].to_vec();
        for i in (0..n).step_by(13) {
            for j in (0..n).step_by(17) {
                let bound = dot(&row(screen.rows(), WIDTH, i), &row(screen.rows(), WIDTH, j));
                let cosine = dot(&row(&rows, d, i), &row(&rows, d, j));
                assert!(bound + f64::from(screen.slack) >= cosine, "{i} {j}: {bound} {cosine}");
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
