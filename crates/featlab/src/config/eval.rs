//! `[eval]`: how probes are scored.

use std::fmt;
use std::str::FromStr;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::exit::usage;
use crate::stages::probe::IntervalMethod;

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
