//! Feature rows to fewer dimensions. Estimators (`…Params`) are fitted on rows or on streamed moments; what comes out is an
//! affine map for each target dimension. This crate reads no caches and knows no images: rows in, rows out.
#![doc = include_str!("../README.md")]

mod affine;
mod error;
mod johnson_lindenstrauss;
mod linfa_pca;
mod moments;
mod pca;
mod random_projection;
mod reducer;
mod scaler;

pub use affine::{Affine, Projection};
pub use error::{Error, Result};
pub use johnson_lindenstrauss::johnson_lindenstrauss_min_dim;
pub use moments::Moments;
pub use pca::{Pca, PcaParams, Solver};
pub use random_projection::{RandomProjection, RandomProjectionKind, RandomProjectionParams};
pub use reducer::{Identity, Reducer};
pub use scaler::Scaler;
