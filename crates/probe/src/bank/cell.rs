//! One probe of a bank: what is trained, and what comes of it.

use ndarray::{Array2, ArrayView2};

use crate::{ClusterProbe, LinearProbe, Probe, upsample_argmax};

/// What kind of probe a cell trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellKind {
    /// A [`LinearProbe`].
    Linear,
    /// A [`ClusterProbe`] with this many centres.
    Cluster(usize),
}

/// One probe of a bank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BankCell {
    /// Which source it sees.
    pub source: usize,
    /// `k`: it sees the first `k` numbers of every token,
    pub dim: usize,
    /// times this factor (`√(K / k)` for a random projection).
    pub scale: f32,
    /// Linear or cluster probe.
    pub kind: CellKind,
    /// Seed of its initial weights.
    pub seed: u64,
}

/// A trained probe.
#[derive(Debug, Clone, PartialEq)]
pub enum BankProbe {
    /// Weights for tokens that have been scaled.
    Linear(LinearProbe),
    /// Centres.
    Cluster(ClusterProbe),
}

impl Probe for BankProbe {
    fn outputs(&self) -> usize {
        match self {
            Self::Linear(probe) => probe.outputs(),
            Self::Cluster(probe) => probe.outputs(),
        }
    }

    fn scores(&self, tokens: ArrayView2<'_, f32>) -> Array2<f32> {
        match self {
            Self::Linear(probe) => probe.scores(tokens),
            Self::Cluster(probe) => probe.scores(tokens),
        }
    }
}

impl BankProbe {
    /// Predicted class or cluster per pixel, `[h, w]`, from the tokens `[t, k]` of one image.
    ///
    /// # Panics
    /// As [`upsample_argmax`] and [`Probe::scores`].
    pub fn predict(
        &self,
        tokens: ArrayView2<'_, f32>,
        grid: (usize, usize),
        size: (usize, usize),
    ) -> Array2<u8> {
        upsample_argmax(self.scores(tokens).view(), grid, size)
    }
}
