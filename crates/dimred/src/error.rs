//! What can go wrong between rows and their projection: widths, numbers, parameters, decompositions, reducer files.

use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Rows, parameters or files that do not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Rows have another width than the map or the moments.
    #[error("rows have {got} dimensions, expected {expected}")]
    Width {
        /// Width that would fit.
        expected: usize,
        /// Width given.
        got: usize,
    },
    /// A feature is NaN or infinite.
    #[error("row {row} holds {value} in dimension {column}; features must be finite")]
    NonFinite {
        /// Row of the block that was given.
        row: usize,
        /// Column.
        column: usize,
        /// The value.
        value: f32,
    },
    /// Not enough rows for a variance.
    #[error("a fit needs at least 2 rows, got {0}")]
    TooFewRows(u64),
    /// A target dimension that the reducer does not have.
    #[error("target dimension {asked} is not between 1 and {available}")]
    Dimension {
        /// `k` asked for.
        asked: usize,
        /// Most that there are.
        available: usize,
    },
    /// Another target dimension than that of the fit, where a fit serves only one.
    #[error("target dimension {asked} needs a fit of its own, this one is for {fitted}")]
    OtherDimension {
        /// `k` asked for.
        asked: usize,
        /// `k` of the fit.
        fitted: usize,
    },
    /// A parameter out of its range.
    #[error("{what} is {got}, expected {expected}")]
    Invalid {
        /// The parameter.
        what: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// The eigen-decomposition failed.
    #[error("eigen-decomposition: {0}")]
    Decomposition(String),
    /// The statistics of the data are needed for this scaler, but there are none.
    #[error("scaler \"train\" needs the moments of the training rows")]
    MissingMoments,
    /// A reducer file that is not one, or of another version.
    #[error("not a reducer file that this version reads: {0}")]
    Format(String),
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// An error of linfa's own.
    #[error(transparent)]
    Linfa(#[from] linfa::error::Error),
}
