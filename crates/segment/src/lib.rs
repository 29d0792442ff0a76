//! Predictions are made on the patch grid and looked at in pixels; this crate refines them there ([`DenseCrf`]) and draws them. (Scores
//! become label maps in `probe::upsample_argmax`, because evaluation needs that as well.)
//!
//! Pictures are arrays `[h, w, 3]` of `u8`; files and their formats are known elsewhere.
#![doc = include_str!("../README.md")]

mod attention_map;
mod colour_map;
mod components;
mod crf;
mod error;
mod palette;
mod picture;
pub mod stego;
mod windows;

pub use attention_map::{
    enlarge, head_colours, heat_map, highlight, masked, mass_mask, overlay_heads, stretch,
};
pub use colour_map::inferno;
pub use components::{percentile_ranges, rgb_from_components};
pub use crf::DenseCrf;
pub use error::{Error, Result};
pub use palette::Palette;
pub use picture::{colourise, overlay};
pub use windows::Windows;
