//! `[reduce]`: which reductions, to which dimensions.

use serde::{Deserialize, Serialize};

use crate::dim::Dim;
use crate::stages::layout::LayoutMethod;

/// `[reduce]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReduceConfig {
    /// `none` (all features: the baseline), `pca`, `rp`, `rp-sparse`, `umap`, `hnne` (where it was built in), `stego` (a head for
    /// each dimension), `stego-nested` (one for all).
    pub methods: Vec<String>,
    /// Target dimensions; `"full"` is the width of the features. `none` always means full; `umap`, `hnne`, `stego` leave it out, but for `stego` as a number.
    pub dims: Vec<Dim>,
    /// Column scaling: `none`, `train`, `batch`.
    pub scaler: String,
    /// First seed of the random projections; run `i` of a sweep over seeds uses `seed + i`-th projection.
    pub seed: u64,
    /// Tokens that `umap` and `hnne` are fitted on (10 000).
    pub layout_tokens: usize,
    /// Images that these are drawn from (5000).
    pub layout_images: usize,
    /// How `umap` and `hnne` compare tokens: `cosine`, `euclidean`.
    pub metric: String,
    /// Neighbours of a token in `umap` (15).
    pub n_neighbors: usize,
    /// How close tokens may lie in `umap` (0.1).
    pub min_dist: f64,
}

impl Default for ReduceConfig {
    fn default() -> Self {
        Self {
            methods: ["none", "pca", "rp"].map(String::from).into(),
            dims: [3, 6, 12, 24, 48, 96, 192].map(Dim::To).into_iter().chain([Dim::Full]).collect(),
            scaler: "train".into(),
            seed: 0,
            layout_tokens: 10_000,
            layout_images: 5000,
            metric: "cosine".into(),
            n_neighbors: 15,
            min_dist: 0.1,
        }
    }
}

impl ReduceConfig {
    /// The method, if it is fitted on a sample of the tokens and for one dimension.
    pub(crate) fn layout(&self, method: &str) -> Option<LayoutMethod> {
        match method {
            "umap" => Some(LayoutMethod::Umap {
                n_neighbors: self.n_neighbors,
                min_dist: self.min_dist,
                n_epochs: None,
            }),
            #[cfg(feature = "hnne")]
            "hnne" => Some(LayoutMethod::Hnne),
            _ => None,
        }
    }
}
