//! The vision transformer of DINO (Caron et al. 2021; Dosovitskiy et al. 2020), read from images to tokens.
//!
//! `x = [cls; patches W] + pos`, then for every block `x += Attn(LN1 x)`, `x += MLP(LN2 x)`, and a final layer norm.
//! Attention is `softmax(q kᵀ / √hd) v` per head, the perceptron `Linear, GELU (erf), Linear`. The names of the fields
//! are those of the state dict. There is no dropout and no classifier, and no gradient: the layers of [`nn`](crate::nn)
//! are fused kernels without one.

use candle_core::{D, IndexOp, Tensor};
use candle_nn::VarBuilder;

use super::VitConfig;
use super::position::PositionEmbedding;
use crate::layer::block_index;
use crate::nn::{LayerNorm, Linear, attention, attention_weights};
use crate::{Backbone, BackboneSpec, Error, Facet, Features, Layer, Result};

/// A convolution whose stride is its kernel: a linear map of every patch.
struct PatchEmbed {
    proj: Linear, // [3 * p * p -> d]
    patch_size: usize,
}

impl PatchEmbed {
    fn new(vb: VarBuilder<'_>, config: &VitConfig) -> Result<Self> {
        let (d, p) = (config.embed_dim, config.patch_size);
        let weight = vb.get((d, 3, p, p), "proj.weight")?.reshape((d, 3 * p * p))?;
        Ok(Self { proj: Linear::new(weight, Some(vb.get(d, "proj.bias")?))?, patch_size: p })
    }

    /// The grid of images `[b, 3, h, w]`.
    fn grid(&self, images: &Tensor) -> Result<(usize, usize)> {
        let p = self.patch_size;
        match *images.dims() {
            [_, 3, h, w] if h > 0 && w > 0 && h % p == 0 && w % p == 0 => Ok((h / p, w / p)),
            _ => Err(Error::Images { patch_size: p, got: images.dims().to_vec() }),
        }
    }

    /// `[b, 3, h, w] -> [b, t, d]`, patches in row-major order.
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let (gh, gw) = self.grid(images)?;
        let (b, p) = (images.dim(0)?, self.patch_size);
        let patches = images
            .reshape(&[b, 3, gh, p, gw, p][..])?
            .permute([0, 2, 4, 1, 3, 5])? // [b, gh, gw, 3, p, p]
            .reshape((b, gh * gw, 3 * p * p))?;
        self.proj.forward(&patches)
    }
}

/// Multi-head self-attention.
struct Attention {
    qkv: Linear, // [d -> 3 * heads * hd]
    proj: Linear,
    num_heads: usize,
}

impl Attention {
    fn new(vb: VarBuilder<'_>, config: &VitConfig) -> Result<Self> {
        let d = config.embed_dim;
        Ok(Self {
            qkv: Linear::load(vb.pp("qkv"), d, 3 * d, config.qkv_bias)?,
            proj: Linear::load(vb.pp("proj"), d, d, true)?,
            num_heads: config.num_heads,
        })
    }

    /// `residual + Attn(x)`, `[b, n, d] -> [b, n, d]`.
    fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let heads = attention(&self.qkv.forward(x)?, self.num_heads)?;
        self.proj.forward_add(&heads, residual)
    }
}

/// The perceptron of a block.
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn new(vb: VarBuilder<'_>, config: &VitConfig) -> Result<Self> {
        let (d, hidden) = (config.embed_dim, config.mlp_dim);
        Ok(Self {
            fc1: Linear::load(vb.pp("fc1"), d, hidden, true)?,
            fc2: Linear::load(vb.pp("fc2"), hidden, d, true)?,
        })
    }

    /// `residual + MLP(x)`, `[b, n, d] -> [b, n, d]`.
    fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.fc2.forward_add(&self.fc1.forward_gelu(x)?, residual)
    }
}

/// One pre-norm block.
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn new(vb: VarBuilder<'_>, config: &VitConfig) -> Result<Self> {
        let (d, eps) = (config.embed_dim, config.layer_norm_eps);
        Ok(Self {
            norm1: LayerNorm::load(vb.pp("norm1"), d, eps)?,
            attn: Attention::new(vb.pp("attn"), config)?,
            norm2: LayerNorm::load(vb.pp("norm2"), d, eps)?,
            mlp: Mlp::new(vb.pp("mlp"), config)?,
        })
    }

    /// `[b, n, d] -> [b, n, d]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.attn.forward_add(&self.norm1.forward(x)?, x)?;
        self.mlp.forward_add(&self.norm2.forward(&x)?, &x)
    }

    /// The fused projection of what enters, `[b, n, 3 * d]`: queries, keys, values.
    fn qkv(&self, x: &Tensor) -> Result<Tensor> {
        self.attn.qkv.forward(&self.norm1.forward(x)?)
    }
}

/// A vision transformer with its weights.
pub struct Vit {
    patch_embed: PatchEmbed,
    cls_token: Tensor, // [1, 1, d]
    pos_embed: PositionEmbedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    spec: BackboneSpec,
}

impl Vit {
    /// The model of a state dict in DINO's names.
    ///
    /// # Errors
    /// [`Error::Heads`] if the number of heads does not divide `embed_dim`, [`Error::Tensor`] if a tensor is missing or
    /// has another shape than the configuration implies.
    pub fn new(vb: VarBuilder<'_>, config: &VitConfig) -> Result<Self> {
        config.check_heads()?;
        let d = config.embed_dim;
        let blocks = (0..config.depth).map(|i| Block::new(vb.pp("blocks").pp(i), config));
        Ok(Self {
            patch_embed: PatchEmbed::new(vb.pp("patch_embed"), config)?,
            cls_token: vb.get((1, 1, d), "cls_token")?,
            pos_embed: PositionEmbedding::new(vb.get((1, 1 + config.grid * config.grid, d), "pos_embed")?),
            blocks: blocks.collect::<Result<_>>()?,
            norm: LayerNorm::load(vb.pp("norm"), d, config.layer_norm_eps)?,
            spec: config.spec(),
        })
    }

    /// Images `[b, 3, h, w]` as the tokens that enter the first block, `[b, 1 + t, d]`.
    fn embed(&self, images: &Tensor) -> Result<Tensor> {
        let patches = self.patch_embed.forward(images)?; // [b, t, d]
        let (b, _, d) = patches.dims3()?;
        let tokens = Tensor::cat(&[&self.cls_token.expand((b, 1, d))?, &patches], 1)?; // [b, 1 + t, d]
        Ok(tokens.broadcast_add(&self.pos_embed.at(self.patch_embed.grid(images)?)?)?)
    }

    /// What enters block `block` (or leaves the one before it), `[b, 1 + t, d]`.
    fn run_to(&self, images: &Tensor, block: usize) -> Result<Tensor> {
        let tokens = self.embed(images)?;
        self.blocks[..block].iter().try_fold(tokens, |x, block| block.forward(&x))
    }

    /// Layers of the class and the patch tokens, `[b, 1 + t, d]` each.
    fn layers(&self, images: &Tensor, layers: &[Layer]) -> Result<Vec<Tensor>> {
        let wanted = layers.iter().map(|layer| Ok((block_index(layer.block, self.spec.depth)?, layer.facet)));
        let wanted = wanted.collect::<Result<Vec<_>>>()?;
        let last = wanted.iter().map(|&(block, _)| block).max().unwrap_or(0);
        let mut read: Vec<Option<Tensor>> = vec![None; layers.len()];
        let mut x = self.embed(images)?;
        for (index, block) in self.blocks[..=last].iter().enumerate() {
            let here =
                |facet: Facet| wanted.iter().enumerate().filter(move |(_, one)| **one == (index, facet));
            for (part, facet) in [Facet::Query, Facet::Key, Facet::Value].into_iter().enumerate() {
                for (slot, _) in here(facet) {
                    let d = self.spec.embed_dim;
                    read[slot] = Some(block.qkv(&x)?.narrow(D::Minus1, part * d, d)?);
                }
            }
            // What follows the last facet is not needed.
            if index < last || here(Facet::Token).next().is_some() {
                x = block.forward(&x)?;
            }
            for (slot, _) in here(Facet::Token) {
                read[slot] = Some(self.norm.forward(&x)?);
            }
        }
        Ok(read.into_iter().map(|tokens| tokens.expect("every block up to the last was visited")).collect())
    }
}

impl Backbone for Vit {
    fn spec(&self) -> &BackboneSpec {
        &self.spec
    }

    fn forward_layers(&self, images: &Tensor, layers: &[Layer]) -> Result<Vec<Features>> {
        let grid = self.patch_embed.grid(images)?;
        let layers = self.layers(images, layers)?; // each [b, 1 + t, d]
        let split = |tokens: &Tensor| {
            Ok(Features { cls: tokens.i((.., 0))?, patches: tokens.narrow(1, 1, grid.0 * grid.1)?, grid })
        };
        layers.iter().map(split).collect()
    }

    fn last_blocks(&self, images: &Tensor, n: usize) -> Result<Vec<Tensor>> {
        if n == 0 {
            return Ok(Vec::new());
        }
        let first = block_index(-i64::try_from(n).unwrap_or(i64::MAX), self.spec.depth)?;
        let mut x = self.run_to(images, first)?;
        let mut layers = Vec::with_capacity(n);
        for block in &self.blocks[first..] {
            x = block.forward(&x)?;
            layers.push(self.norm.forward(&x)?);
        }
        Ok(layers)
    }

    fn attention(&self, images: &Tensor, block: i64) -> Result<Tensor> {
        let block = block_index(block, self.spec.depth)?;
        let qkv = self.blocks[block].qkv(&self.run_to(images, block)?)?;
        attention_weights(&qkv, self.spec.num_heads)
    }
}
