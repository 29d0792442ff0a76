//! Multi-head self-attention, `softmax(q kᵀ / √hd) v` per head, of a fused projection.

use candle_core::{CpuStorage, CustomOp1, D, IndexOp, Layout, Shape, Tensor};
use candle_nn::ops::softmax_last_dim;
use kernels::{PanelShape, panel_attention};

use super::Tokens;
use super::tokens::{new_panels, numbers};
use crate::Result;

/// `[b, n, 3 d] -> [b, n, d]`: queries, keys and values one after the other, each with its heads side by side.
pub(crate) fn attention(qkv: &Tokens, num_heads: usize) -> Result<Tokens> {
    if qkv.in_panels() {
        return qkv.on_panels(|shape| shape.with_dim(shape.dim / 3), |shape| Attention { shape, num_heads });
    }
    let (weights, values) = weights_and_values(&qkv.rows()?, num_heads)?;
    let heads = weights.matmul(&values)?; // [b, heads, n, hd]
    Tokens::new(heads.transpose(1, 2)?.flatten_from(2)?) // [b, n, d]
}

/// The softmax weights of [`attention`], `[b, heads, n, n]`; rows are queries.
pub(crate) fn attention_weights(qkv: &Tokens, num_heads: usize) -> Result<Tensor> {
    Ok(weights_and_values(&qkv.rows()?, num_heads)?.0)
}

/// Softmax weights `[b, heads, n, n]` and values `[b, heads, n, hd]`.
fn weights_and_values(qkv: &Tensor, num_heads: usize) -> Result<(Tensor, Tensor)> {
    let (b, n, d3) = qkv.dims3()?;
    let head_dim = d3 / 3 / num_heads;
    let qkv = qkv.reshape((b, n, 3, num_heads, head_dim))?;
    let qkv = qkv.permute((2, 0, 3, 1, 4))?.contiguous()?; // [3, b, heads, n, hd]
    // Scaling the queries rather than the scores touches n * hd numbers instead of n * n.
    let q = (qkv.i(0)? * (head_dim as f64).powf(-0.5))?;
    let scores = q.matmul(&qkv.i(1)?.transpose(D::Minus2, D::Minus1)?)?; // [b, heads, n, n]
    Ok((softmax_last_dim(&scores)?, qkv.i(2)?))
}

struct Attention {
    shape: PanelShape,
    num_heads: usize,
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let qkv = numbers(storage, layout)?;
        new_panels(self.shape.with_dim(self.shape.dim / 3), |out| {
            panel_attention(qkv, self.shape, self.num_heads, out);
        })
    }
}
