//! Map: a reducer at one target dimension, ready to project rows; what [`Reducer::at`](crate::Reducer::at) returns.
//!
//! Linear reducers are [`Affine`] maps, which callers may take apart. Others only project.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2};

use crate::affine::{Affine, Projection};
#[cfg(feature = "hnne")]
use crate::hnne::Hnne;
use crate::stego_head::StegoHead;
use crate::umap::Umap;
use crate::{Result, Scaler};

/// A map `[n, d] → [n, k]`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Map {
    /// Of identity, principal components and random projections.
    Affine(Affine),
    /// Places among those of a layout.
    Umap(Arc<Umap>),
    /// A trained head.
    Stego(Arc<StegoHead>),
    /// Principal components, rearranged by clusters.
    #[cfg(feature = "hnne")]
    Hnne(Arc<Hnne>),
}

impl Map {
    /// The affine map, of a linear reducer.
    #[must_use]
    pub fn affine(&self) -> Option<&Affine> {
        match self {
            Self::Affine(affine) => Some(affine),
            _ => None,
        }
    }

    /// Whether the result of a row depends on the rows beside it.
    #[must_use]
    pub fn is_batch_scaled(&self) -> bool {
        match self {
            Self::Affine(map) => map.is_batch_scaled(),
            Self::Stego(_) => false,
            Self::Umap(map) => map.params().scaler == Scaler::Batch,
            #[cfg(feature = "hnne")]
            Self::Hnne(map) => map.params().scaler == Scaler::Batch,
        }
    }
}

impl Projection for Map {
    fn input_dim(&self) -> usize {
        match self {
            Self::Affine(map) => map.input_dim(),
            Self::Stego(map) => map.input_dim(),
            Self::Umap(map) => map.input_dim(),
            #[cfg(feature = "hnne")]
            Self::Hnne(map) => map.input_dim(),
        }
    }

    fn output_dim(&self) -> usize {
        match self {
            Self::Affine(map) => map.output_dim(),
            Self::Stego(map) => map.output_dim(),
            Self::Umap(map) => map.output_dim(),
            #[cfg(feature = "hnne")]
            Self::Hnne(map) => map.output_dim(),
        }
    }

    fn transform(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        match self {
            Self::Affine(map) => map.transform(rows),
            Self::Stego(map) => map.transform(rows),
            Self::Umap(map) => map.transform(rows),
            #[cfg(feature = "hnne")]
            Self::Hnne(map) => map.transform(rows),
        }
    }
}

impl From<Affine> for Map {
    fn from(affine: Affine) -> Self {
        Self::Affine(affine)
    }
}
