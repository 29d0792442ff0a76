//! The linear layer `y = x Wᵀ + b`, and what follows it in a transformer: GELU, or the residual that it is added to.

use candle_core::{Module, Tensor};
use candle_nn::VarBuilder;

use crate::Result;

/// A linear layer with its weights.
pub(crate) struct Linear {
    plain: candle_nn::Linear,
}

impl Linear {
    /// * `weight`: `[to, from]`; `bias`: `[to]`.
    pub(crate) fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        Ok(Self { plain: candle_nn::Linear::new(weight, bias) })
    }

    /// Reads `weight` and, if there is one, `bias`.
    pub(crate) fn load(vb: VarBuilder<'_>, from: usize, to: usize, bias: bool) -> Result<Self> {
        let bias = if bias { Some(vb.get(to, "bias")?) } else { None };
        Self::new(vb.get((to, from), "weight")?, bias)
    }

    /// The layer followed by a factor for each output, `[to]`: the layer scale of later transformers.
    pub(crate) fn scaled(self, factors: &Tensor) -> Result<Self> {
        let weight = self.plain.weight().broadcast_mul(&factors.unsqueeze(1)?)?;
        let bias = self.plain.bias().map(|bias| bias * factors).transpose()?;
        Self::new(weight, bias)
    }

    /// `x Wᵀ + b`, `[b, n, from] -> [b, n, to]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.plain.forward(x)?)
    }

    /// `GELU(x Wᵀ + b)`, with the error function.
    pub(crate) fn forward_gelu(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.plain.forward(x)?.gelu_erf()?)
    }

    /// `residual + x Wᵀ + b`.
    pub(crate) fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        Ok((residual + self.plain.forward(x)?)?)
    }
}
