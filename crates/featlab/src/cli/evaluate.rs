//! `featlab reduce`, `probe`, `classify` and `attention`: what is done with features.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::LoadingArgs;

/// Kind of reducer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Method {
    /// Principal components, from one pass over the cache
    Pca,
    /// Gaussian random projection
    Rp,
    /// Sparse random projection
    RpSparse,
    /// UMAP of a sample of the tokens, for one dimension
    Umap,
    /// A STEGO head trained on the cache, for one dimension, or nested for several
    Stego,
    /// h-NNE of a sample of the tokens, for one dimension (in builds with the feature hnne). Its authors allow no commercial use of re-implementations, and this is one
    Hnne,
}

/// `featlab reduce`.
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  featlab reduce pca --cache features/train --out pca.safetensors
  featlab reduce rp --cache features/train --dims 192 --seed 1 --out rp.safetensors
  featlab reduce umap --cache features/train --dims 12 --out umap12.safetensors
  featlab reduce stego --cache features/train --dims 70 --set preset=cocostuff27-vit-base --out stego.safetensors
  featlab reduce stego --cache features/train --nested 3,6,12,24,48 --set max_steps=1000 --out nested.safetensors
  featlab reduce stego --cache features/train --from cocostuff27_vit_base_5.ckpt --out released.safetensors

One fit serves every smaller dimension: `featlab probe --reducer pca.safetensors --dims 3,6,12`. A UMAP (or h-NNE) serves the one
that it was fitted for: `featlab probe --reducer umap12.safetensors`.")]
pub struct ReduceArgs {
    /// What to fit
    #[arg(value_enum)]
    pub method: Method,
    /// Cache to fit on
    #[arg(long)]
    pub cache: String,
    /// Which of its columns of tokens, e.g. key_11
    #[arg(long, default_value = "tokens")]
    pub column: String,
    /// Reducer file to write (.safetensors)
    #[arg(long, value_parser = super::local_path)]
    pub out: PathBuf,
    /// Most dimensions that are kept [default: all]; of a UMAP, h-NNE or STEGO head the dimension, which must be given
    #[arg(long)]
    pub dims: Option<usize>,
    /// Column scaling before the projection: none, train (statistics of this cache), batch (the original's; for comparison)
    #[arg(long, default_value = "train")]
    pub scaler: String,
    /// Divide principal components by their standard deviations
    #[arg(long)]
    pub whiten: bool,
    /// Seed of a random projection, or of a sample and the layout of it
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Tokens that a UMAP or h-NNE is fitted on [default: 10000 for umap, 1000000 for hnne, which takes hours]
    #[arg(long)]
    pub rows: Option<usize>,
    /// Images that these tokens are drawn from
    #[arg(long, default_value_t = 5000)]
    pub images: usize,
    /// How a UMAP or h-NNE compares tokens: cosine or euclidean
    #[arg(long, default_value = "cosine")]
    pub metric: String,
    /// Neighbours of a token in a UMAP
    #[arg(long, default_value_t = 15)]
    pub n_neighbors: usize,
    /// How close tokens may lie in a UMAP, from 0 to 1
    #[arg(long, default_value_t = 0.1)]
    pub min_dist: f64,
    /// Setting of STEGO's training, as in a sweep file's stego section, e.g. --set max_steps=1000 --set pos_intra_shift=0.5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Take STEGO's head from a checkpoint of the original (.ckpt) instead of training one
    #[arg(long, value_name = "CKPT", conflicts_with_all = ["set", "nested", "dims"])]
    pub from: Option<PathBuf>,
    /// Dimensions that one STEGO head is trained for together; the largest is its own
    #[arg(long, value_delimiter = ',')]
    pub nested: Vec<usize>,
    /// Device that a STEGO head is trained on: auto, cpu, cuda:0, metal
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Passes over the edges of a UMAP [default: 500 up to 10000 tokens, else 200]
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Replace the file if it exists
    #[arg(long)]
    pub overwrite: bool,
}

/// `featlab probe`.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
#[command(after_help = "\
Examples:
  featlab probe --cache-train features/train --cache-val features/val --out runs/full
  featlab probe --cache-train features/train --cache-val features/val --reducer pca.safetensors --dims 3,6,12 --probe linear --seeds 0,1,2 --out runs/pca")]
pub struct ProbeArgs {
    /// Cache with labels that the probes are trained on
    #[arg(long)]
    pub cache_train: String,
    /// Cache with labels that they are scored on
    #[arg(long)]
    pub cache_val: String,
    /// Which of their columns of tokens, e.g. key_11
    #[arg(long, default_value = "tokens")]
    pub column: String,
    /// Reducer file; without one the probes see all features
    #[arg(long, value_parser = super::local_path)]
    pub reducer: Option<PathBuf>,
    /// Target dimensions; "full" is the reducer's largest
    #[arg(long, value_delimiter = ',', default_value = "full", requires = "reducer")]
    pub dims: Vec<String>,
    /// Probes: linear, cluster, knn, ridge, kmeans
    #[arg(long, value_delimiter = ',', default_value = "linear,cluster")]
    pub probe: Vec<String>,
    /// Seeds, one run each
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub seeds: Vec<u64>,
    /// Training steps
    #[arg(long, default_value_t = 5000)]
    pub steps: usize,
    /// Images per step
    #[arg(long, default_value_t = 16)]
    pub batch_size: usize,
    /// Adam's learning rate
    #[arg(long, default_value_t = 5e-3)]
    pub learning_rate: f32,
    /// Seed of the order of the images, which all probes share
    #[arg(long, default_value_t = 0)]
    pub order_seed: u64,
    /// Step before which probes and their optimisers are made anew
    #[arg(long)]
    pub reset_probe_steps: Option<usize>,
    /// Weight of a pixel of each class in the linear probe's loss: none, balanced
    #[arg(long, default_value = "none")]
    pub class_weights: String,
    /// Memory for projected training features; what does not fit is projected again for each batch
    #[arg(long, default_value = "4GB")]
    pub memory: String,
    /// Clusters beyond the number of classes
    #[arg(long, default_value_t = 0)]
    pub extra_clusters: usize,
    /// Neighbours that vote in a k-NN probe
    #[arg(long, default_value_t = 20)]
    pub knn_k: usize,
    /// Temperature of a neighbour's vote exp(cos / T)
    #[arg(long, default_value_t = 0.07)]
    pub knn_temperature: f64,
    /// Labelled training tokens among which neighbours are looked for
    #[arg(long, default_value_t = 10_000)]
    pub knn_tokens: usize,
    /// Starts of k-means, of which the best counts
    #[arg(long, default_value_t = 10)]
    pub kmeans_restarts: usize,
    /// Training tokens that k-means sees
    #[arg(long, default_value_t = 20_000)]
    pub kmeans_tokens: usize,
    /// Also count the IoU of pixels near edges
    #[arg(long)]
    pub boundary_iou: bool,
    /// Images whose labels match clusters to classes: eval (as published) or train
    #[arg(long, default_value = "eval")]
    pub hungarian: String,
    /// Folder for run records, tables and the report
    #[arg(long, value_parser = super::local_path)]
    pub out: PathBuf,
}

/// `featlab classify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab classify --data flowers --backbone dino_vits16 --out runs/flowers
  featlab classify --data flowers --backbone dino_vitb16 --n-last-blocks 1 --avgpool --probe linear --out runs/flowers-b

DIR holds train/CLASS/* and val/CLASS/*. Images are resized to res*256/224 at their shorter side (bicubic) and the
centre is seen, of training images as well. Accuracies are fractions in results.csv and --json, percent in log.jsonl,
whose keys are DINO's. The features are kept in --out: other settings of the probes do not compute them again.")]
pub struct ClassifyArgs {
    /// Folder with train/CLASS/* and val/CLASS/*: a path, or s3://, gs://, az://BUCKET/PREFIX
    #[arg(long, value_name = "DIR")]
    pub data: String,
    /// Model name, checkpoint file or folder, embedded:scenes-micro, or random:ARCH:SEED
    #[arg(long)]
    pub backbone: String,
    /// Probes: knn, linear
    #[arg(long, value_delimiter = ',', default_value = "knn,linear")]
    pub probe: Vec<String>,
    /// Numbers of neighbours that vote
    #[arg(long, value_delimiter = ',', default_value = "10,20,100,200")]
    pub k: Vec<usize>,
    /// Temperature of a neighbour's vote exp(cos / T)
    #[arg(long, default_value_t = 0.07)]
    pub temperature: f64,
    /// Side of the square network input, in pixels
    #[arg(long, default_value_t = 224)]
    pub res: usize,
    /// Last blocks whose class tokens the linear probe sees, side by side (DINO: 4 for small models, 1 for base)
    #[arg(long, default_value_t = 4)]
    pub n_last_blocks: usize,
    /// Append the mean of the last block's patch tokens (behind the class tokens; DINO's released weights interleave)
    #[arg(long)]
    pub avgpool: bool,
    /// Passes over the training images
    #[arg(long, default_value_t = 100)]
    pub epochs: usize,
    /// Images per step
    #[arg(long, default_value_t = 256)]
    pub batch_size: usize,
    /// Learning rate of a batch of 256; it is scaled by the batch size
    #[arg(long, default_value_t = 0.001)]
    pub lr: f64,
    /// Seed of the linear probe
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How the backbone is loaded
    #[command(flatten)]
    pub loading: LoadingArgs,
    /// Folder for results.csv, results.json, log.jsonl, the linear probe's weights and the features
    #[arg(long, value_parser = super::local_path)]
    pub out: PathBuf,
    /// Replace the results of other settings under --out
    #[arg(long)]
    pub overwrite: bool,
}

/// `featlab attention`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab attention photo.jpg --backbone dino_vits8 --threshold 0.6 --out attention/photo
  featlab attention frames --backbone dino_vits16 --out attention/film

An image gives img.png, attn-head0.png …, overlay-head0.png …, overlay-heads.png (a colour per head) and, with
--threshold, mask_th0.6_head0.png …; a folder gives attn-FRAME.png for each picture directly in it, sorted by name.
The same command again draws only what is missing.")]
pub struct AttentionArgs {
    /// A picture, or a folder of frames
    #[arg(value_name = "IMAGE|FOLDER")]
    pub input: PathBuf,
    /// Model name, checkpoint file or folder, embedded:scenes-micro, or random:ARCH:SEED
    #[arg(long)]
    pub backbone: String,
    /// Side of the square that the picture is squeezed to, in pixels; cut to whole patches
    #[arg(long, default_value_t = 480)]
    pub res: usize,
    /// Keep the fewest patches that hold this part of a head's attention (the paper's pictures: 0.6)
    #[arg(long)]
    pub threshold: Option<f32>,
    /// Heads to draw (of a film: to average): all, or numbers from 0
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub heads: Vec<String>,
    /// How the backbone is loaded
    #[command(flatten)]
    pub loading: LoadingArgs,
    /// Folder for the pictures
    #[arg(long, value_parser = super::local_path)]
    pub out: PathBuf,
    /// Draw again what is there
    #[arg(long)]
    pub overwrite: bool,
}
