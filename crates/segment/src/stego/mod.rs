//! STEGO (Hamilton et al., 2022): a small head on frozen features, trained without labels so that its codes agree where features
//! correspond.
//!
//! [`Head`] maps features to codes; [`CorrespondenceParams::gradient`] is the loss; [`Trainer`] makes the steps, with a linear and a
//! cluster probe beside the head. Gradients are written out, without a tape. Images are tasks, and sums over images run
//! in their order: the same bits for any number of threads.
//!
//! Shapes: `b` images of `t = gh·gw` tokens, features `[b, t, d]`, codes `[b, t, k]`.

mod alignment;
mod batch;
mod best;
mod config;
mod correspondence;
mod crf_loss;
mod dropout;
pub(crate) mod error;
mod head;
mod head_shape;
mod image_pairs;
mod init;
mod negatives;
mod neighbours;
mod nested;
mod on_device;
mod optional_terms;
mod pair_order;
mod reconstruction;
mod sample;
mod screen;
mod trained;
mod trainer;
pub(crate) mod unit;

pub use alignment::{AlignmentGradient, aligned_points, alignment_gradient};
pub use config::{CorrespondenceParams, StegoConfig};
pub use correspondence::{CorrespondenceGradient, CorrespondenceSide, CorrespondenceValue, PairMeans};
pub use crf_loss::{CodeGradient, CrfLoss};
pub use dropout::{DROPOUT, Masks};
pub use error::{Error, FetchError, Result};
pub use head::Head;
pub use head_shape::{HeadKind, HeadShape, HeadTensor};
pub use negatives::{Negatives, without_fixed_points};
pub use neighbours::{Neighbours, nearest_neighbours, pooled_directions};
pub use nested::Ladder;
pub use optional_terms::Augmented;
pub use pair_order::PairOrder;
pub use reconstruction::{Decoder, ReconstructionGradient};
pub use sample::Points;
pub use trained::Trained;
pub use trainer::{StegoStep, TokenSet, Trainer, TrainerState};
