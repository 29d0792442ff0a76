//! `[stego]`: how the head of the methods `stego` and `stego-nested` is trained.
//!
//! A preset has the published numbers of a data set; any other key replaces one of them, under the original's name: `max_steps`,
//! `batch_size`, `lr`, `pos_intra_shift`, … (the fields of [`StegoConfig`] and of its loss).

use anyhow::{Context as _, Result};
use segment::stego::StegoConfig;
use serde::{Deserialize, Serialize};

use crate::exit::usage;

/// What a sweep decides itself: dimensions and seed of a cell, the ladder; and what only the trainer's own probes look at.
const NOT_SET_HERE: [&str; 5] = ["dim", "ladder", "correspondence", "n_classes", "extra_clusters"];

/// `[stego]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StegoToml {
    /// A published set of numbers: `default`, `cocostuff27-vit-base`, `cityscapes-vit-base`, `potsdam-vit-small`, …
    pub preset: String,
    /// First seed; run `i` of a sweep over seeds trains with `seed + i`.
    pub seed: u64,
    /// What stands in place of the preset's numbers.
    #[serde(flatten)]
    settings: toml::Table,
}

impl Default for StegoToml {
    fn default() -> Self {
        Self { preset: "default".into(), seed: 0, settings: toml::Table::new() }
    }
}

impl StegoToml {
    /// The training of a head of `dim` numbers; `ladder` has the prefixes of a nested one.
    ///
    /// # Errors
    /// A usage error for an unknown preset or key, or a value of another kind.
    pub(crate) fn resolve(&self, dim: usize, ladder: Vec<usize>, seed: u64) -> Result<StegoConfig> {
        let known = || StegoConfig::presets().collect::<Vec<_>>().join(", ");
        let preset = StegoConfig::preset(&self.preset).ok_or_else(|| {
            usage(format!("stego.preset: unknown \"{}\", expected one of {}", self.preset, known()))
        })?;
        let mut table = toml::Table::try_from(preset).context("a preset as TOML")?;
        for (key, value) in &self.settings {
            *place(&mut table, key)? = value.clone();
        }
        let mut config: StegoConfig =
            table.try_into().map_err(|e: toml::de::Error| usage(format!("stego: {}", e.message())))?;
        (config.dim, config.seed, config.correspondence.ladder) = (dim, self.seed + seed, ladder);
        config.check().map_err(|error| usage(format!("stego: {error}")))?;
        Ok(config)
    }
}

/// The number of that name, of the training or of its loss.
fn place<'a>(table: &'a mut toml::Table, key: &str) -> Result<&'a mut toml::Value> {
    let names = |table: &toml::Table| {
        let own = table.keys().filter(|name| !NOT_SET_HERE.contains(&name.as_str()));
        own.cloned().collect::<Vec<_>>()
    };
    let loss = table.get("correspondence").and_then(toml::Value::as_table);
    let of_loss = loss.map(names).unwrap_or_default();
    let of_training = names(table);
    let found = match (of_training.iter().any(|name| name == key), of_loss.iter().any(|name| name == key)) {
        (true, _) => table.get_mut(key),
        (false, true) => table.get_mut("correspondence").and_then(|loss| loss.get_mut(key)),
        (false, false) => None,
    };
    let all = [of_training, of_loss].concat().join(", ");
    found.ok_or_else(|| usage(format!("stego: unknown key \"{key}\", expected preset or one of {all}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> Result<StegoConfig> {
        toml::from_str::<StegoToml>(text)?.resolve(12, vec![3, 12], 2)
    }

    #[test]
    fn what_is_set_stands_in_place_of_the_published() {
        let config =
            resolved("preset = \"cityscapes-vit-base\"\nmax_steps = 3\npos_intra_shift = 0.5\nnegatives = \"published\"")
                .unwrap();
        assert_eq!((config.dim, config.max_steps, config.batch_size, config.seed), (12, 3, 32, 2));
        let loss = &config.correspondence;
        assert_eq!((loss.pos_intra_shift, loss.pointwise), (0.5, false));
        assert_eq!(loss.negatives, segment::stego::Negatives::Published);
        assert_eq!(loss.ladder, [3, 12]);
        // What is not set is the preset's to the bit.
        let preset = StegoConfig::preset("cityscapes-vit-base").unwrap();
        assert_eq!(loss.neg_inter_weight, preset.correspondence.neg_inter_weight);
    }

    #[test]
    fn what_is_not_known_or_of_another_kind_is_named() {
        for (text, word) in [
            ("preset = \"best\"", "cocostuff27-vit-base"),
            ("max_stepz = 3", "max_stepz"),
            ("dim = 3", "unknown key \"dim\""),
            ("lr = \"fast\"", "string"),
        ] {
            let error = resolved(text).unwrap_err();
            assert_eq!(crate::exit::code(&error), 2, "{text}");
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    }
}
