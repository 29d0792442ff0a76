//! A run's state on disk: what a resumed run needs to go on to the same bits.
//!
//! `state.safetensors` holds the vectors that the method names (parameters, moments, running statistics, …), and in its metadata
//! the step, whole numbers such as the counts of the optimiser, the configuration and what it was trained on. There is no
//! random state to store: views, order of images and stochastic depth are functions of seed and step. The file is written
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

use crate::params::Layout;
use crate::training::{Exported, Recipe, Training};
use crate::{Error, Result};

/// Raised when older files can no longer be read.
const FORMAT: u32 = 2;

/// What must be the same for a run to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// The method's settings, tables of numbers and words.
    pub config: serde_json::Value,
    /// The data set's fingerprint.
    pub data: String,
    /// Number of training images.
    pub images: usize,
}

impl RunIdentity {
    /// * `data`: the data set's fingerprint.
    ///
    /// # Errors
    /// [`Error::Config`] if the settings are none that a file can hold.
    pub fn new(config: &impl Recipe, data: String, images: usize) -> Result<Self> {
        let config = serde_json::to_value(config)
            .map_err(|e| Error::Config { setting: "configuration", reason: e.to_string() })?;
        Ok(Self { config, data, images })
    }
}

/// The metadata of a state file.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    /// DINO's files of before there were others do not say.
    #[serde(default = "dino")]
    method: String,
    run: RunIdentity,
    step: usize,
    optimizer_steps: Vec<u64>,
    /// Other whole numbers of the method.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    counts: BTreeMap<String, Vec<u64>>,
    /// Where it was trained last.
    device: String,
}

fn dino() -> String {
    "dino".into()
}

/// The count that every method has.
const OPTIMIZER_STEPS: &str = "optimizer_steps";

/// What every version of the metadata has.
#[derive(Debug, Deserialize)]
struct Format {
    format: u32,
}

/// Writes the state of a run, replacing an older one in one step.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written; the older one is then still there.
pub fn save_state(path: &Path, training: &dyn Training, run: &RunIdentity) -> Result<()> {
    let vectors = training.vectors();
    let vectors = vectors.iter().filter(|(_, values)| !values.is_empty());
    let tensors: Vec<_> =
        vectors.map(|(name, values)| Tensor::f32(*name, &[values.len()], values.as_slice())).collect();
    let mut counts: BTreeMap<String, Vec<u64>> =
        training.counts().into_iter().map(|(name, numbers)| (name.to_owned(), numbers)).collect();
    let header = Header {
        format: FORMAT,
        method: training.plan().method.to_owned(),
        run: run.clone(),
        step: training.step_number(),
        optimizer_steps: counts.remove(OPTIMIZER_STEPS).unwrap_or_default(),
        counts,
        device: training.device(),
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
pub fn load_state(path: &Path, training: &mut dyn Training, run: &RunIdentity) -> Result<String> {
    let file = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let (_, metadata) = SafeTensors::read_metadata(&file).map_err(|e| damaged(path, e))?;
    let note = |name: &str| metadata.metadata().as_ref().and_then(|map| map.get(name));
    let text = note("featlab_pretrain");
    let text = text.ok_or_else(|| damaged(path, "it is not a training state of featlab"))?;
    let format: Format = serde_json::from_str(text).map_err(|e| damaged(path, e))?;
    if format.format != FORMAT {
        return Err(damaged(path, format!("format {} is unknown; expected {FORMAT}", format.format)));
    }
    let mut header: Header = serde_json::from_str(text).map_err(|e| damaged(path, e))?;
    let (plan, now) = (training.plan(), training.plan().method);
    let other_method =
        (header.method != now).then(|| format!("it was trained by {}; now {now}", header.method));
    if let Some(difference) = other_method.or_else(|| difference(&header.run, run)) {
        return Err(Error::Checkpoint {
            path: path.into(),
            reason: format!(
                "it belongs to another run: {difference}. Use another output folder, or --overwrite"
            ),
        });
    }
    let tensors = SafeTensors::deserialize(&file).map_err(|e| damaged(path, e))?;
    let (mut read, mut hash) = (Vec::new(), Sha256::new_with_prefix(text));
    for (name, vector) in training.vectors() {
        if vector.is_empty() {
            read.push(Vec::new());
            continue;
        }
        let tensor = tensors.tensor(name).map_err(|e| damaged(path, e))?;
        if tensor.data().len() != 4 * vector.len() {
            let got = tensor.data().len() / 4;
            return Err(damaged(path, format!("{name} has {got} numbers; expected {}", vector.len())));
        }
        hash.update(tensor.data());
        let numbers = tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        read.push(numbers.collect());
    }
    if note("sha256") != Some(&hex(&hash.finalize())) {
        return Err(damaged(path, "its checksum does not match; the file is damaged"));
    }
    header.counts.insert(OPTIMIZER_STEPS.to_owned(), header.optimizer_steps);
    let mut counts = Vec::new();
    for (name, numbers) in training.counts() {
        let stored = header.counts.remove(name).filter(|stored| stored.len() == numbers.len());
        counts.push((name, stored.ok_or_else(|| damaged(path, "its counts do not fit the network"))?));
    }
    if header.step > plan.steps {
        return Err(damaged(path, "its counts do not fit the network"));
    }
    training.vectors_mut().into_iter().zip(read).for_each(|((_, vector), read)| *vector = read);
    training.set_counts(header.step, counts);
    Ok(header.device)
}

/// What tells two runs apart, in words.
fn difference(stored: &RunIdentity, asked: &RunIdentity) -> Option<String> {
    if stored.data != asked.data || stored.images != asked.images {
        return Some(format!("it was trained on other images ({}; now {})", stored.images, asked.images));
    }
    let (stored, asked) = (&stored.config, &asked.config);
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

/// Tensors of a backbone in the names of its own state dict, as safetensors with their provenance in the metadata.
///
/// * `half`: whether they are written as `f16`; running statistics never are.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn save_backbone(
    path: &Path,
    backbone: &Exported<'_>,
    half: bool,
    provenance: &BTreeMap<String, String>,
) -> Result<()> {
    let tensor = |(name, shape, numbers): (&str, &[usize], &[f32])| {
        let halves = || numbers.iter().map(|&x| half::f16::from_f32(x).to_le_bytes());
        match half && !name.contains("running_") {
            true => Tensor::new(name, Dtype::F16, shape, halves()),
            false => Tensor::f32(name, shape, numbers),
        }
    };
    let tensors: Vec<_> = backbone.tensors().map(tensor).collect();
    let file = tensorfile::to_bytes(&tensors, provenance).map_err(|e| damaged(path, e))?;
    write_atomically(path, &file)
}

/// Puts the weights of a file that [`save_backbone`] wrote into parameters and running statistics.
///
/// # Errors
/// [`Error::Checkpoint`] if the file is none, or its backbone has other sizes; [`Error::Io`] if it cannot be read.
pub(crate) fn load_backbone(path: &Path, parts: [(&Layout, &mut [f32]); 2]) -> Result<()> {
    let file = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let tensors = SafeTensors::deserialize(&file).map_err(|e| damaged(path, e))?;
    for (layout, values) in parts {
        for tensor in layout.tensors() {
            let Some(name) = tensor.name.strip_prefix(crate::network::BACKBONE) else { continue };
            let found =
                tensors.tensor(name).map_err(|_| damaged(path, format!("it has no tensor {name}")))?;
            if found.shape() != tensor.shape {
                let (got, want) = (found.shape(), &tensor.shape);
                return Err(damaged(path, format!("{name} is {got:?}; the backbone asked for has {want:?}")));
            }
            let to = tensor.slot.of_mut(values);
            match found.dtype() {
                Dtype::F32 => {
                    let from = found.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = from);
                }
                Dtype::F16 => {
                    let from =
                        found.data().as_chunks::<2>().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes));
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
                }
                other => {
                    return Err(damaged(path, format!("{name} is of type {other:?}; expected F32 or F16")));
                }
            }
        }
    }
    Ok(())
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
