//! Multi-head self-attention, `softmax(q kᵀ / √hd) v` per head, of a fused projection.
//!
//! On panels this is one kernel. On other devices it is candle's product and softmax: candle has a fused attention for Metal
//! only (`Sdpa` in candle-nn's `ops.rs`), and its flash attention for CUDA fetches sources from the network while it is
//! built. The scores therefore exist in memory, `n * n` of them for every head of every image, and heads are worked on in
//! slices whose scores have a bound ([`MOST_SCORES`]).
//!
//! The softmax is 32-bit whatever the scores are: candle's CUDA kernel adds up in 32-bit, but subtracts, exponentiates and
//! scales in the type of its input (`softmax` in candle-kernels' `reduce.cu`), and so does its CPU version.

use candle_core::{CpuStorage, CustomOp1, D, DType, IndexOp, Layout, Shape, Tensor};
use candle_nn::ops::softmax_last_dim;
use kernels::{PanelShape, panel_attention};

use super::Tokens;
use super::product::product;
use super::tokens::{new_panels, numbers};
use crate::Result;

/// How many scores are computed at a time, unless a single head has more: 1 GiB in 32-bit, and twice that with the
/// softmax beside them. That is all heads of 36 images of ViT-S/8 or 565 of ViT-B/16, at 224 px.
const MOST_SCORES: usize = 1 << 28;

/// `[b, n, 3 d] -> [b, n, d]`: queries, keys and values one after the other, each with its heads side by side.
pub(crate) fn attention(qkv: &Tokens, num_heads: usize) -> Result<Tokens> {
    if qkv.in_panels() {
        return qkv.on_panels(|shape| shape.with_dim(shape.dim / 3), |shape| Attention { shape, num_heads });
    }
    Ok(Tokens::in_rows(attention_in_slices(&qkv.rows()?, num_heads, MOST_SCORES)?))
}

/// The softmax weights of [`attention`], `[b, heads, n, n]`, in 32-bit; rows are queries.
pub(crate) fn attention_weights(qkv: &Tokens, num_heads: usize) -> Result<Tensor> {
    let qkv = qkv.rows()?;
    let (b, n, _) = qkv.dims3()?;
    let [q, k, _] = heads(&qkv, num_heads)?;
    Ok(weights(&q, &k)?.reshape((b, num_heads, n, n))?)
}

/// As [`attention`] of rows, with at most `most` scores at a time, but no less than a head's.
fn attention_in_slices(qkv: &Tensor, num_heads: usize, most: usize) -> Result<Tensor> {
    let (b, n, d3) = qkv.dims3()?;
    let [q, k, v] = heads(qkv, num_heads)?;
    let slice = (most / (n * n)).max(1);
    let slices = (0..b * num_heads).step_by(slice).map(|first| {
        let part = |x: &Tensor| x.narrow(0, first, slice.min(b * num_heads - first));
        let v = part(&v)?;
        product(&weights(&part(&q)?, &part(&k)?)?.to_dtype(v.dtype())?, &v) // [slice, n, hd]
    });
    let slices = slices.collect::<Result<Vec<_>>>()?;
    let out = Tensor::cat(&slices, 0)?.reshape((b, num_heads, n, d3 / 3 / num_heads))?;
    Ok(out.transpose(1, 2)?.flatten_from(2)?) // [b, n, d]
}

/// Queries, keys and values, `[b * heads, n, hd]` each; the queries are scaled.
fn heads(qkv: &Tensor, num_heads: usize) -> Result<[Tensor; 3]> {
    let (b, n, d3) = qkv.dims3()?;
    let head_dim = d3 / 3 / num_heads;
    let qkv = qkv.reshape((b, n, 3, num_heads, head_dim))?;
    let qkv = qkv.permute((2, 0, 3, 1, 4))?.reshape((3, b * num_heads, n, head_dim))?;
    // Scaling the queries rather than the scores touches n * hd numbers instead of n * n.
    let q = (qkv.i(0)? * (head_dim as f64).powf(-0.5))?;
    Ok([q, qkv.i(1)?, qkv.i(2)?])
}

/// Softmax weights `[heads, n, n]` of queries and keys `[heads, n, hd]`, in 32-bit.
fn weights(q: &Tensor, k: &Tensor) -> Result<Tensor> {
    let scores = product(q, &k.transpose(D::Minus2, D::Minus1)?)?.to_dtype(DType::F32)?;
    Ok(softmax_last_dim(&scores)?)
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

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn slices_of_any_size_give_the_same_bits() {
        let (b, n, num_heads, d) = (3, 7, 4, 24);
        let values: Vec<f32> = (0..b * n * 3 * d).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
        let qkv = Tensor::from_vec(values, (b, n, 3 * d), &Device::Cpu).unwrap();
        for dtype in [DType::F16, DType::BF16] {
            let qkv = qkv.to_dtype(dtype).unwrap();
            let out = |most| {
                let out = attention_in_slices(&qkv, num_heads, most).unwrap();
                assert_eq!((out.dims(), out.dtype()), (&[b, n, d][..], dtype));
                out.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            let whole = out(MOST_SCORES);
            for most in [0, n * n, 5 * n * n + 1, b * num_heads * n * n] {
                assert_eq!(out(most), whole, "{most}");
            }
        }
    }
}
