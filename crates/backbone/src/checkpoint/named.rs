//! Tensors of a checkpoint that are no backbone's: heads and probes, under the names of the file.

use std::collections::BTreeMap;
use std::path::Path;

use super::container::Container;
use super::{MAX_EXPANSION, check_finite};
use crate::{Error, Result};

/// A tensor, read.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values in row-major order.
    pub values: Vec<f32>,
}

/// The tensors of a weights file (`.pth`, `.ckpt`, `.safetensors`) whose names begin with `prefix`, without it. Whatever else the
/// file holds, configurations of foreign classes included, is not looked at; no code of a pickle is run.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Checkpoint`] if it is none or damaged, [`Error::NotFinite`] if a value is
/// no number.
pub fn named_tensors(path: &Path, prefix: &str) -> Result<BTreeMap<String, NamedTensor>> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let refuse = |reason: String| Error::Checkpoint { path: path.to_owned(), reason };
    let mut container = Container::open(&bytes).map_err(refuse)?;
    let mut wanted = BTreeMap::new();
    for (name, array) in std::mem::take(&mut container.arrays) {
        if let Some(short) = name.strip_prefix(prefix) {
            wanted.insert(short.to_owned(), array);
        }
    }
    let size = |shape: &[usize]| shape.iter().fold(4_usize, |n, &side| n.saturating_mul(side));
    let claimed = wanted.values().map(|array| size(&array.shape)).fold(0, usize::saturating_add);
    if claimed > bytes.len().saturating_mul(MAX_EXPANSION) {
        return Err(refuse("its tensors claim more values than the file can hold".to_owned()));
    }
    let mut tensors = BTreeMap::new();
    for (name, array) in wanted {
        let values =
            container.of_array(&array).map_err(|reason| refuse(format!("tensor {name}: {reason}")))?;
        check_finite(path, &name, &values)?;
        tensors.insert(name, NamedTensor { shape: array.shape, values });
    }
    Ok(tensors)
}
