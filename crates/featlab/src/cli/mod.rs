//! The command line, exactly as typed: clap structures with their help texts, and nothing that computes.
//!
//! What the arguments *mean* (defaults resolved, names looked up) is decided in `commands/` and `config.rs`.

mod cache;
#[cfg(feature = "cluster")]
mod cluster;
mod doctor;
mod evaluate;
mod extract;
mod pretrain;
mod segment;
mod segment_studies;
mod study;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use cache::{CacheCommand, ConvertArgs, InfoArgs, ProjectArgs, RepairArgs, ScanArgs, VerifyArgs};
#[cfg(feature = "cluster")]
pub use cluster::{ClusterCommand, ExecutorArgs, LocalArgs, SchedulerArgs, SqlArgs};
pub use doctor::DoctorArgs;
pub use evaluate::{AttentionArgs, ClassifyArgs, Method, ProbeArgs, ReduceArgs};
pub use extract::{ExtractArgs, FeatureArgs, LoadingArgs};
pub use pretrain::{PretrainArgs, PretrainCommand};
pub use segment::{ExportArgs, LookArgs, PredictArgs, SegmentCommand, SegmentEvalArgs, SegmentTrainArgs};
pub use segment_studies::{CoOccurrenceArgs, CorrespondArgs, CrfStudyArgs, VoidPixels};
pub use study::{DemoArgs, Export, Format, ReportArgs, SweepArgs};

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
    /// Keep shards of caches that are far away in this folder once they are read [default: $FEATLAB_LOCAL_COPY, else nowhere]
    #[arg(long, global = true, value_name = "DIR")]
    pub local_copy: Option<PathBuf>,
    /// Largest size of that folder, e.g. 50GB [default: $FEATLAB_LOCAL_COPY_LIMIT, else 20GB]
    #[arg(long, global = true, value_name = "SIZE")]
    pub local_copy_limit: Option<String>,
    /// Let the cluster with this scheduler do the work, e.g. http://host:50050 (needs the cargo feature cluster)
    #[arg(long, global = true, value_name = "URL")]
    pub cluster: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole line on embedded data: scenes, features, reductions, probes, report
    Demo(DemoArgs),
    /// Compute features of a data set once, into a cache
    Extract(ExtractArgs),
    /// List, describe, check, repair or convert caches
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
    /// Segment pictures with a trained model, and look at what that rests on
    #[command(subcommand)]
    Segment(SegmentCommand),
    /// Run a grid of methods, dimensions, probes and seeds from a TOML file
    Sweep(SweepArgs),
    /// Write the report of a finished sweep again
    Report(ReportArgs),
    /// Train a backbone without labels
    #[command(subcommand)]
    Pretrain(PretrainCommand),
    /// Start, join or watch a cluster
    #[cfg(feature = "cluster")]
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Ask caches, results and labels with SQL
    #[cfg(feature = "cluster")]
    Sql(SqlArgs),
    /// Show devices, versions and caches, and measure what this machine can do
    Doctor(DoctorArgs),
}

/// A path, also as a `file://` URL. What names another store stays as it is: the command says what it can write to.
fn local_path(text: &str) -> Result<PathBuf, String> {
    match featcache::local_path(text) {
        Ok(Some(path)) => Ok(path),
        Ok(None) | Err(featcache::Error::UnsupportedScheme { .. }) => Ok(PathBuf::from(text)),
        Err(error) => Err(error.to_string()),
    }
}
