//! What a sweep knows when it is over: one [`Study`] of many [`RunRecord`]s.
//!
//! A run record is one row of the results table (dataset × method × dim × probe × seed × protocol) with what is needed to
//! draw it again: per-class IoU, the confusion counts and the cluster assignment. Records live one by one under
//! `runs/<key>.json`, so that a killed sweep loses at most the probe it was training; `study.json` ties them together.
//! Scores are fractions in `[0, 1]`; percent appears only in reports.

use serde::{Deserialize, Serialize};

/// One probe, trained and scored: one row of `results.parquet`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// Hash of everything that determines the scores; the record's file name.
    pub key: String,
    /// Data set name, e.g. `camvid`.
    pub dataset: String,
    /// Split that was scored, e.g. `val`.
    pub split: String,
    /// Backbone as the user named it.
    pub backbone: String,
    /// Id of the cache that was scored.
    pub cache_id: String,
    /// Id of the cache that the reducer and the probe were trained on.
    pub train_cache_id: String,
    /// `none` (all features), `pca`, `rp`, `rp-sparse`.
    pub method: String,
    /// Dimensions `k` that the probe saw.
    pub dim: usize,
    /// `linear` or `cluster`.
    pub probe: String,
    /// Seed of the probe's initialisation and batch order (and of a random projection).
    pub seed: u64,
    /// Evaluation protocol, e.g. `stego-train`.
    pub protocol: String,
    /// Whether a dense CRF refined the predictions.
    pub crf: bool,
    /// Training steps of the probe.
    pub steps: usize,
    /// Mean IoU over the classes that occur.
    pub miou: f64,
    /// Pixel accuracy.
    pub accuracy: f64,
    /// Lower end of the 95 % bootstrap interval of `miou` over images.
    pub miou_lo: f64,
    /// Upper end of that interval.
    pub miou_hi: f64,
    /// Seconds that training and scoring took.
    pub wall_s: f64,
    /// IoU per class, in class order; `None` for a class that occurs in neither truth nor prediction.
    pub per_class: Vec<ClassScore>,
    /// For a cluster probe: the class that each cluster was matched to.
    pub class_of_cluster: Option<Vec<Option<usize>>>,
    /// Pixel counts `[c, c or m]`: row = truth, column = prediction (class, or cluster before matching).
    pub confusion: Vec<Vec<u64>>,
}

/// IoU of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClassScore {
    /// Class name.
    pub name: String,
    /// Intersection over union, if the class occurs.
    pub iou: Option<f64>,
    /// Labelled pixels of the class in the scored split.
    pub pixels: u64,
}

/// One picture of the gallery: the same image seen several ways.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GalleryItem {
    /// Image id.
    pub image_id: String,
    /// `(title, PNG file relative to the study's folder)`, left to right: input, label, linear, cluster, PCA-RGB.
    pub panels: Vec<(String, String)>,
}

/// How much of the features' variance the first `k` principal components hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VarianceCurve {
    /// Cumulative explained variance ratio; entry `i` belongs to `k = i + 1`.
    pub cumulative: Vec<f64>,
    /// How columns were scaled before the decomposition: `none`, `train`, `batch`.
    pub scaler: String,
}

/// A finished sweep: everything that a report shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Study {
    /// Name of the sweep.
    pub name: String,
    /// Data set name.
    pub dataset: String,
    /// Backbone as the user named it.
    pub backbone: String,
    /// Something a reader must know about the numbers, e.g. that the weights are random.
    pub notes: Vec<String>,
    /// Class names, in index order.
    pub classes: Vec<String>,
    /// Class colours, in index order.
    pub palette: Vec<[u8; 3]>,
    /// Dimensions `d` of the features before reduction.
    pub full_dim: usize,
    /// Images trained on and scored.
    pub images: (usize, usize),
    /// Evaluation protocol.
    pub protocol: String,
    /// Inputs that were skipped, with the reason.
    pub skipped: Vec<(String, String)>,
    /// One record per cell of the sweep, in plan order.
    pub runs: Vec<RunRecord>,
    /// Explained variance, if a PCA was fitted.
    pub variance: Option<VarianceCurve>,
    /// Pictures.
    pub gallery: Vec<GalleryItem>,
    /// The resolved configuration, as TOML.
    pub config: String,
    /// `featlab` version that made it.
    pub version: String,
}
