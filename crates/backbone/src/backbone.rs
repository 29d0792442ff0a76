//! What every backbone offers: patch features and attention of a batch of normalised images.
//!
//! A backbone is frozen. It knows its sizes and nothing of where its weights came from, which is
//! [`Loaded`](crate::Loaded)'s matter.

use candle_core::Tensor;

use crate::{Layer, Result};

/// A frozen network from images to patch features.
pub trait Backbone: Send + Sync {
    /// The sizes that a caller needs.
    fn spec(&self) -> &BackboneSpec;

    /// Features of a layer; later blocks are not computed.
    ///
    /// * `images`: `[b, 3, h, w]`, normalised, `f32`, on the backbone's device; sides are multiples of the patch size.
    ///
    /// # Errors
    /// [`Error::Images`](crate::Error::Images) or [`Error::Block`](crate::Error::Block) if one does not fit the
    /// model, [`Error::Tensor`](crate::Error::Tensor) if an operation fails.
    fn forward_features(&self, images: &Tensor, layer: Layer) -> Result<Features> {
        Ok(self.forward_layers(images, &[layer])?.swap_remove(0))
    }

    /// Features of several layers from one pass, in their order; blocks behind the last of them are not computed.
    ///
    /// * `images`: as for [`Backbone::forward_features`].
    ///
    /// # Errors
    /// As [`Backbone::forward_features`].
    fn forward_layers(&self, images: &Tensor, layers: &[Layer]) -> Result<Vec<Features>>;

    /// The tokens after each of the last `n` blocks, oldest block first: `n` times `[b, 1 + r + t, d]`.
    ///
    /// The class token comes first, then the `r` register tokens (most models have none), then the patches in row-major
    /// order. Each has gone through the network's final norm.
    ///
    /// * `images`: as for [`Backbone::forward_features`].
    ///
    /// # Errors
    /// As [`Backbone::forward_features`]; [`Error::Block`](crate::Error::Block) if there are fewer than `n` blocks.
    fn last_blocks(&self, images: &Tensor, n: usize) -> Result<Vec<Tensor>>;

    /// Softmax weights of a block's attention, `[b, heads, 1 + r + t, 1 + r + t]`; row = query, and the tokens are in the
    /// order of [`Backbone::last_blocks`]: index 0 is the class token, the last `t` are the patches.
    ///
    /// * `images`: as for [`Backbone::forward_features`].
    /// * `block`: index of the block; negative counts from the end.
    ///
    /// # Errors
    /// As [`Backbone::forward_features`].
    fn attention(&self, images: &Tensor, block: i64) -> Result<Tensor>;
}

/// The features of a batch of `b` images, on the backbone's device, in `f32`.
#[derive(Debug, Clone)]
pub struct Features {
    /// The class token, `[b, d]`.
    pub cls: Tensor,
    /// The patch tokens in row-major order, `[b, t, d]`; register tokens are not among them.
    pub patches: Tensor,
    /// `(gh, gw)` with `gh * gw = t`.
    pub grid: (usize, usize),
}

/// Name and sizes of a backbone.
#[derive(Debug, Clone, PartialEq)]
pub struct BackboneSpec {
    /// A name for everything that changes the numbers besides the weights, as number of heads, norm epsilon and half
    /// precision do.
    pub architecture: String,
    /// `d`, the length of a token.
    pub embed_dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block.
    pub num_heads: usize,
    /// Hidden units of a block's perceptron.
    pub mlp_dim: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// `r`, the number of register tokens, which stand between the class token and the patches.
    pub registers: usize,
    /// Of a convolutional network, whose maps shrink from stage to stage; empty for transformers. Stages are its blocks.
    pub stages: Vec<Stage>,
}

/// A stage of a convolutional network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// Features of its map.
    pub dim: usize,
    /// Pixels of the image along a side of a pixel of the map.
    pub stride: usize,
    /// Floating-point operations of everything up to its end, for each pixel of the image.
    pub work_per_pixel: f64,
}

impl BackboneSpec {
    /// The index from 0 of a block that may be counted from the end.
    ///
    /// # Errors
    /// [`Error::Block`](crate::Error::Block) if there is no such block.
    pub fn block_index(&self, block: i64) -> Result<usize> {
        crate::layer::block_index(block, self.depth)
    }

    /// Length of a feature of a layer. In a transformer all facets are as long as a token: the heads share its dimensions out.
    pub fn feature_dim(&self, layer: Layer) -> usize {
        self.stage(layer).map_or(self.embed_dim, |stage| stage.dim)
    }

    /// Pixels of the image along a side of a patch of a layer.
    pub fn stride(&self, layer: Layer) -> usize {
        self.stage(layer).map_or(self.patch_size, |stage| stage.stride)
    }

    /// The stage that a layer of a convolutional network is.
    pub(crate) fn stage(&self, layer: Layer) -> Option<&Stage> {
        self.stages.get(self.block_index(layer.block).ok()?)
    }
}
