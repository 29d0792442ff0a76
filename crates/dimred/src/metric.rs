//! How far apart two rows are, by name.

use std::fmt;

use crate::{Error, Result};

/// How far apart two rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Metric {
    /// `‖a − b‖`.
    Euclidean,
    /// `1 − ⟨a, b⟩ / (‖a‖ ‖b‖)`; of a row of zeros 1 to all others, and 0 to another row of zeros.
    #[default]
    Cosine,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Euclidean => "euclidean",
            Self::Cosine => "cosine",
        })
    }
}

impl std::str::FromStr for Metric {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "euclidean" => Ok(Self::Euclidean),
            "cosine" => Ok(Self::Cosine),
            _ => Err(Error::Invalid {
                what: "metric",
                expected: "cosine or euclidean",
                got: format!("\"{word}\""),
            }),
        }
    }
}
