//! Reference cases and the tensors of their files, for the tests of several crates that compare with them.

#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code)] // each test uses some of it; one that skips says so

use std::path::{Path, PathBuf};

use ndarray::Array2;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

/// Tensors of one file.
pub(crate) struct File(Vec<u8>);

impl File {
    pub(crate) fn read(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        SafeTensors::deserialize(&self.0).unwrap().names().into_iter().map(String::from).collect()
    }

    /// Shape and values of a tensor as f64.
    pub(crate) fn get(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let data = tensor.data();
        let values = match tensor.dtype() {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::F64 => data.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::I64 => data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            other => panic!("{name}: {other:?}"),
        };
        (tensor.shape().to_vec(), values)
    }

    pub(crate) fn vector(&self, name: &str) -> Vec<f64> {
        self.get(name).1
    }

    pub(crate) fn matrix(&self, name: &str) -> Array2<f64> {
        let (shape, values) = self.get(name);
        Array2::from_shape_vec((shape[0], shape[1]), values).unwrap()
    }
}

/// Reference cases whose folder name starts with `prefix`, with their descriptions.
pub(crate) fn cases(prefix: &str) -> Vec<(PathBuf, serde_json::Value)> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    let root = std::env::var_os("FEATLAB_GOLDEN").map_or(default, PathBuf::from);
    let mut found: Vec<_> = (std::fs::read_dir(&root).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)))
        .map(|path| {
            let text = std::fs::read(path.join("case.json")).expect("case.json");
            (path, serde_json::from_slice(&text).expect("json"))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    if found.is_empty() {
        println!("skipped: no reference cases {prefix}* at {}", root.display());
    }
    found
}
