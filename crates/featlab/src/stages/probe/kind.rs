//! The probes by name.

use anyhow::Result;
use probe::CellKind;
use serde::{Deserialize, Serialize};

use crate::exit::usage;

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Softmax regression of every pixel, by gradient steps.
    Linear,
    /// Centres by cosine, by gradient steps; classes only name them.
    Cluster,
    /// Votes of the most similar training patches.
    Knn,
    /// Least squares on the classes' shares of each patch, in closed form.
    Ridge,
    /// Spherical k-means of training patches; classes only name the clusters.
    KMeans,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Linear, Self::Cluster, Self::Knn, Self::Ridge, Self::KMeans];

    /// The name used on the command line and in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cluster => "cluster",
            Self::Knn => "knn",
            Self::Ridge => "ridge",
            Self::KMeans => "kmeans",
        }
    }

    /// Reads a name.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        let names = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.name() == word);
        found.ok_or_else(|| usage(format!("unknown probe \"{word}\", expected one of {names}")))
    }

    /// Whether gradient steps train it, in a bank.
    pub(crate) fn takes_steps(self) -> bool {
        matches!(self, Self::Linear | Self::Cluster)
    }

    /// Whether its outputs are clusters, which have to be named.
    pub(crate) fn is_unsupervised(self) -> bool {
        matches!(self, Self::Cluster | Self::KMeans)
    }

    /// What a bank makes of it: scores that are linear in the tokens, or cosines with `clusters` centres.
    pub(crate) fn of_bank(self, clusters: usize) -> CellKind {
        if self.is_unsupervised() { CellKind::Cluster(clusters) } else { CellKind::Linear }
    }
}
