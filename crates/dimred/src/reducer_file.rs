//! A reducer's file.
//!
//! It is a safetensors file with 64-bit tensors (`mean`, `scale`, `components` or `matrix`, `explained_variance`) and
//! string metadata: `format` = `featlab-reducer`, `version`, `method`, `scaler`, `seed`, `n_rows`, `total_variance`, and the
//! caller's provenance under `from.…`; `sha256` covers the tensors. A UMAP has its rows and their places in 32 bits (`rows`,
//! `embedding`) and its parameters by name. What is saved and loaded again projects to the same bits.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use ndarray::{Array1, Array2};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use sha2::{Digest, Sha256};
use tensorfile::Tensor;

#[cfg(feature = "hnne")]
use crate::hnne::{Hnne, HnneParams};
use crate::pca::Pca;
use crate::random_projection::RandomProjection;
use crate::reducer::{Identity, Reducer};
use crate::scaler::Scaler;
use crate::stego_head::{HeadLayer, StegoHead};
use crate::umap::{Umap, UmapParams};
use crate::{Error, Result};

const FORMAT: &str = "featlab-reducer";
const VERSION: &str = "1";

impl Reducer {
    /// The reducer as a file's bytes, with the caller's account of where it came from.
    ///
    /// # Errors
    /// [`Error::Format`] if the serialiser refuses.
    pub fn to_bytes(&self, provenance: &BTreeMap<String, String>) -> Result<Vec<u8>> {
        let mut meta: BTreeMap<String, String> =
            provenance.iter().map(|(k, v)| (format!("from.{k}"), v.clone())).collect();
        let mut note = |key: &str, value: String| meta.insert(key.to_owned(), value);
        note("format", FORMAT.into());
        note("version", VERSION.into());
        note("method", self.method().into());
        let tensors: Vec<Tensor> = match self {
            Self::Identity(identity) => vec![vector("mean", &Array1::zeros(identity.dim))],
            Self::Pca(pca) => {
                note("scaler", pca.scaler.to_string());
                note("n_rows", pca.n_rows.to_string());
                if pca.whiten {
                    note("whiten", "true".into());
                }
                note("total_variance", format!("{:016x}", pca.total_variance.to_bits()));
                vec![
                    vector("mean", &pca.mean),
                    vector("scale", &pca.scale),
                    vector("explained_variance", &pca.explained_variance),
                    matrix("components", &pca.components),
                ]
            }
            Self::RandomProjection(rp) => {
                note("scaler", rp.scaler.to_string());
                note("seed", rp.seed.to_string());
                vec![vector("mean", &rp.mean), vector("scale", &rp.scale), matrix("matrix", &rp.matrix)]
            }
            Self::Umap(umap) => {
                let params = umap.params();
                note("scaler", params.scaler.to_string());
                note("seed", params.seed.to_string());
                note("metric", params.metric.to_string());
                note("n_neighbors", params.n_neighbors.to_string());
                note("min_dist", params.min_dist.to_string());
                note("spread", params.spread.to_string());
                note("n_epochs", params.n_epochs.map(|n| n.to_string()).unwrap_or_default());
                note("transform_epochs", params.transform_epochs.to_string());
                note("negative_sample_rate", params.negative_sample_rate.to_string());
                note("learning_rate", params.learning_rate.to_string());
                note("repulsion_strength", params.repulsion_strength.to_string());
                note("mean_distance", umap.mean_distance.to_string());
                vec![
                    vector("mean", &umap.mean),
                    vector("scale", &umap.scale),
                    Tensor::f32("rows", umap.rows.shape(), &umap.rows),
                    Tensor::f32("embedding", umap.embedding.shape(), &umap.embedding),
                ]
            }
            Self::Stego(head) => {
                let named = |name: &str, layer: &HeadLayer| {
                    let HeadLayer { weight, bias } = layer;
                    [
                        Tensor::f32(format!("{name}.weight"), weight.shape(), weight),
                        Tensor::f32(format!("{name}.bias"), &[1, bias.len()], bias),
                    ]
                };
                let mut tensors = Vec::from(named("linear", head.linear()));
                if let Some((hidden, output)) = head.perceptron() {
                    tensors.extend(named("hidden", hidden));
                    tensors.extend(named("output", output));
                }
                tensors
            }
            #[cfg(feature = "hnne")]
            Self::Hnne(hnne) => {
                hnne.notes().into_iter().for_each(|(key, value)| drop(note(key, value)));
                vec![
                    vector("mean", &hnne.mean),
                    vector("scale", &hnne.scale),
                    vector("centre", &hnne.centre),
                    vector("gains", &hnne.gains),
                    matrix("components", &hnne.components),
                    matrix("offsets", &hnne.offsets),
                    Tensor::f32("centroids", hnne.centroids.shape(), &hnne.centroids),
                ]
            }
        };
        let unsealed = tensorfile::to_bytes(&tensors, &meta).map_err(format_error)?;
        meta.insert("sha256".into(), checksum(tensorfile::split(&unsealed).map_err(format_error)?.1));
        tensorfile::to_bytes(&tensors, &meta).map_err(format_error)
    }

    /// A reducer from a file's bytes.
    ///
    /// # Errors
    /// [`Error::Format`] if these are not a reducer of this version, or hold shapes or numbers that cannot be.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(format_error)?;
        let meta = header.metadata().clone().unwrap_or_default();
        let get = |key: &str| {
            meta.get(key).map(String::as_str).ok_or_else(|| wrong(format!("\"{key}\" is missing")))
        };
        if get("format")? != FORMAT || get("version")? != VERSION {
            return Err(wrong(format!("format {} version {}", get("format")?, get("version")?)));
        }
        if get("sha256")? != checksum(tensorfile::split(bytes).map_err(format_error)?.1) {
            return Err(wrong("its checksum does not match its tensors: the file is damaged".into()));
        }
        let file = Tensors(SafeTensors::deserialize(bytes).map_err(format_error)?);
        if let method @ ("stego" | "stego-nested") = get("method")? {
            return stego(&file, method == "stego-nested").map(Arc::new).map(Self::Stego);
        }
        let mean = file.vector("mean", None)?;
        let d = mean.len();
        let number = |key: &str| get(key)?.parse::<u64>().map_err(|e| wrong(format!("\"{key}\": {e}")));
        let scaler = || get("scaler")?.parse::<Scaler>().map_err(|e| wrong(e.to_string()));
        match get("method")? {
            "none" => Ok(Self::Identity(Identity { dim: d })),
            "pca" => {
                let components = file.matrix("components", d)?;
                let explained_variance = file.vector("explained_variance", None)?;
                if components.nrows() > explained_variance.len() {
                    return Err(wrong("more components than explained variances".into()));
                }
                let bits =
                    u64::from_str_radix(get("total_variance")?, 16).map_err(|e| wrong(e.to_string()))?;
                let scale = file.vector("scale", Some(d))?;
                let (scaler, n_rows, total_variance) = (scaler()?, number("n_rows")?, f64::from_bits(bits));
                let whiten = meta.get("whiten").is_some_and(|word| word == "true");
                Ok(Self::Pca(Pca {
                    scaler,
                    whiten,
                    n_rows,
                    mean,
                    scale,
                    components,
                    explained_variance,
                    total_variance,
                }))
            }
            method @ ("rp" | "rp-sparse") => {
                let (scale, matrix) = (file.vector("scale", Some(d))?, file.matrix("matrix", d)?);
                let (sparse, seed, scaler) = (method == "rp-sparse", number("seed")?, scaler()?);
                Ok(Self::RandomProjection(RandomProjection { sparse, seed, scaler, mean, scale, matrix }))
            }
            "umap" => {
                let scaling = (mean, file.vector("scale", Some(d))?);
                umap(&meta, &file, scaler()?, scaling).map(Arc::new).map(Self::Umap)
            }
            #[cfg(feature = "hnne")]
            "hnne" => {
                let components = file.matrix("components", d)?;
                let params = HnneParams {
                    n_components: components.nrows(),
                    metric: parsed(&meta, "metric")?,
                    scaler: scaler()?,
                };
                let vectors = [
                    mean,
                    file.vector("scale", Some(d))?,
                    file.vector("centre", Some(d))?,
                    file.vector("gains", None)?,
                ];
                let matrices = [components, file.matrix("offsets", params.n_components)?];
                Hnne::from_parts(params, vectors, matrices, file.matrix_f32("centroids", Some(d))?)
                    .map(Arc::new)
                    .map(Self::Hnne)
            }
            #[cfg(not(feature = "hnne"))]
            "hnne" => Err(wrong("method \"hnne\" needs a build with the cargo feature hnne".into())),
            other => Err(wrong(format!("method \"{other}\""))),
        }
    }

    /// Reads a reducer file.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, or as [`Self::from_bytes`].
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes)
    }
}

/// A trained head from its layers.
fn stego(file: &Tensors<'_>, nested: bool) -> Result<StegoHead> {
    let layer = |name: &str| -> Result<HeadLayer> {
        let weight = file.matrix_f32(&format!("{name}.weight"), None)?;
        let bias = file.matrix_f32(&format!("{name}.bias"), Some(weight.nrows()))?;
        Ok(HeadLayer { bias: bias.row(0).to_owned(), weight })
    };
    let perceptron = match file.0.tensor("hidden.weight") {
        Ok(_) => Some((layer("hidden")?, layer("output")?)),
        Err(_) => None,
    };
    StegoHead::new(layer("linear")?, perceptron, nested)
}

/// A UMAP from its parameters and tensors.
fn umap(
    meta: &HashMap<String, String>,
    file: &Tensors<'_>,
    scaler: Scaler,
    scaling: (Array1<f64>, Array1<f64>),
) -> Result<Umap> {
    let rows = file.matrix_f32("rows", Some(scaling.0.len()))?;
    let embedding = file.matrix_f32("embedding", None)?;
    let params = UmapParams {
        n_components: embedding.ncols(),
        n_neighbors: parsed(meta, "n_neighbors")?,
        min_dist: parsed(meta, "min_dist")?,
        spread: parsed(meta, "spread")?,
        metric: parsed(meta, "metric")?,
        scaler,
        n_epochs: match meta.get("n_epochs").map(String::as_str) {
            Some("") => None,
            _ => Some(parsed(meta, "n_epochs")?),
        },
        transform_epochs: parsed(meta, "transform_epochs")?,
        negative_sample_rate: parsed(meta, "negative_sample_rate")?,
        learning_rate: parsed(meta, "learning_rate")?,
        repulsion_strength: parsed(meta, "repulsion_strength")?,
        seed: parsed(meta, "seed")?,
    };
    Umap::from_parts(params, scaling, (rows, embedding), parsed(meta, "mean_distance")?)
}

/// A note of the file as a number or a name.
fn parsed<T: FromStr<Err: Display>>(meta: &HashMap<String, String>, key: &str) -> Result<T> {
    let text = meta.get(key).ok_or_else(|| wrong(format!("\"{key}\" is missing")))?;
    text.parse().map_err(|e| wrong(format!("\"{key}\": {e}")))
}

fn wrong(what: String) -> Error {
    Error::Format(what)
}

fn format_error(error: safetensors::SafeTensorError) -> Error {
    Error::Format(error.to_string())
}

fn vector(name: &str, values: &Array1<f64>) -> Tensor {
    Tensor::new(name, Dtype::F64, values.shape(), values.iter().map(|x| x.to_le_bytes()))
}

fn matrix(name: &str, values: &Array2<f64>) -> Tensor {
    Tensor::new(name, Dtype::F64, values.shape(), values.iter().map(|x| x.to_le_bytes()))
}

/// SHA-256 in hex digits.
fn checksum(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 64-bit tensors of a file, checked as they are taken out.
struct Tensors<'a>(SafeTensors<'a>);

impl Tensors<'_> {
    fn floats(&self, name: &str) -> Result<(Vec<usize>, Vec<f64>)> {
        let tensor = self.0.tensor(name).map_err(format_error)?;
        if tensor.dtype() != Dtype::F64 {
            return Err(wrong(format!("tensor {name} is {:?}, expected F64", tensor.dtype())));
        }
        let (chunks, _) = tensor.data().as_chunks::<8>();
        let values: Vec<f64> = chunks.iter().map(|b| f64::from_le_bytes(*b)).collect();
        match values.iter().all(|x| x.is_finite()) {
            true => Ok((tensor.shape().to_vec(), values)),
            false => Err(wrong(format!("tensor {name} holds NaN or infinity"))),
        }
    }

    /// A 32-bit matrix, of a width if one is expected.
    fn matrix_f32(&self, name: &str, width: Option<usize>) -> Result<Array2<f32>> {
        let tensor = self.0.tensor(name).map_err(format_error)?;
        let (&[n, k], Dtype::F32) = (tensor.shape(), tensor.dtype()) else {
            return Err(wrong(format!(
                "tensor {name} is {:?} of shape {:?}, expected a matrix of F32",
                tensor.dtype(),
                tensor.shape()
            )));
        };
        if n == 0 || k == 0 || width.is_some_and(|width| width != k) {
            return Err(wrong(format!(
                "tensor {name} has shape [{n}, {k}], expected [n, {}]",
                width.unwrap_or(1)
            )));
        }
        let values: Vec<f32> =
            tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if !values.iter().all(|x| x.is_finite()) {
            return Err(wrong(format!("tensor {name} holds NaN or infinity")));
        }
        Array2::from_shape_vec((n, k), values).map_err(|e| wrong(e.to_string()))
    }

    fn vector(&self, name: &str, expected: Option<usize>) -> Result<Array1<f64>> {
        let (shape, values) = self.floats(name)?;
        match shape[..] {
            [n] if n > 0 && expected.is_none_or(|e| e == n) => Ok(values.into()),
            _ => {
                Err(wrong(format!("tensor {name} has shape {shape:?}, expected [{}]", expected.unwrap_or(1))))
            }
        }
    }

    fn matrix(&self, name: &str, d: usize) -> Result<Array2<f64>> {
        let (shape, values) = self.floats(name)?;
        match shape[..] {
            [k, width] if k > 0 && width == d => {
                Array2::from_shape_vec((k, d), values).map_err(|e| wrong(e.to_string()))
            }
            _ => Err(wrong(format!("tensor {name} has shape {shape:?}, expected [k, {d}]"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affine::Projection;
    use crate::reducer::tests::reducers;

    #[test]
    fn files_round_trip_to_the_bit() {
        let provenance =
            BTreeMap::from([("cache_id".to_owned(), "abc".to_owned()), ("z".to_owned(), "1".to_owned())]);
        for reducer in reducers() {
            let bytes = reducer.to_bytes(&provenance).unwrap();
            assert_eq!(bytes, reducer.to_bytes(&provenance).unwrap());
            let loaded = Reducer::from_bytes(&bytes).unwrap();
            assert_eq!(loaded, reducer, "{}", reducer.method());
            let rows = Array2::from_shape_fn((9, 7), |(i, j)| ((i * 5 + j) as f32).cos());
            let project =
                |reducer: &Reducer| reducer.at(reducer.max_dim()).unwrap().transform(rows.view()).unwrap();
            assert_eq!(project(&loaded), project(&reducer));
            let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
            assert_eq!(header.metadata().as_ref().unwrap()["from.cache_id"], "abc");
        }
    }

    #[cfg(feature = "hnne")]
    #[test]
    fn an_hnne_round_trips_to_the_bit() {
        let rows = Array2::from_shape_fn((60, 7), |(i, j)| ((i * (j + 3)) % 11) as f32 - 0.1 * j as f32);
        let fitted = HnneParams { n_components: 3, ..HnneParams::default() }.fit(rows.view()).unwrap();
        let reducer = Reducer::Hnne(Arc::new(fitted.hnne));
        let loaded = Reducer::from_bytes(&reducer.to_bytes(&BTreeMap::new()).unwrap()).unwrap();
        assert_eq!(loaded, reducer);
        let project = |reducer: &Reducer| reducer.at(3).unwrap().transform(rows.view()).unwrap();
        assert_eq!(project(&loaded), project(&reducer));
        assert_eq!((reducer.method(), reducer.max_dim(), reducer.prefix_scale(3)), ("hnne", 3, None));
        assert!(matches!(reducer.at(2), Err(Error::OtherDimension { asked: 2, fitted: 3 })));
    }

    #[test]
    fn damaged_and_foreign_files_are_refused() {
        let bytes = reducers()[1].to_bytes(&BTreeMap::new()).unwrap();
        assert!(Reducer::from_bytes(&bytes[..bytes.len() - 8]).is_err());
        assert!(Reducer::from_bytes(b"not a file").is_err());
        let edited = |from: &str, to: &str| {
            let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            let mut copy = bytes.clone();
            copy[at..at + to.len()].copy_from_slice(to.as_bytes());
            Reducer::from_bytes(&copy).unwrap_err().to_string()
        };
        assert!(edited("\"version\":\"1\"", "\"version\":\"9\"").contains("version 9"));
        assert!(edited("featlab-reducer", "featlab-xeducer").contains("featlab-xeducer"));
        let mut flipped = bytes.clone();
        let end = flipped.len();
        flipped[end - 1] ^= 0x80; // the sign of one number
        assert!(Reducer::from_bytes(&flipped).unwrap_err().to_string().contains("checksum"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Reducer::load(Path::new("no/such.safetensors")).unwrap_err();
        assert!(error.to_string().contains("no/such.safetensors"));
    }
}
