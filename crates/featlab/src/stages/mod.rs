//! The stages of the line, one file each: artifact in, artifact out.
//!
//! `extract` (images → cache) · `features` (cache → memory) · `reduce` (features → reducer file) · `probe`
//! (features + reducer → one scored probe) · `refine` (a probe and a dense CRF) · `gallery` (probes → pictures). A stage never calls a later one.
//! Beside the line: `classify` (class folder → image features) · `attention` (images → attention maps).

pub(crate) mod attention;
pub(crate) mod classify;
pub(crate) mod extract;
pub(crate) mod features;
pub(crate) mod gallery;
pub(crate) mod pretrain;
pub(crate) mod probe;
pub(crate) mod reduce;
pub(crate) mod refine;
