//! Everything takes and returns arrays: tokens `[b, t, k]` from wherever they were projected, label maps `[b, h, w]`
//! of bytes. Files, caches and projections are known elsewhere.
#![doc = include_str!("../README.md")]

mod adam;
mod assignment;
mod bank;
mod bootstrap;
mod classifier_training;
mod cluster_loss;
mod cluster_probe;
mod confusion;
mod cross_entropy;
mod error;
mod exp;
mod knn_vote;
mod labelled_rows;
mod linear_classifier;
mod linear_probe;
mod probe;
mod schedule;
mod scores;
mod sgd;
mod top_accuracy;
mod upsample;

pub use adam::Adam;
pub use assignment::{Assignment, hungarian};
pub use bank::{
    Bank, BankBatch, BankCell, BankParams, BankProbe, BankScorer, BankSet, BankState, BankStep, CellKind, FetchError,
    RowSet,
};
pub use bootstrap::{Interval, bootstrap};
pub use classifier_training::{EpochRecord, LinearClassifierParams, TrainEvent};
pub use cluster_loss::{ClusterGradient, ClusterLoss};
pub use cluster_probe::{ClusterProbe, ClusterProbeParams};
pub use confusion::ConfusionMatrix;
pub use cross_entropy::{CrossEntropy, masked_cross_entropy_upsampled};
pub use error::{Error, Result};
pub use knn_vote::{KnnRanking, KnnVote};
pub use labelled_rows::LabelledRows;
pub use linear_classifier::{ClassifierGradient, LinearClassifier};
pub use linear_probe::{LinearGradient, LinearProbe, LinearProbeParams};
pub use probe::Probe;
pub use schedule::{Schedule, Step};
pub use scores::Scores;
pub use sgd::Sgd;
pub use top_accuracy::TopAccuracy;
pub use upsample::upsample_argmax;
