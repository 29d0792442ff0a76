//! A few columns of codes against many points: products with so short an inner side, or so few columns, that a general one spends
//! its time on getting ready.
//!
//! With own rows `x` `[r, k]`, of which the columns from `first` on are meant, and other points' numbers `y` `[w, n]`, transposed:
//! `p += x y`, and of a slope `s` in `p` the gradients `s yᵀ` and `sᵀ x`. All loops run along the `n` points.

use pulp::{Simd, WithSimd};

use crate::Level;
use crate::level::mul_add;

/// Most columns that a block may have.
pub const NARROW: usize = 12;

/// Vectors, or columns, that are summed side by side.
const SIDE: usize = 4;

/// A few columns of a tile of rows, and the same numbers of other points.
#[derive(Debug, Clone, Copy)]
pub struct NarrowBlock<'a> {
    own: &'a [f32],    // [r, k]
    code_dim: usize,   // k
    first: usize,      // column
    others: &'a [f32], // [w, n]
    points: usize,     // n
}

/// A row's whole vectors and what is left.
type Vectors<'a, S> = (&'a [<S as Simd>::f32s], &'a [f32]);

impl<'a> NarrowBlock<'a> {
    /// * `own`: `[r, code_dim]`, of which the block begins at column `first`; `others`: `[w, points]`.
    ///
    /// # Panics
    /// If the shapes do not fit, or `w` is above [`NARROW`].
    #[must_use]
    pub fn new(own: &'a [f32], code_dim: usize, first: usize, others: &'a [f32], points: usize) -> Self {
        assert!(points > 0 && others.len().is_multiple_of(points), "{} numbers of {points}", others.len());
        let width = others.len() / points;
        assert!(
            width <= NARROW && first + width <= code_dim,
            "columns {first} to {} of {code_dim}",
            first + width
        );
        assert!(own.len().is_multiple_of(code_dim), "rows of {code_dim}");
        Self { own, code_dim, first, others, points }
    }

    /// `products = below + x y`, `[r, n]` each; nothing below is zeros.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn multiply(&self, below: Option<&[f32]>, products: &mut [f32]) {
        self.check(products);
        if let Some(below) = below {
            self.check(below);
        }
        Level::current().run(Multiply { block: *self, below, products });
    }

    /// Adds `s yᵀ` to the block's columns of the rows' gradient, `[r, k]`.
    ///
    /// * `slope`: `s`, `[r, n]`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn add_own(&self, slope: &[f32], grad: &mut [f32]) {
        self.check(slope);
        assert_eq!(grad.len(), self.own.len(), "a gradient of the rows");
        Level::current().run(AddOwn { block: *self, slope, grad });
    }

    /// Adds `sᵀ x` to the others' gradient, `[w, n]`.
    ///
    /// * `slope`: `s`, `[r, n]`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn add_others(&self, slope: &[f32], grad: &mut [f32]) {
        self.check(slope);
        assert_eq!(grad.len(), self.others.len(), "a gradient of the others");
        Level::current().run(AddOthers { block: *self, slope, grad });
    }

    fn check(&self, products: &[f32]) {
        assert_eq!(
            products.len(),
            self.own.len() / self.code_dim * self.points,
            "a product of rows and points"
        );
    }

    fn width(&self) -> usize {
        self.others.len() / self.points
    }

    /// The block's columns of every row, `w` each.
    #[inline(always)]
    fn rows(&self) -> impl Iterator<Item = &'a [f32]> {
        let (first, width) = (self.first, self.width());
        self.own.chunks_exact(self.code_dim).map(move |row| &row[first..first + width])
    }

    /// The others' rows as vectors; those behind the `w`-th are empty.
    #[inline(always)]
    fn others<S: Simd>(&self) -> [Vectors<'a, S>; NARROW] {
        let mut rows: [Vectors<'a, S>; NARROW] = [(&[], &[]); NARROW];
        for (to, row) in rows.iter_mut().zip(self.others.chunks_exact(self.points)) {
            *to = S::as_simd_f32s(row);
        }
        rows
    }
}

/// `sums += Σ factor · vectors[at..at + N]`.
#[inline(always)]
fn add_scaled<S: Simd, const N: usize>(
    simd: S,
    sums: &mut [S::f32s; N],
    factor: f32,
    vectors: &[S::f32s],
    at: usize,
) {
    let factor = simd.splat_f32s(factor);
    let vectors: &[S::f32s; N] = vectors[at..].first_chunk().expect("vectors up to the end of the row");
    for v in 0..N {
        sums[v] = mul_add(simd, factor, vectors[v], sums[v]);
    }
}

struct Multiply<'a> {
    block: NarrowBlock<'a>,
    below: Option<&'a [f32]>,
    products: &'a mut [f32],
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { block, below, products } = self;
        let (n, others) = (block.points, block.others::<S>());
        for (i, (own, to)) in block.rows().zip(products.chunks_exact_mut(n)).enumerate() {
            match below {
                Some(below) => to.copy_from_slice(&below[i * n..][..n]),
                None => to.fill(0.0),
            }
            let (to, last) = S::as_mut_simd_f32s(to);
            let (whole, rest) = to.as_chunks_mut::<SIDE>();
            let at = whole.len() * SIDE;
            for (j, to) in whole.iter_mut().enumerate() {
                for (&x, other) in own.iter().zip(&others) {
                    add_scaled(simd, to, x, other.0, j * SIDE);
                }
            }
            for (j, to) in rest.as_chunks_mut::<1>().0.iter_mut().enumerate() {
                for (&x, other) in own.iter().zip(&others) {
                    add_scaled(simd, to, x, other.0, at + j);
                }
            }
            for (&x, other) in own.iter().zip(&others) {
                last.iter_mut().zip(other.1).for_each(|(to, y)| *to += x * y);
            }
        }
    }
}

struct AddOwn<'a> {
    block: NarrowBlock<'a>,
    slope: &'a [f32],
    grad: &'a mut [f32],
}

impl WithSimd for AddOwn<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { block, slope, grad } = self;
        let (others, width) = (block.others::<S>(), block.width());
        for (slope, grad) in slope.chunks_exact(block.points).zip(grad.chunks_exact_mut(block.code_dim)) {
            let (slope, last) = S::as_simd_f32s(slope);
            let grad = &mut grad[block.first..block.first + width];
            let (whole, rest) = grad.as_chunks_mut::<SIDE>();
            let at = whole.len() * SIDE;
            for (d, grad) in whole.iter_mut().enumerate() {
                add_dots::<S, SIDE>(simd, (slope, last), &others[d * SIDE..], grad);
            }
            for (d, grad) in rest.as_chunks_mut::<1>().0.iter_mut().enumerate() {
                add_dots::<S, 1>(simd, (slope, last), &others[at + d..], grad);
            }
        }
    }
}

/// Adds the products of a row with `N` others.
#[inline(always)]
fn add_dots<S: Simd, const N: usize>(
    simd: S,
    (row, last): Vectors<'_, S>,
    others: &[Vectors<'_, S>],
    to: &mut [f32; N],
) {
    let mut sums = [simd.splat_f32s(0.0); N];
    for (j, &x) in row.iter().enumerate() {
        for v in 0..N {
            sums[v] = mul_add(simd, x, others[v].0[j], sums[v]);
        }
    }
    for v in 0..N {
        let rest: f32 = last.iter().zip(others[v].1).map(|(x, y)| x * y).sum();
        to[v] += simd.reduce_sum_f32s(sums[v]) + rest;
    }
}

struct AddOthers<'a> {
    block: NarrowBlock<'a>,
    slope: &'a [f32],
    grad: &'a mut [f32],
}

impl WithSimd for AddOthers<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { block, slope, grad } = self;
        let n = block.points;
        for (d, grad) in grad.chunks_exact_mut(n).enumerate() {
            let (grad, last) = S::as_mut_simd_f32s(grad);
            let (whole, rest) = grad.as_chunks_mut::<SIDE>();
            let at = whole.len() * SIDE;
            for (j, grad) in whole.iter_mut().enumerate() {
                for (own, slope) in block.rows().zip(slope.chunks_exact(n)) {
                    add_scaled(simd, grad, own[d], S::as_simd_f32s(slope).0, j * SIDE);
                }
            }
            for (j, grad) in rest.as_chunks_mut::<1>().0.iter_mut().enumerate() {
                for (own, slope) in block.rows().zip(slope.chunks_exact(n)) {
                    add_scaled(simd, grad, own[d], S::as_simd_f32s(slope).0, at + j);
                }
            }
            for (own, slope) in block.rows().zip(slope.chunks_exact(n)) {
                let slope = S::as_simd_f32s(slope).1;
                last.iter_mut().zip(slope).for_each(|(to, s)| *to += own[d] * s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against sums written out: two rows of seven numbers, of which five are in the block, and points that fill some vectors, or none.
    #[test]
    fn products_and_their_slopes() {
        let (k, first, w, r) = (7, 1, 5, 2);
        for n in [1, 8, 19, 77] {
            let wave = |len: usize, phase: f32| -> Vec<f32> {
                (0..len).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
            };
            let (own, partners, slope) = (wave(r * k, 0.3), wave(w * n, 1.1), wave(r * n, 2.2));
            let block = NarrowBlock::new(&own, k, first, &partners, n);
            let below = wave(r * n, 0.9);
            let (mut products, mut fresh) = (vec![f32::NAN; r * n], vec![f32::NAN; r * n]);
            block.multiply(Some(&below), &mut products);
            block.multiply(None, &mut fresh);
            let (mut grad, mut partner_grad) = (vec![1.0; r * k], vec![2.0; w * n]);
            block.add_own(&slope, &mut grad);
            block.add_others(&slope, &mut partner_grad);
            let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-5, "{a} {b}, {n} points");
            for i in 0..r {
                for j in 0..n {
                    let product: f32 = (0..w).map(|d| own[i * k + first + d] * partners[d * n + j]).sum();
                    near(products[i * n + j], below[i * n + j] + product);
                    near(fresh[i * n + j], product);
                }
                for d in 0..k {
                    let inside = (first..first + w).contains(&d);
                    let sum = |d: usize| (0..n).map(|j| slope[i * n + j] * partners[d * n + j]).sum::<f32>();
                    near(grad[i * k + d], 1.0 + if inside { sum(d - first) } else { 0.0 });
                }
            }
            for d in 0..w {
                for j in 0..n {
                    let sum: f32 = (0..r).map(|i| slope[i * n + j] * own[i * k + first + d]).sum();
                    near(partner_grad[d * n + j], 2.0 + sum);
                }
            }
        }
    }
}
