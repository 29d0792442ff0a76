//! Everything takes and returns arrays: tokens `[b, t, k]` from wherever they were projected, label maps `[b, h, w]`
//! of bytes. Files, caches and projections are known elsewhere.
#![doc = include_str!("../README.md")]

mod adam;
mod assignment;
mod bank;
mod bootstrap;
mod boundary;
mod cholesky;
mod classifier_training;
mod cluster_loss;
mod cluster_probe;
mod comparison;
mod confusion;
mod confusion_shares;
mod count_table;
mod cross_entropy;
mod error;
mod exp;
mod gram;
mod kmeans;
mod kmeans_rows;
mod kmeans_seeding;
mod knn_tokens;
mod knn_vote;
mod labelled_rows;
mod linear_classifier;
mod linear_probe;
mod majority;
mod patch_labels;
mod probe;
mod ridge;
mod ridge_choice;
mod schedule;
mod scores;
mod seeds_and_images;
mod sgd;
mod student;
mod token_sample;
mod top_accuracy;
mod upsample;

pub use adam::{Adam, adam_step};
pub use assignment::{Assignment, hungarian};
pub use bank::{
    Bank, BankBatch, BankCell, BankParams, BankProbe, BankScorer, BankSet, BankState, BankStep, CellKind,
    FetchError, RowSet,
};
pub use bootstrap::{Interval, Method, Resampling, bootstrap};
pub use boundary::{BoundaryParams, BoundaryScores, boundary_scores};
pub use classifier_training::{EpochRecord, LinearClassifierParams, TrainEvent};
pub use cluster_loss::{ClusterGradient, ClusterLoss};
pub use cluster_probe::{ClusterProbe, ClusterProbeParams};
pub use comparison::Comparison;
pub use confusion::ConfusionMatrix;
pub use confusion_shares::SharesOf;
pub use count_table::group_sums;
pub use cross_entropy::{CrossEntropy, masked_cross_entropy_upsampled};
pub use error::{Error, Result};
pub use gram::Gram;
pub use kmeans::{KMeans, KMeansMetric, KMeansParams};
pub use knn_tokens::KnnGallery;
pub use knn_vote::{KnnRanking, KnnVote};
pub use labelled_rows::LabelledRows;
pub use linear_classifier::{ClassifierGradient, LinearClassifier};
pub use linear_probe::{LinearGradient, LinearProbe, LinearProbeParams};
pub use majority::{Coverage, majority};
pub use patch_labels::{balancing_weights, patch_histograms, patch_majority};
pub use probe::Probe;
pub use ridge::Ridge;
pub use ridge_choice::{RidgeFit, RidgeParams, Selection};
pub use schedule::{Schedule, Step};
pub use scores::Scores;
pub use seeds_and_images::{SeedsAndImages, seeds_and_images};
pub use sgd::Sgd;
pub use token_sample::TokenSample;
pub use top_accuracy::TopAccuracy;
pub use upsample::upsample_argmax;
