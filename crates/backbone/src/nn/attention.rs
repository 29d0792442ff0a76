//! Multi-head self-attention, `softmax(q kᵀ / √hd) v` per head, of a fused projection.

use candle_core::{D, IndexOp, Tensor};
use candle_nn::ops::softmax_last_dim;

use crate::Result;

/// `[b, n, 3 d] -> [b, n, d]`: queries, keys and values one after the other, each with its heads side by side.
pub(crate) fn attention(qkv: &Tensor, num_heads: usize) -> Result<Tensor> {
    let (weights, values) = weights_and_values(qkv, num_heads)?;
    let heads = weights.matmul(&values)?; // [b, heads, n, hd]
    Ok(heads.transpose(1, 2)?.flatten_from(2)?) // [b, n, d]
}

/// The softmax weights of [`attention`], `[b, heads, n, n]`; rows are queries.
pub(crate) fn attention_weights(qkv: &Tensor, num_heads: usize) -> Result<Tensor> {
    Ok(weights_and_values(qkv, num_heads)?.0)
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
