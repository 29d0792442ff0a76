//! What can go wrong while pretraining.

use std::path::PathBuf;

use thiserror::Error;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot be.
    #[error("{setting}: {reason}")]
    Config {
        /// Its name in the configuration file.
        setting: &'static str,
        /// What is expected, what was given, what to do.
        reason: String,
    },
    /// Something stopped being a number.
    #[error(
        "training diverged: {what} {value} at step {}. Start again with a lower optimizer.lr or a longer warm-up, in another \
         folder or with --overwrite",
        step + 1
    )]
    Diverged {
        /// The step, from 0.
        step: usize,
        /// What is no longer finite.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// Scores that Sinkhorn–Knopp cannot turn into assignments.
    #[error(
        "training stopped: assignments at step {} are not finite with loss.epsilon {epsilon}. Start again with \
         loss.sinkhorn = \"log\" or a larger epsilon, in another folder or with --overwrite",
        step + 1
    )]
    Assignments {
        /// The step, from 0.
        step: usize,
        /// ε.
        epsilon: f64,
    },
    /// A checkpoint that does not belong to this run or is damaged.
    #[error("checkpoint {path}: {reason}")]
    Checkpoint {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The data set cannot be used.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(#[from] candle_core::Error),
    /// The backbone's sizes cannot be.
    #[error(transparent)]
    Backbone(#[from] backbone::Error),
}

impl Error {
    /// Whether the caller asked for something that cannot be.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Config { .. } => true,
            Self::Dataset(error) => error.is_usage(),
            Self::Backbone(error) => error.is_usage(),
            Self::Device(_)
            | Self::Diverged { .. }
            | Self::Assignments { .. }
            | Self::Checkpoint { .. }
            | Self::Io { .. } => false,
        }
    }

    /// Whether files are damaged or do not belong together.
    #[must_use]
    pub fn is_integrity(&self) -> bool {
        matches!(self, Self::Checkpoint { .. })
    }
}
