//! Where in a transformer a feature is read: after which block, and which of its vectors.
//!
//! A token is the output of a block through the model's final layer norm; keys, queries and values are what the
//! block's attention computes on its way, heads side by side and without a norm. Where a model turns queries and keys by their
//! place (DINOv3), these are the vectors before that.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which vectors of a block are the feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Facet {
    /// The output of the block after the model's final layer norm.
    #[default]
    Token,
    /// The keys of the block's attention, heads concatenated head-major.
    Key,
    /// The queries, likewise.
    Query,
    /// The values, likewise.
    Value,
}

/// A block and one of its facets. The default is the usual choice: tokens of the last block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layer {
    /// Index of the block from 0; negative counts from the end, `-1` being the last.
    pub block: i64,
    /// Which vectors of it.
    pub facet: Facet,
}

impl Default for Layer {
    fn default() -> Self {
        Self { block: -1, facet: Facet::Token }
    }
}

impl fmt::Display for Facet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "token",
            Self::Key => "key",
            Self::Query => "query",
            Self::Value => "value",
        })
    }
}

impl FromStr for Facet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Token, Self::Key, Self::Query, Self::Value]
            .into_iter()
            .find(|facet| facet.to_string() == text)
            .ok_or_else(|| Error::Facet(text.to_owned()))
    }
}

/// The index in `0..depth` of a block that may be counted from the end.
pub(crate) fn block_index(block: i64, depth: usize) -> Result<usize> {
    let n = depth as i64;
    let index = if block < 0 { block.checked_add(n) } else { Some(block) };
    match index {
        Some(index) if (0..n).contains(&index) => Ok(index as usize),
        _ => Err(Error::Block { block, depth }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facets_are_spelled_one_way() {
        for facet in [Facet::Token, Facet::Key, Facet::Query, Facet::Value] {
            assert_eq!(facet.to_string().parse::<Facet>().unwrap(), facet);
            assert_eq!(serde_json::to_string(&facet).unwrap(), format!("\"{facet}\""));
        }
        assert!("KK".parse::<Facet>().unwrap_err().is_usage());
    }

    #[test]
    fn blocks_count_from_both_ends() {
        assert_eq!(block_index(-1, 12).unwrap(), 11);
        assert_eq!(block_index(-12, 12).unwrap(), 0);
        assert_eq!(block_index(11, 12).unwrap(), 11);
        for block in [12, -13, i64::MIN, i64::MAX] {
            assert!(block_index(block, 12).unwrap_err().is_usage(), "{block}");
        }
        assert_eq!(
            block_index(5, 4).unwrap_err().to_string(),
            "there is no block 5 in a model of 4 blocks; expected -4..=3"
        );
    }
}
