//! `featlab doctor`: what this build and this machine offer.

use std::path::PathBuf;

use clap::Args;

/// `featlab doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  featlab doctor
  featlab doctor --folder /scratch
  featlab doctor --no-measure --store s3://bucket/caches
  FEATLAB_SIMD=avx2 RAYON_NUM_THREADS=4 featlab doctor

Measuring takes a few seconds and writes a file of up to 256 MB, which is removed again. Other programs that run meanwhile make every
rate smaller.")]
pub struct DoctorArgs {
    /// Folder on the disk that is measured [default: the folder for temporary files]
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// Ask this store whether it answers, with the credentials that are set
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Say what is there, and measure nothing
    #[arg(long)]
    pub no_measure: bool,
}
