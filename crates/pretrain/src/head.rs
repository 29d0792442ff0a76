//! DINO's projection head: a perceptron to a bottleneck, its direction, and the cosines to K learned directions.
//!
//! `z = MLP(x)`, `z ← z / ‖z‖`, `logits = z Ŵᵀ` with weight-normalised rows `ŵ_k = g_k v_k / ‖v_k‖`. With `g` fixed at 1 every logit
//! is a cosine. A step calls [`Head::prepare`] once, then forward and backward for each part of the batch, then
//! [`Head::finish`], which carries the gradient of `Ŵ` on to `v` and `g`.

use kernels::{Matrix, MatrixMut, Threads, for_each_row, gelu, gelu_backward, gemm, simd};
use serde::{Deserialize, Serialize};

use crate::batch_norm::{BatchNorm, BatchNormActivations, Mode};
use crate::buffer::sized;
use crate::layers::Dense;
use crate::params::{Layout, Slot, two_mut};

/// Below this a bottleneck vector counts as this long (`torch.nn.functional.normalize`).
const NORMALIZE_EPS: f32 = 1e-12;

/// Sizes of the head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadConfig {
    /// K: number of outputs.
    pub out_dim: usize,
    /// Hidden units of the perceptron.
    pub hidden_dim: usize,
    /// Length of the bottleneck.
    pub bottleneck_dim: usize,
    /// Linear layers before the last one; 1 is a single map to the bottleneck.
    pub layers: usize,
    /// Batch norm before each GELU.
    pub use_bn: bool,
    /// Whether the magnitudes `g` stay at 1.
    pub norm_last_layer: bool,
}

impl Default for HeadConfig {
    /// As published: 3 layers of 2048, bottleneck of 256, 65,536 outputs, fixed magnitudes.
    fn default() -> Self {
        Self {
            out_dim: 65_536,
            hidden_dim: 2048,
            bottleneck_dim: 256,
            layers: 3,
            use_bn: false,
            norm_last_layer: true,
        }
    }
}

/// A layer of the perceptron; all but the last are followed by batch norm, if there is one, and GELU.
#[derive(Debug, Clone)]
struct HeadLayer {
    dense: Dense,
    norm: Option<BatchNorm>,
}

/// The head without its weights.
#[derive(Debug, Clone)]
pub struct Head {
    layers: Vec<HeadLayer>,
    weight_g: Slot, // [K, 1]
    weight_v: Slot, // [K, bottleneck]
    config: HeadConfig,
}

/// What a forward pass leaves for the way back; reused from one to the next.
#[derive(Debug, Default)]
pub struct HeadActivations {
    layers: Vec<LayerActivations>,
    bottleneck: Vec<f32>, // [rows, bottleneck]
    unit: Vec<f32>,       // [rows, bottleneck], of length 1
    weight: Vec<f32>,     // [K, bottleneck], Ŵ
    dweight: Vec<f32>,    // [K, bottleneck]
    back: [Vec<f32>; 2],
}

#[derive(Debug, Default)]
struct LayerActivations {
    input: Vec<f32>,
    hidden: Vec<f32>, // before GELU
    norm: BatchNormActivations,
}

impl Head {
    /// Adds the head's tensors under `prefix`, in the original's names and order; `buffers` is where batch norms keep
    /// their running statistics.
    pub fn add(
        layout: &mut Layout,
        buffers: &mut Layout,
        prefix: &str,
        dim: usize,
        config: &HeadConfig,
    ) -> Self {
        let mut layers = Vec::new();
        let mut inputs = dim;
        let mut index = 0;
        for layer in 0..config.layers {
            let last = layer + 1 == config.layers;
            let outputs = if last { config.bottleneck_dim } else { config.hidden_dim };
            let name =
                if config.layers == 1 { format!("{prefix}mlp") } else { format!("{prefix}mlp.{index}") };
            let dense = Dense::add(layout, &name, inputs, outputs);
            let norm = (config.use_bn && !last)
                .then(|| BatchNorm::add(layout, buffers, &format!("{prefix}mlp.{}", index + 1), outputs));
            layers.push(HeadLayer { dense, norm });
            inputs = outputs;
            index += if config.use_bn { 3 } else { 2 };
        }
        let weight_g = layout.add(format!("{prefix}last_layer.weight_g"), &[config.out_dim, 1]);
        let weight_v =
            layout.add(format!("{prefix}last_layer.weight_v"), &[config.out_dim, config.bottleneck_dim]);
        Self { layers, weight_g, weight_v, config: config.clone() }
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> &HeadConfig {
        &self.config
    }

    /// Computes `Ŵ` and clears its gradient: once per step, after the parameters have changed.
    pub fn prepare(&self, params: &[f32], kept: &mut HeadActivations) {
        let bottleneck = self.config.bottleneck_dim;
        let (g, v) = (self.weight_g.of(params), self.weight_v.of(params));
        for_each_row(sized(&mut kept.weight, v.len()), bottleneck, |k, row| {
            let v = &v[k * bottleneck..][..bottleneck];
            let scale = g[k] / norm(v);
            row.iter_mut().zip(v).for_each(|(w, v)| *w = v * scale);
        });
        sized(&mut kept.dweight, v.len()).fill(0.0);
    }

    /// `[rows, d]` to logits `[rows, K]`.
    pub fn forward(
        &self,
        params: &[f32],
        buffers: &mut [f32],
        mode: Mode,
        x: &[f32],
        kept: &mut HeadActivations,
        logits: &mut Vec<f32>,
    ) {
        kept.layers.resize_with(self.layers.len(), LayerActivations::default);
        let input = sized(&mut kept.layers[0].input, x.len());
        input.copy_from_slice(x);
        for (i, layer) in self.layers.iter().enumerate() {
            let (done, rest) = kept.layers.split_at_mut(i + 1);
            let LayerActivations { input, hidden, norm } = &mut done[i];
            let Some(next) = rest.first_mut() else {
                layer.dense.forward(params, input, &mut kept.bottleneck);
                break;
            };
            layer.dense.forward(params, input, hidden);
            if let Some(batch_norm) = &layer.norm {
                batch_norm.forward(params, buffers, mode, hidden, norm);
            }
            gelu(hidden, sized(&mut next.input, hidden.len()));
        }
        let (bottleneck, outputs) = (self.config.bottleneck_dim, self.config.out_dim);
        let z = &kept.bottleneck;
        for_each_row(sized(&mut kept.unit, z.len()), bottleneck, |row, unit| {
            let z = &z[row * bottleneck..][..bottleneck];
            let scale = 1.0 / norm(z).max(NORMALIZE_EPS);
            unit.iter_mut().zip(z).for_each(|(unit, z)| *unit = z * scale);
        });
        let rows = z.len() / bottleneck;
        let factors =
            (Matrix::new(&kept.unit, rows, bottleneck), Matrix::new(&kept.weight, outputs, bottleneck).t());
        let logits = MatrixMut::new(sized(logits, rows * outputs), rows, outputs);
        gemm(logits, 0.0, 1.0, factors.0, factors.1, Threads::All);
    }

    /// Adds the gradients of the perceptron, remembers that of `Ŵ`, and writes the input's, `[rows, d]`.
    ///
    /// * `dlogits`: `[rows, K]`.
    pub fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        dlogits: &[f32],
        kept: &mut HeadActivations,
        dx: &mut Vec<f32>,
    ) {
        let (bottleneck, outputs) = (self.config.bottleneck_dim, self.config.out_dim);
        let HeadActivations { layers, bottleneck: z, unit, weight, dweight, back: [a, b] } = kept;
        let rows = z.len() / bottleneck;
        let dlogits = Matrix::new(dlogits, rows, outputs);
        let dweight = MatrixMut::new(dweight, outputs, bottleneck);
        gemm(dweight, 1.0, 1.0, dlogits.t(), Matrix::new(unit, rows, bottleneck), Threads::All);
        let weight = Matrix::new(weight, outputs, bottleneck);
        gemm(MatrixMut::new(sized(a, z.len()), rows, bottleneck), 0.0, 1.0, dlogits, weight, Threads::All);
        for_each_row(a, bottleneck, |row, d| {
            let at = row * bottleneck..(row + 1) * bottleneck;
            direction_backward(&z[at.clone()], &unit[at], d);
        });
        for (i, layer) in self.layers.iter().enumerate().rev() {
            // `a` holds the gradient of what this layer gave to GELU, or to the direction.
            let dinput = if i == 0 { &mut *dx } else { &mut *b };
            layer.dense.backward(params, grads, a, &layers[i].input, Some(dinput));
            if i > 0 {
                std::mem::swap(a, b);
                let below = &mut layers[i - 1];
                gelu_backward(&below.hidden, a);
                if let Some(batch_norm) = &self.layers[i - 1].norm {
                    batch_norm.backward(params, grads, &mut below.norm, a);
                }
            }
        }
    }

    /// Adds the gradients of `v`, and of `g` if it is trained, from that of `Ŵ`.
    pub fn finish(&self, params: &[f32], grads: &mut [f32], kept: &HeadActivations) {
        let bottleneck = self.config.bottleneck_dim;
        let (g, v) = (self.weight_g.of(params), self.weight_v.of(params));
        let (dg, dv) = two_mut(grads, self.weight_g, self.weight_v);
        if !self.config.norm_last_layer {
            for ((dg, v), dw) in
                dg.iter_mut().zip(v.chunks_exact(bottleneck)).zip(kept.dweight.chunks_exact(bottleneck))
            {
                *dg += dot(v, dw) / norm(v);
            }
        }
        for_each_row(dv, bottleneck, |k, dv| {
            let at = k * bottleneck..(k + 1) * bottleneck;
            let (v, dw) = (&v[at.clone()], &kept.dweight[at]);
            let length = norm(v);
            let along = dot(v, dw) / (length * length);
            for ((dv, v), dw) in dv.iter_mut().zip(v).zip(dw) {
                *dv += g[k] / length * (dw - along * v);
            }
        });
    }
}

/// The gradient through `z / max(‖z‖, ε)`, in place.
fn direction_backward(z: &[f32], unit: &[f32], d: &mut [f32]) {
    let length = norm(z);
    // Below the limit the divisor is a constant.
    let along = if length > NORMALIZE_EPS { dot(unit, d) } else { 0.0 };
    let scale = 1.0 / length.max(NORMALIZE_EPS);
    d.iter_mut().zip(unit).for_each(|(d, unit)| *d = scale * (*d - along * unit));
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    simd(
        #[inline(always)]
        || kernels::dot(a, b),
    )
}

fn norm(v: &[f32]) -> f32 {
    dot(v, v).sqrt()
}
