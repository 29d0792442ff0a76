//! The layers that the models share, named as in the papers.

mod attention;
mod layer_norm;
mod linear;
mod rope;

pub(crate) use attention::{attention, attention_weights};
pub(crate) use layer_norm::LayerNorm;
pub(crate) use linear::Linear;
pub(crate) use rope::Rope;
