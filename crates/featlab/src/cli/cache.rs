//! `featlab cache`: what is stored, and what can be done with it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::{FeatureArgs, LoadingArgs};

/// `featlab cache`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List the caches below a place
    Ls {
        /// Path or URL
        url: String,
    },
    /// Describe one cache: key, layout, shards, skipped inputs
    Info(InfoArgs),
    /// Read every shard and check it: checksums, row counts, schema, NaN, and the golden activation if a backbone is named
    Verify(VerifyArgs),
    /// Compute again what is damaged or missing, and nothing else
    Repair(RepairArgs),
    /// Write the same features in another form, or to another place
    Convert(ConvertArgs),
    /// Put every image's tokens through a reducer, into a new cache
    Project(ProjectArgs),
    /// Read every row once, and say how fast that was
    Scan(ScanArgs),
    /// Remove what belongs to nothing: unknown shards, files of killed writers
    Gc {
        /// Path or URL of a cache, or of a place with caches below it
        url: String,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Age in seconds from which a temporary file counts as abandoned
        #[arg(long, default_value_t = 3600)]
        min_age: u64,
    },
}

/// `featlab cache info`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab cache info features/val
  featlab cache info features/val --explain --dataset camvid:CamVid --split val --backbone dino_vits8

--explain takes the options of `featlab extract` and says, element by element, what that extraction would ask for and
what is there. Exit 4 if anything differs.")]
pub struct InfoArgs {
    /// Path or URL of the cache
    pub url: String,
    /// Compare with what an extraction with these options asks for
    #[arg(long, requires_all = ["dataset", "backbone"])]
    pub explain: bool,
    /// What is asked for
    #[command(flatten, next_help_heading = "Options of --explain")]
    pub features: FeatureArgs,
}

/// `featlab cache verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab cache verify features/val
  featlab cache verify s3://bucket/features/val --backbone vits8.pth

Exit 4 if anything is damaged, or if the backbone computes something else than what is stored.")]
pub struct VerifyArgs {
    /// Path or URL of the cache
    pub url: String,
    /// Also let this backbone compute the golden activation again
    #[arg(long)]
    pub backbone: Option<String>,
    /// How the backbone is loaded
    #[command(flatten)]
    pub loading: LoadingArgs,
}

/// `featlab cache repair`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab cache repair features/val
  featlab cache repair features/val --dataset camvid:/other/place/CamVid

The settings are those of the key in the cache, data set and backbone those it was made from, unless named. They must be the
same ones: fingerprint, checkpoint and golden activation are compared. The same as `featlab extract … --repair`.")]
pub struct RepairArgs {
    /// Path or URL of the cache
    pub url: String,
    /// Where the data set is, if not where it was
    #[arg(long)]
    pub dataset: Option<String>,
    /// The backbone, if it is not found under its old name
    #[arg(long)]
    pub backbone: Option<String>,
    /// How the backbone is loaded
    #[command(flatten)]
    pub loading: LoadingArgs,
}

/// `featlab cache convert`.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
#[command(after_help = "\
Examples:
  featlab cache convert features/val --layout arrow --out fast/val       maps into memory, also into NumPy's
  featlab cache convert features/val --layout packed --out small/val     zstd, for storage and transfer
  featlab cache convert features/val --layout list --out sql/val         lists of numbers, for SQL
  featlab cache convert s3://bucket/val --layout binary --out val        a copy

The numbers stay the same to the last bit, and so does the cache id. The same command again resumes.")]
pub struct ConvertArgs {
    /// Path or URL of the cache
    pub url: String,
    /// Form of the files: binary, packed, list, arrow
    #[arg(long)]
    pub layout: String,
    /// Where the converted cache goes: a path, or s3://, gs://, az://BUCKET/PREFIX
    #[arg(long)]
    pub out: String,
}

/// `featlab cache project`.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
#[command(after_help = "\
Examples:
  featlab reduce pca --cache features/train --out pca.safetensors
  featlab cache project features/train --reducer pca.safetensors --dims 48 --out small/train
  featlab cache project features/val --reducer pca.safetensors --dims 48 --out small/val
  featlab probe --cache-train small/train --cache-val small/val --out runs/small

Names, crops, labels, pictures, classes, form and shards are those of the source; class tokens and further columns are left
out. The reducer's hash is part of the key, so that another reducer makes another cache. The same command again resumes, or
finds nothing to do. To probe without storing anything: featlab probe --reducer.")]
pub struct ProjectArgs {
    /// Path or URL of the cache
    pub url: String,
    /// Reducer file of `featlab reduce`, fitted on the same features
    #[arg(long, value_name = "FILE")]
    pub reducer: PathBuf,
    /// Dimensions to keep [default: all that the reducer has]
    #[arg(long, value_name = "K")]
    pub dims: Option<usize>,
    /// Where the projected cache goes: a path, or s3://, gs://, az://BUCKET/PREFIX
    #[arg(long)]
    pub out: String,
    /// Column that is projected, e.g. key_11 of a cache with several
    #[arg(long, default_value = "tokens")]
    pub column: String,
    /// Stored number type: f32, f16, bf16, int8 [default: that of the source]
    #[arg(long)]
    pub dtype: Option<String>,
    /// Form of the files: binary, packed, list, arrow [default: that of the source]
    #[arg(long)]
    pub layout: Option<String>,
    /// Check a finished cache, and project again only what is damaged or missing
    #[arg(long, conflicts_with = "overwrite")]
    pub repair: bool,
    /// Delete what is stored under --out and start again
    #[arg(long)]
    pub overwrite: bool,
}

/// `featlab cache scan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab cache scan features/train
  featlab cache scan s3://bucket/train --shuffle --seed 1 --local-copy /scratch/features")]
pub struct ScanArgs {
    /// Path or URL of the cache
    pub url: String,
    /// In a permutation of all rows instead of in order
    #[arg(long)]
    pub shuffle: bool,
    /// Seed of the permutation
    #[arg(long, default_value_t = 0, requires = "shuffle")]
    pub seed: u64,
    /// Columns to read, e.g. tokens,label [default: all]
    #[arg(long, value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Threads that read [default: as many as cores; at least 8 if the store is far away]
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}
