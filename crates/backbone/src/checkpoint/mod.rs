//! From a weights file to the tensors of a model, in the original's names and in `f32`.
//!
//! Container (zip, legacy pickle, safetensors) → state dict without wrappers → the original's layout → sizes → check → values.
//! Names and shapes are settled before a value is read, so that what is not needed is never decoded and nothing that a
//! file claims is allocated before it is checked. Every damage ends in an error that names the file.

mod array;
mod container;
mod layout;
mod named;
mod pickle;
mod sidecar;
mod sizes;
mod torch;
mod unwrap;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

use self::container::Container;
use self::layout::Layout;
use self::sizes::{Shapes, Sizes};
use crate::ResNetConfig;
use crate::models::ModelConfig;
use crate::{Error, Result};

pub use self::named::{NamedTensor, named_tensors};
pub(crate) use self::sidecar::normalization;

/// Decoded weights are at most this many times as large as their file: twice for `f16`, and more only where hostile
/// tensors share a storage.
const MAX_EXPANSION: usize = 8;

/// The one tensor whose values have a sign: the periods of DINOv3's rotations.
const PERIODS: &str = "rope_embed.periods";

/// A checkpoint, read.
pub(crate) struct Checkpoint {
    pub(crate) config: ModelConfig,
    /// The state dict, complete and finite.
    pub(crate) tensors: HashMap<String, Tensor>,
    /// SHA-256 of the file, in hexadecimal.
    pub(crate) sha256: String,
    /// What the training's head read, where it says so.
    pub(crate) readout: Option<String>,
    /// What was left out.
    pub(crate) notes: Vec<String>,
}

/// How a checkpoint is to be read.
pub(crate) struct ReadOptions<'a> {
    /// The number of heads, where the caller knows it.
    pub(crate) num_heads: Option<usize>,
    /// Whether `config.json` beside the file belongs to it.
    pub(crate) with_config: bool,
    /// Where the tensors go.
    pub(crate) device: &'a Device,
}

/// Reads a weights file of any known container and layout.
///
/// # Errors
/// [`Error::Checkpoint`], [`Error::Tensors`], [`Error::NotFinite`] and [`Error::Config`] for what is wrong with the
/// file, [`Error::HeadsUnknown`] and [`Error::Heads`] for its number of heads, [`Error::Io`] if it cannot be read.
pub(crate) fn read(path: &Path, options: &ReadOptions<'_>) -> Result<Checkpoint> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    decode(path, &bytes, options)
}

/// The weights in a file's bytes; `path` is what they are called in errors, and where files beside them are looked for.
///
/// # Errors
/// As [`read`], save for reading.
pub(crate) fn decode(path: &Path, bytes: &[u8], options: &ReadOptions<'_>) -> Result<Checkpoint> {
    let refuse = |reason: String| Error::Checkpoint { path: path.to_owned(), reason };
    let mut container = Container::open(bytes).map_err(refuse)?;
    let (arrays, outside) = unwrap::strip(std::mem::take(&mut container.arrays));
    let layout = Layout::of(arrays);
    if let Some(name) = layout.gated() {
        return Err(refuse(gated(name)));
    }
    let Layout { parts, behind, hugging_face } = layout;
    let left_out = [outside, behind].concat();
    let shapes: Shapes = parts.iter().map(|(name, parts)| (name.clone(), parts.shape())).collect();
    let config = match ResNetConfig::read_off(|name| shapes.get(name).cloned()) {
        Some(resnet) => {
            check(
                path,
                &resnet.tensors(),
                || format!("a ResNet of the sizes {}", resnet.architecture()),
                &shapes,
            )?;
            ModelConfig::ResNet(resnet)
        }
        None => {
            let sizes = Sizes::read_off(&shapes).ok_or_else(|| refuse(foreign(&shapes)))?;
            let sizes = sizes.in_hugging_face(hugging_face);
            check(path, &sizes.tensors(), || sizes.model(), &shapes)?;
            sidecar::complete(sizes, path, options.with_config, options.num_heads, &container.inside)?
        }
    };
    if decoded_bytes(&shapes) > bytes.len().saturating_mul(MAX_EXPANSION) {
        return Err(refuse("its tensors claim more values than the file can hold".to_owned()));
    }
    let mut tensors = HashMap::new();
    for (name, parts) in parts {
        let values = container.values(&parts).map_err(|reason| refuse(format!("tensor {name}: {reason}")))?;
        check_finite(path, &name, &values)?;
        if name == PERIODS && values.iter().any(|&period| period <= 0.0) {
            return Err(refuse(format!("tensor {name}: periods must be above 0")));
        }
        let tensor = Tensor::from_vec(values, parts.shape(), options.device)?;
        tensors.insert(name, tensor);
    }
    let readout = container.inside.readout.take();
    let notes = container.notes.into_iter().chain(unwrap::left_out(left_out)).collect();
    Ok(Checkpoint { config, tensors, sha256: hex(&Sha256::digest(bytes)), readout, notes })
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Size of all tensors in `f32`.
fn decoded_bytes(shapes: &Shapes) -> usize {
    let bytes = |shape: &Vec<usize>| shape.iter().fold(4usize, |n, &side| n.saturating_mul(side));
    shapes.values().map(bytes).fold(0, usize::saturating_add)
}

fn check(
    path: &Path,
    expected: &[(String, Vec<usize>)],
    model: impl Fn() -> String,
    shapes: &Shapes,
) -> Result<()> {
    match sizes::problems(expected, shapes) {
        None => Ok(()),
        Some(problems) => Err(Error::Tensors { path: path.to_owned(), model: model(), problems }),
    }
}

fn check_finite(path: &Path, tensor: &str, values: &[f32]) -> Result<()> {
    match values.iter().filter(|value| !value.is_finite()).count() {
        0 => Ok(()),
        count => Err(Error::NotFinite { path: path.to_owned(), tensor: tensor.to_owned(), count }),
    }
}

/// Why a model with this tensor is not read.
fn gated(tensor: &str) -> String {
    format!(
        "its perceptrons are gated (SwiGLU, tensor {tensor}), as those of the giant and \"plus\" models are; only plain ones \
         with GELU are supported, as in the models S, B and L"
    )
}

/// Why tensors are no vision transformer.
fn foreign(shapes: &Shapes) -> String {
    let some: Vec<&str> = shapes.keys().take(3).map(String::as_str).collect();
    match &some[..] {
        [] => "it holds no tensors".to_owned(),
        some => {
            format!(
                "it holds no vision transformer and no ResNet; its {} tensors are {}, …",
                shapes.len(),
                some.join(", ")
            )
        }
    }
}
