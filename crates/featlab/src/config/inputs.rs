//! `[dataset]` and `[features]`: which images, and what is computed of them.

use serde::{Deserialize, Serialize};

/// `[dataset]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetConfig {
    /// `scenes`, `camvid`, `cocostuff27` (also 15 and 3), `cityscapes27`, `potsdam3`, `voc`, `directory`.
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
    /// Other backbones whose features are probed as well, to stand beside this one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compare: Vec<String>,
    /// Reductions that those undergo; `none` leaves them as they are.
    #[serde(default = "as_they_are", skip_serializing_if = "is_as_they_are")]
    pub compare_methods: Vec<String>,
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

fn as_they_are() -> Vec<String> {
    vec!["none".into()]
}

fn is_as_they_are(methods: &[String]) -> bool {
    methods == ["none"]
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
