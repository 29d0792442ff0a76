//! What can go wrong when a projection is fitted, applied, stored or read back.
//!
//! Shapes and numbers of the caller's data, parameters out of range, a decomposition that failed, and
//! files that are not (or no longer) reducers. Every variant names what was expected and what came.

use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An argument that does not fit, a fit that failed, or a file that is not a reducer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An array has another shape than the other arguments imply.
    #[error("{what} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The array at fault.
        what: &'static str,
        /// The shape that would fit.
        expected: Vec<usize>,
        /// The shape that was given.
        got: Vec<usize>,
    },
    /// A number is outside the range in which it means something.
    #[error("{what} is {got}, expected {expected}")]
    Range {
        /// The parameter at fault.
        what: &'static str,
        /// The allowed range, in words.
        expected: String,
        /// The value that was given.
        got: String,
    },
    /// A projection to no dimension, or to more than there are.
    #[error("cannot keep {k} dimensions, expected 1 to {max}")]
    Dimensions {
        /// The number asked for.
        k: usize,
        /// The largest that is possible.
        max: usize,
    },
    /// Too few rows for a variance.
    #[error("{got} rows are too few for a fit, expected at least {needed}")]
    TooFewRows {
        /// The smallest number that works.
        needed: u64,
        /// The number that was given.
        got: u64,
    },
    /// NaN or infinity in the data.
    #[error("row {row}, column {column} is not a finite number")]
    NotFinite {
        /// Index of the first such row, in the array that was given.
        row: usize,
        /// Index of the first such column in it.
        column: usize,
    },
    /// Statistics are needed that were not given.
    #[error("scaler \"train\" needs the moments of the training rows")]
    NoMoments,
    /// A solver that needs the rows themselves was given their moments only.
    #[error("solver \"linfa\" needs the rows in memory, use \"covariance\" with moments")]
    NeedsRows,
    /// The eigen-decomposition failed.
    #[error("eigen-decomposition failed")]
    Eigen(#[from] linfa_linalg::LinalgError),
    /// linfa's reduction failed.
    #[error("linfa's reduction failed")]
    Reduction(#[from] linfa_reduction::ReductionError),
    /// linfa refused the data.
    #[error("linfa refused the data")]
    Linfa(#[from] linfa::Error),
    /// The bytes are not a reducer file, or a damaged one.
    #[error("not a reducer file: {0}")]
    NotAReducer(String),
    /// A reducer file from the future.
    #[error("reducer file has version {got}, this program reads up to {supported}")]
    Version {
        /// The newest version that is understood.
        supported: u32,
        /// The version in the file.
        got: u32,
    },
    /// A tensor of a reducer file is missing or unusable.
    #[error("tensor \"{name}\" of the reducer file {problem}")]
    Tensor {
        /// The tensor at fault.
        name: String,
        /// What is wrong with it, as the end of the sentence.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// `Ok` if an array has the shape it must have.
pub(crate) fn expect_shape(what: &'static str, expected: &[usize], got: &[usize]) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Shape { what, expected: expected.to_vec(), got: got.to_vec() })
}

/// `Ok` if `k` dimensions can be kept out of `max`.
pub(crate) fn expect_dimensions(k: usize, max: usize) -> Result<()> {
    if (1..=max).contains(&k) {
        return Ok(());
    }
    Err(Error::Dimensions { k, max })
}
