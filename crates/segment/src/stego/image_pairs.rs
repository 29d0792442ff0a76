//! The correspondence loss of one image against its partners: itself, its neighbour, and its negatives.
//!
//! An image's `s` points are compared with the `m s` points of its `m` partners, the image itself being the first of them, so that
//! feature correlations are one product `[s, d] [d, m s]` and those of the codes another. Codes are multiplied as they are
//! and divided by the lengths of their prefixes afterwards (see [`Ladder`]). With the centred correlation `f` of a
//! pair of points and `c` that of their codes, the loss is `-w clamp(c) (f - b)`, whose slope in `c` is `-w (f - b)` where
//! the clamp lets `c` through. Features have no gradient.

use kernels::{Matrix, MatrixMut, Threads, gemm, simd};

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

/// Buffers of a thread.
#[derive(Debug, Default)]
pub(super) struct PairBuffers {
    features: Vec<f32>,  // [s, m s]
    products: Vec<f32>,  // [rungs, s, m s]
    slope: Vec<f32>,     // [s, m s]: of the rungs so far, in the products
    inverse: Vec<f32>,   // [rungs, m s], 1 / max(‖y‖, ε)
    along: Vec<f32>,     // [m s], the part of the gradient along a partner's code
    along_own: Vec<f32>, // [s]
    rung: [Vec<f32>; 4], // [m s]: of one row, loss, cosine, slope times cosine, and the column sums of the last
}

impl PairBuffers {
    /// * `features`: directions of the partners' features, `[m s, d]`; the first `s` are the image's own.
    /// * `codes`: the partners' codes, `[m s, k]`, likewise.
    pub(super) fn run(&mut self, rules: &PairRules<'_>, features: &[f32], codes: &[f32]) -> ImagePairs {
        let (s, k) = (rules.points, rules.code_dim);
        let (n, rungs) = (s * rules.partners.len(), rules.ladder.rungs().len());
        assert_eq!((features.len(), codes.len()), (n * rules.embed_dim, n * k), "rows of all partners");
        self.correlate_features(rules, features);
        self.multiply_codes(rules, codes);
        let mut out = ImagePairs {
            own: vec![0.0; s * k],
            others: vec![0.0; n * k],
            losses: vec![0.0; rungs * rules.partners.len()],
            cosines: vec![0.0; rungs * rules.partners.len()],
        };
        zeros(&mut self.slope, s * n);
        zeros(&mut self.along, n);
        zeros(&mut self.along_own, s);
        // From the whole code down: a block's gradient comes from all rungs that contain it.
        for (rung, block) in rules.ladder.blocks().enumerate().rev() {
            self.add_rung(rules, rung, &mut out);
            let slope = Matrix::new(&self.slope, s, n);
            let columns = |rows| Matrix::columns(rows, k, block.start, block.len());
            let to = MatrixMut::columns(&mut out.own, k, block.start, block.len());
            gemm(to, 0.0, 1.0, slope, columns(codes), Threads::One);
            let to = MatrixMut::columns(&mut out.others, k, block.start, block.len());
            gemm(to, 0.0, 1.0, slope.t(), columns(&codes[..s * k]), Threads::One);
            for (grads, along) in [(&mut out.own, &self.along_own), (&mut out.others, &self.along)] {
                let rows = grads.chunks_exact_mut(k).zip(codes.chunks_exact(k));
                for ((grad, code), along) in rows.zip(along) {
                    for i in block.clone() {
                        grad[i] -= along * code[i];
                    }
                }
            }
        }
        // The image is its own first partner.
        for (own, other) in out.own.iter_mut().zip(&out.others) {
            *own += other;
        }
        out.others.drain(..s * k);
        out
    }

    /// `f - b` of all pairs of points.
    fn correlate_features(&mut self, rules: &PairRules<'_>, features: &[f32]) {
        let (s, d) = (rules.points, rules.embed_dim);
        let n = s * rules.partners.len();
        self.features.resize(s * n, 0.0);
        let factors = (Matrix::new(&features[..s * d], s, d), Matrix::new(features, n, d).t());
        gemm(MatrixMut::new(&mut self.features, s, n), 0.0, 1.0, factors.0, factors.1, Threads::One);
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

    /// Products of the codes' prefixes, and the inverse lengths of these.
    fn multiply_codes(&mut self, rules: &PairRules<'_>, codes: &[f32]) {
        let (s, k) = (rules.points, rules.code_dim);
        let n = s * rules.partners.len();
        let rungs = rules.ladder.rungs().len();
        self.products.resize(rungs * s * n, 0.0);
        self.inverse.resize(rungs * n, 0.0);
        for (rung, block) in rules.ladder.blocks().enumerate() {
            let (below, from) = self.products.split_at_mut(rung * s * n);
            let to = &mut from[..s * n];
            let mut keep = 0.0;
            if rung > 0 {
                to.copy_from_slice(&below[(rung - 1) * s * n..]);
                keep = 1.0;
            }
            let columns = |rows| Matrix::columns(rows, k, block.start, block.len());
            let factors = (columns(&codes[..s * k]), columns(codes).t());
            gemm(MatrixMut::new(to, s, n), keep, 1.0, factors.0, factors.1, Threads::One);
        }
        simd(
            #[inline(always)]
            || {
                for (inverse, &rung) in self.inverse.chunks_exact_mut(n).zip(rules.ladder.rungs()) {
                    for (inverse, code) in inverse.iter_mut().zip(codes.chunks_exact(k)) {
                        let prefix = &code[..rung];
                        *inverse = 1.0 / kernels::dot(prefix, prefix).sqrt().max(EPSILON);
                    }
                }
            },
        );
    }

    /// Adds a rung's slope in the products, and what normalising takes away along the codes.
    fn add_rung(&mut self, rules: &PairRules<'_>, rung: usize, out: &mut ImagePairs) {
        let (s, m) = (rules.points, rules.partners.len());
        let n = s * m;
        let Self { features, products, slope, inverse, along, along_own, rung: [loss, cosine, own, columns] } =
            self;
        let (products, inverse) = (&products[rung * s * n..][..s * n], &inverse[rung * n..][..n]);
        let (losses, cosines) = (&mut out.losses[rung * m..][..m], &mut out.cosines[rung * m..][..m]);
        [&mut *loss, cosine, own].into_iter().for_each(|row| row.resize(n, 0.0));
        zeros(columns, n);
        // What is constant below ε has no part along the code.
        let back = |inverse: f32| if inverse < 1.0 / EPSILON { inverse * inverse } else { 0.0 };
        simd(
            #[inline(always)]
            || {
                for i in 0..s {
                    let at = i * n..(i + 1) * n;
                    let (features, products) = (&features[at.clone()], &products[at.clone()]);
                    let slope = &mut slope[at];
                    for (p, partner) in rules.partners.iter().enumerate() {
                        let part = p * s..(p + 1) * s;
                        let row = Row {
                            features: &features[part.clone()],
                            products: &products[part.clone()],
                            inverse: &inverse[part.clone()],
                            slope: &mut slope[part.clone()],
                            columns: &mut columns[part.clone()],
                            loss: &mut loss[part.clone()],
                            cosine: &mut cosine[part.clone()],
                            own: &mut own[part.clone()],
                        };
                        row.run(inverse[i], partner.weight, rules.limits);
                        losses[p] -= f64::from(sum(&loss[part.clone()]));
                        cosines[p] += f64::from(sum(&cosine[part]));
                    }
                    along_own[i] += sum(own) * back(inverse[i]);
                }
                for ((along, &column), &inverse) in along.iter_mut().zip(&*columns).zip(inverse) {
                    *along += column * back(inverse);
                }
            },
        );
    }
}

/// One point of the image against a partner's points, `[s]` each.
struct Row<'a> {
    features: &'a [f32],
    products: &'a [f32],
    inverse: &'a [f32],
    slope: &'a mut [f32],
    columns: &'a mut [f32],
    loss: &'a mut [f32],
    cosine: &'a mut [f32],
    own: &'a mut [f32],
}

impl Row<'_> {
    #[inline(always)]
    fn run(self, inverse: f32, weight: f32, (low, high): (f32, f32)) {
        let len = self.features.len();
        let (features, products, inverses) = (self.features, &self.products[..len], &self.inverse[..len]);
        let (slope, columns) = (&mut self.slope[..len], &mut self.columns[..len]);
        let (loss, cosine, own) = (&mut self.loss[..len], &mut self.cosine[..len], &mut self.own[..len]);
        for j in 0..len {
            let scale = inverse * inverses[j];
            let c = products[j] * scale;
            // Comparisons that a NaN passes unchanged, so that it is seen in the loss.
            let above = if c < low { low } else { c };
            let clamped = if above > high { high } else { above };
            let through = if c >= low && c <= high { -weight * features[j] } else { 0.0 };
            loss[j] = clamped * features[j];
            cosine[j] = c;
            own[j] = through * c;
            columns[j] += through * c;
            slope[j] += through * scale;
        }
    }
}

fn zeros(buffer: &mut Vec<f32>, len: usize) {
    buffer.clear();
    buffer.resize(len, 0.0);
}
