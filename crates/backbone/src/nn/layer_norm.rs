//! Layer norm over the last axis: `(x - mean) / √(var + ε) · w + b`.
//!
//! Its weights and what goes through it are `f32` in every precision, as the residual stream that it reads is.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Module, Shape};
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
    /// Reads `weight` and `bias`, `[d]`, in `f32` whatever the type of `vb` is.
    pub(crate) fn load(vb: VarBuilder<'_>, d: usize, eps: f64) -> Result<Self> {
        let vb = vb.to_dtype(DType::F32);
        let (weight, bias) = (vb.get(d, "weight")?, vb.get(d, "bias")?);
        let (on_host, bias_on_host) = (weight.to_vec1()?, bias.to_vec1()?);
        Ok(Self {
            layer: candle_nn::LayerNorm::new(weight, bias, eps),
            weight: on_host,
            bias: bias_on_host,
            eps,
        })
    }

    /// `[b, n, d] -> [b, n, d]`, in `f32`.
    pub(crate) fn forward(&self, x: &Tokens) -> Result<Tokens> {
        if x.in_panels() {
            return x.on_panels(|shape| shape, |shape| Norm { layer: self, shape });
        }
        Ok(Tokens::in_rows(self.layer.forward(&x.rows()?)?))
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
