//! The vision transformer as it is trained: forwards with everything that the way back needs, and backwards.
//!
//! The network is that of `backbone::Vit`; here one vector per image leaves it, its [`Readout`]. DINO's head reads the class
//! token, and then the last block's queries, perceptron and norms are computed for that token alone, which changes
//! no number and saves most of that block. Shapes: `n = b · (1 + t)` rows of `d` for `b` images of `t` patches.
//!
//! There is no general tape: the way back is the way there, read from the end. [`Activations`] are kept from step to
//! step, so a step of known sizes allocates nothing.

mod block;
mod patches;

use backbone::VitConfig;
use kernels::{AttentionShape, NormStats, add_column_sums, for_each_row};
use serde::{Deserialize, Serialize};

use self::block::{Back, Block, BlockActivations};
use self::patches::{mean_patches, mean_patches_backward, patchify, unpatchify};
use crate::buffer::sized;
use crate::drop_path::Branch;
use crate::hidden_mix::HiddenMix;
use crate::layers::{Dense, Mlp, Norm};
use crate::params::{Layout, Slot};
use crate::position::PositionGrid;

/// What the head reads of an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readout {
    /// The class token, as DINO does.
    #[default]
    Class,
    /// The mean of the patch tokens, so that every patch has a part in the loss (not DINO's; for dense features of
    /// small networks).
    Mean,
}

impl Readout {
    /// Its word in files.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Class => "class",
            Self::Mean => "mean",
        }
    }
}

/// A vision transformer without its weights.
#[derive(Debug, Clone)]
pub struct Vit {
    readout: Readout,
    config: VitConfig,
    cls_token: Slot,
    pos_embed: Slot,
    patch_embed: Dense,
    blocks: Vec<Block>,
    norm: Norm,
}

/// What a forward pass leaves for the way back; reused from one to the next.
#[derive(Debug, Default)]
pub struct Activations {
    mix: Option<HiddenMix>,
    patches: Vec<f32>,  // [b t, 3 p p]
    embedded: Vec<f32>, // [b t, d]
    position: Vec<f32>, // [1 + t, d]
    blocks: Vec<BlockActivations>,
    last: Vec<f32>,   // [b, d] or [n, d]: what leaves the last block
    normed: Vec<f32>, // [n, d]: after the final norm, for the mean
    stats: Vec<NormStats>,
    grid: (usize, usize),
    images: usize,
    back: Back,
}

impl Vit {
    /// Adds the network's tensors, under `prefix` and in DINO's names and order.
    pub fn add(layout: &mut Layout, prefix: &str, config: &VitConfig, readout: Readout) -> Self {
        let (d, p) = (config.embed_dim, config.patch_size);
        let cls_token = layout.add(format!("{prefix}cls_token"), &[1, 1, d]);
        let pos_embed = layout.add(format!("{prefix}pos_embed"), &[1, 1 + config.grid * config.grid, d]);
        let patch_embed = Dense::add_shaped(layout, &format!("{prefix}patch_embed.proj"), &[d, 3, p, p]);
        let blocks = (0..config.depth).map(|i| {
            let name = format!("{prefix}blocks.{i}");
            Block {
                norm1: Norm::add(layout, &format!("{name}.norm1"), d, config.layer_norm_eps),
                qkv: Dense::add(layout, &format!("{name}.attn.qkv"), d, 3 * d),
                proj: Dense::add(layout, &format!("{name}.attn.proj"), d, d),
                norm2: Norm::add(layout, &format!("{name}.norm2"), d, config.layer_norm_eps),
                mlp: Mlp::add(layout, &format!("{name}.mlp"), d, config.mlp_dim),
            }
        });
        let blocks = blocks.collect();
        let norm = Norm::add(layout, &format!("{prefix}norm"), d, config.layer_norm_eps);
        Self { readout, config: config.clone(), cls_token, pos_embed, patch_embed, blocks, norm }
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// What the head reads.
    pub(crate) fn readout(&self) -> Readout {
        self.readout
    }

    fn shape(&self, tokens: usize) -> AttentionShape {
        AttentionShape { tokens, heads: self.config.num_heads, head_dim: self.config.head_dim() }
    }

    /// The readouts of images after the final norm, written to `out`, `[b, d]`.
    ///
    /// * `images`: `[b, 3, h, w]`, normalised, sides multiples of the patch size.
    /// * `drop`: the scales of each block's two branches in turn; see [`Branch`].
    ///
    /// # Panics
    /// If the images do not fit.
    pub fn forward(
        &self,
        params: &[f32],
        images: &[f32],
        (h, w): (usize, usize),
        drop: impl FnMut(usize) -> [Branch; 2],
        kept: &mut Activations,
        out: &mut Vec<f32>,
    ) {
        self.forward_mixed(params, images, (h, w), drop, None, kept, out);
    }

    /// As [`Vit::forward`], of images that are mixed on their way.
    ///
    /// # Panics
    /// If the images do not fit, or there is no such block.
    #[expect(clippy::too_many_arguments, reason = "a forward pass has its inputs, its dice, its outputs")]
    pub fn forward_mixed(
        &self,
        params: &[f32],
        images: &[f32],
        (h, w): (usize, usize),
        mut drop: impl FnMut(usize) -> [Branch; 2],
        mix: Option<&HiddenMix>,
        kept: &mut Activations,
        out: &mut Vec<f32>,
    ) {
        assert!(mix.is_none_or(|mix| mix.block < self.blocks.len()), "{mix:?}");
        self.embed(params, images, (h, w), kept);
        kept.mix = mix.cloned();
        let shape = self.shape(1 + kept.grid.0 * kept.grid.1);
        for (i, block) in self.blocks.iter().enumerate() {
            if let Some(mix) = kept.mix.as_ref().filter(|mix| mix.block == i) {
                mix.apply(&mut kept.blocks[i].x, shape.tokens * shape.dim(), &mut kept.back.x);
            }
            let (done, rest) = kept.blocks.split_at_mut(i + 1);
            let block_kept = &mut done[i];
            block_kept.drop = drop(i);
            match (rest.first_mut(), self.readout) {
                (Some(next), _) => block.forward(params, shape, block_kept, &mut next.x),
                (None, Readout::Mean) => block.forward(params, shape, block_kept, &mut kept.last),
                (None, Readout::Class) => block.forward_cls(params, shape, block_kept, &mut kept.last),
            }
        }
        match self.readout {
            Readout::Class => self.norm.forward(params, &kept.last, out, &mut kept.stats),
            Readout::Mean => {
                self.norm.forward(params, &kept.last, &mut kept.normed, &mut kept.stats);
                mean_patches(&kept.normed, shape, sized(out, kept.images * shape.dim()));
            }
        }
    }

    /// The patch tokens that leave block `block`, written to `map`, `[b · t, d]`, and the grid; blocks behind it are not
    /// computed.
    ///
    /// # Panics
    /// If the images do not fit, or the block is not followed by another.
    pub fn forward_to(
        &self,
        params: &[f32],
        images: &[f32],
        size: (usize, usize),
        mut drop: impl FnMut(usize) -> [Branch; 2],
        (block, kept): (usize, &mut Activations),
        map: &mut Vec<f32>,
    ) -> (usize, usize) {
        assert!(block + 1 < self.blocks.len(), "block {block} of {}", self.blocks.len());
        self.embed(params, images, size, kept);
        kept.mix = None;
        let tokens = 1 + kept.grid.0 * kept.grid.1;
        let shape = self.shape(tokens);
        for (i, block) in self.blocks[..=block].iter().enumerate() {
            let (done, rest) = kept.blocks.split_at_mut(i + 1);
            done[i].drop = drop(i);
            block.forward(params, shape, &mut done[i], &mut rest[0].x);
        }
        let (d, x) = (shape.dim(), &kept.blocks[block + 1].x);
        for_each_row(sized(map, kept.images * (tokens - 1) * d), d, |row, to| {
            let (image, patch) = (row / (tokens - 1), row % (tokens - 1));
            to.copy_from_slice(&x[(image * tokens + 1 + patch) * d..][..d]);
        });
        kept.grid
    }

    /// Adds the gradients of all parameters.
    ///
    /// * `dout`: the gradient of what [`Vit::forward`] wrote, `[b, d]`; `kept`: what it left.
    pub fn backward(&self, params: &[f32], grads: &mut [f32], dout: &[f32], kept: &mut Activations) {
        self.backward_to_images(params, grads, dout, kept, None);
    }

    /// As [`Vit::backward`]; also writes the gradient of the images, `[b, 3, h, w]`, where one is asked for.
    pub fn backward_to_images(
        &self,
        params: &[f32],
        grads: &mut [f32],
        dout: &[f32],
        kept: &mut Activations,
        dimages: Option<&mut Vec<f32>>,
    ) {
        let Activations { blocks, mix, last, normed, stats, grid, back, .. } = kept;
        let shape = self.shape(1 + grid.0 * grid.1);
        match self.readout {
            Readout::Class => {
                sized(&mut back.last, last.len()).fill(0.0);
                self.norm.backward(params, grads, dout, last, stats, &mut back.last);
            }
            Readout::Mean => {
                mean_patches_backward(dout, shape, normed);
                sized(&mut back.x, last.len()).fill(0.0);
                self.norm.backward(params, grads, normed, last, stats, &mut back.x);
            }
        }
        for (i, (block, kept)) in self.blocks.iter().zip(blocks).enumerate().rev() {
            if i + 1 == self.blocks.len() && self.readout == Readout::Class {
                block.backward_cls(params, grads, shape, kept, back);
            } else {
                block.backward(params, grads, shape, kept, back);
            }
            if let Some(mix) = mix.as_ref().filter(|mix| mix.block == i) {
                mix.backward(&mut back.x, shape.tokens * shape.dim(), &mut back.branch);
            }
        }
        self.embed_backward(params, grads, kept, dimages);
    }

    /// Patches, class token and positions: what enters the first block.
    fn embed(&self, params: &[f32], images: &[f32], (h, w): (usize, usize), kept: &mut Activations) {
        let (d, p) = (self.config.embed_dim, self.config.patch_size);
        assert!(h >= p && w >= p && h % p == 0 && w % p == 0, "images of {h} x {w} in patches of {p}");
        kept.grid = (h / p, w / p);
        kept.images = images.len() / (3 * h * w);
        kept.blocks.resize_with(self.blocks.len(), BlockActivations::default);
        let tokens = 1 + kept.grid.0 * kept.grid.1;
        patchify(images, (h, w), p, sized(&mut kept.patches, images.len()));
        self.patch_embed.forward(params, &kept.patches, &mut kept.embedded);
        let position = sized(&mut kept.position, tokens * d);
        PositionGrid::new(self.config.grid, kept.grid).resize(self.pos_embed.of(params), d, position);
        let (position, embedded, cls) = (&kept.position, &kept.embedded, self.cls_token.of(params));
        for_each_row(sized(&mut kept.blocks[0].x, kept.images * tokens * d), d, |row, x| {
            let (image, token) = (row / tokens, row % tokens);
            let content = match token {
                0 => cls,
                _ => &embedded[(image * (tokens - 1) + token - 1) * d..][..d],
            };
            let position = &position[token * d..][..d];
            x.iter_mut()
                .zip(content)
                .zip(position)
                .for_each(|((x, content), position)| *x = content + position);
        });
    }

    fn embed_backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        kept: &mut Activations,
        dimages: Option<&mut Vec<f32>>,
    ) {
        let d = self.config.embed_dim;
        let tokens = 1 + kept.grid.0 * kept.grid.1;
        let Back { x, branch, sums, hidden, .. } = &mut kept.back;
        let sums = sized(sums, tokens * d);
        sums.fill(0.0);
        add_column_sums(x, sums); // over the images
        let cls = self.cls_token.of_mut(grads);
        cls.iter_mut().zip(&sums[..d]).for_each(|(to, from)| *to += from);
        PositionGrid::new(self.config.grid, kept.grid).resize_backward(sums, d, self.pos_embed.of_mut(grads));
        for_each_row(sized(branch, kept.images * (tokens - 1) * d), d, |row, to| {
            let (image, patch) = (row / (tokens - 1), row % (tokens - 1));
            to.copy_from_slice(&x[(image * tokens + 1 + patch) * d..][..d]);
        });
        let Some(dimages) = dimages else {
            self.patch_embed.backward(params, grads, branch, &kept.patches, None);
            return;
        };
        self.patch_embed.backward(params, grads, branch, &kept.patches, Some(hidden));
        let p = self.config.patch_size;
        let size = (kept.grid.0 * p, kept.grid.1 * p);
        unpatchify(hidden, size, p, sized(dimages, kept.patches.len()));
    }
}
