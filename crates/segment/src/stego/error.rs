//! What can go wrong when a STEGO head is trained: data that do not fit, numbers out of range or not finite, images that
//! cannot be read.

/// `Result` with this module's [`Error`], unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whatever keeps images from being read.
pub type FetchError = Box<dyn std::error::Error + Send + Sync>;

/// An argument that does not fit, or a step that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing to work on.
    #[error("{0} is empty")]
    Empty(&'static str),
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
        /// The parameter or value at fault.
        what: &'static str,
        /// The allowed range, in words.
        expected: String,
        /// The value that was given.
        got: String,
    },
    /// A result is not a finite number, because an input was not or grew too large.
    #[error("{what} is not a finite number; look for non-finite features or codes")]
    NotFinite {
        /// The result.
        what: &'static str,
    },
    /// An image could not be read.
    #[error("reading the batch of step {step}")]
    Fetch {
        /// The step, counted from 1.
        step: usize,
        /// Why.
        source: FetchError,
    },
    /// The device that the head is trained on.
    #[error("training the head on a device")]
    Device(#[from] candle_core::Error),
    /// A probe could not be trained on the codes.
    #[error(transparent)]
    Probe(#[from] probe::Error),
}

/// `Ok` if an array has the shape it must have.
pub(crate) fn expect_shape(what: &'static str, expected: &[usize], got: &[usize]) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Shape { what, expected: expected.to_vec(), got: got.to_vec() })
}

/// `Ok` if a number is in the range it must be in.
pub(crate) fn expect_range(
    ok: bool,
    what: &'static str,
    expected: &str,
    got: impl std::fmt::Display,
) -> Result<()> {
    if ok {
        return Ok(());
    }
    Err(Error::Range { what, expected: expected.to_owned(), got: got.to_string() })
}

/// The number, if it is one.
pub(crate) fn expect_finite(what: &'static str, got: f64) -> Result<f64> {
    if got.is_finite() { Ok(got) } else { Err(Error::NotFinite { what }) }
}
