//! What can go wrong between a name and a feature: one variant per situation a caller could act on.
//!
//! Two predicates sort them for a program's exit code: [`Error::is_usage`] (what was asked for cannot be had) and
//! [`Error::is_integrity`] (a file is not what it should be). The rest are failures of the machine.

use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a backbone could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path that is not there.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// A folder without a weights file.
    #[error("{} holds neither model.safetensors nor pytorch_model.bin", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A name that no rule understands.
    #[error("\"{name}\" is neither a file nor a known model; {hint}")]
    UnknownName {
        /// The name as given.
        name: String,
        /// What would be understood.
        hint: String,
    },
    /// A hub model that is not in the local cache and cannot be fetched.
    #[error(
        "{repo} is not in the local cache and {reason}; put config.json and model.safetensors (or pytorch_model.bin) \
         into {}, or give a folder that holds them", folder.display()
    )]
    Unavailable {
        /// `owner/repo`.
        repo: String,
        /// Why it was not fetched.
        reason: String,
        /// Where the files are looked for.
        folder: PathBuf,
    },
    /// The number of heads is neither in the checkpoint nor beside it.
    #[error(
        "{} does not state its number of attention heads and {embed_dim} dimensions are no known family; give --num-heads",
        path.display()
    )]
    HeadsUnknown {
        /// The weights file.
        path: PathBuf,
        /// Its embedding dimension `d`.
        embed_dim: usize,
    },
    /// The number of heads does not divide the embedding dimension.
    #[error("{num_heads} attention heads do not divide the {embed_dim} dimensions of the embedding")]
    Heads {
        /// The number of heads asked for or stated.
        num_heads: usize,
        /// The embedding dimension `d`.
        embed_dim: usize,
    },
    /// A number of heads that leaves a model with rotary positions no whole number of turned dimensions.
    #[error(
        "{num_heads} attention heads of {head_dim} dimensions cannot be rotated with {periods} periods, each of which \
         turns four dimensions"
    )]
    RotatedHeads {
        /// The number of heads asked for or stated.
        num_heads: usize,
        /// Dimensions of each.
        head_dim: usize,
        /// The number of periods, as the state dict has it or as the dimensions imply.
        periods: usize,
    },
    /// A device that this build or machine does not have.
    #[error("device \"{choice}\" cannot be used: {reason}")]
    Device {
        /// The device as given.
        choice: String,
        /// Why not.
        reason: String,
    },
    /// A precision that does not exist.
    #[error("unknown precision \"{0}\"; expected auto, f32, bf16 or f16")]
    Precision(String),
    /// A facet that does not exist.
    #[error("unknown facet \"{0}\"; expected token, key, query or value")]
    Facet(String),
    /// A block that the model does not have.
    #[error("there is no block {block} in a model of {depth} blocks; expected {}..={}", -(*depth as i64), *depth as i64 - 1)]
    Block {
        /// The block as given; negative counts from the end.
        block: i64,
        /// How many blocks there are.
        depth: usize,
    },
    /// Something that only a transformer has.
    #[error("a convolutional network has no {what}; its stages are blocks 0 to 3, and the facet is token")]
    Convolutional {
        /// What was asked for.
        what: String,
    },
    /// Images of a shape that cannot be cut into patches.
    #[error("images have shape {got:?}, expected [b, 3, h, w] with sides that are multiples of {patch_size}")]
    Images {
        /// The side of a patch in pixels.
        patch_size: usize,
        /// The shape that was given.
        got: Vec<usize>,
    },
    /// A file that is not a checkpoint that can be read: damaged, truncated, or of another kind.
    #[error("{} cannot be read as a checkpoint: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// Tensors that do not make up a vision transformer.
    #[error("the tensors of {} do not fit {model}: {problems}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// The model that fits best.
        model: String,
        /// Missing, surplus and misshapen tensors, the first eight by name.
        problems: String,
    },
    /// Weights that are not numbers.
    #[error("tensor {tensor} of {} holds {count} values that are NaN or infinite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The first tensor with such values.
        tensor: String,
        /// How many of its values are concerned.
        count: usize,
    },
    /// A configuration file that contradicts the tensors, or asks for something else than a plain ViT.
    #[error("{} does not fit the checkpoint: {reason}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The entry, what it says, and what was found.
        reason: String,
    },
    /// A file that could not be read.
    #[error("reading {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A failed tensor operation: out of memory, or inputs on another device or in another type.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// Whether what was asked for cannot be had: a missing file, an unknown name, an option out of range.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::NoWeights { .. }
                | Self::UnknownName { .. }
                | Self::Unavailable { .. }
                | Self::HeadsUnknown { .. }
                | Self::Heads { .. }
                | Self::RotatedHeads { .. }
                | Self::Device { .. }
                | Self::Precision(_)
                | Self::Facet(_)
                | Self::Convolutional { .. }
                | Self::Block { .. }
                | Self::Images { .. }
        )
    }

    /// Whether a file is not what it should be: damaged, incomplete, or contradicted by its configuration.
    pub fn is_integrity(&self) -> bool {
        matches!(
            self,
            Self::Checkpoint { .. } | Self::Tensors { .. } | Self::NotFinite { .. } | Self::Config { .. }
        )
    }
}
