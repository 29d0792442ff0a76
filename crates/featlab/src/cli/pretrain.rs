//! `featlab pretrain`: training a backbone.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `featlab pretrain`.
#[derive(Debug, Subcommand)]
pub enum PretrainCommand {
    /// DINO: self-distillation of a vision transformer
    #[command(after_help = "\
Examples:
  featlab pretrain dino experiments/pretrain/dino-tiny.toml
  featlab pretrain dino experiments/pretrain/dino-tiny.toml --data folder:photos --seeds 0,1,2 --out runs/photos
  featlab pretrain dino dino.toml --set train.epochs=20 --set optimizer.lr=1e-3
  featlab pretrain dino dino.toml --device cuda:0 --set train.precision=bf16
  featlab extract --dataset folder:photos --backbone runs/photos/seed-0/backbone.safetensors --out features/photos

The same command again resumes, on the CPU to the same bits, or finds nothing to do. Watch it: tensorboard --logdir runs.")]
    Dino(PretrainArgs),
    /// SwAV: views of an image predict each other's assignment to prototypes
    #[command(after_help = "\
Examples:
  featlab pretrain swav experiments/pretrain/swav-tiny.toml
  featlab pretrain swav experiments/pretrain/swav-tiny.toml --data folder:photos --seeds 0,1,2 --out runs/photos
  featlab pretrain swav swav.toml --set loss.epsilon=0.03 --set head.prototypes=100

The same command again resumes to the same bits, or finds nothing to do. It trains on the CPU.")]
    Swav(PretrainArgs),
    /// DeepCluster-v2: clusters of the last epoch's embeddings are classes
    #[command(after_help = "\
Examples:
  featlab pretrain deepcluster experiments/pretrain/deepcluster-tiny.toml --seeds 0,1,2

The same command again resumes to the same bits, or finds nothing to do. It trains on the CPU.")]
    Deepcluster(PretrainArgs),
    /// AutoMix: classification of images that are mixed by a learned mask, and the hand-made mixes
    #[command(after_help = "\
Examples:
  featlab pretrain automix experiments/pretrain/automix-tiny.toml --seeds 0,1,2
  featlab pretrain automix experiments/pretrain/automix-tiny.toml --set mix.policy=mixup --out runs/mixup
  featlab pretrain automix automix.toml --data classes:photos --set data.label_share=0.1

Policies: vanilla, mixup, cutmix, manifoldmix, saliencymix, resizemix, automix. Classes are those of class folders (classes:ROOT), or of
tiles, the class of most of a tile's pixels. The same command again resumes to the same bits. It trains on the CPU.")]
    Automix(PretrainArgs),
}

/// Options of all methods.
#[derive(Debug, Args)]
pub struct PretrainArgs {
    /// Pretraining file
    pub file: PathBuf,
    /// Data sets to train on instead of the file's: folder:DIR, camvid:ROOT, scenes (only automix uses labels)
    #[arg(long, value_delimiter = ' ', num_args = 1..)]
    pub data: Vec<String>,
    /// Seeds, one run each, in OUT/seed-N if there are several [default: the file's]
    #[arg(long, value_delimiter = ',')]
    pub seeds: Vec<u64>,
    /// Override one setting, e.g. --set train.epochs=20 (a TOML value, or a plain string)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Device: auto, cpu, cuda:0, metal; the same bits every time are the cpu's, and only dino can use another
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Folder for checkpoints, metrics and the backbone [default: runs/NAME]
    #[arg(long, value_parser = super::local_path)]
    pub out: Option<PathBuf>,
    /// Delete what a run stored under --out and start again
    #[arg(long)]
    pub overwrite: bool,
}
