//! What a network with batch norms computes with.

use crate::batch_norm::Mode;

/// Parameters, running statistics, and which of them a batch norm uses.
pub(crate) struct Weights<'a> {
    pub(crate) params: &'a [f32],
    pub(crate) buffers: &'a mut [f32],
    pub(crate) mode: Mode,
}
