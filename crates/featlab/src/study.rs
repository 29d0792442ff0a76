//! What a sweep knows when it is over: one [`Study`] of many [`RunRecord`]s.
//!
//! A run record is one row of the results table (dataset × method × dim × probe × seed × protocol) with what is needed to
//! draw it again: per-class IoU, the confusion counts and the cluster assignment. Records live one by one under
//! `runs/<key>.json`, so that a killed sweep loses at most the probe it was training; `study.json` ties them together.
//! Scores are fractions in `[0, 1]`; percent appears only in reports. A score that is no number (nothing was labelled) is `null`
//! in JSON and NaN here.
//!
//! Fields that came later have defaults, so that a `study.json` of an earlier version still makes a report; the report shows what
//! is there. Whoever builds a study or a record ends the literal with `..Default::default()`.

use std::ffi::OsStr;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

/// One probe, trained and scored: one row of `results.parquet`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// `none` (all features), `pca`, `rp`, `rp-sparse`, `umap`, `hnne`.
    pub method: String,
    /// Dimensions `k` that the probe saw.
    pub dim: usize,
    /// `linear`, `cluster`, `knn`, `ridge`, `kmeans`.
    pub probe: String,
    /// Seed of the probe's initial weights (and of a random projection).
    pub seed: u64,
    /// Evaluation protocol, e.g. `stego-train`.
    pub protocol: String,
    /// Whether a dense CRF refined the predictions.
    pub crf: bool,
    /// Gradient steps of the probe; 0 for one that takes none.
    pub steps: usize,
    /// Mean IoU over the classes that occur.
    #[serde(deserialize_with = "number_or_nan")]
    pub miou: f64,
    /// Pixel accuracy.
    #[serde(deserialize_with = "number_or_nan")]
    pub accuracy: f64,
    /// Lower end of the 95 % interval of `miou` over images.
    #[serde(deserialize_with = "number_or_nan")]
    pub miou_lo: f64,
    /// Upper end of that interval.
    #[serde(deserialize_with = "number_or_nan")]
    pub miou_hi: f64,
    /// Seconds that training and scoring took.
    #[serde(deserialize_with = "number_or_nan")]
    pub wall_s: f64,
    /// IoU per class, in class order; `None` for a class that occurs in neither truth nor prediction.
    pub per_class: Vec<ClassScore>,
    /// For a cluster probe: the class that each cluster was matched to.
    pub class_of_cluster: Option<Vec<Option<usize>>>,
    /// Pixel counts `[c, c or m]`: row = truth, column = prediction (class, or cluster before matching).
    pub confusion: Vec<Vec<u64>>,
    /// Mean boundary IoU over the classes that occur (Cheng et al. 2021).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary_iou: Option<f64>,
    /// Scores of a cluster probe whose clusters are mapped many to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub majority: Option<Majority>,
}

/// Clusters given to the class that most of their pixels have, several to one class if need be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Majority {
    /// Mean IoU under that mapping.
    #[serde(deserialize_with = "number_or_nan")]
    pub miou: f64,
    /// Share of the classes that occur which some cluster stands for.
    #[serde(deserialize_with = "number_or_nan")]
    pub coverage: f64,
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GalleryItem {
    /// Image id.
    pub image_id: String,
    /// `(title, PNG file relative to the study's folder)`, left to right: input, label, linear, cluster, PCA-RGB.
    pub panels: Vec<(String, String)>,
    /// `(index into panels, PNG file)`: what a dense CRF makes of that prediction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refined: Vec<(usize, String)>,
}

/// How much of the features' variance the first `k` principal components hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VarianceCurve {
    /// Cumulative explained variance ratio; entry `i` belongs to `k = i + 1`.
    pub cumulative: Vec<f64>,
    /// How columns were scaled before the decomposition: `none`, `train`, `batch`.
    pub scaler: String,
}

/// What one stage of a sweep cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StageCost {
    /// Name of the stage, e.g. `extract train`, `fit pca`, `probes`.
    pub name: String,
    /// Seconds it took.
    pub wall_s: f64,
    /// Bytes read from data sets and caches.
    pub bytes_read: u64,
    /// Bytes written to caches and results.
    pub bytes_written: u64,
    /// What was done, e.g. `96 images, 31 images/s`.
    pub detail: String,
}

/// What the features' second moments and neighbourhoods look like, before any reduction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FeatureGeometry {
    /// Intrinsic dimension as one or more estimators see it: `(estimator, dimension)`, e.g. `("TwoNN", 14.2)`.
    pub intrinsic_dim: Vec<(String, f64)>,
    /// Largest over smallest eigenvalue of the covariance; `None` if the smallest is zero.
    pub condition_number: Option<f64>,
    /// Dimensions that the variance is effectively spread over.
    pub effective_rank: Option<f64>,
    /// Tokens that the estimates rest on.
    pub tokens: usize,
}

/// Two settings of one probe, scored on the same images.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// `linear`, `cluster`, …
    pub probe: String,
    /// The first setting, e.g. `pca, 48`.
    pub first: String,
    /// The second one, e.g. `rp, 48`.
    pub second: String,
    /// Mean IoU of the first less that of the second.
    #[serde(deserialize_with = "number_or_nan")]
    pub difference: f64,
    /// Ends of the 95 % interval of the difference.
    #[serde(default)]
    pub interval: Option<(f64, f64)>,
    /// Two-sided p that a difference as large comes about if there is none.
    #[serde(default)]
    pub p: Option<f64>,
    /// How the interval and p were found, e.g. `jackknife and random swaps over 96 images, 3 seeds`.
    #[serde(default)]
    pub test: String,
}

/// A backbone as readers know it: of a file its name, or its folder's where the name says nothing; any other name as it is.
pub(crate) fn short_name(backbone: &str) -> String {
    let path = Path::new(backbone);
    let end = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let folder = path.parent().and_then(Path::file_name).and_then(OsStr::to_str);
    let name = match (end, stem) {
        ("safetensors" | "pth" | "pt" | "ckpt", "backbone" | "checkpoint" | "model" | "pytorch_model") => {
            folder.unwrap_or(stem)
        }
        ("safetensors" | "pth" | "pt" | "ckpt", _) => stem,
        _ => backbone,
    };
    name.to_owned()
}

/// A finished sweep: everything that a report shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// How the intervals beside scores were made, e.g. `jackknife`; empty for percentiles of redrawn scores.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interval: String,
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
    /// What else it was made with: `(name, version or description)`, e.g. `("instruction set", "avx512")`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<(String, String)>,
    /// Time and bytes per stage, in the order in which they ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageCost>,
    /// Seconds from the first to the last stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_s: Option<f64>,
    /// Intrinsic dimension, condition number, effective rank of the features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geometry: Option<FeatureGeometry>,
    /// Paired comparisons between settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<Comparison>,
}

/// JSON has no NaN; it is written as `null`.
fn number_or_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_study_of_an_earlier_version_is_read() {
        let mut value =
            serde_json::to_value(Study { runs: vec![RunRecord::default()], ..Study::default() }).unwrap();
        let fields = value.as_object_mut().unwrap();
        for new in ["versions", "stages", "wall_s", "geometry", "comparisons"] {
            assert!(!fields.contains_key(new), "{new} is written only where it is known");
        }
        fields.insert(
            "gallery".to_owned(),
            serde_json::json!([{ "image_id": "a", "panels": [["input", "a.png"]] }]),
        );
        let study: Study = serde_json::from_value(value).unwrap();
        assert!(study.gallery[0].refined.is_empty() && study.runs[0].boundary_iou.is_none());
    }

    #[test]
    fn backbones_are_called_by_what_tells_them_apart() {
        for (backbone, name) in [
            ("runs/dino-tiny/backbone.safetensors", "dino-tiny"),
            ("dino_vits8.pth", "dino_vits8"),
            ("backbone.safetensors", "backbone"),
            ("facebook/dino-vits8", "facebook/dino-vits8"),
            ("random:vit_micro_patch8:0", "random:vit_micro_patch8:0"),
            ("embedded:scenes-micro", "embedded:scenes-micro"),
        ] {
            assert_eq!(short_name(backbone), name);
        }
    }

    #[test]
    fn scores_that_are_no_numbers_come_back() {
        let run = RunRecord { miou: f64::NAN, miou_lo: f64::NAN, accuracy: 0.5, ..RunRecord::default() };
        let run: RunRecord = serde_json::from_slice(&serde_json::to_vec(&run).unwrap()).unwrap();
        assert!(run.miou.is_nan() && run.miou_lo.is_nan() && run.accuracy == 0.5);
    }

    #[test]
    fn what_a_stage_cost_may_be_told_in_part() {
        let stage: StageCost = serde_json::from_str(r#"{ "name": "probes", "wall_s": 2.5 }"#).unwrap();
        assert_eq!((stage.wall_s, stage.bytes_read, stage.detail.as_str()), (2.5, 0, ""));
    }
}
