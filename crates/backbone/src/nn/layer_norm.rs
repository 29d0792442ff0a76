//! Layer norm over the last axis: `(x - mean) / √(var + ε) · w + b`.

use candle_core::{CpuStorage, CustomOp1, Layout, Module, Shape, Tensor};
use candle_nn::VarBuilder;
use kernels::{PanelShape, panel_layer_norm};

use super::Tokens;
use super::tokens::{new_panels, numbers};
use crate::Result;

/// A layer norm with its weights.
pub(crate) struct LayerNorm {
    layer: candle_nn::LayerNorm,
    weight: Vec<f32>, // [d]
    bias: Vec<f32>,   // [d]
    eps: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, `[d]`.
    pub(crate) fn load(vb: VarBuilder<'_>, d: usize, eps: f64) -> Result<Self> {
        let (weight, bias) = (vb.get(d, "weight")?, vb.get(d, "bias")?);
        let numbers = |tensor: &Tensor| tensor.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>();
        let (on_host, bias_on_host) = (numbers(&weight)?, numbers(&bias)?);
        Ok(Self {
            layer: candle_nn::LayerNorm::new(weight, bias, eps),
            weight: on_host,
            bias: bias_on_host,
            eps,
        })
    }

    /// `[b, n, d] -> [b, n, d]`.
    pub(crate) fn forward(&self, x: &Tokens) -> Result<Tokens> {
        if x.in_panels() {
            return x.on_panels(|shape| shape, |shape| Norm { layer: self, shape });
        }
        Tokens::new(self.layer.forward(&x.rows()?)?)
    }
}

struct Norm<'a> {
    layer: &'a LayerNorm,
    shape: PanelShape,
}

impl CustomOp1 for Norm<'_> {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let LayerNorm { weight, bias, eps, .. } = self.layer;
        let x = numbers(storage, layout)?;
        new_panels(self.shape, |out| panel_layer_norm(x, self.shape, (weight, bias), *eps as f32, out))
    }
}
