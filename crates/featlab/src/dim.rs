//! Dim: a target dimension as users write it, a positive number or `"full"`, in TOML and on the command line.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A target dimension: a number, or `"full"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TomlDim", into = "TomlDim")]
pub(crate) enum Dim {
    /// `k` components.
    To(usize),
    /// As many as the features have.
    Full,
}

impl Dim {
    /// The number of components for features of width `full`.
    pub(crate) fn resolve(self, full: usize) -> usize {
        match self {
            Self::To(k) => k,
            Self::Full => full,
        }
    }
}

/// A dimension in TOML: an integer or a string.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum TomlDim {
    Number(usize),
    Word(String),
}

impl TryFrom<TomlDim> for Dim {
    type Error = String;

    fn try_from(dim: TomlDim) -> Result<Self, String> {
        match dim {
            TomlDim::Number(0) => Err("a dimension is at least 1, got 0".into()),
            TomlDim::Number(k) => Ok(Self::To(k)),
            TomlDim::Word(word) => word.parse(),
        }
    }
}

impl From<Dim> for TomlDim {
    fn from(dim: Dim) -> Self {
        match dim {
            Dim::To(k) => Self::Number(k),
            Dim::Full => Self::Word("full".into()),
        }
    }
}

impl FromStr for Dim {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match (word, word.parse()) {
            ("full", _) => Ok(Self::Full),
            (_, Ok(k)) if k > 0 => Ok(Self::To(k)),
            _ => Err(format!("a dimension is a positive number or \"full\", got \"{word}\"")),
        }
    }
}
