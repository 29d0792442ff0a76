//! `featlab demo`, `sweep` and `report`: whole studies.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `featlab demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  featlab demo --out featlab-demo")]
pub struct DemoArgs {
    /// Folder for caches, results and the report
    #[arg(long, default_value = "featlab-demo", value_parser = super::local_path)]
    pub out: PathBuf,
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
    /// Print what is already there and what would be computed, with an estimate of operations, bytes and time, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Folder for caches, results and the report [default: runs/NAME]
    #[arg(long, value_parser = super::local_path)]
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

/// Tracker that a study's runs are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Export {
    /// DIR/tensorboard: event files, the dimension as step
    Tensorboard,
    /// DIR/mlruns: MLflow's file store, one run per row of results.csv
    Mlflow,
}

/// `featlab report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab report runs/camvid --format md
  featlab report runs/camvid --export tensorboard,mlflow
  tensorboard --logdir runs/camvid/tensorboard
  MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri runs/camvid/mlruns

MLflow maintains its file store no further: recent versions want that variable, or the runs moved by mlflow migrate-filestore.

Weights & Biases has no documented file format for offline runs, so none is written. Its own library makes them of results.csv:
  import csv, wandb
  for row in csv.DictReader(open(\"runs/camvid/results.csv\")):
      with wandb.init(project=\"camvid\", mode=\"offline\", config=row) as run:
          run.summary.update({name: float(row[name]) for name in (\"miou\", \"accuracy\")})")]
pub struct ReportArgs {
    /// Folder of a finished sweep
    #[arg(value_parser = super::local_path)]
    pub dir: PathBuf,
    /// html writes files; md and csv print on stdout
    #[arg(long, value_enum, default_value = "html")]
    pub format: Format,
    /// Also write the runs for these trackers
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TRACKER")]
    pub export: Vec<Export>,
}
