//! STEGO (Hamilton et al., 2022): a small head on frozen features, trained without labels so that its codes agree where features
//! correspond.
//!
//! [`Head`] maps features to codes; [`CorrespondenceParams::gradient`] is the loss; [`Trainer`] makes the steps, with a linear and a
//! cluster probe beside the head. Gradients are written out, without a tape. Images are tasks, and sums over images run
//! in their order: the same bits for any number of threads.
//!
//! Shapes: `b` images of `t = gh·gw` tokens, features `[b, t, d]`, codes `[b, t, k]`.

mod config;
mod correspondence;
mod dropout;
mod error;
mod head;
mod image_pairs;
mod init;
mod negatives;
mod nested;
mod sample;
mod unit;

pub use config::{CorrespondenceParams, StegoConfig};
pub use correspondence::{CorrespondenceGradient, CorrespondenceSide, CorrespondenceValue, PairMeans};
pub use dropout::{DROPOUT, Masks};
pub use error::{Error, FetchError, Result};
pub use head::{Head, HeadKind, HeadShape, HeadTensor};
pub use negatives::{Negatives, without_fixed_points};
pub use nested::Ladder;
pub use sample::Points;
