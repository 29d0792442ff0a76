//! The backbones that can be trained, behind one set of calls: images to one vector each, and the way back.
//!
//! A trunk knows nothing of heads or losses. Methods that look at feature maps (AutoMix) ask for one of a *stage*: a block
//! of a transformer, whose map are its patch tokens.

use backbone::VitConfig;

use crate::drop_path::Drops;
use crate::params::Layout;
use crate::torch_checkpoint::vit_arguments;
use crate::torch_file::TorchValue;
use crate::training::Exported;
use crate::vit::{Activations, HiddenMix, Readout, Vit};

/// A backbone without its weights.
#[derive(Debug, Clone)]
pub enum Trunk {
    /// A vision transformer.
    Vit(Vit),
}

/// What a pass leaves for the way back; reused from one to the next.
#[derive(Debug, Default)]
pub struct TrunkActivations {
    vit: Activations,
}

/// Images on their way through a trunk.
#[derive(Debug, Clone, Copy)]
pub struct TrunkInput<'a> {
    /// `[b, 3, side, side]`, normalised.
    pub images: &'a [f32],
    /// Their side in pixels.
    pub side: usize,
    /// Stochastic depth and the group of views that its dice are for.
    pub(crate) drops: (&'a Drops, usize),
    /// What is mixed inside.
    pub mix: Option<&'a HiddenMix>,
}

impl Trunk {
    /// Adds a vision transformer's tensors, under `prefix`.
    pub fn add_vit(layout: &mut Layout, prefix: &str, config: &VitConfig, readout: Readout) -> Self {
        Self::Vit(Vit::add(layout, prefix, config, readout))
    }

    /// Length of the vector that leaves it.
    #[must_use]
    pub fn dim(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.config().embed_dim,
        }
    }

    /// Layers with stochastic depth.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.config().depth,
        }
    }

    /// Stages whose maps can be asked for: all that are followed by another.
    #[must_use]
    pub fn stages(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.config().depth - 1,
        }
    }

    /// Features of the map that stage `stage` leaves.
    #[must_use]
    pub fn stage_dim(&self, _stage: usize) -> usize {
        match self {
            Self::Vit(vit) => vit.config().embed_dim,
        }
    }

    /// One vector for each image, `[b, d]`, to `out`.
    pub(crate) fn forward(
        &self,
        params: &[f32],
        input: TrunkInput<'_>,
        kept: &mut TrunkActivations,
        out: &mut Vec<f32>,
    ) {
        let (size, drop) = ((input.side, input.side), |block| input.drops.0.of(input.drops.1, block));
        match self {
            Self::Vit(vit) => {
                vit.forward_mixed(params, input.images, size, drop, input.mix, &mut kept.vit, out);
            }
        }
    }

    /// The map of a stage, `[b · t, C]`, to `map`; returns its grid. Nothing behind it is computed, and there is no way back.
    pub(crate) fn map(
        &self,
        params: &[f32],
        input: TrunkInput<'_>,
        stage: usize,
        kept: &mut TrunkActivations,
        map: &mut Vec<f32>,
    ) -> (usize, usize) {
        let (size, drop) = ((input.side, input.side), |block| input.drops.0.of(input.drops.1, block));
        match self {
            Self::Vit(vit) => vit.forward_to(params, input.images, size, drop, (stage, &mut kept.vit), map),
        }
    }

    /// Adds the gradients of all parameters from that of the vectors, `[b, d]`; writes the images' where they are asked for.
    pub(crate) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        dout: &[f32],
        kept: &mut TrunkActivations,
        dimages: Option<&mut Vec<f32>>,
    ) {
        match self {
            Self::Vit(vit) => vit.backward_to_images(params, grads, dout, &mut kept.vit, dimages),
        }
    }

    /// The backbone among a layout's tensors.
    pub(crate) fn exported<'a>(
        &'a self,
        network: &'static str,
        layout: &'a Layout,
        values: &'a [f32],
    ) -> Exported<'a> {
        match self {
            Self::Vit(vit) => {
                Exported { network, layout, values, vit: vit.config(), readout: vit.readout().word() }
            }
        }
    }

    /// Its sizes, as arguments of a checkpoint.
    pub(crate) fn arguments<'a>(&self) -> Vec<(&'static str, TorchValue<'a>)> {
        match self {
            Self::Vit(vit) => vit_arguments(vit.config(), vit.readout().word()),
        }
    }
}
