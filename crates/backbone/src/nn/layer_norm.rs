//! Layer norm over the last axis: `(x - mean) / √(var + ε) · w + b`.

use candle_core::{Module, Tensor};
use candle_nn::VarBuilder;

use crate::Result;

/// A layer norm with its weights.
pub(crate) struct LayerNorm {
    plain: candle_nn::LayerNorm,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, `[d]`.
    pub(crate) fn load(vb: VarBuilder<'_>, d: usize, eps: f64) -> Result<Self> {
        Ok(Self { plain: candle_nn::LayerNorm::new(vb.get(d, "weight")?, vb.get(d, "bias")?, eps) })
    }

    /// `[…, d] -> […, d]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.plain.forward(x)?)
    }
}
