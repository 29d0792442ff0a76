//! One point of an image against the points of its partners in STEGO's correspondence loss: costs and slopes of pairs of points.
//!
//! With the centred correlation `f` of two points' features, less its shift, and `c` that of their codes, a pair costs
//! `-clamp(c) f`, and the slope of that in `c` is `-w f` where the clamp lets `c` through. Codes come as products and inverse lengths,
//! `c = ⟨x, y⟩ / (‖x‖ ‖y‖)`. Sums run in as many lanes as a vector has, partner by partner.

use pulp::{Simd, WithSimd};

use crate::Level;
use crate::level::mul_add;

/// A row of pairs: what it needs and what it adds to. `n = m s` for `m` partners of `s` points each.
#[derive(Debug)]
pub struct PairRow<'a> {
    /// `f` of each pair, `[n]`.
    pub features: &'a [f32],
    /// Products of the codes, `[n]`.
    pub products: &'a [f32],
    /// Inverse length of the point's own code.
    pub own_inverse: f32,
    /// Inverse lengths of the partners' codes, `[n]`.
    pub inverse: &'a [f32],
    /// Weight `w` of a pair's loss, `[m]`.
    pub weights: &'a [f32],
    /// Between which a correlation of codes counts as it is.
    pub limits: (f32, f32),
    /// Slopes in the products so far, `[n]`.
    pub slope: &'a mut [f32],
    /// Of every point of the partners, `Σ slope in c · c` so far, `[n]`.
    pub columns: &'a mut [f32],
    /// Of every partner, `[m]`; overwritten.
    pub sums: &'a mut [PairSums],
}

/// Sums over the pairs with one partner's points.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PairSums {
    /// `Σ clamp(c) f`.
    pub loss: f32,
    /// `Σ c`.
    pub cosine: f32,
    /// `Σ slope in c · c`.
    pub own: f32,
}

impl PairRow<'_> {
    /// Adds the slopes of a row. A `c` that is no number is seen in the sums, and has no slope.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn run(self) {
        let (n, m) = (self.features.len(), self.weights.len());
        let lengths = [self.products.len(), self.inverse.len(), self.slope.len(), self.columns.len()];
        assert!(lengths == [n; 4] && m > 0 && n.is_multiple_of(m), "pairs of {m} partners: {n}, {lengths:?}");
        assert_eq!(self.sums.len(), m, "sums of partners");
        Level::current().run(Run(self));
    }
}

struct Run<'a>(PairRow<'a>);

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let row = self.0;
        let s = row.features.len() / row.weights.len();
        if s == 0 {
            row.sums.fill(PairSums::default());
            return;
        }
        let read =
            row.features.chunks_exact(s).zip(row.products.chunks_exact(s)).zip(row.inverse.chunks_exact(s));
        let written = row.slope.chunks_exact_mut(s).zip(row.columns.chunks_exact_mut(s));
        for ((((f, product), inverse), (slope, columns)), (&weight, to)) in
            read.zip(written).zip(row.weights.iter().zip(row.sums))
        {
            let mut lanes = Lanes::new(simd, row.own_inverse, weight, row.limits);
            let (f, last_f) = S::as_simd_f32s(f);
            let (product, last_product) = S::as_simd_f32s(product);
            let (inverse, last_inverse) = S::as_simd_f32s(inverse);
            let (slope, last_slope) = S::as_mut_simd_f32s(slope);
            let (columns, last_columns) = S::as_mut_simd_f32s(columns);
            for i in 0..f.len() {
                let (step, turned) = lanes.add(simd, f[i], product[i], inverse[i]);
                slope[i] = simd.add_f32s(slope[i], step);
                columns[i] = simd.add_f32s(columns[i], turned);
            }
            if !last_f.is_empty() {
                // Missing pairs have no features and codes of product 0: they add nothing.
                let load = |rest: &[f32]| simd.partial_load_f32s(rest);
                let (step, turned) = lanes.add(simd, load(last_f), load(last_product), load(last_inverse));
                let (old_slope, old_columns) = (load(last_slope), load(last_columns));
                simd.partial_store_f32s(last_slope, simd.add_f32s(old_slope, step));
                simd.partial_store_f32s(last_columns, simd.add_f32s(old_columns, turned));
            }
            let [loss, cosine, own] = lanes.sums.map(|sum| simd.reduce_sum_f32s(sum));
            *to = PairSums { loss, cosine, own };
        }
    }
}

/// What all pairs of a partner have in common, and their sums: loss, cosine, slope times cosine.
struct Lanes<S: Simd> {
    own_inverse: S::f32s,
    slope: S::f32s,
    low: S::f32s,
    high: S::f32s,
    sums: [S::f32s; 3],
}

impl<S: Simd> Lanes<S> {
    #[inline(always)]
    fn new(simd: S, own_inverse: f32, weight: f32, (low, high): (f32, f32)) -> Self {
        Self {
            own_inverse: simd.splat_f32s(own_inverse),
            slope: simd.splat_f32s(-weight),
            low: simd.splat_f32s(low),
            high: simd.splat_f32s(high),
            sums: [simd.splat_f32s(0.0); 3],
        }
    }

    /// Some pairs: their slopes in the products, and slope times cosine.
    #[inline(always)]
    fn add(&mut self, simd: S, f: S::f32s, product: S::f32s, inverse: S::f32s) -> (S::f32s, S::f32s) {
        let scale = simd.mul_f32s(self.own_inverse, inverse);
        let c = simd.mul_f32s(product, scale);
        // Comparisons that a NaN passes unchanged, so that it is seen in the loss.
        let above = simd.select_f32s(simd.less_than_f32s(c, self.low), self.low, c);
        let clamped = simd.select_f32s(simd.greater_than_f32s(above, self.high), self.high, above);
        let free = simd.equal_f32s(c, clamped);
        let through = simd.select_f32s(free, simd.mul_f32s(self.slope, f), simd.splat_f32s(0.0));
        let turned = simd.mul_f32s(through, c);
        self.sums[0] = mul_add(simd, clamped, f, self.sums[0]);
        self.sums[1] = simd.add_f32s(self.sums[1], c);
        self.sums[2] = simd.add_f32s(self.sums[2], turned);
        (simd.mul_f32s(through, scale), turned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37 + phase).sin()).collect()
    }

    /// Against sums written out, at every level, for partners of fewer and more points than a vector has, and not whole.
    #[test]
    fn rows_of_any_length() {
        for level in Level::available() {
            for s in [1, 7, 8, 17, 121] {
                let n = 2 * s;
                let (features, products) = (wave(n, 0.1), wave(n, 1.3));
                let inverse: Vec<f32> = wave(n, 2.0).iter().map(|x| 1.5 + x).collect();
                let (mut slope, mut columns) = (vec![0.25; n], vec![0.5; n]);
                let mut sums = [PairSums { loss: 9.0, ..PairSums::default() }; 2];
                let weights = [0.3, 0.6];
                level.run(Run(PairRow {
                    features: &features,
                    products: &products,
                    own_inverse: 0.7,
                    inverse: &inverse,
                    weights: &weights,
                    limits: (0.0, 0.8),
                    slope: &mut slope,
                    columns: &mut columns,
                    sums: &mut sums,
                }));
                for (p, found) in sums.iter().enumerate() {
                    let (mut loss, mut cosine, mut own) = (0.0, 0.0, 0.0);
                    for j in p * s..(p + 1) * s {
                        let scale = f64::from(0.7_f32) * f64::from(inverse[j]);
                        let (f, c) = (f64::from(features[j]), f64::from(products[j]) * scale);
                        let inside = (0.0..=f64::from(0.8_f32)).contains(&c);
                        let through = if inside { -f64::from(weights[p]) * f } else { 0.0 };
                        loss += c.clamp(0.0, 0.8) * f;
                        cosine += c;
                        own += through * c;
                        assert!((f64::from(slope[j]) - 0.25 - through * scale).abs() < 1e-6, "{level:?} {j}");
                        assert!((f64::from(columns[j]) - 0.5 - through * c).abs() < 1e-6, "{level:?} {j}");
                    }
                    for (found, sum) in [(found.loss, loss), (found.cosine, cosine), (found.own, own)] {
                        assert!(
                            (f64::from(found) - sum).abs() < 1e-4,
                            "{level:?}, {s} points: {found} {sum}"
                        );
                    }
                }
            }
        }
    }

    /// Whether a NaN is in a vector or in what is left over, it is in the loss and nobody's slope.
    #[test]
    fn what_is_no_number_is_seen() {
        for bad in [2, 8] {
            let (features, inverse) = (vec![0.5; 9], vec![1.0; 9]);
            let mut products = vec![0.3; 9];
            products[bad] = f32::NAN;
            let (mut slope, mut columns, mut sums) = (vec![0.0; 9], vec![0.0; 9], [PairSums::default()]);
            PairRow {
                features: &features,
                products: &products,
                own_inverse: 1.0,
                inverse: &inverse,
                weights: &[1.0],
                limits: (0.0, f32::INFINITY),
                slope: &mut slope,
                columns: &mut columns,
                sums: &mut sums,
            }
            .run();
            assert!(sums[0].loss.is_nan() && sums[0].cosine.is_nan());
            assert!(slope.iter().enumerate().all(|(i, slope)| (*slope == 0.0) == (i == bad)), "{slope:?}");
        }
    }
}
