//! A run's state on disk: what a resumed run needs to go on to the same bits.
//!
//! `state.safetensors` holds student, teacher, the optimiser's moments, the centre and the running statistics as flat vectors,
//! and in its metadata the step, the counts of the optimiser, the configuration and what it was trained on. There is no random
//! state to store: views, order of images and stochastic depth are functions of seed and step. The file is written
//! beside the old one, flushed and renamed, so that at any moment one of the two is whole; its checksum is checked on
//! reading.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tensorfile::Tensor;

use crate::config::DinoConfig;
use crate::dino::{Dino, DinoState};
use crate::params::Layout;
use crate::{Error, Result};

/// Raised when older files can no longer be read.
const FORMAT: u32 = 2;

/// What must be the same for a run to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// The configuration.
    pub config: DinoConfig,
    /// The data set's fingerprint.
    pub data: String,
    /// Number of training images.
    pub images: usize,
}

/// The metadata of a state file.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    run: RunIdentity,
    step: usize,
    optimizer_steps: Vec<u64>,
    /// Where it was trained last.
    device: String,
}

/// What every version of the metadata has.
#[derive(Debug, Deserialize)]
struct Format {
    format: u32,
}

/// Names of the vectors, in the order in which they are hashed.
const VECTORS: [&str; 7] =
    ["student", "teacher", "first_moments", "second_moments", "center", "student_buffers", "teacher_buffers"];

fn vectors(state: &DinoState) -> [&[f32]; 7] {
    [
        &state.student,
        &state.teacher,
        &state.optimizer.first,
        &state.optimizer.second,
        &state.center.values,
        &state.student_buffers,
        &state.teacher_buffers,
    ]
}

fn vectors_mut(state: &mut DinoState) -> [&mut Vec<f32>; 7] {
    [
        &mut state.student,
        &mut state.teacher,
        &mut state.optimizer.first,
        &mut state.optimizer.second,
        &mut state.center.values,
        &mut state.student_buffers,
        &mut state.teacher_buffers,
    ]
}

/// Writes the state of a run, replacing an older one in one step.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written; the older one is then still there.
pub fn save_state(path: &Path, dino: &Dino, run: &RunIdentity) -> Result<()> {
    let vectors = VECTORS.iter().zip(vectors(&dino.state)).filter(|(_, values)| !values.is_empty());
    let tensors: Vec<_> = vectors.map(|(name, values)| Tensor::f32(*name, &[values.len()], values)).collect();
    let header = Header {
        format: FORMAT,
        run: run.clone(),
        step: dino.state.step,
        optimizer_steps: dino.state.optimizer.steps.clone(),
        device: dino.device(),
    };
    let header = serde_json::to_string(&header).map_err(|e| damaged(path, e))?;
    let hash = tensors.iter().fold(Sha256::new_with_prefix(&header), |hash, t| hash.chain_update(&t.bytes));
    let metadata =
        [("featlab_pretrain".to_owned(), header), ("sha256".to_owned(), hex(&hash.finalize()))].into();
    let file = tensorfile::to_bytes(&tensors, &metadata).map_err(|e| damaged(path, e))?;
    write_atomically(path, &file)
}

/// Puts a run back to where its state file says; returns the device on which it was trained last.
///
/// # Errors
/// [`Error::Checkpoint`] if the file is damaged or belongs to another run, [`Error::Io`] if it cannot be read.
pub fn load_state(path: &Path, dino: &mut Dino, run: &RunIdentity) -> Result<String> {
    let file = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let (_, metadata) = SafeTensors::read_metadata(&file).map_err(|e| damaged(path, e))?;
    let note = |name: &str| metadata.metadata().as_ref().and_then(|map| map.get(name));
    let text = note("featlab_pretrain");
    let text = text.ok_or_else(|| damaged(path, "it is not a training state of featlab"))?;
    let format: Format = serde_json::from_str(text).map_err(|e| damaged(path, e))?;
    if format.format != FORMAT {
        return Err(damaged(path, format!("format {} is unknown; expected {FORMAT}", format.format)));
    }
    let header: Header = serde_json::from_str(text).map_err(|e| damaged(path, e))?;
    if let Some(difference) = difference(&header.run, run) {
        return Err(Error::Checkpoint {
            path: path.into(),
            reason: format!(
                "it belongs to another run: {difference}. Use another output folder, or --overwrite"
            ),
        });
    }
    let tensors = SafeTensors::deserialize(&file).map_err(|e| damaged(path, e))?;
    let mut state = dino.state.clone();
    let mut hash = Sha256::new_with_prefix(text);
    for (name, vector) in VECTORS.iter().zip(vectors_mut(&mut state)) {
        if vector.is_empty() {
            continue;
        }
        let tensor = tensors.tensor(name).map_err(|e| damaged(path, e))?;
        if tensor.data().len() != 4 * vector.len() {
            let got = tensor.data().len() / 4;
            return Err(damaged(path, format!("{name} has {got} numbers; expected {}", vector.len())));
        }
        hash.update(tensor.data());
        let numbers = tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        vector.iter_mut().zip(numbers).for_each(|(to, from)| *to = from);
    }
    if note("sha256") != Some(&hex(&hash.finalize())) {
        return Err(damaged(path, "its checksum does not match; the file is damaged"));
    }
    if header.optimizer_steps.len() != state.optimizer.steps.len() || header.step > dino.steps() {
        return Err(damaged(path, "its counts do not fit the network"));
    }
    state.optimizer.steps = header.optimizer_steps;
    state.step = header.step;
    dino.state = state;
    Ok(header.device)
}

/// What tells two runs apart, in words.
fn difference(stored: &RunIdentity, asked: &RunIdentity) -> Option<String> {
    if stored.data != asked.data || stored.images != asked.images {
        return Some(format!("it was trained on other images ({}; now {})", stored.images, asked.images));
    }
    let json = |config: &DinoConfig| serde_json::to_value(config).unwrap_or_default();
    let (stored, asked) = (json(&stored.config), json(&asked.config));
    let tables = stored.as_object()?;
    for (table, settings) in tables {
        for (setting, value) in settings.as_object()? {
            let now = &asked[table][setting];
            if now != value {
                return Some(format!("{table}.{setting} was {value}, and is {now} now"));
            }
        }
    }
    None
}

/// Tensors of a backbone in DINO's names, as safetensors with their provenance in the metadata.
///
/// * `values`: all parameters; those named `backbone.…` are written, as `f32` or `f16`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn save_backbone(
    path: &Path,
    layout: &Layout,
    values: &[f32],
    half: bool,
    provenance: &BTreeMap<String, String>,
) -> Result<()> {
    let tensors: Vec<_> = (layout.tensors().iter())
        .filter_map(|tensor| {
            let name = tensor.name.strip_prefix(crate::network::BACKBONE)?;
            let numbers = tensor.slot.of(values);
            let halves = || numbers.iter().map(|&x| half::f16::from_f32(x).to_le_bytes());
            Some(match half {
                true => Tensor::new(name, Dtype::F16, &tensor.shape, halves()),
                false => Tensor::f32(name, &tensor.shape, numbers),
            })
        })
        .collect();
    let file = tensorfile::to_bytes(&tensors, provenance).map_err(|e| damaged(path, e))?;
    write_atomically(path, &file)
}

/// Writes a file beside its place, flushes it to the disk and moves it there.
///
/// # Errors
/// [`Error::Io`]; what was at `path` before is then still there.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let io = |source| Error::Io { path: path.into(), source };
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let beside = path.with_file_name(name);
    let mut file = File::create(&beside).map_err(io)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    drop(file);
    let moved = written.and_then(|()| std::fs::rename(&beside, path));
    // The new name must outlive a power cut as well; not every system lets a folder be opened.
    if let Some(Ok(folder)) = path.parent().map(File::open) {
        let _ = folder.sync_all();
    }
    if moved.is_err() {
        let _ = std::fs::remove_file(&beside); // the error that matters is the first one
    }
    moved.map_err(io)
}

fn damaged(path: &Path, reason: impl ToString) -> Error {
    Error::Checkpoint { path: path.into(), reason: reason.to_string() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
