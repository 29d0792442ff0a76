//! A bank's state on disk; see [`state_file`](super::state_file).

use std::path::Path;

use anyhow::Result;
use probe::BankState;
use serde::{Deserialize, Serialize};

use super::state_file;

/// What is not a tensor.
#[derive(Serialize, Deserialize)]
struct Rest {
    step: usize,
    adam_steps: Vec<i32>,
    /// `(step, bits of the loss)`.
    failed: Vec<Option<(usize, u64)>>,
}

/// Writes a state.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(path: &Path, key: &str, state: &BankState) -> Result<()> {
    let rest = Rest {
        step: state.step,
        adam_steps: state.adam_steps.clone(),
        failed: state.failed.iter().map(|f| f.map(|(step, loss)| (step, loss.to_bits()))).collect(),
    };
    state_file::write(path, key, &rest, state.numbers.iter().map(Vec::as_slice))
}

/// The state in a file, if it is one of the training with this key.
pub(super) fn read(path: &Path, key: &str) -> Option<BankState> {
    let (rest, numbers): (Rest, _) = state_file::read(path, key)?;
    Some(BankState {
        step: rest.step,
        numbers,
        adam_steps: rest.adam_steps,
        failed: rest.failed.iter().map(|f| f.map(|(step, bits)| (step, f64::from_bits(bits)))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bank.safetensors");
        let state = BankState {
            step: 7,
            numbers: vec![vec![1.5, -0.0], vec![2.0]],
            adam_steps: vec![7, 3],
            failed: vec![None, Some((4, f64::INFINITY))],
        };
        write(&path, "key", &state).unwrap();
        assert_eq!(read(&path, "key"), Some(state));
    }
}
