//! The sweep file: what was typed, as one serde structure whose defaults are the published settings.
//!
//! `[dataset]`, `[features]`, `[reduce]`, `[probe]`, `[eval]` change results and enter the keys of what they make;
//! `[how]` (device, shard size, place of the caches) never changes a number. An unknown key is an error, in the file
//! as in `--set`. Defaults cite the STEGO configuration (Hamilton et al., ICLR 2022) and stego-studies (2023).

mod stego;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub(crate) use stego::StegoToml;

use crate::dim::Dim;
use crate::exit::usage;
use crate::stages::layout::LayoutMethod;
use crate::stages::probe::{ClassWeights, ClosedForm, IntervalMethod, Kind};
use crate::toml_file;

/// One sweep, as written in a TOML file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SweepConfig {
    /// Name of the sweep; also the default output folder, `runs/NAME`.
    pub name: String,
    /// Which images.
    pub dataset: DatasetConfig,
    /// Which features of them.
    pub features: FeaturesConfig,
    /// Which reductions, to which dimensions.
    #[serde(default)]
    pub reduce: ReduceConfig,
    /// Which probes, how long.
    #[serde(default)]
    pub probe: ProbeConfig,
    /// How the heads of `stego` and `stego-nested` are trained.
    #[serde(default)]
    pub stego: StegoToml,
    /// How probes are scored.
    #[serde(default)]
    pub eval: EvalConfig,
    /// What never changes a number.
    #[serde(default)]
    pub how: HowConfig,
}

/// `[dataset]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetConfig {
    /// `scenes`, `camvid`, `cocostuff27`, `cityscapes27`, `potsdam3`.
    pub name: String,
    /// Folder of the data set; for `scenes` its options, e.g. `train=64,val=32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Split that reducers and probes are fitted on.
    #[serde(default = "train")]
    pub train_split: String,
    /// Split that probes are scored on.
    #[serde(default = "val")]
    pub val_split: String,
}

fn train() -> String {
    "train".into()
}

fn val() -> String {
    "val".into()
}

impl DatasetConfig {
    /// The data set as `--dataset` spells it: `NAME` or `NAME:ROOT`.
    pub(crate) fn spec(&self) -> String {
        match &self.root {
            Some(root) => format!("{}:{root}", self.name),
            None => self.name.clone(),
        }
    }
}

/// `[features]`: what `featlab extract` takes, with a resolution for each split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeaturesConfig {
    /// Name or file of the backbone.
    pub backbone: String,
    /// Attention heads, where the checkpoint does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_heads: Option<usize>,
    /// Other backbones whose full features are probed as well, to stand beside this one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compare: Vec<String>,
    /// Network input of the training split, pixels (STEGO: 224).
    #[serde(default = "train_res")]
    pub train_res: usize,
    /// Network input of the scored split, pixels (STEGO: 320).
    #[serde(default = "val_res")]
    pub val_res: usize,
    /// Crop of the training split: `center`, `five`, `random`, `none`. The scored split is always cropped at the centre.
    #[serde(default = "center")]
    pub train_crop: String,
    /// Resize filter: `nearest` (as the original), `bilinear`, `bicubic`.
    #[serde(default = "nearest")]
    pub resize: String,
    /// Block that is read; −1 is the last.
    #[serde(default = "last_layer")]
    pub layer: i64,
    /// `token`, `key`, `query`, `value`.
    #[serde(default = "token")]
    pub facet: String,
    /// Stored number type.
    #[serde(default = "f16")]
    pub dtype: String,
    /// Number type that the network computes in: `f32`, `bf16`, `f16`. Not what suits the device, unless it is `auto`: a sweep
    /// has the same results wherever it runs.
    #[serde(default = "f32", skip_serializing_if = "is_f32")]
    pub precision: String,
}

fn train_res() -> usize {
    224
}

fn val_res() -> usize {
    320
}

fn center() -> String {
    "center".into()
}

fn nearest() -> String {
    "nearest".into()
}

fn last_layer() -> i64 {
    -1
}

fn token() -> String {
    "token".into()
}

fn f16() -> String {
    "f16".into()
}

fn f32() -> String {
    "f32".into()
}

fn is_f32(precision: &str) -> bool {
    precision == "f32"
}

/// `[reduce]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReduceConfig {
    /// `none` (all features: the baseline), `pca`, `rp`, `rp-sparse`, `umap`, `hnne` (where it was built in), `stego` (a head for
    /// each dimension), `stego-nested` (one for all).
    pub methods: Vec<String>,
    /// Target dimensions; `"full"` is the width of the features. `none` always means full; `umap`, `hnne`, `stego` leave it out.
    pub dims: Vec<Dim>,
    /// Column scaling: `none`, `train`, `batch`.
    pub scaler: String,
    /// First seed of the random projections; run `i` of a sweep over seeds uses `seed + i`-th projection.
    pub seed: u64,
    /// Tokens that `umap` and `hnne` are fitted on (10 000).
    pub layout_tokens: usize,
    /// Images that these are drawn from (5000).
    pub layout_images: usize,
    /// How `umap` and `hnne` compare tokens: `cosine`, `euclidean`.
    pub metric: String,
    /// Neighbours of a token in `umap` (15).
    pub n_neighbors: usize,
    /// How close tokens may lie in `umap` (0.1).
    pub min_dist: f64,
}

impl Default for ReduceConfig {
    fn default() -> Self {
        Self {
            methods: ["none", "pca", "rp"].map(String::from).into(),
            dims: [3, 6, 12, 24, 48, 96, 192].map(Dim::To).into_iter().chain([Dim::Full]).collect(),
            scaler: "train".into(),
            seed: 0,
            layout_tokens: 10_000,
            layout_images: 5000,
            metric: "cosine".into(),
            n_neighbors: 15,
            min_dist: 0.1,
        }
    }
}

impl ReduceConfig {
    /// The method, if it is fitted on a sample of the tokens and for one dimension.
    pub(crate) fn layout(&self, method: &str) -> Option<LayoutMethod> {
        match method {
            "umap" => Some(LayoutMethod::Umap {
                n_neighbors: self.n_neighbors,
                min_dist: self.min_dist,
                n_epochs: None,
            }),
            #[cfg(feature = "hnne")]
            "hnne" => Some(LayoutMethod::Hnne),
            _ => None,
        }
    }
}

/// `[probe]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ProbeConfig {
    /// `linear`, `cluster`, `knn`, `ridge`, `kmeans`.
    pub probes: Vec<String>,
    /// One run for each.
    pub seeds: Vec<u64>,
    /// Training steps (STEGO's default configuration: 5000).
    pub steps: usize,
    /// Images per step (16).
    pub batch_size: usize,
    /// Adam's learning rate (5e-3).
    pub learning_rate: f32,
    /// Seed of the order of the images, which all probes of a sweep share (0).
    pub order_seed: u64,
    /// Step before which probes and optimisers are made anew (none).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_probe_steps: Option<usize>,
    /// Weight of a pixel of each class in the linear probe's loss: `"none"`, `"balanced"`, or a list of numbers (none).
    pub class_weights: ClassWeights,
    /// Clusters beyond the number of classes (0).
    pub extra_clusters: usize,
    /// Penalties that a ridge probe chooses from, as shares of the mean variance of a feature (1e-6 to 1e4 by tens).
    pub ridge_lambdas: Vec<f64>,
    /// Starts of k-means, of which the best counts (10).
    pub kmeans_restarts: usize,
    /// Training tokens that k-means sees (20 000).
    pub kmeans_tokens: usize,
    /// Neighbours that vote in a k-NN probe (20).
    pub knn_k: usize,
    /// Temperature of a neighbour's vote (0.07).
    pub knn_temperature: f64,
    /// Labelled training tokens among which neighbours are looked for (10 000).
    pub knn_tokens: usize,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        let closed = ClosedForm::default();
        Self {
            probes: ["linear", "cluster"].map(String::from).into(),
            seeds: vec![0],
            steps: 5000,
            batch_size: 16,
            learning_rate: 5e-3,
            order_seed: 0,
            reset_probe_steps: None,
            class_weights: ClassWeights::default(),
            extra_clusters: 0,
            ridge_lambdas: closed.ridge_lambdas,
            kmeans_restarts: closed.kmeans_restarts,
            kmeans_tokens: closed.kmeans_tokens,
            knn_k: closed.knn_k,
            knn_temperature: closed.knn_temperature,
            knn_tokens: closed.knn_tokens,
        }
    }
}

impl ProbeConfig {
    /// Settings of the probes that take no gradient steps.
    pub(crate) fn closed_form(&self) -> ClosedForm {
        ClosedForm {
            ridge_lambdas: self.ridge_lambdas.clone(),
            kmeans_restarts: self.kmeans_restarts,
            kmeans_tokens: self.kmeans_tokens,
            knn_k: self.knn_k,
            knn_temperature: self.knn_temperature,
            knn_tokens: self.knn_tokens,
        }
    }
}

/// Which evaluation of the original is followed (they differ in the number of views).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// Validation inside STEGO's training script: a single view.
    #[default]
    StegoTrain,
    /// STEGO's evaluation script: the features of the image and of its mirror image are averaged.
    StegoEval,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StegoTrain => "stego-train",
            Self::StegoEval => "stego-eval",
        })
    }
}

/// Images whose labels decide which cluster is which class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Matching {
    /// The scored images themselves, as published.
    #[default]
    Eval,
    /// The training images.
    Train,
}

impl FromStr for Matching {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "eval" => Ok(Self::Eval),
            "train" => Ok(Self::Train),
            _ => Err(usage(format!("hungarian is \"eval\" or \"train\", got \"{word}\""))),
        }
    }
}

/// `[eval]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EvalConfig {
    /// `stego-train` or `stego-eval`.
    pub protocol: Protocol,
    /// Clusters are matched to classes on `eval` (as published) or on `train`.
    pub hungarian: Matching,
    /// How the 95 % interval over images is made: `jackknife`, `percentile` or `bca` (bootstraps).
    pub interval: IntervalMethod,
    /// Resamples of bootstraps and of the tests that compare settings.
    pub bootstrap: usize,
    /// Whether the IoU of pixels near edges is counted as well.
    pub boundary_iou: bool,
    /// Methods whose linear and cluster predictions a dense CRF refines, in rows of their own: e.g. `["none"]`.
    pub crf: Vec<String>,
    /// Images in the report's gallery.
    pub gallery: usize,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            hungarian: Matching::default(),
            interval: IntervalMethod::default(),
            bootstrap: 1000,
            boundary_iou: false,
            crf: Vec::new(),
            gallery: 6,
        }
    }
}

/// `[how]`: nothing here changes a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HowConfig {
    /// `auto`, `cpu`, `cuda:0`, `metal`.
    pub device: String,
    /// Folder or URL under which feature caches live; default `OUT/features`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Images per shard; default about 32 MiB of tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard_rows: Option<usize>,
    /// Memory for projected training features; what does not fit is projected again for each batch.
    pub memory: String,
}

impl Default for HowConfig {
    fn default() -> Self {
        Self { device: "auto".into(), cache: None, shard_rows: None, memory: "4GB".into() }
    }
}

impl SweepConfig {
    /// Reads a sweep file and applies `--set` overrides.
    ///
    /// # Errors
    /// A usage error that names the file and the offending key.
    pub(crate) fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = toml_file::read(path, "sweep file")?;
        Self::parse(&text, overrides).with_context(|| format!("sweep file {}", path.display()))
    }

    /// Parses a sweep file's text and applies overrides of the form `key.path=value`.
    ///
    /// # Errors
    /// A usage error that names the offending key.
    pub(crate) fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let config: Self = toml_file::parse(text, overrides)?;
        config.check()?;
        Ok(config)
    }

    /// The configuration with every default written out.
    pub(crate) fn to_toml(&self) -> Result<String> {
        toml::to_string(self).context("writing the configuration as TOML")
    }

    fn check_methods(&self) -> Result<()> {
        let methods = &self.reduce.methods;
        if cfg!(not(feature = "hnne")) && methods.iter().any(|method| method == "hnne") {
            return Err(usage(
                "reduce.methods: hnne is not in this build; build it with --features hnne (its authors allow no \
                 commercial use of re-implementations, and this is one)",
            ));
        }
        let allowed = ["none", "pca", "rp", "rp-sparse", "umap", "hnne", "stego", "stego-nested"];
        known("reduce.methods", methods, &allowed)?;
        self.stego.resolve(1, Vec::new(), 0)?;
        match self.eval.crf.iter().find(|method| !methods.contains(method)) {
            Some(method) => Err(usage(format!(
                "eval.crf: \"{method}\" is none of reduce.methods, which are {}",
                methods.join(", ")
            ))),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<()> {
        self.check_methods()?;
        known("probe.probes", &self.probe.probes, &Kind::ALL.map(Kind::name))?;
        self.probe.closed_form().check().context("probe")?;
        check_schedule(self.probe.steps, self.probe.batch_size, self.probe.learning_rate)?;
        if self.eval.bootstrap == 0 {
            return Err(usage("eval.bootstrap must be at least 1 resample, got 0"));
        }
        let lists = [
            ("probe.seeds", self.probe.seeds.len()),
            ("probe.probes", self.probe.probes.len()),
            ("reduce.methods", self.reduce.methods.len()),
            ("reduce.dims", self.reduce.dims.len()),
        ];
        match lists.iter().find(|(_, length)| *length == 0) {
            Some((key, _)) => Err(usage(format!("{key} is empty, expected at least one entry"))),
            None => Ok(()),
        }
    }
}

/// Refuses a training schedule that trains nothing.
pub(crate) fn check_schedule(steps: usize, batch_size: usize, learning_rate: f32) -> Result<()> {
    for (name, value) in [("steps", steps), ("batch_size", batch_size)] {
        if value == 0 {
            return Err(usage(format!("{name} must be at least 1, got 0")));
        }
    }
    if !(learning_rate.is_finite() && learning_rate > 0.0) {
        return Err(usage(format!("learning_rate must be a number above 0, got {learning_rate}")));
    }
    Ok(())
}

fn known(key: &str, words: &[String], allowed: &[&str]) -> Result<()> {
    match words.iter().find(|w| !allowed.contains(&w.as_str())) {
        Some(word) => {
            Err(usage(format!("{key}: unknown \"{word}\", expected one of {}", allowed.join(", "))))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        "name = 'x'\n[dataset]\nname = 'scenes'\n[features]\nbackbone = 'random:vit_micro_patch8'\n";

    #[test]
    fn defaults_are_the_published_settings() {
        let config = SweepConfig::parse(MINIMAL, &[]).unwrap();
        assert_eq!(
            (config.probe.steps, config.probe.batch_size, config.probe.learning_rate),
            (5000, 16, 5e-3)
        );
        assert_eq!((config.features.train_res, config.features.val_res), (224, 320));
        assert_eq!(config.reduce.dims.last(), Some(&Dim::Full));
        assert_eq!(config.dataset.spec(), "scenes");
    }

    #[test]
    fn the_resolved_form_reads_back() {
        let config = SweepConfig::parse(MINIMAL, &[]).unwrap();
        assert_eq!(SweepConfig::parse(&config.to_toml().unwrap(), &[]).unwrap(), config);
    }

    #[test]
    fn set_takes_toml_values_and_plain_strings() {
        let overrides = [
            "probe.steps=7",
            "reduce.dims=[3, \"full\"]",
            "dataset.root=/data/Cam Vid",
            "eval.protocol=stego-eval",
        ];
        let config = SweepConfig::parse(MINIMAL, &overrides.map(String::from)).unwrap();
        assert_eq!(config.probe.steps, 7);
        assert_eq!(config.reduce.dims, [Dim::To(3), Dim::Full]);
        assert_eq!(config.dataset.spec(), "scenes:/data/Cam Vid");
        assert_eq!(config.eval.protocol, Protocol::StegoEval);
    }

    #[test]
    fn unknown_keys_and_words_are_usage_errors_that_name_them() {
        for (item, word) in [
            ("probe.stepz=7", "stepz"),
            ("nonsense=1", "nonsense"),
            ("reduce.methods=[\"tsne\"]", "tsne"),
            ("probe.steps=0", "steps"),
            ("probe.learning_rate=-1.0", "learning_rate"),
            ("probe.seeds=[]", "probe.seeds"),
            ("eval.bootstrap=0", "eval.bootstrap"),
            ("reduce.dims=[0]", "at least 1"),
            ("eval.crf=[\"umap\"]", "umap"),
            ("eval.interval=\"guess\"", "guess"),
            ("probe.knn_k=0", "knn_k"),
            ("probe.ridge_lambdas=[-1.0]", "ridge_lambdas"),
            ("probe.steps", "key=value"),
        ] {
            let error = SweepConfig::parse(MINIMAL, &[item.into()]).unwrap_err();
            assert_eq!(crate::exit::code(&error), 2, "{item}");
            let line = crate::exit::one_line(&error);
            assert!(line.contains(word), "{item}: {line}");
        }
    }
}
