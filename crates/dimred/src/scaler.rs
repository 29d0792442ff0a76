//! Scaler: what is done to the columns before a projection, `z = (x − mean) / std` with the population standard deviation,
//! or nothing. Whose mean and std is the question: the training rows', or (the original's way) each call's own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Column scaling before a projection. A constant column keeps its scale (divisor 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaler {
    /// None; PCA still subtracts the mean.
    None,
    /// Mean and population standard deviation of the rows that were fitted on.
    #[default]
    Train,
    /// Mean and population standard deviation of each call's own rows, as stego-studies does (so that a projection
    /// depends on batch size and companions): for comparison only.
    Batch,
}

impl fmt::Display for Scaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Train => "train",
            Self::Batch => "batch",
        })
    }
}

impl FromStr for Scaler {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        match word {
            "none" => Ok(Self::None),
            "train" => Ok(Self::Train),
            "batch" => Ok(Self::Batch),
            _ => Err(Error::Invalid {
                what: "scaler",
                expected: "none, train or batch",
                got: format!("\"{word}\""),
            }),
        }
    }
}
