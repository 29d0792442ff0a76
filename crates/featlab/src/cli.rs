//! The command line, exactly as typed: clap structures with their help texts, and nothing that computes.
//!
//! What the arguments *mean* (defaults resolved, names looked up) is decided in `commands/` and `config.rs`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Compute DINO patch features once, reduce them to any dimension, probe what is left.
#[derive(Debug, Parser)]
#[command(
    name = "featlab",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  featlab demo                                         the whole line on embedded data, offline
  featlab extract --dataset folder:photos --backbone facebook/dino-vits8 --out features/photos
  featlab reduce pca --cache features/photos --out pca.safetensors
  featlab sweep experiments/camvid/sweep.toml --set dataset.root=CamVid --out runs/camvid

Exit codes: 0 done, 1 failed, 2 usage or configuration error, 3 done but inputs were skipped,
4 cache, checkpoint or configuration do not match, 130/143 interrupted (finished work is saved)."
)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Print results as JSON, one object a line, on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Print errors and warnings only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print what the libraries do as well
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole line on embedded data: scenes, features, reductions, probes, report
    Demo(DemoArgs),
    /// Compute features of a data set once, into a cache
    Extract(ExtractArgs),
    /// List, describe or check caches
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Fit a reducer on a cache
    Reduce(ReduceArgs),
    /// Train and score probes on cached features
    Probe(ProbeArgs),
    /// Classify whole images on frozen features: k-NN and linear evaluation of a backbone
    Classify(ClassifyArgs),
    /// Draw where the class token looks, for one image or every frame of a film
    Attention(AttentionArgs),
    /// Run a grid of methods, dimensions, probes and seeds from a TOML file
    Sweep(SweepArgs),
    /// Write the report of a finished sweep again
    Report(ReportArgs),
    /// Train a backbone without labels
    #[command(subcommand)]
    Pretrain(PretrainCommand),
    /// Show devices, instruction sets, caches and versions
    Doctor,
}

/// `featlab demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  featlab demo --out featlab-demo")]
pub struct DemoArgs {
    /// Folder for caches, results and the report
    #[arg(long, default_value = "featlab-demo")]
    pub out: PathBuf,
}

/// Which images, through which network, in which form.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab extract --dataset camvid:CamVid --split train --backbone dino_vits8 --out features/camvid-train
  featlab extract --dataset folder:photos --backbone vits8.pth --res 320 --flip-average --out features/photos
  featlab extract … --task 0/4        one of four processes; whoever writes the last shard commits

The same command again resumes, or finds nothing to do.")]
pub struct ExtractArgs {
    /// Data set: scenes, camvid:ROOT, folder:DIR; ROOT and DIR are paths, or s3://, gs://, az://BUCKET/PREFIX
    #[arg(long)]
    pub dataset: String,
    /// Part of the data set: train, val, test, all
    #[arg(long, default_value = "all")]
    pub split: String,
    /// Model name (facebook/dino-vits8, dino_vits8, vit_small_patch8_224.dino), checkpoint file or folder, embedded:scenes-micro, or random:ARCH:SEED
    #[arg(long)]
    pub backbone: String,
    /// Where the cache goes: a path, or s3://, gs://, az://BUCKET/PREFIX
    #[arg(long)]
    pub out: String,
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
    /// Attention heads, where the checkpoint does not tell
    #[arg(long)]
    pub num_heads: Option<usize>,
    /// Images per shard [default: about 32 MiB of tokens]
    #[arg(long)]
    pub shard_rows: Option<usize>,
    /// Form of the files: binary [default], packed (smaller), list (for SQL), arrow (maps into memory)
    #[arg(long)]
    pub layout: Option<String>,
    /// Compute only shards i, i+n, i+2n … of the plan (i from 0), as one of n processes
    #[arg(long, value_name = "I/N")]
    pub task: Option<String>,
    /// Device: auto, cpu, cuda:0, metal
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Check a finished cache, and compute again only what is damaged or missing
    #[arg(long, conflicts_with = "overwrite")]
    pub repair: bool,
    /// Delete what is stored under --out and start again
    #[arg(long)]
    pub overwrite: bool,
}

/// `featlab cache`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List the caches below a place
    Ls {
        /// Path or URL
        url: String,
    },
    /// Describe one cache: key, layout, shards, skipped inputs
    Info {
        /// Path or URL of the cache
        url: String,
    },
    /// Read every shard and check it: checksums, row counts, schema, NaN
    Verify {
        /// Path or URL of the cache
        url: String,
    },
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

/// Kind of reducer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Principal components, from one pass over the cache
    Pca,
    /// Gaussian random projection
    Rp,
    /// Sparse random projection
    RpSparse,
}

/// `featlab reduce`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab reduce pca --cache features/train --out pca.safetensors
  featlab reduce rp --cache features/train --dims 192 --seed 1 --out rp.safetensors

One fit serves every smaller dimension: `featlab probe --reducer pca.safetensors --dims 3,6,12`.")]
pub struct ReduceArgs {
    /// What to fit
    #[arg(value_enum)]
    pub method: Method,
    /// Cache to fit on
    #[arg(long)]
    pub cache: String,
    /// Reducer file to write (.safetensors)
    #[arg(long)]
    pub out: PathBuf,
    /// Most dimensions that are kept [default: all]
    #[arg(long)]
    pub dims: Option<usize>,
    /// Column scaling before the projection: none, train (statistics of this cache), batch (the original's; for comparison)
    #[arg(long, default_value = "train")]
    pub scaler: String,
    /// Seed of a random projection
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Replace the file if it exists
    #[arg(long)]
    pub overwrite: bool,
}

/// `featlab probe`.
#[derive(Debug, Args)]
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
    /// Reducer file; without one the probes see all features
    #[arg(long)]
    pub reducer: Option<PathBuf>,
    /// Target dimensions; "full" is the reducer's largest
    #[arg(long, value_delimiter = ',', default_value = "full", requires = "reducer")]
    pub dims: Vec<String>,
    /// Probes: linear, cluster
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
    /// Clusters beyond the number of classes
    #[arg(long, default_value_t = 0)]
    pub extra_clusters: usize,
    /// Images whose labels match clusters to classes: eval (as published) or train
    #[arg(long, default_value = "eval")]
    pub hungarian: String,
    /// Folder for run records, tables and the report
    #[arg(long)]
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
    /// Attention heads, where the checkpoint does not tell
    #[arg(long)]
    pub num_heads: Option<usize>,
    /// Device: auto, cpu, cuda:0, metal
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Folder for results.csv, results.json, log.jsonl, the linear probe's weights and the features
    #[arg(long)]
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
    /// Attention heads of the backbone, where the checkpoint does not tell
    #[arg(long)]
    pub num_heads: Option<usize>,
    /// Device: auto, cpu, cuda:0, metal
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Folder for the pictures
    #[arg(long)]
    pub out: PathBuf,
    /// Draw again what is there
    #[arg(long)]
    pub overwrite: bool,
}

/// `featlab sweep`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab sweep experiments/camvid/sweep.toml --set dataset.root=CamVid --out runs/camvid
  featlab sweep sweep.toml --set probe.steps=200 --set 'reduce.dims=[3,6,12]' --dry-run

The same command again computes only what is missing.")]
pub struct SweepArgs {
    /// Sweep file
    pub file: PathBuf,
    /// Override one setting, e.g. --set probe.steps=200 (a TOML value, or a plain string)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print what would be computed and what is already there, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Folder for caches, results and the report [default: runs/NAME]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Form of a printed report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Write report.html, the tables and figures; print the path
    Html,
    /// Print Markdown
    Md,
    /// Print the results table as CSV
    Csv,
}

/// `featlab report`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  featlab report runs/camvid --format md")]
pub struct ReportArgs {
    /// Folder of a finished sweep
    pub dir: PathBuf,
    /// html writes files; md and csv print on stdout
    #[arg(long, value_enum, default_value = "html")]
    pub format: Format,
}

/// `featlab pretrain`.
#[derive(Debug, Subcommand)]
pub enum PretrainCommand {
    /// DINO: self-distillation of a vision transformer
    Dino(DinoArgs),
}

/// `featlab pretrain dino`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab pretrain dino experiments/pretrain/dino-tiny.toml
  featlab pretrain dino experiments/pretrain/dino-tiny.toml --data folder:photos --seeds 0,1,2 --out runs/photos
  featlab pretrain dino dino.toml --set train.epochs=20 --set optimizer.lr=1e-3
  featlab pretrain dino dino.toml --device cuda:0 --set train.precision=bf16
  featlab extract --dataset folder:photos --backbone runs/photos/seed-0/backbone.safetensors --out features/photos

The same command again resumes, on the CPU to the same bits, or finds nothing to do. Watch it: tensorboard --logdir runs.")]
pub struct DinoArgs {
    /// Pretraining file
    pub file: PathBuf,
    /// Data sets to train on instead of the file's: folder:DIR, camvid:ROOT, scenes (labels are not used)
    #[arg(long, value_delimiter = ' ', num_args = 1..)]
    pub data: Vec<String>,
    /// Seeds, one run each, in OUT/seed-N if there are several [default: the file's]
    #[arg(long, value_delimiter = ',')]
    pub seeds: Vec<u64>,
    /// Override one setting, e.g. --set train.epochs=20 (a TOML value, or a plain string)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Device: auto, cpu, cuda:0, metal; the same bits every time are the cpu's
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Folder for checkpoints, metrics and the backbone [default: runs/NAME]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Delete what is stored under --out and start again
    #[arg(long)]
    pub overwrite: bool,
}
