//! A residual block: two or three convolutions, a shortcut, and a rectifier of their sum.

use kernels::simd;

use super::conv_norm::{ConvNorm, ConvNormActivations};
use crate::conv::{ConvScratch, Size};
use crate::weights::Weights;

/// A residual block: two or three convolutions, and a shortcut.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) layers: Vec<ConvNorm>,
    pub(super) shortcut: Option<ConvNorm>,
}

#[derive(Debug, Default)]
pub(super) struct BlockActivations {
    pub(super) layers: Vec<ConvNormActivations>,
    pub(super) shortcut: ConvNormActivations,
    pub(super) out: Vec<f32>, // after the rectifier
    pub(super) size: Size,
}

impl Block {
    pub(super) fn forward(
        &self,
        weights: &mut Weights<'_>,
        (x, size): (&[f32], Size),
        kept: &mut BlockActivations,
        scratch: &mut ConvScratch,
    ) {
        let Weights { params, buffers, mode } = weights;
        kept.layers.resize_with(self.layers.len(), ConvNormActivations::default);
        kept.layers[0].input.clear();
        kept.layers[0].input.extend_from_slice(x);
        kept.layers[0].size = size;
        for (i, layer) in self.layers.iter().enumerate() {
            let (own, rest) = kept.layers.split_at_mut(i + 1);
            match rest.first_mut() {
                Some(next) => {
                    next.size = layer.forward(params, buffers, *mode, &mut own[i], scratch, &mut next.input);
                    next.input.iter_mut().for_each(|x| *x = x.max(0.0));
                }
                None => {
                    kept.size = layer.forward(params, buffers, *mode, &mut own[i], scratch, &mut kept.out)
                }
            }
        }
        match &self.shortcut {
            Some(shortcut) => {
                let own = &mut kept.shortcut;
                own.input.clear();
                own.input.extend_from_slice(x);
                own.size = size;
                let mut identity = Vec::new();
                shortcut.forward(params, buffers, *mode, own, scratch, &mut identity);
                kept.out.iter_mut().zip(&identity).for_each(|(out, x)| *out = (*out + x).max(0.0));
            }
            None => kept.out.iter_mut().zip(x).for_each(|(out, x)| *out = (*out + x).max(0.0)),
        }
    }

    /// The gradient of what leaves is in `dx`, and so is in the end that of what enters.
    pub(super) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        kept: &mut BlockActivations,
        scratch: &mut ConvScratch,
        [dx, branch, next]: [&mut Vec<f32>; 3],
    ) {
        rectify_backward(dx, &kept.out);
        branch.clone_from(dx);
        for (i, layer) in self.layers.iter().enumerate().rev() {
            layer.backward(params, grads, branch, &mut kept.layers[i], scratch, Some(next));
            if i > 0 {
                rectify_backward(next, &kept.layers[i].input);
            }
            std::mem::swap(branch, next);
        }
        if let Some(shortcut) = &self.shortcut {
            shortcut.backward(params, grads, dx, &mut kept.shortcut, scratch, Some(next));
            std::mem::swap(dx, next);
        }
        dx.iter_mut().zip(&**branch).for_each(|(dx, branch)| *dx += branch);
    }
}

/// The gradient through a rectifier, in place, from what left it.
pub(super) fn rectify_backward(d: &mut [f32], out: &[f32]) {
    simd(
        #[inline(always)]
        || {
            for (d, &out) in d.iter_mut().zip(out) {
                *d = if out <= 0.0 { 0.0 } else { *d };
            }
        },
    );
}
