//! Run records on disk: `runs/<key>.json` (scores), `runs/<key>.safetensors` (the probe's weights, if it has some) and
//! `runs/<key>.counts.zst` (the confusion counts of every image, which comparisons between runs need).
//!
//! The key is a hash of everything that determines the scores, so a record that exists need not be computed again and a
//! changed setting never finds an old one. Files appear whole: they are written beside their place and renamed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
#[cfg(feature = "cluster")]
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ndarray::Array2;
use probe::{BankProbe, ConfusionMatrix};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tensorfile::Tensor;

use crate::study::RunRecord;

/// First 16 hex digits of the SHA-256 of a value's JSON.
pub(crate) fn key_of<T: Serialize>(value: &T) -> Result<String> {
    let digest = Sha256::digest(serde_json::to_vec(value)?);
    Ok(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Refuses a URL where only a local path is written to, before a folder of that name is made.
pub(crate) fn check_local(path: &Path) -> Result<()> {
    match path.to_str().and_then(|text| text.split_once("://")) {
        Some((scheme, _)) => Err(crate::exit::usage(format!(
            "{}: this output is written to a local folder, {scheme}:// is not possible here",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Writes a file so that it is there whole or not at all.
///
/// # Errors
/// Names the path, e.g. if the folder is not writable or the disk is full.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, path)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .with_context(|| format!("writing {}", path.display()))
}

/// A finished run on its way from the process that computed it; files are base64.
#[cfg(feature = "cluster")]
#[derive(Debug, Clone, serde::Deserialize, Serialize)]
pub(crate) struct RunFiles {
    pub(crate) record: RunRecord,
    weights: Option<String>,
    counts: String,
}

/// The folder `runs/` of one output folder.
#[derive(Debug, Clone)]
pub(crate) struct Records(PathBuf);

impl Records {
    /// Records below `out`.
    pub(crate) fn new(out: &Path) -> Self {
        Self(out.join("runs"))
    }

    fn json(&self, key: &str) -> PathBuf {
        self.0.join(format!("{key}.json"))
    }

    /// Where the state of a bank in training is kept.
    pub(crate) fn bank(&self, key: &str) -> PathBuf {
        self.0.join(format!("bank-{key}.safetensors"))
    }

    /// The record of a key, if that run is done. A record that cannot be read counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<RunRecord> {
        let record: RunRecord = serde_json::from_slice(&fs::read(self.json(key)).ok()?).ok()?;
        (record.key == key).then_some(record)
    }

    fn weights(&self, key: &str) -> PathBuf {
        self.0.join(format!("{key}.safetensors"))
    }

    fn counts_file(&self, key: &str) -> PathBuf {
        self.0.join(format!("{key}.counts.zst"))
    }

    /// Stores weights and counts first, then the record: the record's presence means that all are there.
    ///
    /// * `per_image`: counts of every image, `[c, m]` each.
    pub(crate) fn put(
        &self,
        record: &RunRecord,
        probe: Option<&BankProbe>,
        per_image: &[ConfusionMatrix],
    ) -> Result<()> {
        if let Some(probe) = probe {
            write_atomically(&self.weights(&record.key), &weights_to_bytes(record, probe)?)?;
        }
        write_atomically(&self.counts_file(&record.key), &counts_to_bytes(per_image)?)?;
        write_atomically(&self.json(&record.key), &serde_json::to_vec_pretty(record)?)
    }

    /// The files of a finished run, for another process.
    ///
    /// # Errors
    /// If one of them cannot be read.
    #[cfg(feature = "cluster")]
    pub(crate) fn files(&self, key: &str) -> Result<Option<RunFiles>> {
        let Some(record) = self.get(key) else { return Ok(None) };
        let read = |path: PathBuf| fs::read(&path).with_context(|| format!("reading {}", path.display()));
        let weights = self.weights(key);
        let weights = weights.exists().then(|| read(weights)).transpose()?;
        Ok(Some(RunFiles {
            weights: weights.map(|bytes| BASE64.encode(bytes)),
            counts: BASE64.encode(read(self.counts_file(key))?),
            record,
        }))
    }

    /// Stores a run that another process finished.
    ///
    /// # Errors
    /// If a file cannot be written.
    #[cfg(feature = "cluster")]
    pub(crate) fn adopt(&self, run: &RunFiles) -> Result<()> {
        let key = &run.record.key;
        if let Some(weights) = &run.weights {
            write_atomically(&self.weights(key), &BASE64.decode(weights)?)?;
        }
        write_atomically(&self.counts_file(key), &BASE64.decode(&run.counts)?)?;
        write_atomically(&self.json(key), &serde_json::to_vec_pretty(&run.record)?)
    }

    /// The trained probe of a finished run.
    pub(crate) fn probe(&self, record: &RunRecord) -> Result<BankProbe> {
        let path = self.weights(&record.key);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        weights_from_bytes(&bytes).with_context(|| format!("reading {}", path.display()))
    }

    /// The confusion counts of every image of a finished run, with classes in place of clusters.
    pub(crate) fn counts(&self, record: &RunRecord) -> Result<Vec<ConfusionMatrix>> {
        let path = self.counts_file(&record.key);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        counts_from_bytes(&bytes).with_context(|| format!("reading {}", path.display()))
    }
}

/// `[n, c, m]` numbers of 32 bits in a compressed safetensors file: nearly all of them are 0.
fn counts_to_bytes(per_image: &[ConfusionMatrix]) -> Result<Vec<u8>> {
    let (c, m) = per_image.first().map_or((0, 0), |image| image.counts().dim());
    let pixels = per_image.iter().flat_map(|image| image.counts().iter().copied().collect::<Vec<_>>());
    let pixels = pixels.map(u32::try_from).collect::<Result<Vec<_>, _>>().context("pixels of an image")?;
    let shape = [per_image.len(), c, m];
    let tensor =
        Tensor::new("counts", safetensors::Dtype::U32, &shape, pixels.iter().map(|n| n.to_le_bytes()));
    let file = tensorfile::to_bytes(&[tensor], &std::collections::BTreeMap::new())?;
    Ok(zstd::encode_all(file.as_slice(), 3)?)
}

fn counts_from_bytes(bytes: &[u8]) -> Result<Vec<ConfusionMatrix>> {
    let file = zstd::decode_all(bytes)?;
    let file = safetensors::SafeTensors::deserialize(&file)?;
    let tensor = file.tensor("counts")?;
    let &[_, c, m] = tensor.shape() else {
        anyhow::bail!("counts have {} axes, expected 3", tensor.shape().len())
    };
    let (numbers, _) = tensor.data().as_chunks::<4>();
    let images = numbers.chunks_exact((c * m).max(1));
    let image = |pixels: &[[u8; 4]]| -> Result<ConfusionMatrix> {
        let pixels = pixels.iter().map(|n| u64::from(u32::from_le_bytes(*n))).collect();
        Ok(ConfusionMatrix::from_counts(Array2::from_shape_vec((c, m), pixels)?))
    };
    images.map(image).collect()
}

fn weights_to_bytes(record: &RunRecord, probe: &BankProbe) -> Result<Vec<u8>> {
    let tensors = match probe {
        BankProbe::Linear(p) => vec![
            Tensor::f32("weight", p.weight.shape(), &p.weight),
            Tensor::f32("bias", p.bias.shape(), &p.bias),
        ],
        BankProbe::Cluster(p) => vec![Tensor::f32("centres", p.centres.shape(), &p.centres)],
    };
    let metadata = [
        ("format", "featlab-probe".to_owned()),
        ("version", "1".to_owned()),
        ("probe", record.probe.clone()),
        ("method", record.method.clone()),
        ("dim", record.dim.to_string()),
        ("seed", record.seed.to_string()),
        ("train_cache_id", record.train_cache_id.clone()),
    ];
    let metadata = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    Ok(tensorfile::to_bytes(&tensors, &metadata)?)
}

fn weights_from_bytes(bytes: &[u8]) -> Result<BankProbe> {
    let file = safetensors::SafeTensors::deserialize(bytes)?;
    let values = |name: &str| -> Result<(Vec<usize>, Vec<f32>)> {
        let tensor = file.tensor(name)?;
        let floats =
            tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok((tensor.shape().to_vec(), floats))
    };
    let matrix = |name: &str| -> Result<ndarray::Array2<f32>> {
        let (shape, floats) = values(name)?;
        anyhow::ensure!(shape.len() == 2, "tensor {name} has {} axes, expected 2", shape.len());
        Ok(ndarray::Array2::from_shape_vec((shape[0], shape[1]), floats)?)
    };
    Ok(match file.tensor("centres") {
        Err(_) => BankProbe::Linear(probe::LinearProbe {
            weight: matrix("weight")?,
            bias: values("bias")?.1.into(),
        }),
        Ok(_) => BankProbe::Cluster(probe::ClusterProbe { centres: matrix("centres")? }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/x.json");
        write_atomically(&path, b"1").unwrap();
        write_atomically(&path, b"22").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"22");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn counts_come_back() {
        let image = |i: u64| ConfusionMatrix::from_counts(ndarray::array![[i, 0, 70_000], [0, 5, 6]]);
        let images = [image(1), image(2)];
        assert_eq!(counts_from_bytes(&counts_to_bytes(&images).unwrap()).unwrap(), images);
        assert!(counts_from_bytes(b"damaged").is_err());
    }

    #[test]
    fn an_unwritable_place_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        let error = write_atomically(&dir.path().join("file/x.json"), b"1").unwrap_err();
        assert!(error.to_string().contains("file/x.json"), "{error}");
    }

    #[test]
    fn keys_depend_on_every_value() {
        assert_eq!(key_of(&("pca", 3)).unwrap(), key_of(&("pca", 3)).unwrap());
        assert_ne!(key_of(&("pca", 3)).unwrap(), key_of(&("pca", 6)).unwrap());
        assert_eq!(key_of(&0).unwrap().len(), 16);
    }
}
