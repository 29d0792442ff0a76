//! A segmentation model on disk: a folder of three files that other commands read as well.
//!
//! ```text
//! segmenter.json        backbone (name and hash), block and facet, view, classes, and what each cluster is called
//! reducer.safetensors   features → codes; also goes with `featlab probe --reducer`
//! probes.safetensors    linear.weight [c, k], linear.bias [c], cluster.centres [m, k]
//! ```
//!
//! The card names the hashes of the other two and is written last, so that a folder is a model as a whole or not at all. A checkpoint of the
//! original (`.ckpt`) is a model in one file: backbone, head and probes, but neither names of classes nor of clusters.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use backbone::{Layer, NamedTensor};
use dataset::{ClassTable, Transform};
use dimred::Reducer;
use ndarray::{Array1, Array2};
use probe::{BankProbe, ClusterProbe, LinearProbe, Probe as _};
use segment::Palette;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tensorfile::Tensor;

use crate::exit::{integrity, usage};
use crate::records::write_atomically;
use crate::stages::stego;

const FORMAT: &str = "featlab-segmenter";
const VERSION: u32 = 1;
const CARD: &str = "segmenter.json";
const REDUCER: &str = "reducer.safetensors";
const PROBES: &str = "probes.safetensors";

/// Side of the picture that the original evaluates.
const RES: usize = 320;

/// What a model is, beside its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Card {
    format: String,
    version: u32,
    /// What the backbone was called when the model was made.
    pub(crate) backbone: String,
    /// Hash of its weights; empty if it is that of no cache, as of a checkpoint that holds its own.
    pub(crate) fingerprint: String,
    pub(crate) architecture: String,
    pub(crate) layer: Layer,
    /// The view that probes were scored with, a centre square.
    pub(crate) transform: Transform,
    /// `k`, numbers of a code.
    pub(crate) dim: usize,
    pub(crate) classes: ClassTable,
    /// What each cluster is called, if that is known.
    pub(crate) class_of_cluster: Option<Vec<Option<usize>>>,
    /// How it was made.
    pub(crate) made: BTreeMap<String, String>,
    /// Of the other files.
    sha256: BTreeMap<String, String>,
}

impl Card {
    /// * `features`: architecture, hash of weights and layer.
    pub(crate) fn new(
        backbone: String,
        (architecture, fingerprint, layer): (String, String, Layer),
        transform: Transform,
        dim: usize,
        classes: ClassTable,
    ) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            backbone,
            fingerprint,
            architecture,
            layer,
            transform,
            dim,
            classes,
            class_of_cluster: None,
            made: BTreeMap::new(),
            sha256: BTreeMap::new(),
        }
    }
}

/// A segmentation model, all but the backbone.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) card: Card,
    pub(crate) reducer: Reducer,
    pub(crate) linear: Option<LinearProbe>,
    pub(crate) cluster: Option<ClusterProbe>,
}

impl Model {
    /// A model by its folder, or a checkpoint of the original.
    ///
    /// # Errors
    /// A usage error if there is none; one of integrity if it is damaged.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        if path.is_file() {
            return Self::from_checkpoint(path);
        }
        let card = path.join(CARD);
        let bytes = std::fs::read(&card).map_err(|e| {
            usage(format!("{name} is no segmentation model ({CARD}: {e}); featlab segment train makes one"))
        })?;
        let damaged = |what: &str| integrity(format!("model {name}: {what}"));
        let card: Card = serde_json::from_slice(&bytes).map_err(|e| damaged(&format!("{CARD}: {e}")))?;
        if card.format != FORMAT || card.version != VERSION {
            let (format, version) = (&card.format, card.version);
            return Err(damaged(&format!("expected {FORMAT} version {VERSION}, got {format} {version}")));
        }
        let part = |file: &str| -> Result<Vec<u8>> {
            let bytes = std::fs::read(path.join(file)).with_context(|| format!("model {name}: {file}"))?;
            match card.sha256.get(file) {
                Some(hash) if *hash == sha256(&bytes) => Ok(bytes),
                _ => Err(damaged(&format!("{file} is not the one it was made with; make the model again"))),
            }
        };
        let reducer = Reducer::from_bytes(&part(REDUCER)?).with_context(|| format!("model {name}"))?;
        let probes = part(PROBES)?;
        let (linear, cluster) = probes_from_bytes(&probes).with_context(|| format!("model {name}"))?;
        let model = Self { card, reducer, linear, cluster };
        model.check().with_context(|| format!("model {name}"))?;
        Ok(model)
    }

    /// Writes the folder.
    ///
    /// # Errors
    /// If one is there and not to be replaced, or it cannot be written.
    pub(crate) fn write(&self, folder: &Path, overwrite: bool) -> Result<()> {
        if folder.join(CARD).exists() && !overwrite {
            return Err(usage(format!(
                "{} holds a model; name another folder or add --overwrite",
                folder.display()
            )));
        }
        let mut card = self.card.clone();
        let reducer = self.reducer.to_bytes(&self.card.made)?;
        let probes = self.probes_to_bytes()?;
        card.sha256 = [(REDUCER, &reducer), (PROBES, &probes)]
            .into_iter()
            .map(|(file, bytes)| (file.to_owned(), sha256(bytes)))
            .collect();
        write_atomically(&folder.join(REDUCER), &reducer)?;
        write_atomically(&folder.join(PROBES), &probes)?;
        write_atomically(&folder.join(CARD), &serde_json::to_vec_pretty(&card)?)
    }

    /// Hash of codes and probes, whatever they are called.
    ///
    /// # Errors
    /// If the serialiser refuses.
    pub(crate) fn hash(&self) -> Result<String> {
        let names =
            serde_json::to_vec(&(&self.card.class_of_cluster, &self.card.transform, &self.card.layer))?;
        let parts = [self.reducer.to_bytes(&self.card.made)?, self.probes_to_bytes()?, names];
        Ok(sha256(&parts.concat()))
    }

    /// The probes by name.
    pub(crate) fn probes(&self) -> Vec<(&'static str, BankProbe)> {
        let linear = self.linear.clone().map(|probe| ("linear", BankProbe::Linear(probe)));
        let cluster = self.cluster.clone().map(|probe| ("cluster", BankProbe::Cluster(probe)));
        linear.into_iter().chain(cluster).collect()
    }

    /// Colours of classes; of clusters without names, the Pascal map's.
    pub(crate) fn palette(&self, probe: &str, raw: bool) -> Palette {
        let clusters = self.cluster.as_ref().map_or(0, |probe| probe.outputs());
        match probe {
            "cluster" if raw || self.card.class_of_cluster.is_none() => Palette::pascal(clusters),
            _ => Palette::new(self.card.classes.palette.clone()),
        }
    }

    /// Fails if its parts do not fit.
    fn check(&self) -> Result<()> {
        let k = self.card.dim;
        self.reducer.at(k).map_err(|e| integrity(e.to_string()))?;
        let widths = [
            self.linear.as_ref().map(|probe| probe.weight.ncols()),
            self.cluster.as_ref().map(|probe| probe.centres.ncols()),
        ];
        if let Some(width) = widths.into_iter().flatten().find(|&width| width != k) {
            return Err(integrity(format!("a probe takes {width} dimensions, codes have {k}")));
        }
        let classes = self.card.classes.names.len();
        if self.linear.as_ref().is_some_and(|probe| probe.outputs() != classes) {
            return Err(integrity(format!("its linear probe does not have {classes} classes")));
        }
        let named = self.card.class_of_cluster.as_ref();
        let misnamed = named.is_some_and(|names| {
            names.len() != self.cluster.as_ref().map_or(0, |probe| probe.outputs())
                || names.iter().flatten().any(|&class| class >= classes)
        });
        if misnamed {
            return Err(integrity(
                "its clusters have other names than it has clusters or classes".to_owned(),
            ));
        }
        Ok(())
    }

    fn probes_to_bytes(&self) -> Result<Vec<u8>> {
        let mut tensors = Vec::new();
        if let Some(LinearProbe { weight, bias }) = &self.linear {
            tensors.push(Tensor::f32("linear.weight", weight.shape(), weight));
            tensors.push(Tensor::f32("linear.bias", bias.shape(), bias));
        }
        if let Some(ClusterProbe { centres }) = &self.cluster {
            tensors.push(Tensor::f32("cluster.centres", centres.shape(), centres));
        }
        let meta = [("format", "featlab-probes"), ("version", "1")];
        Ok(tensorfile::to_bytes(&tensors, &meta.map(|(k, v)| (k.to_owned(), v.to_owned())).into())?)
    }

    /// A checkpoint of the original: `net.model.*`, `net.cluster1.*`, `net.cluster2.*`, `linear_probe.*`, `cluster_probe.clusters`.
    fn from_checkpoint(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let backbone = backbone::load(&name, &backbone::LoadOptions::default())
            .with_context(|| format!("checkpoint {name}"))?;
        let spec = backbone.backbone.spec();
        let reducer = stego::from_checkpoint(path, spec.embed_dim)?;
        let tensors = backbone::named_tensors(path, "")?;
        let linear = match (tensors.get("linear_probe.weight"), tensors.get("linear_probe.bias")) {
            (Some(weight), Some(bias)) => {
                Some(LinearProbe { weight: matrix(weight)?, bias: Array1::from_vec(bias.values.clone()) })
            }
            _ => None,
        };
        let cluster = tensors.get("cluster_probe.clusters").map(matrix).transpose()?;
        let cluster = cluster.map(|centres| ClusterProbe { centres });
        let outputs = linear.as_ref().map(|probe| probe.outputs());
        let classes = outputs.or_else(|| cluster.as_ref().map(|probe| probe.outputs()));
        let classes = classes.ok_or_else(|| {
            integrity(format!("{name}: no probe is in it (linear_probe.weight, cluster_probe.clusters)"))
        })?;
        let features = (spec.architecture.clone(), backbone.fingerprint.clone(), Layer::default());
        let transform = Transform { res: RES, ..Transform::default() };
        let card = Card::new(name.clone(), features, transform, reducer.max_dim(), numbered(classes));
        let model = Self { card, reducer, linear, cluster };
        model.check().with_context(|| format!("checkpoint {name}"))?;
        Ok(model)
    }
}

/// Classes that have no names.
pub(crate) fn numbered(classes: usize) -> ClassTable {
    let palette = Palette::pascal(classes);
    ClassTable {
        names: (0..classes).map(|class| format!("class {class}")).collect(),
        palette: (0..=u8::MAX).map_while(|class| palette.colour(class)).collect(),
    }
}

fn matrix(tensor: &NamedTensor) -> Result<Array2<f32>> {
    let rows = tensor.shape.first().copied().unwrap_or(0);
    let columns = tensor.values.len().checked_div(rows).unwrap_or(0);
    Array2::from_shape_vec((rows, columns), tensor.values.clone())
        .map_err(|_| integrity(format!("a probe's weights have shape {:?}", tensor.shape)))
}

fn probes_from_bytes(bytes: &[u8]) -> Result<(Option<LinearProbe>, Option<ClusterProbe>)> {
    let file = safetensors::SafeTensors::deserialize(bytes)?;
    let tensor = |name: &str| -> Option<NamedTensor> {
        let tensor = file.tensor(name).ok()?;
        let (numbers, _) = tensor.data().as_chunks::<4>();
        let values = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Some(NamedTensor { shape: tensor.shape().to_vec(), values })
    };
    let linear = match (tensor("linear.weight"), tensor("linear.bias")) {
        (Some(weight), Some(bias)) => {
            Some(LinearProbe { weight: matrix(&weight)?, bias: bias.values.into() })
        }
        _ => None,
    };
    let cluster = tensor("cluster.centres").map(|centres| matrix(&centres)).transpose()?;
    Ok((linear, cluster.map(|centres| ClusterProbe { centres })))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        let features = ("vit".to_owned(), "abc".to_owned(), Layer::default());
        let mut card = Card::new("random:x".into(), features, Transform::default(), 3, numbered(2));
        card.class_of_cluster = Some(vec![Some(1), None]);
        let part = |rows: usize| Array2::from_shape_fn((rows, 3), |(i, j)| (i * 3 + j) as f32);
        Model {
            card,
            reducer: Reducer::Identity(dimred::Identity::new(3)),
            linear: Some(LinearProbe { weight: part(2), bias: Array1::zeros(2) }),
            cluster: Some(ClusterProbe { centres: part(2) }),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (model, path) = (model(), folder.path().join("model"));
        model.write(&path, false).unwrap();
        let back = Model::read(&path).unwrap();
        assert_eq!(back.card.class_of_cluster, model.card.class_of_cluster);
        assert_eq!(back.linear.unwrap().weight, model.linear.as_ref().unwrap().weight);
        assert_eq!(back.cluster.unwrap().centres, model.cluster.as_ref().unwrap().centres);
        assert_eq!(crate::exit::code(&model.write(&path, false).unwrap_err()), 2);
        model.write(&path, true).unwrap();
    }

    #[test]
    fn parts_of_another_model_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(crate::exit::code(&Model::read(path).unwrap_err()), 2);
        model().write(path, false).unwrap();
        let mut bytes = std::fs::read(path.join(PROBES)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(path.join(PROBES), bytes).unwrap();
        let error = Model::read(path).unwrap_err();
        assert!(crate::exit::code(&error) == 4 && error.to_string().contains(PROBES), "{error}");
        let mut wrong = model();
        wrong.card.class_of_cluster = Some(vec![Some(7), None]);
        wrong.write(path, true).unwrap();
        assert_eq!(crate::exit::code(&Model::read(path).unwrap_err()), 4);
    }

    #[test]
    fn clusters_without_names_have_colours_of_their_own() {
        let mut model = model();
        assert_eq!(model.palette("cluster", false).len(), 2);
        model.cluster = Some(ClusterProbe { centres: Array2::zeros((5, 3)) });
        model.card.class_of_cluster = None;
        assert_eq!((model.palette("cluster", false).len(), model.palette("linear", false).len()), (5, 2));
    }
}
