//! `featlab pretrain`: training a backbone.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
