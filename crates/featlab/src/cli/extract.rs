//! `featlab extract`: which images, through which network, in which form.

use clap::{ArgGroup, Args};
use serde::{Deserialize, Serialize};

/// How a backbone is loaded.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct LoadingArgs {
    /// Attention heads of the backbone, where the checkpoint does not tell
    #[arg(long)]
    pub num_heads: Option<usize>,
    /// Device: auto, cpu, cuda:0, metal
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Number type that the network computes in: auto (f32 on a CPU, f16 on a GPU), f32, bf16, f16 [default: auto, or that of a cache that is there]
    #[arg(long)]
    pub precision: Option<String>,
}

/// Everything that changes the numbers, and the device that computes them.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct FeatureArgs {
    /// Data set: scenes, camvid:ROOT, cocostuff27:ROOT (also 15 and 3), cityscapes27:ROOT, potsdam3:ROOT, voc:ROOT, directory:ROOT[?classes=N], classes:ROOT, folder:DIR; ROOT and DIR are paths, or s3://, gs://, az://BUCKET/PREFIX
    #[arg(long)]
    pub dataset: Option<String>,
    /// Part of the data set: train, val, test, train+val, unlabelled, all
    #[arg(long, default_value = "all")]
    pub split: String,
    /// Model name (facebook/dino-vits8, dino_vits8, dinov2_vits14_reg, dinov3_vits16, vit_small_patch8_224.dino), checkpoint file or folder, embedded:scenes-micro, or random:ARCH:SEED
    #[arg(long)]
    pub backbone: Option<String>,
    /// Side of the square network input, in pixels
    #[arg(long, default_value_t = 224)]
    pub res: usize,
    /// Part of the image that is seen: center, five, random (five random crops), none (whole image, squeezed)
    #[arg(long, default_value = "center")]
    pub crop: String,
    /// Side of a five or random crop, as a fraction of the image's
    #[arg(long, default_value_t = 0.5)]
    pub crop_ratio: f64,
    /// Resize filter: nearest (as the original), bilinear, bicubic (both antialiased)
    #[arg(long, default_value = "nearest")]
    pub resize: String,
    /// Blocks whose output is read, e.g. -1 or -1,-3; -1 is the last
    #[arg(long, default_value = "-1", value_delimiter = ',', allow_hyphen_values = true)]
    pub layer: Vec<i64>,
    /// What is read there: token, key, query, value. The first block and facet are the column tokens, the others one each, as key_11
    #[arg(long, default_value = "token", value_delimiter = ',')]
    pub facet: Vec<String>,
    /// Store the pictures as the network saw them as well
    #[arg(long)]
    pub images: bool,
    /// Average the features of the image and of its mirror image
    #[arg(long)]
    pub flip_average: bool,
    /// Stored number type: f32, f16, bf16, int8 (with a scale per token)
    #[arg(long, default_value = "f16")]
    pub dtype: String,
    /// How it is loaded
    #[command(flatten)]
    pub loading: LoadingArgs,
}

/// `featlab extract`.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
#[command(group = ArgGroup::new("which images").args(["dataset"]).required(true))]
#[command(group = ArgGroup::new("which network").args(["backbone"]).required(true))]
#[command(after_help = "\
Examples:
  featlab extract --dataset camvid:CamVid --split train --backbone dino_vits8 --out features/camvid-train
  featlab extract --dataset folder:photos --backbone vits8.pth --res 320 --flip-average --out features/photos
  featlab extract … --task 0/4        one of four processes; whoever writes the last shard commits

The same command again resumes, or finds nothing to do.")]
pub struct ExtractArgs {
    /// What to compute
    #[command(flatten)]
    pub features: FeatureArgs,
    /// Where the cache goes: a path, or s3://, gs://, az://BUCKET/PREFIX
    #[arg(long)]
    pub out: String,
    /// Images that go through the network at a time, always that many [default: 16 on a GPU, 1 on a CPU]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Images per shard [default: about 32 MiB of tokens]
    #[arg(long)]
    pub shard_rows: Option<usize>,
    /// Form of the files: packed (smaller), list (for SQL), arrow (maps into memory) [default: binary]
    #[arg(long)]
    pub layout: Option<String>,
    /// Compute only shards i, i+n, i+2n … of the plan (i from 0), as one of n processes
    #[arg(long, value_name = "I/N")]
    pub task: Option<String>,
    /// Check a finished cache, and compute again only what is damaged or missing
    #[arg(long, conflicts_with = "overwrite")]
    pub repair: bool,
    /// Delete what is stored under --out and start again
    #[arg(long)]
    pub overwrite: bool,
}
