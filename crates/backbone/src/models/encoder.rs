//! The walk through the blocks, from the tokens that enter the first one to whatever is asked for.
//!
//! A model puts its tokens together, `[cls; registers; patches]`, and hands them over as an [`Entry`]. What the patches
//! are is told from the back: the last `t` of `n` tokens. In half precision the residual
//! stream and everything that is handed out are still `f32`; linear layers and attention are not.

use std::sync::Arc;

use candle_core::{D, DType, IndexOp, Tensor};
use candle_nn::VarBuilder;

use super::VitConfig;
use super::block::Block;
use crate::layer::block_index;
use crate::nn::{LayerNorm, Rope, Tokens, by_image};
use crate::{Backbone, BackboneSpec, Facet, Features, Layer, Result, precision};

/// What enters the first block.
pub(super) struct Entry {
    /// `[b, 1 + r + t, d]`, in `f32`: class token, registers, patches.
    pub(super) tokens: Tensor,
    /// `(gh, gw)` with `gh * gw = t`.
    pub(super) grid: (usize, usize),
    /// The rotations of the patches, in a model that has them.
    pub(super) rope: Option<Arc<Rope>>,
}

/// A model: how its images become tokens, and the blocks that these go through.
pub(super) trait Model: Send + Sync {
    fn encoder(&self) -> &Encoder;

    /// Images `[b, 3, h, w]` as the tokens that enter the first block.
    fn embed(&self, images: &Tensor) -> Result<Entry>;
}

impl<M: Model> Backbone for M {
    fn spec(&self) -> &BackboneSpec {
        &self.encoder().spec
    }

    fn forward_layers(&self, images: &Tensor, layers: &[Layer]) -> Result<Vec<Features>> {
        self.encoder().forward_layers(images, layers, |images| self.embed(images))
    }

    fn last_blocks(&self, images: &Tensor, n: usize) -> Result<Vec<Tensor>> {
        self.encoder().last_blocks(&self.embed(images)?, n)
    }

    fn attention(&self, images: &Tensor, block: i64) -> Result<Tensor> {
        self.encoder().attention(&self.embed(images)?, block)
    }
}

/// All blocks of a model, and its last norm.
pub(super) struct Encoder {
    blocks: Vec<Block>,
    norm: LayerNorm,
    spec: BackboneSpec,
}

impl Encoder {
    /// * `layer_scale`: whether the blocks have one.
    /// * `spec`: that of the model in `f32`; another type of the weights is added to its name.
    pub(super) fn new(
        vb: VarBuilder<'_>,
        config: &VitConfig,
        layer_scale: bool,
        mut spec: BackboneSpec,
    ) -> Result<Self> {
        spec.architecture += &precision::suffix(vb.dtype());
        let blocks = (0..config.depth).map(|i| Block::new(vb.pp("blocks").pp(i), config, layer_scale));
        Ok(Self {
            blocks: blocks.collect::<Result<_>>()?,
            norm: LayerNorm::load(vb.pp("norm"), config.embed_dim, config.layer_norm_eps)?,
            spec,
        })
    }

    /// As [`Backbone::forward_layers`](crate::Backbone::forward_layers); `embed` makes the tokens of images.
    fn forward_layers(
        &self,
        images: &Tensor,
        layers: &[Layer],
        embed: impl Fn(&Tensor) -> Result<Entry> + Sync,
    ) -> Result<Vec<Features>> {
        let parts = by_image(images, |images| self.features(&embed(images)?, layers))?;
        match <[_; 1]>::try_from(parts) {
            Ok([features]) => Ok(features),
            Err(parts) => (0..layers.len()).map(|i| join(parts.iter().map(|part| &part[i]))).collect(),
        }
    }

    fn features(&self, entry: &Entry, layers: &[Layer]) -> Result<Vec<Features>> {
        let grid = entry.grid;
        let patches = grid.0 * grid.1;
        let split = |tokens: &Tensor| {
            let before = tokens.dim(1)? - patches;
            Ok(Features { cls: tokens.i((.., 0))?, patches: tokens.narrow(1, before, patches)?, grid })
        };
        self.layers(entry, layers)?.iter().map(split).collect()
    }

    /// As [`Backbone::last_blocks`](crate::Backbone::last_blocks).
    fn last_blocks(&self, entry: &Entry, n: usize) -> Result<Vec<Tensor>> {
        if n == 0 {
            return Ok(Vec::new());
        }
        let first = block_index(-i64::try_from(n).unwrap_or(i64::MAX), self.spec.depth)?;
        let mut x = self.run_to(entry, first)?;
        let mut layers = Vec::with_capacity(n);
        for block in &self.blocks[first..] {
            x = block.forward(&x, entry.rope.as_deref())?;
            layers.push(self.norm.forward(&x)?.rows()?);
        }
        Ok(layers)
    }

    /// As [`Backbone::attention`](crate::Backbone::attention).
    fn attention(&self, entry: &Entry, block: i64) -> Result<Tensor> {
        let block = block_index(block, self.spec.depth)?;
        self.blocks[block].attention(&self.run_to(entry, block)?, entry.rope.as_deref())
    }

    /// What enters block `block` (or leaves the one before it), `[b, n, d]`.
    fn run_to(&self, entry: &Entry, block: usize) -> Result<Tokens> {
        let (tokens, rope) = (Tokens::new(entry.tokens.clone())?, entry.rope.as_deref());
        self.blocks[..block].iter().try_fold(tokens, |x, block| block.forward(&x, rope))
    }

    /// Layers of all tokens, `[b, n, d]` each.
    fn layers(&self, entry: &Entry, layers: &[Layer]) -> Result<Vec<Tensor>> {
        let wanted = layers.iter().map(|layer| Ok((block_index(layer.block, self.spec.depth)?, layer.facet)));
        let wanted = wanted.collect::<Result<Vec<_>>>()?;
        let last = wanted.iter().map(|&(block, _)| block).max().unwrap_or(0);
        let mut read: Vec<Option<Tensor>> = vec![None; layers.len()];
        let mut x = Tokens::new(entry.tokens.clone())?;
        for (index, block) in self.blocks[..=last].iter().enumerate() {
            let here =
                |facet: Facet| wanted.iter().enumerate().filter(move |(_, one)| **one == (index, facet));
            for (part, facet) in [Facet::Query, Facet::Key, Facet::Value].into_iter().enumerate() {
                for (slot, _) in here(facet) {
                    let d = self.spec.embed_dim;
                    let facet = block.qkv(&x)?.rows()?.narrow(D::Minus1, part * d, d)?;
                    read[slot] = Some(facet.to_dtype(DType::F32)?);
                }
            }
            // What follows the last facet is not needed.
            if index < last || here(Facet::Token).next().is_some() {
                x = block.forward(&x, entry.rope.as_deref())?;
            }
            for (slot, _) in here(Facet::Token) {
                read[slot] = Some(self.norm.forward(&x)?.rows()?);
            }
        }
        Ok(read.into_iter().map(|tokens| tokens.expect("every block up to the last was visited")).collect())
    }
}

/// The features of several batches as those of one.
fn join<'a>(parts: impl Iterator<Item = &'a Features> + Clone) -> Result<Features> {
    let cat = |of: fn(&Features) -> &Tensor| Tensor::cat(&parts.clone().map(of).collect::<Vec<_>>(), 0);
    let grid = parts.clone().next().map_or((0, 0), |part| part.grid);
    Ok(Features { cls: cat(|part| &part.cls)?, patches: cat(|part| &part.patches)?, grid })
}
