//! Feature rows to fewer dimensions. Estimators (`…Params`) are fitted on rows or on streamed moments; what comes out is an
//! affine map for each target dimension. This crate reads no caches and knows no images: rows in, rows out.
#![doc = include_str!("../README.md")]

mod affine;
mod eigen;
mod error;
#[cfg(feature = "hnne")]
mod hnne;
mod image_moments;
mod intrinsic;
mod johnson_lindenstrauss;
mod linfa_pca;
mod map;
mod metric;
mod moments;
mod neighbours;
mod pca;
mod random_projection;
mod reducer;
mod reducer_file;
mod scaler;
mod spectrum;
mod stego_head;
mod symmetric;
mod trustworthiness;
mod umap;

pub use affine::{Affine, Projection};
pub use error::{Error, Result};
#[cfg(feature = "hnne")]
pub use hnne::{HNNE_NOTICE, Hnne, HnneFit, HnneParams};
pub use image_moments::{BLOCK_IMAGES, ImageMoments};
pub use intrinsic::{IntrinsicDimension, IntrinsicDimensionParams, intrinsic_dimension};
pub use johnson_lindenstrauss::johnson_lindenstrauss_min_dim;
pub use map::Map;
pub use metric::Metric;
pub use moments::Moments;
pub use neighbours::{NeighbourSet, Neighbours};
pub use pca::{Pca, PcaParams, Solver};
pub use random_projection::{RandomProjection, RandomProjectionKind, RandomProjectionParams};
pub use reducer::{Identity, Reducer};
pub use scaler::Scaler;
pub use spectrum::Spectrum;
pub use stego_head::{HeadLayer, StegoHead};
pub use trustworthiness::trustworthiness;
pub use umap::{Umap, UmapParams};
