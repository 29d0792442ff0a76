//! Predictions are made on the patch grid and looked at in pixels; this crate refines them there ([`DenseCrf`]) and draws them. (Scores
//! become label maps in `probe::upsample_argmax`, because evaluation needs that as well.)
//!
//! Pictures are arrays `[h, w, 3]` of `u8`; files and their formats are known elsewhere.
#![doc = include_str!("../README.md")]

mod attention_map;
pub mod co_occurrence;
mod colour_map;
mod components;
mod correspondence_map;
mod correspondence_picture;
mod crf;
pub mod crf_study;
mod error;
mod lab;
mod outline;
mod palette;
mod picture;
mod precision_recall;
pub mod stego;
mod windows;

pub use attention_map::{
    enlarge, head_colours, heat_map, highlight, masked, mass_mask, overlay_heads, stretch,
};
pub use colour_map::inferno;
pub use components::{percentile_ranges, rgb_from_components};
pub use correspondence_map::{correspondence_maps, query_path};
pub use correspondence_picture::{beside, correspondence_picture, mark_queries, query_colours};
pub use crf::DenseCrf;
pub use error::{Error, Result};
pub use lab::lab;
pub use outline::outlined;
pub use palette::Palette;
pub use picture::{colourise, overlay};
pub use precision_recall::{PrecisionRecall, ScoredPairs, Threshold};
pub use windows::Windows;
