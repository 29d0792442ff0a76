//! The pre-norm block that all models share: `x += γ₁ Attn(LN1 x)`, then `x += γ₂ MLP(LN2 x)`.
//!
//! Attention is `softmax(q kᵀ / √hd) v` per head, the perceptron `Linear, GELU (erf), Linear`. The first models have no
//! layer scale `γ`; where there is one it is multiplied into the linear map before it. A model whose patches are told
//! apart by rotations hands them in, and queries and keys are turned before they meet. The names of the fields are those
//! of the state dict.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use super::VitConfig;
use crate::Result;
use crate::nn::{LayerNorm, Linear, Rope, Tokens, attention, attention_weights};

/// Multi-head self-attention.
struct Attention {
    qkv: Linear, // [d -> 3 * heads * hd]
    proj: Linear,
    num_heads: usize,
}

impl Attention {
    /// * `scale`: factors of the output, `[d]`.
    fn new(vb: VarBuilder<'_>, config: &VitConfig, scale: Option<&Tensor>) -> Result<Self> {
        let d = config.embed_dim;
        Ok(Self {
            qkv: Linear::load(vb.pp("qkv"), d, 3 * d, config.qkv_bias)?,
            proj: Linear::load_scaled(vb.pp("proj"), d, d, true, scale)?,
            num_heads: config.num_heads,
        })
    }

    /// Queries, keys and values of `x` as attention sees them, `[b, n, 3 * d]`.
    fn turned(&self, x: &Tokens, rope: Option<&Rope>) -> Result<Tokens> {
        let qkv = self.qkv.forward(x)?;
        match rope {
            Some(rope) => rope.turn(&qkv, self.num_heads),
            None => Ok(qkv),
        }
    }

    /// `residual + Attn(x)`, `[b, n, d] -> [b, n, d]`.
    fn forward_add(&self, x: &Tokens, rope: Option<&Rope>, residual: &Tokens) -> Result<Tokens> {
        let heads = attention(&self.turned(x, rope)?, self.num_heads)?;
        self.proj.forward_add(&heads, residual)
    }
}

/// The perceptron of a block.
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    /// * `scale`: factors of the output, `[d]`.
    fn new(vb: VarBuilder<'_>, config: &VitConfig, scale: Option<&Tensor>) -> Result<Self> {
        let (d, hidden) = (config.embed_dim, config.mlp_dim);
        Ok(Self {
            fc1: Linear::load(vb.pp("fc1"), d, hidden, true)?,
            fc2: Linear::load_scaled(vb.pp("fc2"), hidden, d, true, scale)?,
        })
    }

    /// `residual + MLP(x)`, `[b, n, d] -> [b, n, d]`.
    fn forward_add(&self, x: &Tokens, residual: &Tokens) -> Result<Tokens> {
        self.fc2.forward_add(&self.fc1.forward_gelu(x)?, residual)
    }
}

/// One pre-norm block.
pub(super) struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    /// * `layer_scale`: whether there are factors `ls1.gamma` and `ls2.gamma`, `[d]` each.
    pub(super) fn new(vb: VarBuilder<'_>, config: &VitConfig, layer_scale: bool) -> Result<Self> {
        let (d, eps) = (config.embed_dim, config.layer_norm_eps);
        let scale = |name: &str| layer_scale.then(|| vb.to_dtype(DType::F32).get(d, name)).transpose();
        Ok(Self {
            norm1: LayerNorm::load(vb.pp("norm1"), d, eps)?,
            attn: Attention::new(vb.pp("attn"), config, scale("ls1.gamma")?.as_ref())?,
            norm2: LayerNorm::load(vb.pp("norm2"), d, eps)?,
            mlp: Mlp::new(vb.pp("mlp"), config, scale("ls2.gamma")?.as_ref())?,
        })
    }

    /// `[b, n, d] -> [b, n, d]`.
    pub(super) fn forward(&self, x: &Tokens, rope: Option<&Rope>) -> Result<Tokens> {
        let x = self.attn.forward_add(&self.norm1.forward(x)?, rope, x)?;
        self.mlp.forward_add(&self.norm2.forward(&x)?, &x)
    }

    /// The fused projection of what enters, `[b, n, 3 * d]`: queries, keys, values, before any rotation.
    pub(super) fn qkv(&self, x: &Tokens) -> Result<Tokens> {
        self.attn.qkv.forward(&self.norm1.forward(x)?)
    }

    /// Softmax weights of what enters, `[b, heads, n, n]`.
    pub(super) fn attention(&self, x: &Tokens, rope: Option<&Rope>) -> Result<Tensor> {
        attention_weights(&self.attn.turned(&self.norm1.forward(x)?, rope)?, self.attn.num_heads)
    }
}
