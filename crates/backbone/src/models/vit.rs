//! The vision transformer of DINO (Caron et al. 2021; Dosovitskiy et al. 2020), read from images to tokens.
//!
//! `x = [cls; patches W] + pos`, then for every block `x += Attn(LN1 x)`, `x += MLP(LN2 x)`, and a final layer norm.
//! Attention is `softmax(q kᵀ / √hd) v` per head, the perceptron `Linear, GELU (erf), Linear`. The names of the fields
//! are those of the state dict. There is no dropout and no classifier, and no gradient: the layers of [`nn`](crate::nn)
//! are fused kernels without one.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use super::VitConfig;
use super::encoder::{Encoder, Entry, Model};
use super::patch_embed::PatchEmbed;
use super::position::{PositionEmbedding, Resampling};
use crate::Result;

/// A vision transformer with its weights.
pub struct Vit {
    patch_embed: PatchEmbed,
    cls_token: Tensor, // [1, 1, d]
    pos_embed: PositionEmbedding,
    encoder: Encoder, // blocks, norm
}

impl Vit {
    /// The model of a state dict in DINO's names.
    ///
    /// # Errors
    /// [`Error::Heads`](crate::Error::Heads) if the number of heads does not divide `embed_dim`,
    /// [`Error::Tensor`](crate::Error::Tensor) if a tensor is missing or has another shape than the configuration implies.
    pub fn new(vb: VarBuilder<'_>, config: &VitConfig) -> Result<Self> {
        config.check_heads()?;
        let d = config.embed_dim;
        let wide = vb.to_dtype(DType::F32);
        let table = wide.get((1, 1 + config.grid * config.grid, d), "pos_embed")?;
        Ok(Self {
            patch_embed: PatchEmbed::new(vb.pp("patch_embed"), config)?,
            cls_token: wide.get((1, 1, d), "cls_token")?,
            pos_embed: PositionEmbedding::new(table, Resampling::Tenth),
            encoder: Encoder::new(vb, config, false, config.spec())?,
        })
    }
}

impl Model for Vit {
    fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Images `[b, 3, h, w]` as the tokens that enter the first block, `[b, 1 + t, d]`.
    fn embed(&self, images: &Tensor) -> Result<Entry> {
        let grid = self.patch_embed.grid(images)?;
        let patches = self.patch_embed.forward(images)?; // [b, t, d]
        let (b, _, d) = patches.dims3()?;
        let tokens = Tensor::cat(&[&self.cls_token.expand((b, 1, d))?, &patches], 1)?; // [b, 1 + t, d]
        Ok(Entry { tokens: tokens.broadcast_add(&self.pos_embed.at(grid)?)?, grid, rope: None })
    }
}
