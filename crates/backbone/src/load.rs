//! From a user's name to a backbone that is ready to run, with all that identifies it.
//!
//! The fingerprint is the SHA-256 of the weights file, or of the recipe of random weights: equal fingerprints and equal
//! [`BackboneSpec::architecture`](crate::BackboneSpec) mean equal features. Where the file lay does not matter.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use sha2::{Digest, Sha256};

use crate::checkpoint::{self, Checkpoint, NamedTensor, ReadOptions};
use crate::hub::{self, WEIGHTS};
use crate::models::ModelConfig;
use crate::random;
use crate::source::Source;
use crate::{Backbone, Error, Precision, Result};

/// What a caller may know or want besides the name.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Attention heads per block; needed only where neither the checkpoint nor a file beside it states them.
    pub num_heads: Option<usize>,
    /// Where the model is to run. The default is the CPU.
    pub device: Device,
    /// The number type that it computes in. The default is `f32`.
    pub precision: Precision,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { num_heads: None, device: Device::Cpu, precision: Precision::F32 }
    }
}

/// Where weights came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// A file of a hub repository.
    Hub {
        /// `owner/repo`.
        repo: String,
        /// Name of the weights file in it.
        file: String,
        /// The revision, as the cache names its snapshot.
        revision: String,
    },
    /// Inside the program.
    Embedded,
    /// Seeded random numbers: the model was never trained.
    Random {
        /// The seed.
        seed: u64,
    },
}

/// A backbone and what identifies it.
pub struct Loaded {
    /// The model.
    pub backbone: Box<dyn Backbone>,
    /// The name it was asked for by.
    pub name: String,
    /// SHA-256 of the weights file, or of the recipe of random weights, in hexadecimal.
    pub fingerprint: String,
    /// Where the weights came from.
    pub origin: Origin,
    /// Mean and standard deviation of the pixels in `[0, 1]` that the model expects, where a file beside it says so.
    pub normalization: Option<([f32; 3], [f32; 3])>,
    /// What the head read while this was trained, where the checkpoint says so: `class`, or `mean` for the mean patch token.
    pub readout: Option<String>,
    /// What a reader should know, as which parts of a training checkpoint were left out.
    pub note: Vec<String>,
}

impl Loaded {
    /// What to know before the class token of this backbone is used, if anything.
    #[must_use]
    pub fn class_token_caution(&self) -> Option<&'static str> {
        (self.readout.as_deref() == Some("mean")).then_some(
            "this backbone was trained through the mean of its patch tokens; its class token was never trained, and what it \
             says or looks at means little",
        )
    }
}

/// Loads a backbone.
///
/// * `name_or_file`: a weights file (`.pth`, `.pt`, `.ckpt`, `.bin`, `.safetensors`), a folder with `config.json` and
///   weights, `random:ARCH[:SEED]`, `embedded:scenes-micro` (carried inside), `owner/repo` on the hub, a name of the originals
///   (`dino_vits8`, `dinov2_vits14`, `dinov2_vits14_reg`, `dinov3_vits16` and so on, which lead to the hub), or a timm name
///   such as `vit_small_patch8_224.dino`.
///
/// # Errors
/// One for which [`Error::is_usage`] holds if the name leads nowhere or the number of heads is missing, one for which
/// [`Error::is_integrity`] holds if the weights are damaged, incomplete or not a vision transformer's.
///
/// ```
/// let loaded = backbone::load("random:vit_micro_patch8:0", &backbone::LoadOptions::default())?;
/// assert_eq!(loaded.backbone.spec().embed_dim, 192);
/// assert_eq!(loaded.origin, backbone::Origin::Random { seed: 0 });
/// # Ok::<(), backbone::Error>(())
/// ```
pub fn load(name_or_file: &str, options: &LoadOptions) -> Result<Loaded> {
    let Weights { config, tensors, fingerprint, origin, normalization, readout, note } =
        Weights::read(name_or_file, options)?;
    let weights = VarBuilder::from_tensors(tensors, options.precision.dtype(), &options.device);
    Ok(Loaded {
        backbone: config.build(weights)?,
        name: name_or_file.to_owned(),
        fingerprint,
        origin,
        normalization,
        readout,
        note,
    })
}

/// The tensors of a backbone under the original's names (`blocks.0.attn.qkv.weight` and so on), for writing them elsewhere.
///
/// # Errors
/// As [`load`].
pub fn state_dict(name_or_file: &str, options: &LoadOptions) -> Result<BTreeMap<String, NamedTensor>> {
    let tensors = Weights::read(name_or_file, options)?.tensors.into_iter();
    tensors
        .map(|(name, tensor)| {
            let (shape, values) = (tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1()?);
            Ok((name, NamedTensor { shape, values }))
        })
        .collect()
}

/// Weights in the original's names, before a model is made of them.
struct Weights {
    config: ModelConfig,
    tensors: HashMap<String, Tensor>,
    fingerprint: String,
    origin: Origin,
    normalization: Option<([f32; 3], [f32; 3])>,
    readout: Option<String>,
    note: Vec<String>,
}

impl Weights {
    fn read(name_or_file: &str, options: &LoadOptions) -> Result<Self> {
        match Source::parse(name_or_file)? {
            Source::Random { architecture, config, seed } => {
                Self::random(&architecture, config, seed, options)
            }
            Source::Embedded(weights) => {
                let path = Path::new(name_or_file);
                let read = checkpoint::decode(path, weights.bytes, &read_options(options, false))?;
                Ok(Self::of(read, Origin::Embedded, None))
            }
            Source::File(path) => Self::from_file(&path, false, options),
            Source::Folder(folder) => {
                let weights = WEIGHTS.iter().map(|file| folder.join(file)).find(|path| path.is_file());
                Self::from_file(&weights.ok_or(Error::NoWeights { path: folder })?, true, options)
            }
            Source::Hub(repo) => {
                let fetched = hub::fetch(&repo)?;
                let file = fetched.weights.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let weights = Self::from_file(&fetched.weights, true, options)?;
                Ok(Self { origin: Origin::Hub { repo, file, revision: fetched.revision }, ..weights })
            }
        }
    }

    fn from_file(path: &Path, with_config: bool, options: &LoadOptions) -> Result<Self> {
        let read = checkpoint::read(path, &read_options(options, with_config))?;
        Ok(Self::of(read, Origin::File(path.to_owned()), checkpoint::normalization(path)))
    }

    fn of(read: Checkpoint, origin: Origin, normalization: Option<([f32; 3], [f32; 3])>) -> Self {
        Self {
            config: read.config,
            tensors: read.tensors,
            fingerprint: read.sha256,
            origin,
            normalization,
            readout: read.readout,
            note: read.notes,
        }
    }

    fn random(architecture: &str, config: ModelConfig, seed: u64, options: &LoadOptions) -> Result<Self> {
        let config = match options.num_heads {
            Some(num_heads) => config.with_heads(num_heads),
            None => config,
        };
        let recipe = random::recipe(architecture, seed);
        Ok(Self {
            tensors: random::weights(&config, &recipe, &options.device)?,
            config,
            fingerprint: checkpoint::hex(&Sha256::digest(recipe)),
            origin: Origin::Random { seed },
            normalization: None,
            readout: None,
            note: vec!["the weights are random and were never trained".to_owned()],
        })
    }
}

fn read_options(options: &LoadOptions, with_config: bool) -> ReadOptions<'_> {
    ReadOptions { num_heads: options.num_heads, with_config, device: &options.device }
}
