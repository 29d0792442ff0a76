//! The head's sizes, and its parameters as tensors in the order and under the names of the original's checkpoints.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::error::{Result, expect_range};

/// The head's branches (the original's `projection_type`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// The linear branch alone.
    Linear,
    /// Both branches.
    #[default]
    Nonlinear,
}

/// Sizes of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadShape {
    /// `d`, numbers of a feature.
    pub embed_dim: usize,
    /// `k`, numbers of a code.
    pub code_dim: usize,
    /// Which branches there are.
    pub kind: HeadKind,
}

/// An axis of a tensor.
#[derive(Clone, Copy)]
enum Axis {
    Embed,
    Code,
}

/// Names behind `net.` in the original's checkpoints, and shapes without the two axes of the 1×1 kernel. The first two are the linear
/// branch.
const TENSORS: [(&str, &[Axis]); 6] = [
    ("cluster1.0.weight", &[Axis::Code, Axis::Embed]),
    ("cluster1.0.bias", &[Axis::Code]),
    ("cluster2.0.weight", &[Axis::Embed, Axis::Embed]),
    ("cluster2.0.bias", &[Axis::Embed]),
    ("cluster2.2.weight", &[Axis::Code, Axis::Embed]),
    ("cluster2.2.bias", &[Axis::Code]),
];

/// A tensor of the head: its name, its shape (a weight's as a convolution's, `[to, from, 1, 1]`), and where it lies among the
/// parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadTensor {
    /// Name behind `net.` in the original's checkpoints.
    pub name: &'static str,
    /// Shape there.
    pub shape: Vec<usize>,
    /// Place in [`super::Head::parameters`].
    pub range: Range<usize>,
}

impl HeadShape {
    /// The tensors in the order in which they lie.
    #[must_use]
    pub fn tensors(&self) -> Vec<HeadTensor> {
        let used = match self.kind {
            HeadKind::Linear => &TENSORS[..2],
            HeadKind::Nonlinear => &TENSORS[..],
        };
        let mut start = 0;
        let tensor = |&(name, axes): &(&'static str, &[Axis])| {
            let mut shape: Vec<usize> = axes.iter().map(|&axis| self.len_of(axis)).collect();
            let range = start..start + shape.iter().product::<usize>();
            start = range.end;
            if shape.len() == 2 {
                shape.extend([1, 1]);
            }
            HeadTensor { name, shape, range }
        };
        used.iter().map(tensor).collect()
    }

    /// Number of parameters.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.tensors().last().map_or(0, |last| last.range.end)
    }

    fn len_of(&self, axis: Axis) -> usize {
        match axis {
            Axis::Embed => self.embed_dim,
            Axis::Code => self.code_dim,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        expect_range(self.embed_dim > 0, "feature dimension", "at least 1", self.embed_dim)?;
        expect_range(self.code_dim > 0, "code dimension", "at least 1", self.code_dim)
    }
}
