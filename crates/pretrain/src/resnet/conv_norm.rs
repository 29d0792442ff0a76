//! A convolution and the batch norm behind it, there and back.

use crate::batch_norm::{BatchNorm, BatchNormActivations, Mode};
use crate::conv::{Conv, ConvScratch, Size};
use crate::params::Layout;

/// A convolution and the batch norm behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvNorm {
    pub(super) conv: Conv,
    pub(super) norm: BatchNorm,
}

/// What it keeps: what went in, and the batch norm's.
#[derive(Debug, Default)]
pub(super) struct ConvNormActivations {
    pub(super) input: Vec<f32>,
    pub(super) size: Size,
    pub(super) norm: BatchNormActivations,
}

impl ConvNorm {
    pub(super) fn add(
        layout: &mut Layout,
        buffers: &mut Layout,
        (conv, norm): (&str, &str),
        [inputs, outputs, kernel, stride]: [usize; 4],
    ) -> Self {
        Self {
            conv: Conv::add(layout, conv, (inputs, outputs), kernel, (stride, kernel / 2)),
            norm: BatchNorm::add(layout, buffers, norm, outputs),
        }
    }

    /// From `kept.input`, of `kept.size`, to `y`.
    pub(super) fn forward(
        &self,
        params: &[f32],
        buffers: &mut [f32],
        mode: Mode,
        kept: &mut ConvNormActivations,
        scratch: &mut ConvScratch,
        y: &mut Vec<f32>,
    ) -> Size {
        self.conv.forward(params, &kept.input, kept.size, scratch, y);
        self.norm.forward(params, buffers, mode, y, &mut kept.norm);
        self.conv.size(kept.size)
    }

    /// Turns `dy` into the gradient before the batch norm, and writes the input's to `dx` where it is asked for.
    pub(super) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        dy: &mut [f32],
        kept: &mut ConvNormActivations,
        scratch: &mut ConvScratch,
        dx: Option<&mut Vec<f32>>,
    ) {
        self.norm.backward(params, grads, &mut kept.norm, dy);
        self.conv.backward(params, grads, dy, (&kept.input, kept.size), scratch, dx);
    }
}
