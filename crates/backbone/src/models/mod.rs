//! The networks: one file per model, read side by side with its paper and its state dict.
//!
//! What they share is beside them: the projection of patches, the block, and the walk through the blocks. This file is the
//! door to all of them: which ones there are, by name and by configuration.

mod block;
mod config;
mod dinov2;
mod dinov3;
mod encoder;
mod patch_embed;
mod position;
mod resnet;
mod vit;

use candle_nn::VarBuilder;

use crate::{Backbone, Result};

pub use config::VitConfig;
pub use dinov2::{Dinov2, Dinov2Config};
pub use dinov3::{Dinov3, Dinov3Config};
pub use position::{Resampling, interpolate_pos};
pub use resnet::{ResNet, ResNetConfig};
pub use vit::Vit;

pub(crate) use config::{LAYER_NORM_EPS, Shaped};
pub(crate) use dinov3::{DINOV3_EPS, ROPE_THETA};

/// The configuration of any of the models.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ModelConfig {
    Vit(VitConfig),
    Dinov2(Dinov2Config),
    Dinov3(Dinov3Config),
    ResNet(ResNetConfig),
}

impl ModelConfig {
    /// The configuration of a published architecture.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        let vit = || VitConfig::by_name(name).map(Self::Vit);
        let dinov2 = || Dinov2Config::by_name(name).map(Self::Dinov2);
        let dinov3 = || Dinov3Config::by_name(name).map(Self::Dinov3);
        let resnet = || ResNetConfig::by_name(name).map(Self::ResNet);
        vit().or_else(dinov2).or_else(dinov3).or_else(resnet)
    }

    /// The model of a state dict in the original's names.
    ///
    /// # Errors
    /// As the models' own `new`.
    pub(crate) fn build(&self, vb: VarBuilder<'_>) -> Result<Box<dyn Backbone>> {
        Ok(match self {
            Self::Vit(config) => Box::new(Vit::new(vb, config)?),
            Self::Dinov2(config) => Box::new(Dinov2::new(vb, config)?),
            Self::Dinov3(config) => Box::new(Dinov3::new(vb, config)?),
            Self::ResNet(config) => Box::new(ResNet::new(vb, config)?),
        })
    }

    /// Every tensor of the state dict with its shape, in the original's names.
    pub(crate) fn tensors(&self) -> Shaped {
        match self {
            Self::Vit(config) => config.tensors(),
            Self::Dinov2(config) => config.tensors(),
            Self::Dinov3(config) => config.tensors(),
            Self::ResNet(config) => config.tensors(),
        }
    }

    /// `Ok` if the model can have these heads.
    ///
    /// # Errors
    /// [`Error::Heads`](crate::Error::Heads) and [`Error::RotatedHeads`](crate::Error::RotatedHeads).
    pub(crate) fn check_heads(&self) -> Result<()> {
        match self {
            Self::Dinov3(config) => config.check_heads(),
            other => other.vit().map_or(Ok(()), VitConfig::check_heads),
        }
    }

    /// The sizes that all transformers have.
    pub(crate) fn vit(&self) -> Option<&VitConfig> {
        match self {
            Self::Vit(vit)
            | Self::Dinov2(Dinov2Config { vit, .. })
            | Self::Dinov3(Dinov3Config { vit, .. }) => Some(vit),
            Self::ResNet(_) => None,
        }
    }

    /// The same with another number of heads; a model without heads stays what it is.
    pub(crate) fn with_heads(mut self, num_heads: usize) -> Self {
        match &mut self {
            Self::Vit(vit)
            | Self::Dinov2(Dinov2Config { vit, .. })
            | Self::Dinov3(Dinov3Config { vit, .. }) => vit.num_heads = num_heads,
            Self::ResNet(_) => {}
        }
        self
    }
}
