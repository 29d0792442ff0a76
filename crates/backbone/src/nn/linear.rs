//! The linear layer `y = x Wᵀ + b`, and what follows it in a transformer: GELU, or the residual that it is added to.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Module, Shape, Tensor};
use candle_nn::VarBuilder;
use kernels::{Epilogue, Level, PackedLinear, PanelShape};

use super::Tokens;
use super::tokens::{new_panels, numbers};
use crate::Result;

/// A linear layer with its weights.
pub(crate) enum Linear {
    /// As the kernels read them: on the CPU, in `f32`.
    Packed(Arc<PackedLinear>),
    /// As candle reads them.
    Plain(candle_nn::Linear),
}

/// What is done with a layer's outputs while they are at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    Gelu,
}

impl Linear {
    /// * `weight`: `[to, from]`; `bias`: `[to]`.
    pub(crate) fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        if !weight.device().is_cpu() || weight.dtype() != DType::F32 {
            return Ok(Self::Plain(candle_nn::Linear::new(weight, bias)));
        }
        let (to, from) = weight.dims2()?;
        let weight = weight.flatten_all()?.to_vec1()?;
        let bias = bias.map(|bias| bias.to_vec1()).transpose()?;
        let packed = PackedLinear::new(Level::current(), &weight, bias.as_deref(), from, to);
        Ok(Self::Packed(Arc::new(packed)))
    }

    /// Reads `weight` and, if there is one, `bias`.
    pub(crate) fn load(vb: VarBuilder<'_>, from: usize, to: usize, bias: bool) -> Result<Self> {
        Self::load_scaled(vb, from, to, bias, None)
    }

    /// As [`Linear::load`], followed by a factor for each output, `[to]`: the layer scale of later transformers.
    pub(crate) fn load_scaled(
        vb: VarBuilder<'_>,
        from: usize,
        to: usize,
        bias: bool,
        factors: Option<&Tensor>,
    ) -> Result<Self> {
        let weight = vb.get((to, from), "weight")?;
        let bias = if bias { Some(vb.get(to, "bias")?) } else { None };
        match factors {
            None => Self::new(weight, bias),
            Some(factors) => Self::new(
                weight.broadcast_mul(&factors.unsqueeze(1)?)?,
                bias.map(|bias| bias * factors).transpose()?,
            ),
        }
    }

    /// `x Wᵀ + b`, `[b, n, from] -> [b, n, to]`.
    pub(crate) fn forward(&self, x: &Tokens) -> Result<Tokens> {
        self.forward_then(x, Then::Nothing)
    }

    /// `GELU(x Wᵀ + b)`, with the error function.
    pub(crate) fn forward_gelu(&self, x: &Tokens) -> Result<Tokens> {
        self.forward_then(x, Then::Gelu)
    }

    fn forward_then(&self, x: &Tokens, then: Then) -> Result<Tokens> {
        match self {
            Self::Packed(layer) => x.on_panels(
                |shape| shape.with_dim(layer.sizes().1),
                |shape| LinearThen { layer: Arc::clone(layer), shape, then },
            ),
            Self::Plain(layer) => {
                let y = layer.forward(&x.rows()?)?;
                Tokens::new(if then == Then::Gelu { y.gelu_erf()? } else { y })
            }
        }
    }

    /// `residual + x Wᵀ + b`.
    pub(crate) fn forward_add(&self, x: &Tokens, residual: &Tokens) -> Result<Tokens> {
        match self {
            Self::Packed(layer) => x.on_panels_with(
                residual,
                |shape| shape.with_dim(layer.sizes().1),
                |shape| LinearAdd { layer: Arc::clone(layer), shape },
            ),
            Self::Plain(layer) => Tokens::new((residual.rows()? + layer.forward(&x.rows()?)?)?),
        }
    }
}

struct LinearThen {
    layer: Arc<PackedLinear>,
    shape: PanelShape,
    then: Then,
}

impl CustomOp1 for LinearThen {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = numbers(storage, layout)?;
        let epilogue = if self.then == Then::Gelu { Epilogue::Gelu } else { Epilogue::Plain };
        new_panels(self.shape.with_dim(self.layer.sizes().1), |out| {
            self.layer.forward(x, self.shape, epilogue, out);
        })
    }
}

struct LinearAdd {
    layer: Arc<PackedLinear>,
    shape: PanelShape,
}

impl CustomOp2 for LinearAdd {
    fn name(&self) -> &'static str {
        "linear-add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, residual) = (numbers(x, x_layout)?, numbers(residual, residual_layout)?);
        new_panels(self.shape.with_dim(self.layer.sizes().1), |out| {
            self.layer.forward(x, self.shape, Epilogue::Add(residual), out);
        })
    }
}
