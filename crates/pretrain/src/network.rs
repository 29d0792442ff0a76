//! A backbone with DINO's head, and where their parameters lie.

use backbone::VitConfig;

use crate::batch_norm::Mode;
use crate::head::{Head, HeadActivations, HeadConfig};
use crate::params::Layout;
use crate::training::Views;
use crate::vit::{Activations, Readout, Vit};

/// Names of backbone and head start so, as in the original's checkpoints.
pub(crate) const BACKBONE: &str = "backbone.";
pub(crate) const HEAD: &str = "head.";

/// Student and teacher have this network in common; each has parameters of its own.
#[derive(Debug, Clone)]
pub struct Network {
    /// All tensors that are averaged, and, except frozen magnitudes, trained.
    pub layout: Layout,
    /// Running statistics of batch norms; empty without batch norm.
    pub buffers: Layout,
    /// The backbone.
    pub vit: Vit,
    /// The head.
    pub head: Head,
}

impl Network {
    /// The network of these sizes.
    #[must_use]
    pub fn new(vit: &VitConfig, readout: Readout, head: &HeadConfig) -> Self {
        let (mut layout, mut buffers) = (Layout::default(), Layout::default());
        let dim = vit.embed_dim;
        let vit = Vit::add(&mut layout, BACKBONE, vit, readout);
        let head = Head::add(&mut layout, &mut buffers, HEAD, dim, head);
        Self { layout, buffers, vit, head }
    }
}

/// What a network's passes leave behind, for views of two sizes.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub(crate) groups: [Activations; 2], // global and local views
    pub(crate) head: HeadActivations,
    group_cls: Vec<f32>,
    cls: Vec<f32>, // [views · images, d], readouts
    dcls: Vec<f32>,
}

/// Views of one size, stacked view-major: `[views · images, 3, side, side]`.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    pub(crate) pixels: Vec<f32>,
    pub(crate) side: usize,
    pub(crate) rows: usize,
}

impl Stack {
    /// Stacks views `range` of the images.
    pub(crate) fn fill(&mut self, images: &[Views], range: std::ops::Range<usize>) {
        self.pixels.clear();
        self.rows = range.len() * images.len();
        for view in range {
            for image in images {
                self.side = image[view].dim().1;
                self.pixels.extend(image[view].iter());
            }
        }
    }
}

impl Network {
    /// Logits of all views, `[Σ rows, K]`: the groups go through the backbone one by one, through the head at once.
    pub(crate) fn forward(
        &self,
        params: &[f32],
        buffers: &mut [f32],
        stacks: &[&Stack],
        mut drop: impl FnMut(usize, usize) -> [crate::drop_path::Branch; 2],
        work: &mut Workspace,
        logits: &mut Vec<f32>,
    ) {
        work.cls.clear();
        for (group, stack) in stacks.iter().enumerate() {
            let kept = &mut work.groups[group];
            let size = (stack.side, stack.side);
            self.vit.forward(
                params,
                &stack.pixels,
                size,
                |block| drop(group, block),
                kept,
                &mut work.group_cls,
            );
            work.cls.extend_from_slice(&work.group_cls);
        }
        self.head.forward(params, buffers, Mode::Train, &work.cls, &mut work.head, logits);
    }

    /// Adds the gradients of all parameters, save that [`Head::finish`] must follow.
    pub(crate) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        stacks: &[&Stack],
        dlogits: &[f32],
        work: &mut Workspace,
    ) {
        self.head.backward(params, grads, dlogits, &mut work.head, &mut work.dcls);
        let mut rest = work.dcls.as_slice();
        for (stack, kept) in stacks.iter().zip(&mut work.groups) {
            let (dcls, after) = rest.split_at(stack.rows * self.vit.config().embed_dim);
            self.vit.backward(params, grads, dcls, kept);
            rest = after;
        }
    }

    /// Class tokens `[n, d]` of the last forward pass.
    pub(crate) fn cls<'a>(&self, work: &'a Workspace) -> &'a [f32] {
        &work.cls
    }
}
