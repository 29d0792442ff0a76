//! A few numbers of the codes, which a rung of a ladder adds: products with so short an inner side, or so few columns, that a general
//! one spends its time on getting ready.
//!
//! The partners' codes lie transposed, `[w, n]`, so that all loops run along the partners' points.

use kernels::dot;

/// Numbers that a block may have to be narrow.
pub(super) const NARROW: usize = 12;

/// Points that are looked at side by side.
const POINTS: usize = 8;

/// A narrow block of a tile of `r` points against `n` points of partners.
#[derive(Debug, Clone, Copy)]
pub(super) struct NarrowBlock<'a> {
    /// Codes of the tile, `[r, k]`.
    pub(super) own: &'a [f32],
    /// `k`, and the block's first number.
    pub(super) code_dim: usize,
    pub(super) first: usize,
    /// The block's numbers of the partners, `[w, n]`.
    pub(super) partners: &'a [f32],
    /// `n`.
    pub(super) points: usize,
}

impl NarrowBlock<'_> {
    fn width(&self) -> usize {
        self.partners.len() / self.points
    }

    /// The block's numbers of every point of the tile, `w` each.
    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        let (first, width) = (self.first, self.width());
        self.own.chunks_exact(self.code_dim).map(move |code| &code[first..first + width])
    }

    /// `products = below + own · partners`, `[r, n]` each; nothing is below the first block.
    #[inline(always)]
    pub(super) fn multiply(&self, below: Option<&[f32]>, products: &mut [f32]) {
        let n = self.points;
        for (i, (own, to)) in self.rows().zip(products.chunks_exact_mut(n)).enumerate() {
            match below {
                Some(below) => to.copy_from_slice(&below[i * n..][..n]),
                None => to.fill(0.0),
            }
            let (chunks, rest) = to.as_chunks_mut::<POINTS>();
            let whole = n - rest.len();
            for (j, to) in chunks.iter_mut().enumerate() {
                let mut sums = *to;
                for (x, partners) in own.iter().zip(self.partners.chunks_exact(n)) {
                    let partners: &[f32; POINTS] =
                        partners[j * POINTS..].first_chunk().expect("a whole chunk");
                    for lane in 0..POINTS {
                        sums[lane] = x.mul_add(partners[lane], sums[lane]);
                    }
                }
                *to = sums;
            }
            for (j, to) in rest.iter_mut().enumerate() {
                for (x, partners) in own.iter().zip(self.partners.chunks_exact(n)) {
                    *to = x.mul_add(partners[whole + j], *to);
                }
            }
        }
    }

    /// Adds `slope · partnersᵀ` to the block's columns of the tile's gradient, `[r, k]`.
    #[inline(always)]
    pub(super) fn add_own(&self, slope: &[f32], grad: &mut [f32]) {
        for (slope, grad) in slope.chunks_exact(self.points).zip(grad.chunks_exact_mut(self.code_dim)) {
            for (grad, partners) in grad[self.first..].iter_mut().zip(self.partners.chunks_exact(self.points))
            {
                *grad += dot(slope, partners);
            }
        }
    }

    /// Adds `slopeᵀ · own` to the partners' gradient, `[w, n]`.
    #[inline(always)]
    pub(super) fn add_partners(&self, slope: &[f32], grad: &mut [f32]) {
        let n = self.points;
        for (d, grad) in grad.chunks_exact_mut(n).enumerate() {
            let own = || self.own.chunks_exact(self.code_dim).map(|code| code[self.first + d]);
            let (chunks, rest) = grad.as_chunks_mut::<POINTS>();
            let whole = n - rest.len();
            for (j, grad) in chunks.iter_mut().enumerate() {
                let mut sums = *grad;
                for (x, slope) in own().zip(slope.chunks_exact(n)) {
                    let slope: &[f32; POINTS] = slope[j * POINTS..].first_chunk().expect("a whole chunk");
                    for lane in 0..POINTS {
                        sums[lane] = x.mul_add(slope[lane], sums[lane]);
                    }
                }
                *grad = sums;
            }
            for (j, grad) in rest.iter_mut().enumerate() {
                for (x, slope) in own().zip(slope.chunks_exact(n)) {
                    *grad = x.mul_add(slope[whole + j], *grad);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against sums written out: two points of five numbers, of which three are in the block, and partners that fill no lanes.
    #[test]
    fn products_and_their_slopes() {
        let (k, first, w, r) = (5, 1, 3, 2);
        for n in [1, 8, 19] {
            let wave = |len: usize, phase: f32| -> Vec<f32> {
                (0..len).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
            };
            let (own, partners, slope) = (wave(r * k, 0.3), wave(w * n, 1.1), wave(r * n, 2.2));
            let block = NarrowBlock { own: &own, code_dim: k, first, partners: &partners, points: n };
            let below = wave(r * n, 0.9);
            let (mut products, mut fresh) = (vec![f32::NAN; r * n], vec![f32::NAN; r * n]);
            block.multiply(Some(&below), &mut products);
            block.multiply(None, &mut fresh);
            let (mut grad, mut partner_grad) = (vec![1.0; r * k], vec![2.0; w * n]);
            block.add_own(&slope, &mut grad);
            block.add_partners(&slope, &mut partner_grad);
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
