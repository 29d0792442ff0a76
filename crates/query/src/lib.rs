//! SQL over feature caches: DataFusion with caches as tables and functions of token vectors and label maps.
//!
//! ```text
//! caches, .parquet, .csv on any store ──▶ tables ──DataFusion──▶ record batches
//! ```
//!
//! A vector is a list of `f32`, the tokens of an image a list of vectors, a label map a list of classes without its shape
//! (none where there is no class). What DataFusion has for lists works on all of them. Without the feature `engine` the crate is
//! empty.
#![cfg(feature = "engine")]

mod cache_table;
mod file_table;
mod functions;
mod session;
mod spelling;

pub use session::Session;

/// Result of a query; errors are DataFusion's, which name what they are about.
pub type Result<T> = datafusion::error::Result<T>;
