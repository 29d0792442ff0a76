//! The forms in which the same features can lie in files.
//!
//! A form is no part of the key: every form holds the same bits, and `convert` goes from each to each. The default is
//! the one that any Parquet reader opens and that is read at the speed of the disk; the others trade that for size, for SQL,
//! or for arrays that map straight into memory.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How values lie in the files of a cache.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Parquet, one plain binary value per row and column.
    #[default]
    Binary,
    /// Parquet, one binary value per row and column, as byte planes compressed by zstd.
    Packed,
    /// Parquet, fixed-size lists of numbers: slower, but SQL can index them.
    List,
    /// Arrow IPC, fixed-shape tensors: maps into memory without a copy.
    Arrow,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 4] = [Self::Binary, Self::Packed, Self::List, Self::Arrow];

    /// Extension of shard files, without the dot.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Binary | Self::Packed | Self::List => "parquet",
            Self::Arrow => "arrow",
        }
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Binary => "binary",
            Self::Packed => "packed",
            Self::List => "list",
            Self::Arrow => "arrow",
        })
    }
}

impl FromStr for Form {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|form| form.to_string() == text).ok_or_else(|| Error::InvalidOption {
            option: "layout",
            reason: format!("is {text:?}, expected binary, packed, list or arrow"),
        })
    }
}
