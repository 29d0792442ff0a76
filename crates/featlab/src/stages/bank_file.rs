//! A bank's state on disk: what a killed or interrupted training goes on from.
//!
//! A safetensors file with one tensor per cell (parameters and both moments of the optimiser, one behind the other) and the key
//! of everything that the training depends on. A file that cannot be read, or is of another training, counts as absent.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use probe::BankState;
use serde::{Deserialize, Serialize};
use tensorfile::Tensor;

use crate::records::write_atomically;

/// What is not a tensor.
#[derive(Serialize, Deserialize)]
struct Header {
    key: String,
    step: usize,
    adam_steps: Vec<i32>,
    /// `(step, bits of the loss)`.
    failed: Vec<Option<(usize, u64)>>,
}

/// Writes a state.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write(path: &Path, key: &str, state: &BankState) -> Result<()> {
    let tensor = |(i, numbers): (usize, &Vec<f32>)| Tensor::f32(format!("{i:05}"), &[numbers.len()], numbers);
    let tensors: Vec<Tensor> = state.numbers.iter().enumerate().map(tensor).collect();
    let header = Header {
        key: key.to_owned(),
        step: state.step,
        adam_steps: state.adam_steps.clone(),
        failed: state.failed.iter().map(|f| f.map(|(step, loss)| (step, loss.to_bits()))).collect(),
    };
    let metadata = BTreeMap::from([("bank".to_owned(), serde_json::to_string(&header)?)]);
    write_atomically(path, &tensorfile::to_bytes(&tensors, &metadata)?)
}

/// The state in a file, if it is one of the training with this key.
pub(crate) fn read(path: &Path, key: &str) -> Option<BankState> {
    let bytes = std::fs::read(path).ok()?;
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).ok()?;
    let header: Header = serde_json::from_str(metadata.metadata().as_ref()?.get("bank")?).ok()?;
    let file = safetensors::SafeTensors::deserialize(&bytes).ok()?;
    let numbers = |i: usize| -> Option<Vec<f32>> {
        let tensor = file.tensor(&format!("{i:05}")).ok()?;
        let (chunks, rest) = tensor.data().as_chunks::<4>();
        rest.is_empty().then(|| chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    };
    (header.key == key).then_some(())?;
    Some(BankState {
        step: header.step,
        numbers: (0..header.adam_steps.len()).map(numbers).collect::<Option<_>>()?,
        adam_steps: header.adam_steps,
        failed: header.failed.iter().map(|f| f.map(|(step, bits)| (step, f64::from_bits(bits)))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_to_the_bit_and_another_trainings_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bank.safetensors");
        let state = BankState {
            step: 7,
            numbers: vec![vec![1.5, -0.0, f32::MIN_POSITIVE], vec![2.0]],
            adam_steps: vec![7, 3],
            failed: vec![None, Some((4, f64::INFINITY))],
        };
        write(&path, "key", &state).unwrap();
        assert_eq!(read(&path, "key"), Some(state));
        assert_eq!(read(&path, "other"), None);
        std::fs::write(&path, b"damaged").unwrap();
        assert_eq!(read(&path, "key"), None);
    }
}
