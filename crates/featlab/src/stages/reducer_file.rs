//! A reducer file, and whether it belongs to features: it takes their width, and was fitted on the same block and facet of the
//! same checkpoint.

use std::path::Path;

use anyhow::{Context as _, Result};
use dimred::Reducer;
use featcache::Cache;
use sha2::{Digest, Sha256};

use super::reduce::{features_name, features_of};
use crate::exit::{integrity, usage};

/// A reducer, known by the hash of its file.
#[derive(Debug, Clone)]
pub(crate) struct ReducerFile {
    pub(crate) reducer: Reducer,
    /// Of all bytes of the file, in hex.
    pub(crate) sha256: String,
}

impl ReducerFile {
    /// Reads a reducer for the tokens of a cache.
    ///
    /// # Errors
    /// A usage error if there is no file; one of integrity if it is damaged, or belongs to other features.
    pub(crate) fn read(path: &Path, cache: &Cache) -> Result<Self> {
        Self::read_for(path, cache.layout().dim, &features_name(cache))
    }

    /// Reads a reducer for features that are in no cache.
    ///
    /// * `features`: their [name](features_name), `dim` numbers each.
    ///
    /// # Errors
    /// As [`ReducerFile::read`].
    pub(crate) fn read_for(path: &Path, dim: usize, features: &str) -> Result<Self> {
        let bytes =
            std::fs::read(path).map_err(|e| usage(format!("cannot read reducer {}: {e}", path.display())))?;
        Self::of_bytes(&bytes, path, (dim, features))
    }

    /// The same of a file that was read already; `path` is for messages.
    ///
    /// # Errors
    /// As [`ReducerFile::read`].
    pub(crate) fn of_bytes(bytes: &[u8], path: &Path, (dim, features): (usize, &str)) -> Result<Self> {
        let reducer = Reducer::from_bytes(bytes).with_context(|| format!("reducer {}", path.display()))?;
        if reducer.input_dim() != dim {
            return Err(integrity(format!(
                "reducer {} takes {} dimensions, but the features have {dim}",
                path.display(),
                reducer.input_dim()
            )));
        }
        let fitted_on = features_of(bytes);
        if fitted_on.as_ref().is_some_and(|name| name != features) {
            return Err(integrity(format!(
                "reducer {} was fitted on features {}, not on {features}",
                path.display(),
                fitted_on.unwrap_or_default()
            )));
        }
        let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { reducer, sha256 })
    }
}
