//! `featlab cluster` and `featlab sql`: many machines, and questions to caches.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `featlab cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Run the scheduler that drivers and executors talk to
    Scheduler(SchedulerArgs),
    /// Run an executor, which works for a scheduler
    Executor(ExecutorArgs),
    /// Show executors and jobs
    Status {
        /// The scheduler
        #[arg(default_value = "http://127.0.0.1:50050")]
        url: String,
    },
    /// Run a scheduler and some executors on this machine, until interrupted
    Local(LocalArgs),
}

/// `featlab cluster scheduler`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab cluster scheduler --bind 0.0.0.0:50050
  FEATLAB_CLUSTER_TOKEN=… featlab cluster scheduler --bind 0.0.0.0:50050     answers only who has the token

Connections are not encrypted: on a network that is not trusted, put TLS or a tunnel before them.")]
pub struct SchedulerArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:50050")]
    pub bind: SocketAddr,
    /// Seconds of silence after which an executor counts as lost; its units go to others
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(6..))]
    pub executor_timeout: u64,
}

/// `featlab cluster executor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab cluster executor --scheduler http://head:50050 --bind 0.0.0.0:50051 --advertise $(hostname)
  CUDA_VISIBLE_DEVICES=0 featlab cluster executor --scheduler http://head:50050      one per GPU
  RAYON_NUM_THREADS=8 featlab cluster executor --scheduler http://head:50050        with eight cores

Executors read data sets and read and write caches themselves: they need the same credentials and mounts as one machine would.")]
pub struct ExecutorArgs {
    /// The scheduler
    #[arg(long, default_value = "http://127.0.0.1:50050")]
    pub scheduler: String,
    /// Address that results are fetched from [default: a free port, on all interfaces unless the scheduler is on this machine]
    #[arg(long)]
    pub bind: Option<SocketAddr>,
    /// Host name that others reach it under, if not the address that the scheduler sees
    #[arg(long)]
    pub advertise: Option<String>,
    /// Name that people know it by [default: host and process id]
    #[arg(long)]
    pub name: Option<String>,
    /// Units that it works on at a time; one uses all its threads, or its GPU
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub slots: u16,
    /// Folder for results on their way and other temporary files [default: one of its own, removed at the end]
    #[arg(long)]
    pub scratch: Option<PathBuf>,
    /// Seconds that a scheduler which is not there yet is waited for
    #[arg(long, default_value_t = 60)]
    pub patience: u64,
}

/// `featlab cluster local`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  featlab cluster local --executors 2            in one terminal
  featlab demo --cluster http://127.0.0.1:50050  in another")]
pub struct LocalArgs {
    /// Executors, which share the cores
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub executors: u16,
    /// Address of the scheduler
    #[arg(long, default_value = "127.0.0.1:50050")]
    pub bind: SocketAddr,
}

/// `featlab sql`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab sql \"select method, dim, avg(miou) from results group by method, dim order by dim\" --table results=runs/camvid/results.parquet
  featlab sql \"select image_id, l2(cls) from val\" --table val=features/val
  featlab sql \"select image_id, cosine(a.cls, b.cls) as c from a join b using (image_id)\" --table a=s3://bucket/a --table b=s3://bucket/b
  featlab sql \"select class, sum(pixels) from (select unnest_labels(label) as class, 1 as pixels from val) group by class\" --table val=features/val
  featlab sql \"select image_id, project(tokens, 'pca.safetensors', 12) as codes from val\" --table val=features/val --out codes.parquet

A table is a cache (image_id, crop, grid_h, grid_w, tokens as a list of numbers, further columns, cls, label as a list of classes), a Parquet or CSV
file, or a folder of such files, on any store. Functions besides DataFusion's:
  project(tokens, file, k)     tokens through the first k dimensions of a reducer
  token(tokens, i)             one token of an image
  cosine(a, b), l2(a), dot(a, b), mean_token(tokens)
  mean_vector(v)               the mean of vectors in a group
  unnest_tokens(tokens)        a row per token
  patch_classes(label, grid_h, grid_w)   the class of each token
  unnest_labels(label)         a row per pixel: its class, none for pixels without one
  class_count(label, c)        labelled pixels of class c
  class_share(label, c)        share of an image's labelled pixels that are of class c")]
pub struct SqlArgs {
    /// The question
    pub query: String,
    /// A table: NAME=PLACE, where PLACE is a cache, a .parquet or .csv file, or a folder of those; may be given several times
    #[arg(long = "table", value_name = "NAME=PLACE")]
    pub tables: Vec<String>,
    /// Write the answer to this Parquet file instead of printing it: a path, or s3://, gs://, az://BUCKET/KEY
    #[arg(long)]
    pub out: Option<String>,
    /// Most rows that are printed
    #[arg(long, default_value_t = 100)]
    pub rows: usize,
    /// Show how the question is answered instead of answering it
    #[arg(long)]
    pub explain: bool,
}
