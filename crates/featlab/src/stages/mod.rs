//! The stages of the line, one file each: artifact in, artifact out.
//!
//! `extract` (images → cache) · `features` (cache → memory) · `reduce`, `layout` and `stego` (features → reducer file, read again by `reducer_file`) ·
//! `project` (cache through a reducer → cache) · `sources` (features through reducers) · `probe` (sources → scored probes) · `refine` (a probe and a
//! dense CRF, on one image) · `crf` (the same, scored) · `gallery` (probes → pictures) · `segment`
//! (pictures → label maps, with all of it as one model). A stage never calls
//! a later one.
//! Beside the line: `classify` (class folder → image features) · `attention` (images → attention maps) · `correspond` (pictures → maps of chosen points) ·
//! `co_occurrence` (labelled cache → precision and recall) · `crf_study` (pictures → codes of pixels). `claim` and `picture_file` serve commands that read or draw
//! single pictures.

pub(crate) mod attention;
mod bank_file;
pub(crate) mod claim;
pub(crate) mod classify;
pub(crate) mod co_occurrence;
pub(crate) mod correspond;
pub(crate) mod crf;
pub(crate) mod crf_study;
pub(crate) mod extract;
pub(crate) mod features;
pub(crate) mod gallery;
pub(crate) mod layout;
pub(crate) mod picture_file;
pub(crate) mod pretrain;
pub(crate) mod probe;
pub(crate) mod project;
pub(crate) mod reduce;
pub(crate) mod reducer_file;
pub(crate) mod refine;
pub(crate) mod segment;
pub(crate) mod sources;
mod state_file;
pub(crate) mod stego;
