//! A trunk with the head of prototypes: what SwAV and DeepCluster-v2 train.
//!
//! Views of one size go through the trunk together, then all views through the head at once, so that its batch norm sees
//! the whole batch. Rows are view-major: all images of view 0, then of view 1, …

use crate::Result;
use crate::batch_norm::Mode;
use crate::config::{BackboneConfig, ViewsConfig};
use crate::drop_path::Drops;
use crate::init::{self, Init};
use crate::network::{BACKBONE, Stack};
use crate::optim::{Optimizer, StepSize};
use crate::params::Layout;
use crate::projector::{Projector, ProjectorActivations, ProjectorConfig};
use crate::torch_checkpoint;
use crate::torch_file::TorchValue;
use crate::training::{Exported, Notes, Views};
use crate::trunk::{Trunk, TrunkActivations, TrunkInput};
use crate::weights::Weights;

/// The network without its weights.
#[derive(Debug, Clone)]
pub struct ClusterNetwork {
    /// All parameters.
    pub layout: Layout,
    /// Running statistics of batch norms.
    pub buffers: Layout,
    /// The backbone.
    pub trunk: Trunk,
    /// The head.
    pub projector: Projector,
}

/// What a pass leaves for the way back.
#[derive(Debug, Default)]
pub(crate) struct ClusterWork {
    stacks: [Stack; 2],
    groups: [TrunkActivations; 2],
    used: usize, // groups of this pass
    pub(crate) projector: ProjectorActivations,
    group_out: Vec<f32>,
    readouts: Vec<f32>, // [views · images, d]
    dreadouts: Vec<f32>,
}

impl ClusterWork {
    /// What the head read, `[views · images, d]`.
    pub(crate) fn readouts(&self) -> &[f32] {
        &self.readouts
    }
}

impl ClusterNetwork {
    /// * `heads`: tables of prototypes.
    ///
    /// # Errors
    /// If the backbone's sizes cannot be.
    pub(crate) fn new(backbone: &BackboneConfig, head: &ProjectorConfig, heads: usize) -> Result<Self> {
        let (mut layout, mut buffers) = (Layout::default(), Layout::default());
        let sizes = backbone.trunk()?;
        let trunk = Trunk::add(&mut layout, &mut buffers, BACKBONE, &sizes, backbone.readout);
        let projector = Projector::add(&mut layout, &mut buffers, trunk.dim(), head, heads);
        Ok(Self { layout, buffers, trunk, projector })
    }

    /// Fresh parameters and running statistics.
    ///
    /// # Errors
    /// If the backbone's sizes cannot be.
    pub(crate) fn start(&self, backbone: &BackboneConfig, seed: u64) -> Result<(Vec<f32>, Vec<f32>)> {
        let init = Init { seed, std: backbone.init_std, patch_size: backbone.trunk()?.granule() };
        Ok((init.parameters(&self.layout), init::buffers(&self.buffers)))
    }

    /// The first `views` views of the images through trunk and head; embeddings are left in `work.projector`.
    pub(crate) fn forward(
        &self,
        params: &[f32],
        buffers: &mut [f32],
        images: &[Views],
        views: usize,
        drops: &Drops,
        work: &mut ClusterWork,
    ) {
        work.readouts.clear();
        work.used = 0;
        for (group, range) in [0..views.min(2), 2..views].into_iter().enumerate() {
            if range.is_empty() {
                continue;
            }
            let stack = &mut work.stacks[group];
            stack.fill(images, range);
            let input =
                TrunkInput { images: &stack.pixels, side: stack.side, drops: (drops, group), mix: None };
            let mut weights = Weights { params, buffers, mode: Mode::Train };
            self.trunk.forward(&mut weights, input, &mut work.groups[group], &mut work.group_out);
            work.readouts.extend_from_slice(&work.group_out);
            work.used = group + 1;
        }
        self.projector.embed(params, buffers, Mode::Train, &work.readouts, &mut work.projector);
    }

    /// The backbone among parameters and running statistics.
    pub(crate) fn exported<'a>(&'a self, params: &'a [f32], buffers: &'a [f32]) -> Exported<'a> {
        self.trunk.exported("the network", (&self.layout, params), (&self.buffers, buffers))
    }

    /// SwAV's checkpoint; `epoch` is the next one.
    pub(crate) fn checkpoint<'a>(
        &self,
        [params, buffers]: [&'a [f32]; 2],
        optimizer: (&'a Optimizer, StepSize),
        epoch: usize,
        notes: &Notes,
    ) -> TorchValue<'a> {
        let network = [(&self.layout, params), (&self.buffers, buffers)];
        torch_checkpoint::cluster(&network, optimizer.0, optimizer.1, epoch, notes, &self.trunk)
    }

    /// Adds the gradients of all parameters but the prototypes, from that of the embeddings.
    pub(crate) fn backward(&self, params: &[f32], grads: &mut [f32], dz: &[f32], work: &mut ClusterWork) {
        self.projector.embed_backward(params, grads, dz, &mut work.projector, &mut work.dreadouts);
        let mut rest = work.dreadouts.as_slice();
        for group in 0..work.used {
            let (own, after) = rest.split_at(work.stacks[group].rows * self.trunk.dim());
            self.trunk.backward(params, grads, own, &mut work.groups[group], None);
            rest = after;
        }
    }
}

/// Stochastic depth of a whole batch.
pub(crate) fn drops(
    backbone: &BackboneConfig,
    trunk: &Trunk,
    (seed, step): (u64, usize),
    views: &ViewsConfig,
    images: usize,
) -> Drops {
    Drops::of_images(backbone.drop_path, trunk.depth(), seed, step, views.count(), 0..images)
}
