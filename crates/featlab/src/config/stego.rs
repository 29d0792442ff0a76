//! `[stego]`: how the head of the methods `stego` and `stego-nested` is trained.
//!
//! A preset has the published numbers of a data set; what stands beside it replaces one of them.

use anyhow::Result;
use segment::stego::{HeadKind, Negatives, StegoConfig};
use serde::{Deserialize, Serialize};

use crate::exit::usage;

/// `[stego]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StegoToml {
    /// A published set of numbers: `default`, `cocostuff27-vit-base`, `cityscapes-vit-base`, `potsdam-vit-small`, …
    pub preset: String,
    /// First seed; run `i` of a sweep over seeds trains with `seed + i`.
    pub seed: u64,
    /// Steps (5000 or 7000).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Images of a batch (16 or 32).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Adam's learning rate (5e-4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f32>,
    /// `linear` or `nonlinear` (nonlinear).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection_type: Option<HeadKind>,
    /// Whether channels are dropped (true).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<bool>,
    /// A positive is one of this many nearest neighbours (7).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_neighbors: Option<usize>,
    /// Points per side of the samples (11).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_samples: Option<usize>,
    /// Negatives of each image (5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neg_samples: Option<usize>,
    /// How negatives are drawn: `derangement`, or `published`, where two images may share one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negatives: Option<Negatives>,
    /// Whether feature correlations are centred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointwise: Option<bool>,
    /// Whether correlations of codes below 0 count as 0 (true).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_clamp: Option<bool>,
    /// Whether correlations of codes above 0.8 count as 0.8 (false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stabalize: Option<bool>,
    /// Weight of an image against its neighbour,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pos_inter_weight: Option<f32>,
    /// itself,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pos_intra_weight: Option<f32>,
    /// and others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neg_inter_weight: Option<f32>,
    /// What feature correlations must exceed to attract codes, for neighbours,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pos_inter_shift: Option<f32>,
    /// the image itself,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pos_intra_shift: Option<f32>,
    /// and others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neg_inter_shift: Option<f32>,
}

impl Default for StegoToml {
    fn default() -> Self {
        Self {
            preset: "default".into(),
            seed: 0,
            steps: None,
            batch_size: None,
            learning_rate: None,
            projection_type: None,
            dropout: None,
            num_neighbors: None,
            feature_samples: None,
            neg_samples: None,
            negatives: None,
            pointwise: None,
            zero_clamp: None,
            stabalize: None,
            pos_inter_weight: None,
            pos_intra_weight: None,
            neg_inter_weight: None,
            pos_inter_shift: None,
            pos_intra_shift: None,
            neg_inter_shift: None,
        }
    }
}

/// Replaces a number by what was set for it.
fn set<T: Copy>(number: &mut T, wanted: Option<T>) {
    if let Some(wanted) = wanted {
        *number = wanted;
    }
}

impl StegoToml {
    /// The training of a head of `dim` numbers; `ladder` has the prefixes of a nested one.
    ///
    /// # Errors
    /// A usage error for an unknown preset.
    pub(crate) fn resolve(&self, dim: usize, ladder: Vec<usize>, seed: u64) -> Result<StegoConfig> {
        let known = || StegoConfig::presets().collect::<Vec<_>>().join(", ");
        let mut config = StegoConfig::preset(&self.preset).ok_or_else(|| {
            usage(format!("stego.preset: unknown \"{}\", expected one of {}", self.preset, known()))
        })?;
        (config.dim, config.seed) = (dim, self.seed + seed);
        set(&mut config.max_steps, self.steps);
        set(&mut config.batch_size, self.batch_size);
        set(&mut config.lr, self.learning_rate);
        set(&mut config.projection_type, self.projection_type);
        set(&mut config.dropout, self.dropout);
        set(&mut config.num_neighbors, self.num_neighbors);
        let loss = &mut config.correspondence;
        loss.ladder = ladder;
        set(&mut loss.feature_samples, self.feature_samples);
        set(&mut loss.neg_samples, self.neg_samples);
        set(&mut loss.negatives, self.negatives);
        set(&mut loss.pointwise, self.pointwise);
        set(&mut loss.zero_clamp, self.zero_clamp);
        set(&mut loss.stabalize, self.stabalize);
        set(&mut loss.pos_inter_weight, self.pos_inter_weight);
        set(&mut loss.pos_intra_weight, self.pos_intra_weight);
        set(&mut loss.neg_inter_weight, self.neg_inter_weight);
        set(&mut loss.pos_inter_shift, self.pos_inter_shift);
        set(&mut loss.pos_intra_shift, self.pos_intra_shift);
        set(&mut loss.neg_inter_shift, self.neg_inter_shift);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_stands_in_place_of_the_published() {
        let toml: StegoToml =
            toml::from_str("preset = \"cityscapes-vit-base\"\nsteps = 3\npos_intra_shift = 0.5").unwrap();
        let config = toml.resolve(12, vec![3, 12], 2).unwrap();
        assert_eq!((config.dim, config.max_steps, config.batch_size, config.seed), (12, 3, 32, 2));
        assert_eq!((config.correspondence.pos_intra_shift, config.correspondence.pointwise), (0.5, false));
        assert_eq!(config.correspondence.ladder, [3, 12]);
        let unknown = StegoToml { preset: "best".into(), ..StegoToml::default() };
        assert!(unknown.resolve(3, Vec::new(), 0).unwrap_err().to_string().contains("cocostuff27-vit-base"));
    }
}
