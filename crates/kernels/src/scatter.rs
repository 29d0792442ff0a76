//! The scatter of rows, `Σ (x − s)(x − s)ᵀ`, in units of the upper triangle: 32-bit products of short blocks of rows,
//! added up in 64 bits.
//!
//! A block of rows is centred by 32-bit numbers that the caller chooses, and laid out in panels of [`SCATTER_UNIT`] columns,
//! `[rows, 48]` one after the other: a tile of the product reads a few vectors of one panel's row and a few single numbers of
//! another's. A sum of products runs over one block only, in the order of its rows, and is then added to a 64-bit number: the
//! same bits whoever computes a unit. This is no general product; that is [`gemm`](crate::gemm).

use pulp::Simd;

use crate::Level;
use crate::dispatch::simd;
use crate::level::mul_add;

/// Rows and columns of a unit of the scatter matrix, and columns of a panel: whole tiles at every level.
pub const SCATTER_UNIT: usize = 48;

/// A symmetric rank-one matrix `weight · v vᵀ`, to be added to a scatter.
#[derive(Debug, Clone, Copy)]
pub struct RankOne<'a> {
    /// Its factor.
    pub weight: f64,
    /// `v`, `[d]`.
    pub vector: &'a [f64],
}

/// One block of rows `[n, d]`, a 32-bit number subtracted from each column.
///
/// The buffers are used again when another block is [laid out](Self::lay_out).
#[derive(Debug, Clone)]
pub struct CentredRows {
    level: Level,
    rows: usize,
    sums: Vec<f64>,    // [d], of the rows as they were
    shift: Vec<f32>,   // [columns], d filled up to whole units
    largest: Vec<f32>, // [columns], of the absolute centred numbers
    panels: Vec<f32>,  // [columns / 48, n, 48], and 48 zeros
}

impl CentredRows {
    /// No rows, for a level's vectors.
    #[must_use]
    pub fn new(level: Level) -> Self {
        Self { level, rows: 0, sums: Vec::new(), shift: Vec::new(), largest: Vec::new(), panels: Vec::new() }
    }

    /// Subtracts `shift`, `[d]`, from `rows`, `[n, d]` in row-major order, and lays them out. A number that is not finite
    /// shows in the sums.
    ///
    /// # Panics
    /// If these are not whole rows, or none.
    pub fn lay_out(&mut self, rows: &[f32], shift: &[f32]) {
        let d = shift.len();
        assert!(d > 0 && !rows.is_empty() && rows.len().is_multiple_of(d), "rows of {d} numbers");
        self.rows = rows.len() / d;
        self.sums.clear();
        self.sums.resize(d, 0.0);
        let columns = d.next_multiple_of(SCATTER_UNIT);
        self.shift.clear();
        self.shift.extend_from_slice(shift);
        self.shift.resize(columns, 0.0);
        self.largest.clear();
        self.largest.resize(columns, 0.0);
        self.panels.resize((columns * self.rows) + SCATTER_UNIT, 0.0);
        if columns > d {
            let last = (columns - SCATTER_UNIT) * self.rows;
            self.panels[last..].fill(0.0); // what lies behind the last column
        }
        simd(
            #[inline(always)]
            || centre(rows, &self.shift, &mut self.sums, &mut self.largest, &mut self.panels),
        );
    }

    /// `n`, the rows of the block.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The sums of the rows in 64 bits, `[d]`.
    #[must_use]
    pub fn sums(&self) -> &[f64] {
        &self.sums
    }

    /// What was subtracted from the rows, `[d]`.
    #[must_use]
    pub fn shift(&self) -> &[f32] {
        &self.shift[..self.sums.len()]
    }

    /// Whether 32 bits hold the squares of the centred numbers: the largest of every column is 0 or of a size between 1e-15 and
    /// 1e17. Other products overflow, or lose what lies below the smallest numbers.
    #[must_use]
    pub fn in_range(&self) -> bool {
        self.largest.iter().all(|&x| x == 0.0 || (1e-15..1e17).contains(&x))
    }

    /// Adds the scatter about the shift to one unit: rows from `row · SCATTER_UNIT` on, columns from `column · SCATTER_UNIT` on.
    /// Of a unit on the diagonal, what is below the diagonal may stay as it is.
    ///
    /// * `sums`: `[SCATTER_UNIT, SCATTER_UNIT]`
    ///
    /// # Panics
    /// If the unit lies outside of the matrix or below its diagonal, or `sums` has another length.
    pub fn add_to(&self, row: usize, column: usize, sums: &mut [f64]) {
        let units = self.shift.len() / SCATTER_UNIT;
        assert!(row <= column && column < units, "unit {row}, {column} of {units}");
        assert_eq!(sums.len(), SCATTER_UNIT * SCATTER_UNIT, "the sums of a unit");
        self.level.run(Product { block: self, row, column, sums });
    }
}

impl RankOne<'_> {
    /// Adds some of these, in their order, to one unit of a scatter matrix.
    ///
    /// * `sums`: `[SCATTER_UNIT, SCATTER_UNIT]`
    ///
    /// # Panics
    /// If vectors have different lengths, or `sums` has another one.
    pub fn add_to(terms: &[Self], row: usize, column: usize, sums: &mut [f64]) {
        assert_eq!(sums.len(), SCATTER_UNIT * SCATTER_UNIT, "the sums of a unit");
        let d = terms.first().map_or(0, |term| term.vector.len());
        assert!(terms.iter().all(|term| term.vector.len() == d), "rank-one terms of one width");
        let part = |unit: usize| (unit * SCATTER_UNIT).min(d)..((unit + 1) * SCATTER_UNIT).min(d);
        simd(
            #[inline(always)]
            || {
                for (sums, i) in sums.chunks_exact_mut(SCATTER_UNIT).zip(part(row)) {
                    for term in terms {
                        let left = term.weight * term.vector[i];
                        for (sum, &right) in sums.iter_mut().zip(&term.vector[part(column)]) {
                            *sum = left.mul_add(right, *sum);
                        }
                    }
                }
            },
        );
    }
}

/// Writes `x − shift` as panels, adds the rows to `sums`, and finds the largest.
#[inline(always)]
fn centre(rows: &[f32], shift: &[f32], sums: &mut [f64], largest: &mut [f32], panels: &mut [f32]) {
    let d = sums.len();
    let n = rows.len() / d;
    let fours = rows.chunks_exact(4 * d);
    let rest = fours.remainder();
    for (i, four) in fours.enumerate() {
        centre_some::<4>(four, 4 * i, n, shift, sums, largest, panels);
    }
    for (i, row) in rest.chunks_exact(d).enumerate() {
        centre_some::<1>(row, n - n % 4 + i, n, shift, sums, largest, panels);
    }
}

/// The same for the `N` rows from `first` on, of `n`.
#[inline(always)]
fn centre_some<const N: usize>(
    rows: &[f32],
    first: usize,
    n: usize,
    shift: &[f32],
    sums: &mut [f64],
    largest: &mut [f32],
    panels: &mut [f32],
) {
    const C: usize = 16; // columns at a time, part of a unit
    let d = sums.len();
    let place = |column: usize| (column / SCATTER_UNIT * n + first) * SCATTER_UNIT + column % SCATTER_UNIT;
    let (sums, last_sums) = sums.as_chunks_mut::<C>();
    let (shifts, largests) = (shift.as_chunks::<C>().0, largest.as_chunks_mut::<C>().0);
    let whole = sums.len();
    for (c, ((sums, shift), largest)) in sums.iter_mut().zip(shifts).zip(largests.iter_mut()).enumerate() {
        let to = &mut panels[place(c * C)..][..(N - 1) * SCATTER_UNIT + C];
        let (mut total, mut top) = ([0.0; C], *largest);
        for r in 0..N {
            let x = rows[r * d + c * C..].first_chunk::<C>().expect("C columns");
            let to = to[r * SCATTER_UNIT..].first_chunk_mut::<C>().expect("C columns");
            for j in 0..C {
                let centred = x[j] - shift[j];
                to[j] = centred;
                top[j] = if centred.abs() > top[j] { centred.abs() } else { top[j] };
                total[j] += f64::from(x[j]);
            }
        }
        *largest = top;
        for (sum, x) in sums.iter_mut().zip(total) {
            *sum += x;
        }
    }
    for (j, sum) in last_sums.iter_mut().enumerate() {
        for r in 0..N {
            let x = rows[r * d + whole * C + j];
            let centred = x - shifts[whole][j];
            panels[place(whole * C + j) + r * SCATTER_UNIT] = centred;
            let largest = &mut largests[whole][j];
            *largest = if centred.abs() > *largest { centred.abs() } else { *largest };
            *sum += f64::from(x);
        }
    }
}

struct Product<'a> {
    block: &'a CentredRows,
    row: usize,
    column: usize,
    sums: &'a mut [f64],
}

impl pulp::WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Accumulators, vectors of a panel and one factor fit the registers; tiles divide a unit. The last number is the
        // vectors of a panel's row.
        match S::F32_LANES {
            16 => product::<S, 8, 3, 3>(simd, self),
            4 => product::<S, 6, 4, 12>(simd, self),
            _ if std::any::TypeId::of::<S>() == std::any::TypeId::of::<pulp::Scalar256b>() => {
                product::<S, 2, 2, 6>(simd, self)
            }
            _ => product::<S, 6, 2, 6>(simd, self),
        }
    }
}

/// All tiles of one unit, `R` rows by `NV` of the `V` vectors of a panel's row each; where the diagonal cuts a tile, without
/// the vectors that lie below it.
#[inline(always)]
fn product<S: Simd, const R: usize, const NV: usize, const V: usize>(simd: S, product: Product<'_>) {
    const W: usize = SCATTER_UNIT;
    let Product { block, row, column, sums } = product;
    let len = block.rows * W;
    // What follows a panel is read but not used: the next one, or zeros.
    let (left, right) = (&block.panels[row * len..][..len + W], &block.panels[column * len..][..len + W]);
    let right = S::as_simd_f32s(right).0;
    for v in (0..V).step_by(NV) {
        for first in (0..W).step_by(R) {
            let below = if row == column { (first / S::F32_LANES).saturating_sub(v) } else { 0 };
            let v = v + below;
            // The factors of a row are the first of each 48 numbers, counted from the tile's first on.
            let factors = left[first..][..len].as_chunks::<W>().0;
            let vectors = right[v.min(V)..][..block.rows * V].as_chunks::<V>().0;
            let sums = &mut sums[first * W + v * S::F32_LANES..];
            match NV.saturating_sub(below) {
                0 => {} // all below
                1 => add_tile::<S, R, 1, V>(simd, factors, vectors, sums),
                2 => add_tile::<S, R, 2, V>(simd, factors, vectors, sums),
                3 => add_tile::<S, R, 3, V>(simd, factors, vectors, sums),
                _ => add_tile::<S, R, 4, V>(simd, factors, vectors, sums),
            }
        }
    }
}

/// Adds a tile to its place in the sums of a unit, which start at its corner.
#[inline(always)]
fn add_tile<S: Simd, const R: usize, const NV: usize, const V: usize>(
    simd: S,
    factors: &[[f32; SCATTER_UNIT]],
    vectors: &[[S::f32s; V]],
    sums: &mut [f64],
) {
    let tile = tile::<S, R, NV, V>(simd, factors, vectors);
    for (r, tile) in tile.iter().enumerate() {
        let sums = &mut sums[r * SCATTER_UNIT..][..NV * S::F32_LANES];
        let tile: &[f32] = pulp::bytemuck::cast_slice(tile);
        for (sum, &x) in sums.iter_mut().zip(tile) {
            *sum += f64::from(x);
        }
    }
}

/// `Σ_rows factors[row][r] · vectors[row][v]`.
#[inline(always)]
fn tile<S: Simd, const R: usize, const NV: usize, const V: usize>(
    simd: S,
    factors: &[[f32; SCATTER_UNIT]],
    vectors: &[[S::f32s; V]],
) -> [[S::f32s; NV]; R] {
    let mut sums = [[simd.splat_f32s(0.0); NV]; R];
    for (factors, vectors) in factors.iter().zip(vectors) {
        for r in 0..R {
            let factor = simd.splat_f32s(factors[r]);
            for v in 0..NV {
                sums[r][v] = mul_add(simd, factor, vectors[v], sums[r][v]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, d: usize, offset: f32) -> Vec<f32> {
        (0..n * d).map(|i| offset + ((i * i % 1013) as f32 * 0.37).sin() * (1 + i % d) as f32).collect()
    }

    /// The 32-bit numbers beside the means.
    fn means(rows: &[f32], d: usize) -> Vec<f32> {
        let n = (rows.len() / d) as f64;
        (0..d).map(|j| (rows.chunks_exact(d).map(|row| f64::from(row[j])).sum::<f64>() / n) as f32).collect()
    }

    fn exact(rows: &[f32], d: usize, about: &[f32], i: usize, j: usize) -> f64 {
        let centred = |row: &[f32], j: usize| f64::from(row[j]) - f64::from(about[j]);
        rows.chunks_exact(d).map(|row| centred(row, i) * centred(row, j)).sum()
    }

    #[test]
    fn every_unit_of_odd_shapes_at_every_level() {
        for level in Level::available() {
            for (n, d) in [(1, 1), (7, 5), (256, 48), (33, 49), (100, 130)] {
                let rows = rows(n, d, 100.0);
                let mut block = CentredRows::new(level);
                let shift = means(&rows, d);
                block.lay_out(&rows, &shift);
                assert_eq!(block.shift(), shift);
                let vector: Vec<f64> = (0..d).map(|j| j as f64 * 0.1).collect();
                for column in 0..d.div_ceil(SCATTER_UNIT) {
                    for row in 0..=column {
                        let mut sums = vec![1.0; SCATTER_UNIT * SCATTER_UNIT];
                        block.add_to(row, column, &mut sums);
                        let terms = [1.0, -3.0].map(|weight| RankOne { weight, vector: &vector });
                        RankOne::add_to(&terms, row, column, &mut sums);
                        for i in (0..SCATTER_UNIT).filter(|i| row * SCATTER_UNIT + i < d) {
                            for j in (0..SCATTER_UNIT).filter(|j| column * SCATTER_UNIT + j < d) {
                                let (a, b) = (row * SCATTER_UNIT + i, column * SCATTER_UNIT + j);
                                if a > b {
                                    continue;
                                }
                                let want = 1.0 + exact(&rows, d, &shift, a, b) - 2.0 * vector[a] * vector[b];
                                let spread =
                                    (exact(&rows, d, &shift, a, a) * exact(&rows, d, &shift, b, b)).sqrt();
                                let got = sums[i * SCATTER_UNIT + j];
                                assert!(
                                    (got - want).abs() <= 1e-6 * (spread + want.abs()),
                                    "{level:?} {n} x {d} at {a}, {b}: {got} is not {want}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn sums_are_exact_and_buffers_are_used_again() {
        let mut block = CentredRows::new(Level::current());
        let large = rows(201, 100, 1e6);
        block.lay_out(&large, &[1e6; 100]);
        let sum = |j: usize| large.chunks_exact(100).map(|row| f64::from(row[j])).sum::<f64>();
        assert!(block.sums().iter().enumerate().all(|(j, &x)| (x - sum(j)).abs() < 1e-6));
        let small = [1.0, 5.0, 2.0, 5.0, 6.0, 5.0];
        block.lay_out(&small, &[3.0, 5.0]);
        assert_eq!((block.rows(), block.sums(), block.shift()), (3, &[9.0, 15.0][..], &[3.0, 5.0][..]));
        let mut sums = vec![0.0; SCATTER_UNIT * SCATTER_UNIT];
        block.add_to(0, 0, &mut sums);
        assert_eq!((sums[0], sums[1], sums[SCATTER_UNIT + 1], sums[2]), (14.0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn what_has_no_square_in_32_bits_is_out_of_range() {
        let mut block = CentredRows::new(Level::current());
        for (x, fits) in
            [(0.0, true), (1.0, true), (1e-14, true), (1e16, true), (1e-16, false), (1e18, false)]
        {
            let mut rows = rows(9, 50, 0.0);
            rows.chunks_exact_mut(50).enumerate().for_each(|(i, row)| row[49] = if i == 4 { x } else { 0.0 });
            block.lay_out(&rows, &means(&rows, 50));
            assert_eq!(block.in_range(), fits, "{x}");
        }
    }

    #[test]
    #[should_panic(expected = "unit 1, 0 of 2")]
    fn units_below_the_diagonal_are_refused() {
        let mut block = CentredRows::new(Level::current());
        block.lay_out(&rows(3, 60, 0.0), &[0.0; 60]);
        block.add_to(1, 0, &mut vec![0.0; SCATTER_UNIT * SCATTER_UNIT]);
    }
}
