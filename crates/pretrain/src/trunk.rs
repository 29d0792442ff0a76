//! The backbones that can be trained, behind one set of calls: images to one vector each, and the way back.
//!
//! A trunk knows nothing of heads or losses. Methods that look at feature maps (AutoMix) ask for one of a *stage*: a block
//! of a transformer, whose map are its patch tokens, or a stage of a ResNet.

use backbone::{ResNetConfig, VitConfig};

use crate::config::BackboneConfig;
use crate::drop_path::Drops;
use crate::hidden_mix::HiddenMix;
use crate::params::Layout;
use crate::resnet::{ResNet, ResNetActivations};
use crate::torch_checkpoint::{text, vit_arguments};
use crate::torch_file::TorchValue;
use crate::training::{Exported, ExportedModel};
use crate::vit::{Activations, Readout, Vit};
use crate::weights::Weights;
use crate::{Error, Result};

/// The sizes of a trunk.
#[derive(Debug, Clone, PartialEq)]
pub enum TrunkConfig {
    /// A vision transformer's.
    Vit(VitConfig),
    /// A ResNet's.
    ResNet(ResNetConfig),
}

impl TrunkConfig {
    /// Side that images must be a multiple of: a patch, or a pixel of the last map.
    #[must_use]
    pub fn granule(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.patch_size,
            Self::ResNet(resnet) => resnet.stride(3),
        }
    }
}

impl BackboneConfig {
    /// The sizes of any trunk.
    ///
    /// # Errors
    /// [`Error::Config`] if the name is unknown or sizes do not go together.
    pub fn trunk(&self) -> Result<TrunkConfig> {
        let Some(resnet) = ResNetConfig::by_name(&self.arch) else {
            return Ok(TrunkConfig::Vit(self.vit()?));
        };
        let own = [self.embed_dim, self.depth, self.num_heads, self.patch_size];
        if own.iter().any(Option::is_some) {
            let reason = "embed_dim, depth, num_heads and patch_size are a transformer's; a ResNet's width is in its name, as in \
                          resnet18_w16_cifar";
            return Err(Error::Config { setting: "backbone", reason: reason.into() });
        }
        if self.drop_path > 0.0 {
            let reason = "must be 0 for a ResNet, which has no stochastic depth here".into();
            return Err(Error::Config { setting: "backbone.drop_path", reason });
        }
        Ok(TrunkConfig::ResNet(resnet))
    }
}

/// A backbone without its weights.
#[derive(Debug, Clone)]
pub enum Trunk {
    /// A vision transformer.
    Vit(Vit),
    /// A ResNet.
    ResNet(ResNet),
}

/// What a pass leaves for the way back; reused from one to the next.
#[derive(Debug, Default)]
pub struct TrunkActivations {
    vit: Activations,
    resnet: ResNetActivations,
}

/// Images on their way through a trunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TrunkInput<'a> {
    /// `[b, 3, side, side]`, normalised.
    pub(crate) images: &'a [f32],
    /// Their side in pixels.
    pub(crate) side: usize,
    /// Stochastic depth and the group of views that its dice are for.
    pub(crate) drops: (&'a Drops, usize),
    /// What is mixed inside.
    pub(crate) mix: Option<&'a HiddenMix>,
}

impl Trunk {
    /// Adds the tensors of a trunk, under `prefix`; `buffers` is where running statistics lie.
    ///
    /// * `readout`: what leaves a transformer; of a ResNet it is the mean.
    pub fn add(
        layout: &mut Layout,
        buffers: &mut Layout,
        prefix: &str,
        config: &TrunkConfig,
        readout: Readout,
    ) -> Self {
        match config {
            TrunkConfig::Vit(vit) => Self::Vit(Vit::add(layout, prefix, vit, readout)),
            TrunkConfig::ResNet(resnet) => Self::ResNet(ResNet::add(layout, buffers, prefix, resnet)),
        }
    }

    /// Length of the vector that leaves it.
    #[must_use]
    pub fn dim(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.config().embed_dim,
            Self::ResNet(resnet) => resnet.config().dim(3),
        }
    }

    /// Layers with stochastic depth.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.config().depth,
            Self::ResNet(_) => 0,
        }
    }

    /// Blocks or stages at whose entrance images can be mixed.
    pub(crate) fn entrances(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.config().depth,
            Self::ResNet(_) => 4,
        }
    }

    /// Stages whose maps can be asked for: all that are followed by another.
    pub(crate) fn stages(&self) -> usize {
        self.entrances() - 1
    }

    /// The stage that AutoMix takes maps from unless told: the block in the middle, the third stage.
    pub(crate) fn middle(&self) -> usize {
        match self {
            Self::Vit(vit) => (vit.config().depth / 2).saturating_sub(1),
            Self::ResNet(_) => 2,
        }
    }

    /// Features of the map that stage `stage` leaves.
    pub(crate) fn stage_dim(&self, stage: usize) -> usize {
        match self {
            Self::Vit(vit) => vit.config().embed_dim,
            Self::ResNet(resnet) => resnet.config().dim(stage),
        }
    }

    /// One vector for each image, `[b, d]`, to `out`.
    pub(crate) fn forward(
        &self,
        weights: &mut Weights<'_>,
        input: TrunkInput<'_>,
        kept: &mut TrunkActivations,
        out: &mut Vec<f32>,
    ) {
        let TrunkInput { images, side, drops, mix } = input;
        match self {
            Self::Vit(vit) => {
                let drop = |block| drops.0.of(drops.1, block);
                vit.forward_mixed(weights.params, images, (side, side), drop, mix, &mut kept.vit, out);
            }
            Self::ResNet(resnet) => resnet.forward(weights, (images, side), mix, &mut kept.resnet, out),
        }
    }

    /// The map of a stage, `[b · t, C]`, to `map`; returns its grid. Nothing behind it is computed, and there is no way back.
    pub(crate) fn map(
        &self,
        weights: &mut Weights<'_>,
        input: TrunkInput<'_>,
        stage: usize,
        kept: &mut TrunkActivations,
        map: &mut Vec<f32>,
    ) -> (usize, usize) {
        let TrunkInput { images, side, drops, .. } = input;
        match self {
            Self::Vit(vit) => {
                let drop = |block| drops.0.of(drops.1, block);
                vit.forward_to(weights.params, images, (side, side), drop, (stage, &mut kept.vit), map)
            }
            Self::ResNet(resnet) => resnet.map(weights, (images, side), stage, &mut kept.resnet, map),
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
            Self::ResNet(resnet) => resnet.backward(params, grads, dout, &mut kept.resnet, dimages),
        }
    }

    /// The backbone among parameters and running statistics.
    pub(crate) fn exported<'a>(
        &'a self,
        network: &'static str,
        parameters: (&'a Layout, &'a [f32]),
        buffers: (&'a Layout, &'a [f32]),
    ) -> Exported<'a> {
        let (model, readout) = match self {
            Self::Vit(vit) => (ExportedModel::Vit(vit.config()), vit.readout().word()),
            Self::ResNet(resnet) => (ExportedModel::ResNet(resnet.config()), Readout::Mean.word()),
        };
        Exported { network, parts: [parameters, buffers], model, readout }
    }

    /// Its sizes, as arguments of a checkpoint.
    pub(crate) fn arguments<'a>(&self) -> Vec<(&'static str, TorchValue<'a>)> {
        match self {
            Self::Vit(vit) => vit_arguments(vit.config(), vit.readout().word()),
            Self::ResNet(resnet) => vec![("arch", text(&resnet.config().architecture()))],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use safetensors::SafeTensors;

    use super::*;
    use crate::batch_norm::Mode;

    fn read() -> BTreeMap<String, Vec<f32>> {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/pretrain/resnet.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |data: &[u8]| data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        file.iter().map(|(name, view)| (name.to_owned(), floats(view.data()))).collect()
    }

    fn close(got: &[f32], want: &[f32], relative: f32, what: &str) {
        assert_eq!(got.len(), want.len(), "{what}");
        let limit = relative * want.iter().fold(0.0, |top: f32, x| top.max(x.abs())) + 1e-6;
        let off = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= limit, "{what}: off by {off:e}, allowed {limit:e}");
    }

    /// PyTorch's numbers, in double precision (`tests/golden/pretrain/resnet.py`).
    #[test]
    fn a_resnet_there_and_back_is_pytorchs() {
        let tensors = read();
        for (name, bottleneck, small_stem, side) in
            [("basic", false, true, 16), ("bottleneck", true, false, 64)]
        {
            let config = ResNetConfig { bottleneck, blocks: [1; 4], width: 4, small_stem };
            let (mut layout, mut buffers) = (Layout::default(), Layout::default());
            let trunk =
                Trunk::add(&mut layout, &mut buffers, "", &TrunkConfig::ResNet(config), Readout::Mean);
            let of = |key: &str| &tensors[&format!("{name}.{key}")];
            let params: Vec<f32> =
                layout.tensors().iter().flat_map(|t| of(&format!("param.{}", t.name)).clone()).collect();
            let mut running = crate::init::buffers(&buffers);
            let drops = Drops::of_images(0.0, 0, 0, 0, 1, 0..3);
            let input = TrunkInput { images: of("images"), side, drops: (&drops, 0), mix: None };
            let (mut kept, mut out, mut dimages) = (TrunkActivations::default(), Vec::new(), Vec::new());
            let mut weights = Weights { params: &params, buffers: &mut running, mode: Mode::Train };
            trunk.forward(&mut weights, input, &mut kept, &mut out);
            close(&out, of("out"), 1e-5, "out");
            let mut grads = vec![0.0; layout.len()];
            trunk.backward(&params, &mut grads, of("weight"), &mut kept, Some(&mut dimages));
            for tensor in layout.tensors() {
                let want = of(&format!("grad.{}", tensor.name));
                close(tensor.slot.of(&grads), want, 1e-4, &format!("{name} {}", tensor.name));
            }
            close(&dimages, of("dimages"), 1e-4, "images");
            for tensor in buffers.tensors() {
                close(tensor.slot.of(&running), of(&format!("after.{}", tensor.name)), 1e-5, &tensor.name);
            }
            let mut weights = Weights { params: &params, buffers: &mut running, mode: Mode::Eval };
            trunk.forward(&mut weights, input, &mut kept, &mut out);
            close(&out, of("out_eval"), 1e-5, "out of running statistics");
        }
    }
}
