//! What can go wrong between a patch grid and a picture: shapes, labels and fractions that do not fit.

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An argument that does not fit the others.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
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
    /// There is nothing to compute the result from.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A label has no colour.
    #[error("label {label} has no colour in a palette of {colours}; is it the label to ignore?")]
    NoColour {
        /// The label.
        label: u8,
        /// Number of colours in the palette.
        colours: usize,
    },
    /// A number that must be larger than zero is not.
    #[error("{what} is {got}, expected a number above 0")]
    NotPositive {
        /// The argument at fault.
        what: &'static str,
        /// Its value.
        got: f32,
    },
    /// A standard deviation is too small for the picture.
    #[error("a picture's sides and colours may be at most {most} standard deviations long; take larger ones")]
    TooFine {
        /// How many are possible.
        most: f32,
    },
    /// A fraction is not between 0 and 1.
    #[error("{what} is {got}, expected a fraction between 0 and 1")]
    NotAFraction {
        /// The argument at fault.
        what: &'static str,
        /// Its value.
        got: f32,
    },
}
