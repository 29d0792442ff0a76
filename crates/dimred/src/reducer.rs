//! Reducer: any fitted reduction, and its file.
//!
//! The file is a safetensors file with 64-bit tensors (`mean`, `scale`, `components` or `matrix`, `explained_variance`) and
//! string metadata: `format` = `featlab-reducer`, `version`, `method`, `scaler`, `seed`, `n_rows`, `total_variance`, and the
//! caller's provenance under `from.…`; `sha256` covers the tensors. What is saved and loaded again projects to the same bits.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{Array1, Array2};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use sha2::{Digest, Sha256};
use tensorfile::Tensor;

use crate::affine::Affine;
use crate::pca::Pca;
use crate::random_projection::RandomProjection;
use crate::scaler::Scaler;
use crate::{Error, Result};

const FORMAT: &str = "featlab-reducer";
const VERSION: &str = "1";

/// No reduction: all `d` features as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    dim: usize,
}

impl Identity {
    /// The identity on rows of width `d`.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self { dim }
    }
}

/// Any fitted reduction.
#[derive(Debug, Clone, PartialEq)]
pub enum Reducer {
    /// All features as they are.
    Identity(Identity),
    /// Principal components.
    Pca(Pca),
    /// A random projection.
    RandomProjection(RandomProjection),
}

impl Reducer {
    /// Name used in results: `none`, `pca`, `rp`, `rp-sparse`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::Identity(_) => "none",
            Self::Pca(_) => "pca",
            Self::RandomProjection(rp) if rp.sparse => "rp-sparse",
            Self::RandomProjection(_) => "rp",
        }
    }

    /// Width `d` of the rows that it takes.
    #[must_use]
    pub fn input_dim(&self) -> usize {
        match self {
            Self::Identity(identity) => identity.dim,
            Self::Pca(pca) => pca.mean.len(),
            Self::RandomProjection(rp) => rp.mean.len(),
        }
    }

    /// The largest target dimension.
    #[must_use]
    pub fn max_dim(&self) -> usize {
        match self {
            Self::Identity(identity) => identity.dim,
            Self::Pca(pca) => pca.n_components(),
            Self::RandomProjection(rp) => rp.max_dim(),
        }
    }

    /// The map to `k` dimensions.
    ///
    /// # Errors
    /// [`Error::Dimension`] if there is none (for the identity: unless `k = d`).
    pub fn at(&self, k: usize) -> Result<Affine> {
        match self {
            Self::Identity(Identity { dim }) if k == *dim => {
                Ok(Affine::new(Array1::zeros(k).view(), Array1::ones(k).view(), Array2::eye(k).view()))
            }
            Self::Identity(Identity { dim }) => Err(Error::Dimension { asked: k, available: *dim }),
            Self::Pca(pca) => pca.at(k),
            Self::RandomProjection(rp) => rp.at(k),
        }
    }

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
                Ok(Self::Pca(Pca {
                    scaler,
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
    use crate::{Moments, PcaParams, RandomProjectionKind, RandomProjectionParams};

    fn reducers() -> Vec<Reducer> {
        let rows = Array2::from_shape_fn((60, 7), |(i, j)| ((i * (j + 3)) % 11) as f32 - 0.1 * j as f32);
        let mut moments = Moments::new(7);
        moments.add(rows.view()).unwrap();
        let random = |kind| RandomProjectionParams { kind, seed: 4, scaler: Scaler::Train, max_dim: 5 };
        vec![
            Reducer::Identity(Identity::new(7)),
            Reducer::Pca(PcaParams::default().fit_moments(&moments).unwrap().truncated(6).unwrap()),
            Reducer::RandomProjection(random(RandomProjectionKind::Gaussian).fit(7, Some(&moments)).unwrap()),
            Reducer::RandomProjection(
                random(RandomProjectionKind::Sparse { density: None }).fit(7, Some(&moments)).unwrap(),
            ),
        ]
    }

    #[test]
    fn files_round_trip_to_the_bit() {
        let provenance =
            BTreeMap::from([("cache_id".to_owned(), "abc".to_owned()), ("z".to_owned(), "1".to_owned())]);
        for reducer in reducers() {
            let bytes = reducer.to_bytes(&provenance).unwrap();
            assert_eq!(bytes, reducer.to_bytes(&provenance).unwrap());
            assert_eq!(Reducer::from_bytes(&bytes).unwrap(), reducer, "{}", reducer.method());
            let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
            assert_eq!(header.metadata().as_ref().unwrap()["from.cache_id"], "abc");
        }
    }

    #[test]
    fn names_and_dimensions() {
        let names: Vec<_> = reducers().iter().map(|r| (r.method(), r.input_dim(), r.max_dim())).collect();
        assert_eq!(names, [("none", 7, 7), ("pca", 7, 6), ("rp", 7, 5), ("rp-sparse", 7, 5)]);
        assert!(reducers()[0].at(6).is_err() && reducers()[0].at(7).is_ok());
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
