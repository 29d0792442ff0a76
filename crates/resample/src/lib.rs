//! Every operation here is linear in the map it reads, so each is described by its weights alone:
//! a separable resize by one [`Taps`] per axis, a grid sample by the four corners around each point.
//! The gradient with respect to the map is the transpose of those weights.
//!
//! Shrinking skips pixels, as the defaults of PyTorch do; antialiasing is there for one purpose, the
//! position tables of later transformers. Pictures are resized elsewhere, before they reach a network;
//! this crate is for scores and features.
#![doc = include_str!("../README.md")]

mod error;
mod grid_sample;
mod resize;
mod taps;

pub use error::{Error, Result};
pub use grid_sample::{GridSample, Padding};
pub use resize::{resize, resize_backward};
pub use taps::{Align, Mode, Taps};
