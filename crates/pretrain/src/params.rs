//! All parameters of a network in one vector, and the names of its parts.
//!
//! Student, teacher, gradients and the optimiser's moments are vectors of the same length, so that a moving average is one
//! loop and a checkpoint one list. A [`Slot`] says where a tensor lies in any of them; a layer holds slots, not weights.

use std::ops::Range;

/// Where a tensor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    start: usize,
    end: usize,
}

impl Slot {
    /// The tensor's indices.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// The tensor in a vector of all parameters.
    #[must_use]
    pub fn of(self, all: &[f32]) -> &[f32] {
        &all[self.range()]
    }

    /// The tensor in a vector of all parameters, to be changed.
    #[must_use]
    pub fn of_mut(self, all: &mut [f32]) -> &mut [f32] {
        &mut all[self.range()]
    }
}

/// A tensor by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the state dict, such as `backbone.blocks.0.attn.qkv.weight`.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Where it lies.
    pub slot: Slot,
}

impl TensorSpec {
    /// Whether weight decay leaves it alone, as DINO rules: biases and all tensors of one dimension.
    #[must_use]
    pub fn is_exempt_from_decay(&self) -> bool {
        self.name.ends_with(".bias") || self.shape.len() == 1
    }
}

/// The list of a network's tensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    tensors: Vec<TensorSpec>,
    len: usize,
}

impl Layout {
    /// Appends a tensor.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize]) -> Slot {
        let slot = Slot { start: self.len, end: self.len + shape.iter().product::<usize>() };
        self.len = slot.end;
        self.tensors.push(TensorSpec { name: name.into(), shape: shape.to_vec(), slot });
        slot
    }

    /// The tensors in the order in which they lie.
    #[must_use]
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Number of parameters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no parameter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Two tensors of one vector, `first` before `second`, both to be changed.
pub(crate) fn two_mut(all: &mut [f32], first: Slot, second: Slot) -> (&mut [f32], &mut [f32]) {
    let (head, tail) = all.split_at_mut(second.start);
    (&mut head[first.range()], &mut tail[..second.end - second.start])
}
