//! The stages of the line, one file each: artifact in, artifact out.
//!
//! `extract` (images → cache) · `features` (cache → memory) · `reduce` (features → reducer file) · `probe`
//! (features + reducer → one scored probe) · `gallery` (probes → pictures). A stage never calls a later one.

pub(crate) mod extract;
pub(crate) mod features;
pub(crate) mod gallery;
pub(crate) mod probe;
pub(crate) mod reduce;
