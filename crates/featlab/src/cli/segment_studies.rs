//! `featlab segment correspond`, `co-occurrence` and `crf-study`: what features, codes and colours say of an image before anything is segmented.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::LoadingArgs;

/// `featlab segment correspond`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab segment correspond a.jpg b.jpg --backbone dino_vits8 --out correspond/ab
  featlab segment correspond a.jpg b.jpg --backbone dino_vits8 --reducer stego.safetensors --points=-0.5,0.2 --out correspond/codes
  featlab segment correspond a.jpg b.jpg --backbone dino_vits8 --film --points=-0.7,-0.7 --points=-0.1,0 --points=0.5,0.8 --out correspond/film

A point is X,Y of the first picture, -1,-1 the upper left and 1,1 the lower right corner. OUT gets queries.png (where the points are), map-0.png (where the first
picture looks like them), map-1.png … (where the others do) and panels.png (all side by side), each point in its colour. With --film one point rests at
each of the points and moves from one to the next: frame-0000.png …")]
pub struct CorrespondArgs {
    /// The picture with the points, and others to look for them in
    #[arg(value_name = "PICTURE", required = true)]
    pub pictures: Vec<PathBuf>,
    /// Model name, checkpoint file or folder, embedded:scenes-micro, or random:ARCH:SEED
    #[arg(long)]
    pub backbone: String,
    /// Compare the codes of this reducer instead of features
    #[arg(long, value_parser = super::local_path)]
    pub reducer: Option<PathBuf>,
    /// Numbers of a code [default: as many as the reducer has]
    #[arg(long, requires = "reducer")]
    pub dims: Option<usize>,
    /// A point X,Y; may be repeated [default: the published -0.1,0 and 0.5,0.8 and -0.7,-0.7]
    #[arg(long = "points", value_name = "X,Y", allow_hyphen_values = true)]
    pub points: Vec<String>,
    /// Side of the square network input, in pixels; cut to whole patches
    #[arg(long, default_value_t = 512)]
    pub res: usize,
    /// Part of a picture that is seen: center, none (whole picture, squeezed)
    #[arg(long, default_value = "center")]
    pub crop: String,
    /// Draw the frames of a film
    #[arg(long)]
    pub film: bool,
    /// Frames for which a point rests
    #[arg(long, default_value_t = 60, requires = "film")]
    pub hold: usize,
    /// Frames between two points
    #[arg(long, default_value_t = 50, requires = "film")]
    pub between: usize,
    /// How the backbone is loaded
    #[command(flatten)]
    pub loading: LoadingArgs,
    /// Folder for the pictures
    #[arg(long, value_parser = super::local_path)]
    pub out: PathBuf,
    /// Replace pictures of other settings
    #[arg(long)]
    pub overwrite: bool,
}

/// `featlab segment co-occurrence`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab segment co-occurrence --cache features/val --out co-occurrence
  featlab segment co-occurrence --cache features/val --reducer stego.safetensors --reducer pca.safetensors --dims 70 --out co-occurrence

Precision and recall of \"these two points bear the same label\", by the cosine of features, of each reducer's codes, and, where the cache was made with
--images, by the kernel of the CRF loss. OUT gets co-occurrence.json (average precisions), curves.csv and curves.svg.")]
pub struct CoOccurrenceArgs {
    /// Cache with labels
    #[arg(long)]
    pub cache: String,
    /// Which of its columns of tokens, e.g. key_11
    #[arg(long, default_value = "tokens")]
    pub column: String,
    /// A reducer whose codes are compared as well; may be repeated
    #[arg(long)]
    pub reducer: Vec<PathBuf>,
    /// Numbers of a code [default: as many as each reducer has]
    #[arg(long, requires = "reducer")]
    pub dims: Option<usize>,
    /// Images that are looked at, from the first on (the original: 100 batches of 16)
    #[arg(long, default_value_t = 1600)]
    pub images: usize,
    /// S: each of S² points of an image is paired with each of S² others
    #[arg(long, default_value_t = 11)]
    pub samples: usize,
    /// What pixels without a class are
    #[arg(long, value_enum, default_value = "left-out")]
    pub void: VoidPixels,
    /// Seed of the points
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder for the results
    #[arg(long, value_parser = super::local_path)]
    pub out: PathBuf,
}

/// What pixels without a class are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VoidPixels {
    /// Nothing: pairs with one do not count
    LeftOut,
    /// One more class (as published)
    Class,
}

/// `featlab segment crf-study`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab segment crf-study photos --steps 2000 --out crf-study
  featlab segment crf-study photos --set colours=lab --out crf-study/lab
  featlab segment crf-study a.jpg --set code=discrete --set dim=20 --set lr=0.05 --set global_ent_weight=0.01 --out crf-study/regions

Settings: code (continuous, discrete), colours (rgb, lab), dim, global_ent_weight, local_ent_weight, lr, seed, and of the loss crf.alpha, crf.beta, crf.gamma,
crf.w1, crf.w2, crf.shift, crf.crf_samples. Defaults suit pictures of some hundred pixels; the loss as it is trained with is crf.alpha=0.5 crf.beta=0.15
crf.gamma=0.05 crf.shift=0, on maps of 56 pixels. OUT gets steps.csv (loss and entropies) and, every --every steps, a picture of each input: three principal
components of its codes, or the borders of its regions.")]
pub struct CrfStudyArgs {
    /// Pictures, or folders of pictures
    #[arg(value_name = "PICTURE|FOLDER", required = true)]
    pub inputs: Vec<PathBuf>,
    /// Pictures that are taken of all, from the first on
    #[arg(long, default_value_t = 7)]
    pub pictures: usize,
    /// Scale of the pictures
    #[arg(long, default_value_t = 0.5)]
    pub scale: f64,
    /// Steps
    #[arg(long, default_value_t = 2000)]
    pub steps: usize,
    /// Steps between two pictures; the last step has one in any case
    #[arg(long, default_value_t = 500)]
    pub every: usize,
    /// Setting of the study, e.g. --set colours=lab
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder for pictures and losses
    #[arg(long, value_parser = super::local_path)]
    pub out: PathBuf,
    /// Replace what another study left there
    #[arg(long)]
    pub overwrite: bool,
}
