//! The linear layer `y = x Wᵀ + b`, and what follows it in a transformer: GELU, or the residual that it is added to.
//!
//! It is computed in the type of its weights, whatever the type of its input is. The residual keeps its own type.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Shape, Tensor};
use candle_nn::VarBuilder;
use kernels::{Epilogue, Level, PackedLinear, PanelShape};

use super::Tokens;
use super::product::product;
use super::tokens::{new_panels, numbers};
use crate::Result;

/// A linear layer with its weights.
pub(crate) enum Linear {
    /// As the kernels read them: on the CPU, in `f32`.
    Packed(Arc<PackedLinear>),
    /// As candle reads them: weight `[to, from]`, bias `[to]`.
    Plain(Tensor, Option<Tensor>),
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
            return Ok(Self::Plain(weight, bias));
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

    /// As [`Linear::load`], followed by a factor for each output, `[to]`, in 32-bit: the layer scale of later transformers.
    /// It is multiplied into the weights before they are rounded to the type of `vb`.
    pub(crate) fn load_scaled(
        vb: VarBuilder<'_>,
        from: usize,
        to: usize,
        bias: bool,
        factors: Option<&Tensor>,
    ) -> Result<Self> {
        let wide = vb.to_dtype(DType::F32);
        let mut weight = wide.get((to, from), "weight")?;
        let mut bias = if bias { Some(wide.get(to, "bias")?) } else { None };
        if let Some(factors) = factors {
            weight = weight.broadcast_mul(&factors.unsqueeze(1)?)?;
            bias = bias.map(|bias| bias * factors).transpose()?;
        }
        let bias = bias.map(|bias| bias.to_dtype(vb.dtype())).transpose()?;
        Self::new(weight.to_dtype(vb.dtype())?, bias)
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
            Self::Plain(weight, bias) => {
                let y = plain(weight, bias.as_ref(), x)?;
                Ok(Tokens::in_rows(if then == Then::Gelu { y.gelu_erf()? } else { y }))
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
            Self::Plain(weight, bias) => {
                let residual = residual.rows()?;
                let y = plain(weight, bias.as_ref(), x)?.to_dtype(residual.dtype())?;
                Ok(Tokens::in_rows((residual + y)?))
            }
        }
    }
}

/// `x Wᵀ + b` under candle's operators, `[b, n, from] -> [b, n, to]`.
fn plain(weight: &Tensor, bias: Option<&Tensor>, x: &Tokens) -> Result<Tensor> {
    let x = x.rows()?.to_dtype(weight.dtype())?;
    let (b, n, from) = x.dims3()?;
    let y = product(&x.reshape((b * n, from))?, &weight.t()?)?; // one product for all images
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    Ok(y.reshape((b, n, ()))?)
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
