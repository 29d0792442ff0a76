//! Hyper-parameters of STEGO (Hamilton et al., 2022), under the original's names, and the published sets of them.
//!
//! The defaults are the original's active configuration. Presets differ in the weights and shifts of the correspondence loss and in
//! the sizes that were trained with them; where a comment in the original's configuration and the numbers that the follow-up
//! study used disagree (Potsdam), both are there.

use serde::{Deserialize, Serialize};

use super::error::{Result, expect_range};
use super::{CrfLoss, HeadKind, Ladder, Negatives};

/// The correspondence loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorrespondenceParams {
    /// Factor of the whole loss.
    pub correspondence_weight: f32,
    /// Weight of an image against its nearest neighbour.
    pub pos_inter_weight: f32,
    /// Weight of an image against itself.
    pub pos_intra_weight: f32,
    /// Weight of an image against others of the batch.
    pub neg_inter_weight: f32,
    /// What feature correlations must exceed to attract codes, for neighbours,
    pub pos_inter_shift: f32,
    /// for the image itself,
    pub pos_intra_shift: f32,
    /// and for others.
    pub neg_inter_shift: f32,
    /// Whether feature correlations are centred: by the mean over the second image's points, keeping the mean over all.
    pub pointwise: bool,
    /// Whether correlations of codes below 0 count as 0.
    pub zero_clamp: bool,
    /// Whether correlations of codes above 0.8 count as 0.8. (The original spells it so.)
    pub stabalize: bool,
    /// `S`: `S²` points are drawn in every image.
    pub feature_samples: usize,
    /// How often every image gets a negative.
    pub neg_samples: usize,
    /// How negatives are drawn.
    pub negatives: Negatives,
    /// The prefixes of the code whose losses are added up; empty for the whole code alone, as published.
    pub ladder: Vec<usize>,
}

/// A head and two probes in training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StegoConfig {
    /// `k`, numbers of a code.
    pub dim: usize,
    /// The head's branches.
    pub projection_type: HeadKind,
    /// Share of the feature channels that are dropped before each branch.
    pub dropout_rate: f32,
    /// Whether the features that the loss compares are dropped as well.
    pub dropout: bool,
    /// The loss.
    pub correspondence: CorrespondenceParams,
    /// Weight of the loss that reconstructs features from codes.
    pub rec_weight: f32,
    /// Weight of the loss that aligns codes with those of an augmented view.
    pub aug_alignment_weight: f32,
    /// Weight of the CRF loss,
    pub crf_weight: f32,
    /// and its kernel.
    pub crf: CrfLoss,
    /// Adam's learning rate for the head.
    pub lr: f32,
    /// Adam's learning rate for the probes.
    pub probe_lr: f32,
    /// `c`: classes of the linear probe, and clusters but for the extra ones.
    pub n_classes: usize,
    /// Clusters beyond the classes.
    pub extra_clusters: usize,
    /// The step before which probes and their optimisers are made anew.
    pub reset_probe_steps: Option<usize>,
    /// Images of a batch.
    pub batch_size: usize,
    /// Steps.
    pub max_steps: usize,
    /// A positive is one of this many nearest neighbours.
    pub num_neighbors: usize,
    /// Of initial weights, masks, points, negatives and the order of the images.
    pub seed: u64,
}

/// A published set of hyper-parameters.
struct Preset {
    name: &'static str,
    /// Negative, inter, intra.
    weights: [f32; 3],
    /// Negative, inter, intra.
    shifts: [f32; 3],
    pointwise: bool,
    /// Code dimension, classes, batch, steps.
    sizes: [usize; 4],
}

const fn preset(
    name: &'static str,
    weights: [f32; 3],
    shifts: [f32; 3],
    pointwise: bool,
    sizes: [usize; 4],
) -> Preset {
    Preset { name, weights, shifts, pointwise, sizes }
}

const COCO: [usize; 4] = [90, 27, 32, 7000];
const COCO_SMALL: [usize; 4] = [70, 27, 16, 5000];
const CITY: [usize; 4] = [100, 27, 32, 7000];
const POTSDAM: [usize; 4] = [70, 3, 16, 5000];

/// Weights and shifts of negatives, neighbours and the image itself. The first three are those of the released models, as the
/// follow-up study states them; the rest stands in the original's configuration.
const PRESETS: [Preset; 10] = [
    preset("cocostuff27-vit-base", [0.153_847_62, 1.0, 0.1], [1.0, 0.2, 0.12], true, COCO),
    preset(
        "cityscapes-vit-base",
        [0.905_876_3, 0.577_453_5, 1.0],
        [0.313_612_42, 0.175_434_65, 0.458_284_7],
        false,
        CITY,
    ),
    preset("potsdam-vit-small", [0.63, 0.25, 0.67], [0.76, 0.02, 0.08], true, POTSDAM),
    preset("potsdam-vit-small-comment", [0.63, 0.25, 0.67], [0.46, 0.02, 0.08], true, POTSDAM),
    preset("default", [0.63, 0.25, 0.67], [0.46, 0.12, 0.18], true, COCO_SMALL),
    preset("cocostuff27-vit-small-jan31", [0.63, 0.25, 0.67], [0.66, 0.02, 0.08], true, COCO_SMALL),
    preset("cocostuff27-vit-small-oct3", [0.63, 0.25, 0.67], [0.16, 0.02, 0.08], true, COCO_SMALL),
    preset("cocostuff27-moco-oct3", [0.63, 0.25, 0.67], [0.26, 0.36, 0.32], true, COCO_SMALL),
    preset("cocostuff27-older", [0.72, 0.80, 0.29], [0.86, 0.04, 0.34], true, COCO_SMALL),
    preset("cityscapes-older", [0.72, 0.18, 0.46], [0.25, 0.20, 0.25], false, CITY),
];

impl Default for CorrespondenceParams {
    fn default() -> Self {
        Self {
            correspondence_weight: 1.0,
            pos_inter_weight: 0.25,
            pos_intra_weight: 0.67,
            neg_inter_weight: 0.63,
            pos_inter_shift: 0.12,
            pos_intra_shift: 0.18,
            neg_inter_shift: 0.46,
            pointwise: true,
            zero_clamp: true,
            stabalize: false,
            feature_samples: 11,
            neg_samples: 5,
            negatives: Negatives::default(),
            ladder: Vec::new(),
        }
    }
}

impl Default for StegoConfig {
    fn default() -> Self {
        Self {
            dim: 70,
            projection_type: HeadKind::Nonlinear,
            dropout_rate: super::DROPOUT,
            dropout: true,
            correspondence: CorrespondenceParams::default(),
            rec_weight: 0.0,
            aug_alignment_weight: 0.0,
            crf_weight: 0.0,
            crf: CrfLoss::default(),
            lr: 5e-4,
            probe_lr: 5e-3,
            n_classes: 27,
            extra_clusters: 0,
            reset_probe_steps: None,
            batch_size: 16,
            max_steps: 5000,
            num_neighbors: 7,
            seed: 0,
        }
    }
}

impl StegoConfig {
    /// The names that [`StegoConfig::preset`] knows.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|preset| preset.name)
    }

    /// A published set of hyper-parameters, `None` for an unknown name.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let found = PRESETS.iter().find(|preset| preset.name == name)?;
        let [neg_inter_weight, pos_inter_weight, pos_intra_weight] = found.weights;
        let [neg_inter_shift, pos_inter_shift, pos_intra_shift] = found.shifts;
        let [dim, n_classes, batch_size, max_steps] = found.sizes;
        let correspondence = CorrespondenceParams {
            neg_inter_weight,
            pos_inter_weight,
            pos_intra_weight,
            neg_inter_shift,
            pos_inter_shift,
            pos_intra_shift,
            pointwise: found.pointwise,
            ..CorrespondenceParams::default()
        };
        Some(Self { dim, n_classes, batch_size, max_steps, correspondence, ..Self::default() })
    }

    /// Clusters of the cluster probe.
    #[must_use]
    pub fn clusters(&self) -> usize {
        self.n_classes + self.extra_clusters
    }

    /// Fails if nothing can be trained like this.
    ///
    /// # Errors
    /// [`Error::Range`](super::Error::Range), naming the setting.
    pub fn check(&self) -> Result<()> {
        let positive = |what, x: f32| expect_range(x.is_finite() && x > 0.0, what, "a positive number", x);
        expect_range(self.dim > 0, "code dimension", "at least 1", self.dim)?;
        expect_range((1..=255).contains(&self.n_classes), "number of classes", "1 to 255", self.n_classes)?;
        expect_range(self.clusters() <= 256, "number of clusters", "at most 256", self.clusters())?;
        expect_range((0.0..1.0).contains(&self.dropout_rate), "dropout rate", "0 to 1", self.dropout_rate)?;
        for (what, weight) in [
            ("rec_weight", self.rec_weight),
            ("aug_alignment_weight", self.aug_alignment_weight),
            ("crf_weight", self.crf_weight),
        ] {
            expect_range(weight.is_finite() && weight >= 0.0, what, "0 or more", weight)?;
        }
        positive("learning rate of the head", self.lr)?;
        positive("learning rate of the probes", self.probe_lr)?;
        self.correspondence.check(self.dim)
    }
}

impl CorrespondenceParams {
    /// Fails if the loss cannot be computed for codes of `dim` numbers.
    pub(super) fn check(&self, dim: usize) -> Result<()> {
        for (what, value) in [
            ("correspondence_weight", self.correspondence_weight),
            ("pos_inter_weight", self.pos_inter_weight),
            ("pos_intra_weight", self.pos_intra_weight),
            ("neg_inter_weight", self.neg_inter_weight),
            ("pos_inter_shift", self.pos_inter_shift),
            ("pos_intra_shift", self.pos_intra_shift),
            ("neg_inter_shift", self.neg_inter_shift),
        ] {
            expect_range(value.is_finite(), what, "a finite number", value)?;
        }
        let samples = self.feature_samples;
        expect_range((1..=64).contains(&samples), "feature_samples", "1 to 64", samples)?;
        expect_range(self.neg_samples <= 64, "neg_samples", "0 to 64", self.neg_samples)?;
        self.ladder(dim).map(drop)
    }

    /// The prefixes of codes of `dim` numbers.
    pub(super) fn ladder(&self, dim: usize) -> Result<Ladder> {
        if self.ladder.is_empty() { Ladder::whole(dim) } else { Ladder::new(&self.ladder, dim) }
    }

    /// The limits that clamp correlations of codes.
    pub(super) fn limits(&self) -> (f32, f32) {
        let low = if self.zero_clamp { 0.0 } else { -9999.0 };
        (low, if self.stabalize { 0.8 } else { f32::INFINITY })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_found_by_name_and_can_be_trained() {
        for name in StegoConfig::presets() {
            StegoConfig::preset(name).unwrap().check().unwrap();
        }
        let city = StegoConfig::preset("cityscapes-vit-base").unwrap();
        assert_eq!((city.dim, city.batch_size, city.correspondence.pointwise), (100, 32, false));
        assert_eq!(city.correspondence.pos_intra_shift, 0.458_284_7);
        assert_eq!(StegoConfig::preset("default").unwrap(), StegoConfig::default());
        assert!(StegoConfig::preset("cocostuff").is_none());
    }

    #[test]
    fn what_is_written_is_read_and_what_is_unknown_refused() {
        let config = StegoConfig::preset("potsdam-vit-small").unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<StegoConfig>(&text).unwrap(), config);
        let short =
            r#"{"dim": 12, "projection_type": "linear", "correspondence": {"negatives": "published"}}"#;
        let config: StegoConfig = serde_json::from_str(short).unwrap();
        assert_eq!(config.correspondence.negatives, Negatives::Published);
        assert!(serde_json::from_str::<StegoConfig>(r#"{"dims": 12}"#).is_err());
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let good = StegoConfig::default;
        let loss = CorrespondenceParams::default;
        for wrong in [
            StegoConfig { dim: 0, ..good() },
            StegoConfig { n_classes: 256, ..good() },
            StegoConfig { dropout_rate: 1.0, ..good() },
            StegoConfig { lr: f32::NAN, ..good() },
            StegoConfig { correspondence: CorrespondenceParams { feature_samples: 0, ..loss() }, ..good() },
            StegoConfig { correspondence: CorrespondenceParams { ladder: vec![3, 71], ..loss() }, ..good() },
            StegoConfig {
                correspondence: CorrespondenceParams { pos_inter_shift: f32::INFINITY, ..loss() },
                ..good()
            },
        ] {
            assert!(wrong.check().is_err());
        }
    }
}
