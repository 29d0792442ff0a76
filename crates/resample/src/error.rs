//! What can go wrong when maps are resampled: only shapes that do not fit.
//!
//! Values never fail: coordinates outside the map are covered by the border rule, and a NaN in a
//! map stays a NaN in every output that reads it.

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An argument that does not fit the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An array has another shape than the other arguments imply.
    #[error("{what} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The argument at fault.
        what: &'static str,
        /// The shape that would fit.
        expected: Vec<usize>,
        /// The shape that was given.
        got: Vec<usize>,
    },
}

/// `Ok` if an array has the shape it must have.
pub(crate) fn expect_shape(what: &'static str, expected: &[usize], got: &[usize]) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Shape { what, expected: expected.to_vec(), got: got.to_vec() })
}
