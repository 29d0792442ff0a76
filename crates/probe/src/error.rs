//! What can go wrong when probes are trained and scored.
//!
//! Data that do not fit together, parameters out of range, training data that cannot be read, a loss
//! that left the finite numbers, and a caller who asked to stop.

/// `Result` with this crate's [`Error`], unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An argument that does not fit, or a training run that could not be finished.
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
    /// The training data could not be read.
    #[error("reading the batch of step {step}")]
    Fetch {
        /// The step, counted from 1.
        step: usize,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The loss is no longer a finite number.
    #[error(
        "training diverged: the loss of step {step} is {loss}; look for non-finite features, or lower the learning rate"
    )]
    Diverged {
        /// The step, counted from 1.
        step: usize,
        /// Its loss.
        loss: f64,
    },
    /// The caller broke off the training.
    #[error("interrupted")]
    Interrupted,
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
