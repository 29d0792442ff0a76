//! The networks: one file per model, read side by side with its paper and its state dict.

mod config;
mod position;
mod vit;

pub use config::VitConfig;
pub use position::interpolate_pos;
pub use vit::Vit;

pub(crate) use config::LAYER_NORM_EPS;
