//! The state of a training on disk: what a killed or interrupted one goes on from.
//!
//! A safetensors file with one tensor per part (parameters and moments of an optimiser) and, in its metadata, whatever is no
//! tensor and the key of everything that the training depends on. A file that cannot be read, or is of another training,
//! counts as absent.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tensorfile::Tensor;

use crate::records::write_atomically;

/// What is not a tensor.
#[derive(Serialize, Deserialize)]
struct Header<T> {
    key: String,
    parts: usize,
    rest: T,
}

/// Writes a state: some parts, and what else there is.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write<'a, T: Serialize>(
    path: &Path,
    key: &str,
    rest: &T,
    parts: impl IntoIterator<Item = &'a [f32]>,
) -> Result<()> {
    let tensor = |(i, numbers): (usize, &'a [f32])| Tensor::f32(format!("{i:05}"), &[numbers.len()], numbers);
    let tensors: Vec<Tensor> = parts.into_iter().enumerate().map(tensor).collect();
    let header = Header { key: key.to_owned(), parts: tensors.len(), rest };
    let metadata = BTreeMap::from([("state".to_owned(), serde_json::to_string(&header)?)]);
    write_atomically(path, &tensorfile::to_bytes(&tensors, &metadata)?)
}

/// The state in a file, if it is one of the training with this key.
pub(super) fn read<T: DeserializeOwned>(path: &Path, key: &str) -> Option<(T, Vec<Vec<f32>>)> {
    let bytes = std::fs::read(path).ok()?;
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).ok()?;
    let header: Header<T> = serde_json::from_str(metadata.metadata().as_ref()?.get("state")?).ok()?;
    let file = safetensors::SafeTensors::deserialize(&bytes).ok()?;
    let numbers = |i: usize| -> Option<Vec<f32>> {
        let tensor = file.tensor(&format!("{i:05}")).ok()?;
        let (chunks, rest) = tensor.data().as_chunks::<4>();
        rest.is_empty().then(|| chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    };
    (header.key == key).then_some(())?;
    Some((header.rest, (0..header.parts).map(numbers).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_to_the_bit_and_another_trainings_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        let parts = vec![vec![1.5, -0.0, f32::MIN_POSITIVE], vec![2.0]];
        let rest = (7_usize, vec![7_i32, 3]);
        write(&path, "key", &rest, parts.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(read::<(usize, Vec<i32>)>(&path, "key"), Some((rest, parts)));
        assert_eq!(read::<(usize, Vec<i32>)>(&path, "other"), None);
        std::fs::write(&path, b"damaged").unwrap();
        assert_eq!(read::<(usize, Vec<i32>)>(&path, "key"), None);
    }
}
