//! `featlab segment`: pictures to label maps.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::{CoOccurrenceArgs, CorrespondArgs, CrfStudyArgs, LoadingArgs};

/// The commands of `featlab segment`.
#[derive(Debug, Subcommand)]
pub enum SegmentCommand {
    /// Train a model on cached features: a STEGO head with a linear and a cluster probe, or the probes on a reducer that is there
    Train(SegmentTrainArgs),
    /// Score a model on a labelled data set
    Eval(SegmentEvalArgs),
    /// Write label maps of pictures of any size
    Predict(PredictArgs),
    /// Write a model as a checkpoint under the original's key names
    Export(ExportArgs),
    /// Draw where pictures look like chosen points, by features or codes
    Correspond(CorrespondArgs),
    /// Measure how well features, codes and colours tell whether two points bear the same label
    CoOccurrence(CoOccurrenceArgs),
    /// Watch what the CRF loss alone makes of the pixels of pictures
    CrfStudy(CrfStudyArgs),
}

/// Which model, and how it looks at pictures.
#[derive(Debug, Args)]
pub struct LookArgs {
    /// Folder of a model, or a checkpoint of the original (.ckpt)
    #[arg(long)]
    pub model: PathBuf,
    /// Its backbone, where it is not found under the name that it was trained with
    #[arg(long)]
    pub backbone: Option<String>,
    /// What of a picture is looked at: slide (all of it, through windows that overlap), center (the original's square)
    #[arg(long, default_value = "slide")]
    pub view: String,
    /// Pixels that the shorter side is scaled to
    #[arg(long, default_value_t = 320)]
    pub res: usize,
    /// Side of a window [default: as --res]
    #[arg(long)]
    pub window: Option<usize>,
    /// Least share of a window that its neighbour sees as well
    #[arg(long, default_value_t = 0.5)]
    pub overlap: f32,
    /// Average codes over the picture and its mirror image
    #[arg(long)]
    pub flip_average: bool,
    /// Refine with the dense CRF
    #[arg(long)]
    pub crf: bool,
    /// Shorter side of the picture that the CRF refines on [default: what the network saw]
    #[arg(long, value_name = "PIXELS", requires = "crf")]
    pub crf_res: Option<usize>,
    /// Probes: linear, cluster [default: those that the model has]
    #[arg(long, value_delimiter = ',')]
    pub probe: Vec<String>,
    /// How the backbone is loaded
    #[command(flatten)]
    pub loading: LoadingArgs,
}

/// `featlab segment train`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what to train on").args(["cache_train", "dataset"]).required(true))]
#[command(after_help = "\
Examples:
  featlab segment train --cache-train features/train --cache-val features/val --dims 70 --out models/stego
  featlab segment train --cache-train features/train --cache-val features/val --dims 90 --set preset=cocostuff27-vit-base --out models/coco
  featlab segment train --cache-train features/train --cache-val features/val --reducer pca.safetensors --dims 24 --out models/pca24
  featlab segment train --dataset folder:photos --backbone dino_vits8 --crop five --set aug_alignment_weight=0.1 --set crf_weight=0.05 --out models/mine

The head learns without labels; the linear probe from those of --cache-train (or --dataset), clusters are named by those of --cache-val.
From pictures every step costs forward passes: a cache is many times as fast, and the same numbers but for its 16 bits. Only pictures can be
augmented, or looked at by the CRF loss.")]
pub struct SegmentTrainArgs {
    /// Cache to train on
    #[arg(long)]
    pub cache_train: Option<String>,
    /// Pictures to train on instead: a data set as featlab extract spells it
    #[arg(long, requires = "backbone", conflicts_with_all = ["reducer", "column"])]
    pub dataset: Option<String>,
    /// Part of the data set: train, val, test, all
    #[arg(long, default_value = "train", requires = "dataset")]
    pub split: String,
    /// Backbone that the pictures go through
    #[arg(long, requires = "dataset")]
    pub backbone: Option<String>,
    /// Side of the square network input, in pixels
    #[arg(long, default_value_t = 224, requires = "dataset")]
    pub res: usize,
    /// Part of the picture that is seen: center, five, random, none
    #[arg(long, default_value = "five", requires = "dataset")]
    pub crop: String,
    /// Resize filter: nearest (as the original), bilinear, bicubic
    #[arg(long, default_value = "nearest", requires = "dataset")]
    pub resize: String,
    /// How the backbone is loaded
    #[command(flatten)]
    pub loading: LoadingArgs,
    /// Cache with labels that clusters are named and probes scored by [default: the labels of --cache-train]
    #[arg(long)]
    pub cache_val: Option<String>,
    /// Which of their columns of tokens, e.g. key_11
    #[arg(long, default_value = "tokens")]
    pub column: String,
    /// Numbers of a code [default: the largest of --reducer, else 70]
    #[arg(long)]
    pub dims: Option<usize>,
    /// Take codes from this reducer instead of training a STEGO head
    #[arg(long, value_parser = super::local_path)]
    pub reducer: Option<PathBuf>,
    /// Setting of the training, as in a sweep file's stego section, e.g. --set max_steps=1000 --set pos_intra_shift=0.5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Seed
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Clusters, where the cache has no classes
    #[arg(long, default_value_t = 27)]
    pub clusters: usize,
    /// Clusters beyond the number of classes
    #[arg(long, default_value_t = 0)]
    pub extra_clusters: usize,
    /// Folder for the model
    #[arg(long, value_parser = super::local_path)]
    pub out: PathBuf,
    /// Replace the model that is there
    #[arg(long)]
    pub overwrite: bool,
}

/// `featlab segment eval`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab segment eval --model models/stego --dataset camvid:CamVid --split val --view center --flip-average --crf
  featlab segment eval --model cocostuff27_vit_base_5.ckpt --dataset cocostuff27:DATA --split val --view center --flip-average --crf --save models/coco

With --view center it is the original's evaluation. --save writes the model with the names that its clusters got.")]
pub struct SegmentEvalArgs {
    /// Which model, and how it looks
    #[command(flatten)]
    pub look: LookArgs,
    /// Labelled data set, as featlab extract spells it
    #[arg(long)]
    pub dataset: String,
    /// Part of the data set: train, val, test, all
    #[arg(long, default_value = "val")]
    pub split: String,
    /// By what clusters are named: eval (the labels they are scored on, as published), model (the names that it has)
    #[arg(long, default_value = "eval")]
    pub naming: String,
    /// Also count the IoU of pixels near edges
    #[arg(long)]
    pub boundary_iou: bool,
    /// Write the model, its clusters named by this evaluation, to this folder
    #[arg(long, value_name = "DIR", value_parser = super::local_path)]
    pub save: Option<PathBuf>,
    /// Replace the model in --save
    #[arg(long)]
    pub overwrite: bool,
}

/// `featlab segment predict`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab segment predict photos --model models/stego --crf --out labels
  featlab segment predict a.jpg b.png --model cocostuff27_vit_base_5.ckpt --res 448 --write labels,overlay,probabilities --out labels

Files are OUT/linear/ID.png and OUT/cluster/ID.png, exactly as large as the picture: one byte a pixel with a palette, 255 for what was
not looked at; OUT/linear-classes.json and OUT/cluster-classes.json name the bytes. The same command again segments only what is missing.")]
pub struct PredictArgs {
    /// Pictures, folders of pictures (any nesting), or data sets as featlab extract spells them
    #[arg(value_name = "PICTURE|FOLDER", required = true)]
    pub inputs: Vec<String>,
    /// Which model, and how it looks
    #[command(flatten)]
    pub look: LookArgs,
    /// Files to write: labels, overlay, probabilities
    #[arg(long, value_delimiter = ',', default_value = "labels,overlay")]
    pub write: Vec<String>,
    /// Clusters by number, not by the classes that they are called after
    #[arg(long)]
    pub raw: bool,
    /// Folder for the files
    #[arg(long, value_parser = super::local_path)]
    pub out: PathBuf,
    /// Segment again what is there
    #[arg(long)]
    pub overwrite: bool,
}

/// `featlab segment export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab segment export --model models/stego --out stego.ckpt
  featlab segment export --model models/stego --backbone vits8.pth --out stego.safetensors")]
pub struct ExportArgs {
    /// Folder of a model with a STEGO head, or a checkpoint of the original
    #[arg(long)]
    pub model: PathBuf,
    /// Its backbone, where it is not found under the name that it was trained with
    #[arg(long)]
    pub backbone: Option<String>,
    /// Attention heads of the backbone, where the checkpoint does not tell
    #[arg(long)]
    pub num_heads: Option<usize>,
    /// File to write: .ckpt or .pth (for torch.load), or .safetensors
    #[arg(long, value_parser = super::local_path)]
    pub out: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub overwrite: bool,
}
