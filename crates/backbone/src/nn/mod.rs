//! The layers that the models share, named as in the papers.
//!
//! Between layers activations are [`Tokens`]: on the CPU in the panels of the `kernels` crate, whose operators are
//! candle's custom operators here; on other devices, and in half precision, plain tensors under candle's own operators. A model does
//! not see the difference.

mod attention;
mod by_image;
mod layer_norm;
mod linear;
mod product;
mod rope;
mod spare;
mod tokens;

pub(crate) use attention::{attention, attention_weights};
pub(crate) use by_image::by_image;
pub(crate) use layer_norm::LayerNorm;
pub(crate) use linear::Linear;
pub(crate) use rope::Rope;
pub(crate) use tokens::Tokens;
