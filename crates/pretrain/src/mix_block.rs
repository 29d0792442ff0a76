//! AutoMix's mix block: from the feature maps of two images and λ to a mask that says which pixel comes from whom.
//!
//! With `F`, `[t, C]`, the map of an image and `F'` that of its partner: queries from `F`, keys and one value per position from
//! `F'`, `P = softmax(q kᵀ / √h)` over the partner's positions, logits `P v`, enlarged to the image, and only then a sigmoid.
//! That is the partner's weight `m`; the image's own is `1 - m`. λ is told by a constant channel (λ to the image, `1 - λ` to the
//! partner), by a factor, or not at all. The maps come from the momentum encoder and have no gradient; the block's
//! weights do.
//!
//! ```text
//! U = F Wᵀ       [b t, h]     q = s U + b + λ w        k = s' U[π] + b + (1 - λ) w
//! V = F wᵥᵀ      [b t]        v = s' V[π] + bᵥ + (1 - λ) wᵥ'
//! ```

use kernels::{Matrix, MatrixMut, Threads, add_column_sums, gemm, simd, softmax};
use ndarray::ArrayView3;
use rayon::prelude::*;
use resample::{Align, Mode, Taps, resize, resize_backward};
use serde::{Deserialize, Serialize};

use crate::buffer::sized;
use crate::params::{Layout, Slot};

/// How the block is told λ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LambdaEncoding {
    /// Not at all: the mask depends on the pair only.
    None,
    /// A constant channel for queries, keys and values.
    #[default]
    Concat,
    /// A constant channel for values only.
    Value,
    /// A factor `1 + λ'` (SAMix, residual).
    Multiply,
}

/// How logits are enlarged to the size of the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enlarge {
    /// Every position becomes a square (AutoMix).
    #[default]
    Nearest,
    /// Bilinear (SAMix).
    Bilinear,
}

/// The mix block without its weights.
#[derive(Debug, Clone)]
pub struct MixBlock {
    channels: usize,
    hidden: usize,
    encoding: LambdaEncoding,
    enlarge: Enlarge,
    /// k of SAMix's factor; -1 takes λ itself.
    factor: f64,
    weight: Slot, // [h, C (+ 1), 1, 1]
    bias: Slot,
    value_weight: Slot, // [1, C (+ 1), 1, 1]
    value_bias: Slot,
}

/// A pair of batches and λ.
#[derive(Debug, Clone, Copy)]
pub struct MixInput<'a> {
    /// Feature maps, `[b · t, C]`.
    pub maps: &'a [f32],
    /// `(gh, gw)` with `gh · gw = t`.
    pub grid: (usize, usize),
    /// π: the partner of each image.
    pub partners: &'a [usize],
    /// λ: the share of the image itself.
    pub lambda: f64,
    /// Side of the images, a multiple of the grid's.
    pub side: usize,
}

/// What a forward pass leaves for the way back.
#[derive(Debug, Default)]
pub struct MixActivations {
    queries: Vec<f32>, // [b t, h]
    keys: Vec<f32>,    // [b t, h], of the image itself: its partner's are at π
    values: Vec<f32>,  // [b t], so too
    weights: Vec<f32>, // [b, t, t], P
    mask: Vec<f32>,    // [b, side, side], m
}

impl MixActivations {
    /// m: the partner's weight at each pixel, `[b, side, side]`.
    #[must_use]
    pub fn mask(&self) -> &[f32] {
        &self.mask
    }

    /// P: the weights of the partner's positions, `[b, t, t]`.
    #[must_use]
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }
}

impl MixBlock {
    /// Adds the block's tensors for maps of `channels` features, under `mix_block.`
    pub fn add(
        layout: &mut Layout,
        channels: usize,
        encoding: LambdaEncoding,
        enlarge: Enlarge,
        factor: f64,
    ) -> Self {
        let hidden = (channels / 2).max(1);
        let inputs = channels + usize::from(encoding == LambdaEncoding::Concat);
        let value_inputs =
            channels + usize::from(matches!(encoding, LambdaEncoding::Concat | LambdaEncoding::Value));
        let weight = layout.add("mix_block.query.weight", &[hidden, inputs, 1, 1]);
        let bias = layout.add("mix_block.query.bias", &[hidden]);
        let value_weight = layout.add("mix_block.value.weight", &[1, value_inputs, 1, 1]);
        let value_bias = layout.add("mix_block.value.bias", &[1]);
        Self { channels, hidden, encoding, enlarge, factor, weight, bias, value_weight, value_bias }
    }

    /// Factors of the image's and the partner's features, and their constant channels for queries and keys, then values.
    fn telling(&self, lambda: f64) -> Telling {
        let (own, other) = (lambda as f32, (1.0 - lambda) as f32);
        match self.encoding {
            LambdaEncoding::None => Telling { scales: [1.0, 1.0], channels: [0.0; 3] },
            LambdaEncoding::Concat => Telling { scales: [1.0, 1.0], channels: [own, other, other] },
            LambdaEncoding::Value => Telling { scales: [1.0, 1.0], channels: [0.0, 0.0, other] },
            LambdaEncoding::Multiply => {
                let told = multiply_factor(lambda, self.factor);
                Telling { scales: [1.0 + told, 2.0 - told].map(|x| x as f32), channels: [0.0; 3] }
            }
        }
    }

    /// The mask, left in `kept`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn forward(&self, params: &[f32], input: MixInput<'_>, kept: &mut MixActivations) {
        let (c, h, t) = (self.channels, self.hidden, input.grid.0 * input.grid.1);
        let rows = input.maps.len() / c;
        let images = input.partners.len();
        assert!(rows == images * t && input.maps.len() == rows * c, "{rows} rows of {images} images");
        let Telling { scales: [own, other], channels: [q, k, v] } = self.telling(input.lambda);
        let columns = self.weight.of(params).len() / h;
        let weight = Matrix::columns(self.weight.of(params), columns, 0, c);
        let maps = Matrix::new(input.maps, rows, c);
        let product = MatrixMut::new(sized(&mut kept.keys, rows * h), rows, h);
        gemm(product, 0.0, 1.0, maps, weight.t(), Threads::All);
        let bias = self.bias.of(params);
        let extra = |j: usize, told: f32| match self.encoding {
            LambdaEncoding::Concat => self.weight.of(params)[j * columns + c].mul_add(told, bias[j]),
            _ => bias[j],
        };
        let (to_query, to_key): (Vec<f32>, Vec<f32>) = (0..h).map(|j| (extra(j, q), extra(j, k))).unzip();
        let queries = sized(&mut kept.queries, rows * h);
        queries.par_chunks_mut(h).zip(kept.keys.par_chunks_mut(h)).for_each(|(query, key)| {
            for j in 0..h {
                query[j] = own.mul_add(key[j], to_query[j]);
                key[j] = other.mul_add(key[j], to_key[j]);
            }
        });
        let value_weight = self.value_weight.of(params);
        let told = value_weight.get(c).map_or(0.0, |weight| weight * v) + self.value_bias.of(params)[0];
        sized(&mut kept.values, rows).par_iter_mut().enumerate().for_each(|(row, value)| {
            let own_map = &input.maps[row * c..][..c];
            let product = simd(
                #[inline(always)]
                || kernels::dot(own_map, &value_weight[..c]),
            );
            *value = other.mul_add(product, told);
        });
        self.attend(input, kept);
    }

    /// Logits by attention to the partner, the mask from them.
    fn attend(&self, input: MixInput<'_>, kept: &mut MixActivations) {
        let (h, t) = (self.hidden, input.grid.0 * input.grid.1);
        let images = input.partners.len();
        let MixActivations { queries, keys, values, weights, mask } = kept;
        let scale = 1.0 / (h as f32).sqrt();
        let mut logits = vec![0.0; images * t];
        sized(weights, images * t * t)
            .par_chunks_mut(t * t)
            .zip(logits.par_chunks_mut(t))
            .enumerate()
            .for_each(|(image, (weights, logits))| {
                let partner = input.partners[image];
                let query = Matrix::new(&queries[image * t * h..][..t * h], t, h);
                let key = Matrix::new(&keys[partner * t * h..][..t * h], t, h);
                gemm(MatrixMut::new(weights, t, t), 0.0, scale, query, key.t(), Threads::One);
                let value = &values[partner * t..][..t];
                for (row, logit) in weights.chunks_exact_mut(t).zip(logits) {
                    *logit = simd(
                        #[inline(always)]
                        || {
                            softmax(row);
                            kernels::dot(row, value)
                        },
                    );
                }
            });
        self.enlarge(&logits, input, mask);
        mask.iter_mut().for_each(|m| *m = 1.0 / (1.0 + (-*m).exp()));
    }

    fn taps(&self, input: MixInput<'_>) -> [Taps; 2] {
        let mode = match self.enlarge {
            Enlarge::Nearest => Mode::Nearest,
            Enlarge::Bilinear => Mode::Bilinear,
        };
        [input.grid.0, input.grid.1].map(|n| Taps::new(mode, Align::HalfPixel, n, input.side))
    }

    /// `[b, gh, gw]` to `[b, side, side]`.
    fn enlarge(&self, logits: &[f32], input: MixInput<'_>, out: &mut Vec<f32>) {
        let [rows, columns] = self.taps(input);
        let shape = (input.partners.len(), input.grid.0, input.grid.1);
        let view = ArrayView3::from_shape(shape, logits).expect("a logit for every position");
        let enlarged = resize(view, &rows, &columns).expect("the taps are those of the grid");
        out.clear();
        out.extend(enlarged.iter());
    }

    /// The way back of [`MixBlock::enlarge`].
    fn enlarge_backward(&self, dout: &[f32], input: MixInput<'_>) -> Vec<f32> {
        let [rows, columns] = self.taps(input);
        let shape = (input.partners.len(), input.side, input.side);
        let view = ArrayView3::from_shape(shape, dout).expect("a gradient for every pixel");
        let back = resize_backward(view, &rows, &columns).expect("the taps are those of the grid");
        back.iter().copied().collect()
    }

    /// Adds the gradients of the block's weights.
    ///
    /// * `dmask`: the gradient of m, `[b, side, side]`; `kept`: what [`MixBlock::forward`] left for the same input.
    pub fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        dmask: &[f32],
        input: MixInput<'_>,
        kept: &MixActivations,
    ) {
        let (c, h, t) = (self.channels, self.hidden, input.grid.0 * input.grid.1);
        let (images, rows) = (input.partners.len(), input.partners.len() * t);
        let MixActivations { queries, keys, values, weights, mask } = kept;
        let through: Vec<f32> = dmask.iter().zip(mask).map(|(d, m)| d * m * (1.0 - m)).collect();
        let dlogits = self.enlarge_backward(&through, input);
        let scale = 1.0 / (h as f32).sqrt();
        // Each image writes what it asks of its partner to rows of its own; partners are added in the order of images.
        let (mut dqueries, mut dkeys, mut dvalues) =
            (vec![0.0; rows * h], vec![0.0; rows * h], vec![0.0; rows]);
        let parts =
            dqueries.par_chunks_mut(t * h).zip(dkeys.par_chunks_mut(t * h)).zip(dvalues.par_chunks_mut(t));
        parts.enumerate().for_each(|(image, ((dquery, dkey), dvalue))| {
            let partner = input.partners[image];
            let weights = &weights[image * t * t..][..t * t];
            let (dlogits, value) = (&dlogits[image * t..][..t], &values[partner * t..][..t]);
            let mut dscores = vec![0.0; t * t];
            for ((p, dscores), &d) in weights.chunks_exact(t).zip(dscores.chunks_exact_mut(t)).zip(dlogits) {
                let mean: f32 = p.iter().zip(value).map(|(p, v)| p * v).sum();
                for j in 0..t {
                    dvalue[j] += p[j] * d;
                    dscores[j] = p[j] * d * (value[j] - mean);
                }
            }
            let dscores = Matrix::new(&dscores, t, t);
            let key = Matrix::new(&keys[partner * t * h..][..t * h], t, h);
            let query = Matrix::new(&queries[image * t * h..][..t * h], t, h);
            gemm(MatrixMut::new(dquery, t, h), 0.0, scale, dscores, key, Threads::One);
            gemm(MatrixMut::new(dkey, t, h), 0.0, scale, dscores.t(), query, Threads::One);
        });
        let Telling { scales: [own, other], channels: told } = self.telling(input.lambda);
        let (mut sum_queries, mut sum_keys) = (vec![0.0; h], vec![0.0; h]);
        add_column_sums(&dqueries, &mut sum_queries);
        add_column_sums(&dkeys, &mut sum_keys);
        let sum_values: f32 = dvalues.iter().sum();
        // U has a gradient as query of its image and as key of those whose partner it is; V as value of those.
        dqueries.iter_mut().for_each(|d| *d *= own);
        let mut dv = vec![0.0; rows];
        for (image, &partner) in input.partners.iter().enumerate() {
            let (from, to) = (&dkeys[image * t * h..][..t * h], &mut dqueries[partner * t * h..][..t * h]);
            to.iter_mut().zip(from).for_each(|(to, from)| *to += other * from);
            let (from, to) = (&dvalues[image * t..][..t], &mut dv[partner * t..][..t]);
            to.iter_mut().zip(from).for_each(|(to, from)| *to += other * from);
        }
        let columns = self.weight.of(params).len() / h;
        let maps = Matrix::new(input.maps, rows, c);
        let dweight = self.weight.of_mut(grads);
        let product = MatrixMut::columns(dweight, columns, 0, c);
        gemm(product, 1.0, 1.0, Matrix::new(&dqueries, rows, h).t(), maps, Threads::All);
        if self.encoding == LambdaEncoding::Concat {
            for j in 0..h {
                dweight[j * columns + c] += told[0] * sum_queries[j] + told[1] * sum_keys[j];
            }
        }
        let dbias = self.bias.of_mut(grads);
        dbias.iter_mut().zip(sum_queries.iter().zip(&sum_keys)).for_each(|(d, (q, k))| *d += q + k);
        let dvalue_weight = self.value_weight.of_mut(grads);
        let product = MatrixMut::new(&mut dvalue_weight[..c], 1, c);
        gemm(product, 1.0, 1.0, Matrix::new(&dv, 1, rows), maps, Threads::All);
        if let Some(extra) = dvalue_weight.get_mut(c) {
            *extra += told[2] * sum_values;
        }
        self.value_bias.of_mut(grads)[0] += sum_values;
        debug_assert_eq!(images * t, rows);
    }
}

/// What the block is told of λ.
struct Telling {
    /// Factors of the image's features and of its partner's.
    scales: [f32; 2],
    /// Constant channels of queries, keys and values.
    channels: [f32; 3],
}

/// SAMix's λ': λ itself for `k = -1`, else a cubic through 1/2 that is steeper or flatter there.
fn multiply_factor(lambda: f64, k: f64) -> f64 {
    if k == -1.0 {
        return lambda;
    }
    let kappa = 1.0 + k;
    (4.0 / 3.0 * lambda.powi(3) - 2.0 * lambda.powi(2) + kappa * lambda) / (kappa - 2.0 / 3.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sin(i + off)`.
    fn s(n: usize, off: f64) -> Vec<f32> {
        (0..n).map(|i| (i as f64 + off).sin() as f32).collect()
    }

    /// `[b, C, t]` to `[b t, C]`.
    fn channels_last(x: &[f32], c: usize, t: usize) -> Vec<f32> {
        let images = x.len() / (c * t);
        let at = |i: usize| {
            let (image, position, channel) = (i / (t * c), i / c % t, i % c);
            x[(image * c + channel) * t + position]
        };
        (0..images * t * c).map(at).collect()
    }

    /// Specification 4.6.
    #[test]
    fn the_mask_is_the_originals() {
        let mut layout = Layout::default();
        let block = MixBlock::add(&mut layout, 4, LambdaEncoding::Concat, Enlarge::Nearest, -1.0);
        let params = [s(10, 11.0), s(2, 21.0), s(5, 31.0), s(1, 41.0)].concat();
        let maps = channels_last(&s(32, 0.0), 4, 4);
        let input = MixInput { maps: &maps, grid: (2, 2), partners: &[1, 0], lambda: 0.3, side: 4 };
        let mut kept = MixActivations::default();
        block.forward(&params, input, &mut kept);
        let close = |got: f32, want: f32| assert!((got - want).abs() < 2e-6, "{got} {want}");
        let (a, b, c, d) = (0.451_420, 0.447_531, 0.445_434, 0.447_043);
        let want = [a, a, b, b, a, a, b, b, c, c, d, d, c, c, d, d];
        kept.mask()[..16].iter().zip(want).for_each(|(got, want)| close(*got, want));
        close(kept.mask().iter().sum::<f32>() / 32.0, 0.397_058_3);
        let row = [0.190_506, 0.200_651, 0.266_093, 0.342_750];
        kept.weights()[..4].iter().zip(row).for_each(|(got, want)| close(*got, want));
    }

    #[test]
    fn samix_tells_lambda_by_a_cubic() {
        for (lambda, want) in
            [(0.1, 0.182_286), (0.25, 0.357_143), (0.5, 0.5), (0.75, 0.642_857), (0.9, 0.817_714)]
        {
            assert!((multiply_factor(lambda, 0.25) - want).abs() < 1e-6);
            assert_eq!(multiply_factor(lambda, -1.0), lambda);
        }
    }

    fn encodings() -> impl Iterator<Item = (LambdaEncoding, Enlarge)> {
        use LambdaEncoding::{Concat, Multiply, None, Value};
        [None, Concat, Value, Multiply]
            .into_iter()
            .flat_map(|e| [(e, Enlarge::Nearest), (e, Enlarge::Bilinear)])
    }

    fn start(encoding: LambdaEncoding, enlarge: Enlarge) -> (Layout, MixBlock, Vec<f32>) {
        let mut layout = Layout::default();
        let block = MixBlock::add(&mut layout, 6, encoding, enlarge, 0.25);
        let params = s(layout.len(), 5.0);
        (layout, block, params)
    }

    #[test]
    fn gradients_are_slopes_in_every_encoding() {
        let maps = s(3 * 6 * 6, 0.4); // 3 images, 2 x 3 positions, 6 features
        let weight = s(3 * 36, 9.0);
        for (encoding, enlarge) in encodings() {
            let (layout, block, params) = start(encoding, enlarge);
            let input = MixInput { maps: &maps, grid: (2, 3), partners: &[2, 1, 1], lambda: 0.3, side: 6 };
            let value = |params: &[f32]| {
                let mut kept = MixActivations::default();
                block.forward(params, input, &mut kept);
                kept.mask().iter().zip(&weight).map(|(m, w)| f64::from(m * w)).sum::<f64>()
            };
            let (mut kept, mut grads) = (MixActivations::default(), vec![0.0; layout.len()]);
            block.forward(&params, input, &mut kept);
            block.backward(&params, &mut grads, &weight, input, &kept);
            for i in 0..layout.len() {
                let moved = |step: f32| {
                    let mut params = params.clone();
                    params[i] += step;
                    value(&params)
                };
                let slope = (moved(4e-3) - moved(-4e-3)) / 8e-3;
                let off = (slope - f64::from(grads[i])).abs();
                assert!(
                    off < 2e-3 + 5e-3 * slope.abs(),
                    "{encoding:?} {enlarge:?} {i}: {slope} {}",
                    grads[i]
                );
            }
        }
    }

    #[test]
    fn masks_are_shares_rows_of_attention_sum_to_one_and_lambda_matters_where_it_is_told() {
        let maps = s(2 * 4 * 6, 1.0);
        for (encoding, enlarge) in encodings() {
            let (_, block, params) = start(encoding, enlarge);
            let mask = |lambda: f64| {
                let input = MixInput { maps: &maps, grid: (2, 2), partners: &[1, 0], lambda, side: 8 };
                let mut kept = MixActivations::default();
                block.forward(&params, input, &mut kept);
                assert!(kept.mask().iter().all(|m| (0.0..1.0).contains(m)));
                assert!(kept.weights().chunks_exact(4).all(|p| (p.iter().sum::<f32>() - 1.0).abs() < 1e-6));
                kept.mask().to_vec()
            };
            assert_eq!(mask(0.2) == mask(0.8), encoding == LambdaEncoding::None, "{encoding:?}");
        }
    }
}
