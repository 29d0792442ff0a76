//! The correspondence loss of one image against its partners: itself, its neighbour, and its negatives.
//!
//! An image's `s` points are compared with the `m s` points of its `m` partners, the image itself being the first of them, so that
//! feature correlations are one product `[s, d] [d, m s]` and those of the codes another. Codes are multiplied as they are
//! and divided by the lengths of their prefixes afterwards (see [`Ladder`]); [`PairRow`] makes losses and slopes of them. Blocks of
//! few numbers are multiplied as [`NarrowBlock`]s. Features have no gradient.

use std::ops::Range;

use kernels::{Matrix, MatrixMut, NARROW, NarrowBlock, PairRow, PairSums, Threads, gemm, simd};

use super::Ladder;
use super::unit::{EPSILON, sum};

/// What all images of a loss have in common.
#[derive(Debug)]
pub(super) struct PairRules<'a> {
    /// Points of an image.
    pub(super) points: usize,
    /// Numbers of a feature.
    pub(super) embed_dim: usize,
    /// Numbers of a code.
    pub(super) code_dim: usize,
    /// Prefixes of the codes.
    pub(super) ladder: &'a Ladder,
    /// Whether every point's correlations are centred over the partner's points.
    pub(super) pointwise: bool,
    /// Between which a correlation of codes counts as it is.
    pub(super) limits: (f32, f32),
    /// Of every partner.
    pub(super) partners: &'a [PartnerRule],
}

/// How a partner's correlations count.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartnerRule {
    /// What is added to feature correlations: minus the shift, and the mean that centring keeps.
    pub(super) offset: f32,
    /// Weight of the loss of a pair of points.
    pub(super) weight: f32,
}

/// What an image adds to the loss.
#[derive(Debug)]
pub(super) struct ImagePairs {
    /// Gradient in the image's sampled codes, `[s, k]`.
    pub(super) own: Vec<f32>,
    /// Gradient in those of its other partners, `[(m - 1) s, k]`.
    pub(super) others: Vec<f32>,
    /// `Σ -clamp(c) (f - b)` over the pairs of points, without weights, of every rung and partner.
    pub(super) losses: Vec<f64>,
    /// `Σ c`, likewise.
    pub(super) cosines: Vec<f64>,
}

/// Rows of a tile: points of the image that are compared together, so few that all rungs of their products stay in a cache.
const TILE: usize = 24;

/// Buffers of a thread; `r` rows are in a tile.
#[derive(Debug, Default)]
pub(super) struct PairBuffers {
    features: Vec<f32>,    // [r, m s]
    products: Vec<f32>,    // [rungs, r, m s]
    slope: Vec<f32>,       // [r, m s]: of the rungs so far, in the products
    inverse: Vec<f32>,     // [rungs, m s], 1 / max(‖y‖, ε)
    along: Vec<f32>,       // [rungs, m s], the part of the gradient along a partner's code
    along_own: Vec<f32>,   // [r]: of the rungs so far
    columns: Vec<f32>,     // [m s]: slope times cosine of a rung of a tile
    narrow: Vec<f32>,      // [w, m s], the partners' codes of all narrow blocks
    narrow_grad: Vec<f32>, // [w, m s], their gradient
}

/// A block of a ladder, and where its numbers lie among those of the narrow ones if it is one.
struct Block {
    rung: usize,
    range: Range<usize>,
    narrow: Option<usize>,
}

/// The blocks, rising.
fn blocks(ladder: &Ladder) -> Vec<Block> {
    let mut narrow = 0;
    let block = |(rung, range): (usize, Range<usize>)| {
        let at = narrow;
        let is_narrow = range.len() <= NARROW;
        narrow += if is_narrow { range.len() } else { 0 };
        Block { rung, range, narrow: is_narrow.then_some(at) }
    };
    ladder.blocks().enumerate().map(block).collect()
}

impl PairBuffers {
    /// * `features`: directions of the partners' features, `[m s, d]`; the first `s` are the image's own.
    /// * `codes`: the partners' codes, `[m s, k]`, likewise.
    pub(super) fn run(&mut self, rules: &PairRules<'_>, features: &[f32], codes: &[f32]) -> ImagePairs {
        let (s, k) = (rules.points, rules.code_dim);
        let (n, rungs) = (s * rules.partners.len(), rules.ladder.rungs().len());
        assert_eq!((features.len(), codes.len()), (n * rules.embed_dim, n * k), "rows of all partners");
        let mut out = ImagePairs {
            own: vec![0.0; s * k],
            others: vec![0.0; n * k],
            losses: vec![0.0; rungs * rules.partners.len()],
            cosines: vec![0.0; rungs * rules.partners.len()],
        };
        let blocks = blocks(rules.ladder);
        self.measure_codes(rules, codes);
        self.transpose_narrow(rules, codes, &blocks);
        zeros(&mut self.along, rungs * n);
        for first in (0..s).step_by(TILE) {
            let rows = first..s.min(first + TILE);
            self.correlate_features(rules, features, rows.clone());
            self.multiply_codes(rules, codes, rows.clone(), &blocks);
            self.add_rows(rules, codes, rows, &blocks, &mut out);
        }
        self.add_narrow(rules, &blocks, &mut out);
        self.take_along(rules, codes, &mut out);
        // The image is its own first partner.
        for (own, other) in out.own.iter_mut().zip(&out.others) {
            *own += other;
        }
        out.others.drain(..s * k);
        out
    }

    /// The partners' numbers of narrow blocks, and room for their gradient.
    fn transpose_narrow(&mut self, rules: &PairRules<'_>, codes: &[f32], blocks: &[Block]) {
        let (k, n) = (rules.code_dim, rules.points * rules.partners.len());
        self.narrow.clear();
        for block in blocks.iter().filter(|block| block.narrow.is_some()) {
            for number in block.range.clone() {
                self.narrow.extend(codes[number..].iter().step_by(k).take(n));
            }
        }
        zeros(&mut self.narrow_grad, self.narrow.len());
    }

    /// Adds the gradient of narrow blocks to that of the partners.
    fn add_narrow(&self, rules: &PairRules<'_>, blocks: &[Block], out: &mut ImagePairs) {
        let (k, n) = (rules.code_dim, rules.points * rules.partners.len());
        let narrow = blocks.iter().filter(|block| block.narrow.is_some());
        let numbers = narrow.flat_map(|block| block.range.clone());
        for (number, grads) in numbers.zip(self.narrow_grad.chunks_exact(n)) {
            let to = out.others[number..].iter_mut().step_by(k);
            to.zip(grads).for_each(|(to, grad)| *to += grad);
        }
    }

    /// The gradients of a tile, from the whole code down: a block's comes from all rungs that contain it.
    fn add_rows(
        &mut self,
        rules: &PairRules<'_>,
        codes: &[f32],
        rows: Range<usize>,
        blocks: &[Block],
        out: &mut ImagePairs,
    ) {
        let k = rules.code_dim;
        let (r, n) = (rows.len(), rules.points * rules.partners.len());
        zeros(&mut self.slope, r * n);
        zeros(&mut self.along_own, r);
        let own_codes = &codes[rows.start * k..rows.end * k];
        for Block { rung, range, narrow } in blocks.iter().rev() {
            self.add_rung(rules, *rung, rows.start, out);
            let own = &mut out.own[rows.start * k..rows.end * k];
            if let Some(at) = narrow {
                let numbers = at * n..(at + range.len()) * n;
                let partners = &self.narrow[numbers.clone()];
                let block = NarrowBlock::new(own_codes, k, range.start, partners, n);
                block.add_own(&self.slope, own);
                block.add_others(&self.slope, &mut self.narrow_grad[numbers]);
            } else {
                let slope = Matrix::new(&self.slope, r, n);
                let columns = |rows| Matrix::columns(rows, k, range.start, range.len());
                let to = MatrixMut::columns(own, k, range.start, range.len());
                gemm(to, 0.0, 1.0, slope, columns(codes), Threads::One);
                let to = MatrixMut::columns(&mut out.others, k, range.start, range.len());
                let keep = f32::from(u8::from(rows.start > 0));
                gemm(to, keep, 1.0, slope.t(), columns(own_codes), Threads::One);
            }
            let of_rows =
                out.own[rows.start * k..rows.end * k].chunks_exact_mut(k).zip(own_codes.chunks_exact(k));
            for ((grad, code), along) in of_rows.zip(&self.along_own) {
                range.clone().for_each(|i| grad[i] -= along * code[i]);
            }
        }
    }

    /// Takes away what normalising does to the partners' gradients.
    fn take_along(&mut self, rules: &PairRules<'_>, codes: &[f32], out: &mut ImagePairs) {
        let (k, n) = (rules.code_dim, rules.points * rules.partners.len());
        let mut sum = vec![0.0; n];
        for (rung, block) in rules.ladder.blocks().enumerate().rev() {
            sum.iter_mut().zip(&self.along[rung * n..]).for_each(|(sum, along)| *sum += along);
            let rows = out.others.chunks_exact_mut(k).zip(codes.chunks_exact(k));
            for ((grad, code), along) in rows.zip(&sum) {
                block.clone().for_each(|i| grad[i] -= along * code[i]);
            }
        }
    }

    /// `f - b` of a tile's pairs of points.
    fn correlate_features(&mut self, rules: &PairRules<'_>, features: &[f32], rows: Range<usize>) {
        let (s, d) = (rules.points, rules.embed_dim);
        let (r, n) = (rows.len(), s * rules.partners.len());
        self.features.resize(r * n, 0.0);
        let own = Matrix::new(&features[rows.start * d..rows.end * d], r, d);
        let to = MatrixMut::new(&mut self.features, r, n);
        gemm(to, 0.0, 1.0, own, Matrix::new(features, n, d).t(), Threads::One);
        simd(
            #[inline(always)]
            || {
                for row in self.features.chunks_exact_mut(n) {
                    for (part, partner) in row.chunks_exact_mut(s).zip(rules.partners) {
                        let mean = if rules.pointwise { sum(part) / s as f32 } else { 0.0 };
                        for f in part {
                            *f += partner.offset - mean;
                        }
                    }
                }
            },
        );
    }

    /// Inverse lengths of the codes' prefixes.
    fn measure_codes(&mut self, rules: &PairRules<'_>, codes: &[f32]) {
        let n = rules.points * rules.partners.len();
        self.inverse.resize(rules.ladder.rungs().len() * n, 0.0);
        simd(
            #[inline(always)]
            || {
                for (inverse, &rung) in self.inverse.chunks_exact_mut(n).zip(rules.ladder.rungs()) {
                    for (inverse, code) in inverse.iter_mut().zip(codes.chunks_exact(rules.code_dim)) {
                        let prefix = &code[..rung];
                        *inverse = 1.0 / kernels::dot(prefix, prefix).sqrt().max(EPSILON);
                    }
                }
            },
        );
    }

    /// Products of the codes' prefixes, of a tile.
    fn multiply_codes(&mut self, rules: &PairRules<'_>, codes: &[f32], rows: Range<usize>, blocks: &[Block]) {
        let k = rules.code_dim;
        let (r, n) = (rows.len(), rules.points * rules.partners.len());
        self.products.resize(rules.ladder.rungs().len() * r * n, 0.0);
        let own = &codes[rows.start * k..rows.end * k];
        for Block { rung, range, narrow } in blocks {
            let (below, from) = self.products.split_at_mut(rung * r * n);
            let to = &mut from[..r * n];
            let below = rung.checked_sub(1).map(|rung| &below[rung * r * n..]);
            if let Some(at) = narrow {
                let partners = &self.narrow[at * n..(at + range.len()) * n];
                NarrowBlock::new(own, k, range.start, partners, n).multiply(below, to);
            } else {
                let keep = f32::from(u8::from(below.is_some()));
                if let Some(below) = below {
                    to.copy_from_slice(below);
                }
                let columns = |rows| Matrix::columns(rows, k, range.start, range.len());
                gemm(MatrixMut::new(to, r, n), keep, 1.0, columns(own), columns(codes).t(), Threads::One);
            }
        }
    }

    /// Adds a rung's slope in the products of a tile whose first point is `first`, and what normalising takes away along the codes.
    fn add_rung(&mut self, rules: &PairRules<'_>, rung: usize, first: usize, out: &mut ImagePairs) {
        let (s, m) = (rules.points, rules.partners.len());
        let n = s * m;
        let Self { features, products, slope, inverse, along, along_own, columns, .. } = self;
        let r = along_own.len();
        let (products, inverse) = (&products[rung * r * n..][..r * n], &inverse[rung * n..][..n]);
        let along = &mut along[rung * n..][..n];
        let (losses, cosines) = (&mut out.losses[rung * m..][..m], &mut out.cosines[rung * m..][..m]);
        zeros(columns, n);
        let weights: Vec<f32> = rules.partners.iter().map(|partner| partner.weight).collect();
        let mut sums = vec![PairSums::default(); m];
        // What is constant below ε has no part along the code.
        let back = |inverse: f32| if inverse < 1.0 / EPSILON { inverse * inverse } else { 0.0 };
        for (i, along_own) in along_own.iter_mut().enumerate() {
            let (own_inverse, row) = (inverse[first + i], i * n..(i + 1) * n);
            let pairs = PairRow {
                features: &features[row.clone()],
                products: &products[row.clone()],
                own_inverse,
                inverse,
                weights: &weights,
                limits: rules.limits,
                slope: &mut slope[row],
                columns,
                sums: &mut sums,
            };
            pairs.run();
            for (p, sums) in sums.iter().enumerate() {
                losses[p] -= f64::from(sums.loss);
                cosines[p] += f64::from(sums.cosine);
            }
            *along_own += sums.iter().map(|sums| sums.own).sum::<f32>() * back(own_inverse);
        }
        for ((along, &column), &inverse) in along.iter_mut().zip(&*columns).zip(inverse) {
            *along += column * back(inverse);
        }
    }
}

fn zeros(buffer: &mut Vec<f32>, len: usize) {
    buffer.clear();
    buffer.resize(len, 0.0);
}
