//! A pretraining file: what is trained on, how it is watched, and the method's own settings.
//!
//! The tables `[backbone]` to `[train]` are `pretrain::DinoConfig`, whose defaults are the published ones. `[data]`, `[monitor]`
//! and `[save]` say where images come from and what happens around the training.

use std::path::Path;

use anyhow::Result;
use pretrain::{
    BackboneConfig, DinoConfig, HeadConfig, LossConfig, OptimizerConfig, TeacherConfig, TrainConfig,
    ViewsConfig,
};
use serde::{Deserialize, Serialize};

use crate::exit::usage;
use crate::toml_file::TomlFile;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PretrainConfig {
    /// Name of the run.
    pub name: String,
    /// Images.
    pub data: DataConfig,
    /// A labelled set to watch the features on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<MonitorConfig>,
    /// Which checkpoints are kept.
    #[serde(default)]
    pub save: SaveConfig,
    #[serde(default)]
    pub backbone: BackboneConfig,
    #[serde(default)]
    pub head: HeadConfig,
    #[serde(default)]
    pub views: ViewsConfig,
    #[serde(default)]
    pub loss: LossConfig,
    #[serde(default)]
    pub teacher: TeacherConfig,
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    #[serde(default)]
    pub train: TrainConfig,
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataConfig {
    /// Data sets as `--dataset` spells them; labels are not used.
    pub datasets: Vec<String>,
    /// Part of each.
    #[serde(default = "all")]
    pub split: String,
    /// Cut every image into so many by so many tiles, each an image of its own: pictures of many things become
    /// pictures of few, as DINO expects them.
    #[serde(default = "one")]
    pub tiles: usize,
    /// Side of a tile as a fraction of the image's shorter side; tiles overlap if they must.
    #[serde(default = "whole")]
    pub tile_size: f64,
    /// Pixels that are kept decoded, in MiB; the others are decoded again in every epoch.
    #[serde(default = "memory")]
    pub memory_mib: usize,
}

fn all() -> String {
    "all".into()
}

fn one() -> usize {
    1
}

fn whole() -> f64 {
    1.0
}

fn memory() -> usize {
    4096
}

/// `[monitor]`: k-NN accuracy of patch features on a labelled data set, before, during and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MonitorConfig {
    /// The data set, as `--dataset` spells it.
    pub dataset: String,
    /// Neighbours come from here.
    #[serde(default = "train")]
    pub train_split: String,
    /// What is classified.
    #[serde(default = "val")]
    pub val_split: String,
    /// Network input, pixels.
    #[serde(default = "res")]
    pub res: usize,
    /// Images of each split, spread evenly over it.
    #[serde(default = "images")]
    pub images: usize,
    /// Neighbours that vote.
    #[serde(default = "k")]
    pub k: usize,
    /// Epochs between two looks.
    #[serde(default = "one")]
    pub every_epochs: usize,
}

fn train() -> String {
    "train".into()
}

fn val() -> String {
    "val".into()
}

fn res() -> usize {
    224
}

fn images() -> usize {
    48
}

fn k() -> usize {
    20
}

/// `[save]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SaveConfig {
    /// Epochs between two states to resume from; the last one is kept.
    pub every_epochs: usize,
    /// Epochs between two numbered checkpoints that stay, the first epoch's being 0000; 0 keeps none.
    pub keep_every_epochs: usize,
    /// Whether the backbone is written in 16 bits instead of 32. Of a finished run, the same command writes it again.
    pub half: bool,
}

impl Default for SaveConfig {
    fn default() -> Self {
        Self { every_epochs: 1, keep_every_epochs: 20, half: false }
    }
}

impl PretrainConfig {
    /// The method's part.
    pub(crate) fn dino(&self) -> DinoConfig {
        DinoConfig {
            backbone: self.backbone.clone(),
            head: self.head.clone(),
            views: self.views.clone(),
            loss: self.loss.clone(),
            teacher: self.teacher.clone(),
            optimizer: self.optimizer.clone(),
            train: self.train.clone(),
        }
    }
}

impl TomlFile for PretrainConfig {
    const WHAT: &'static str = "pretraining file";

    fn check(&self) -> Result<()> {
        let data = &self.data;
        let rules = [
            (!data.datasets.is_empty(), "data.datasets must name at least one data set"),
            ((1..=64).contains(&data.tiles), "data.tiles must be between 1 and 64"),
            (is_folder_name(&self.name), "name must be a folder's name, without / or .."),
            (data.tile_size > 0.0 && data.tile_size <= 1.0, "data.tile_size must be above 0 and at most 1"),
            (self.save.every_epochs > 0, "save.every_epochs must be at least 1"),
            (
                self.monitor.as_ref().is_none_or(|m| m.every_epochs > 0 && m.images > 0 && m.k > 0),
                "monitor.every_epochs, monitor.images and monitor.k must be at least 1",
            ),
        ];
        if let Some((_, reason)) = rules.iter().find(|(holds, _)| !holds) {
            return Err(usage(*reason));
        }
        if let Some(monitor) = &self.monitor {
            let patch = self.backbone.vit()?.patch_size;
            if !monitor.res.is_multiple_of(patch) || monitor.res == 0 {
                return Err(usage(format!(
                    "monitor.res {} is not a multiple of patches of {patch}",
                    monitor.res
                )));
            }
        }
        Ok(self.dino().check()?)
    }
}

/// Whether a name may stand in `runs/NAME`.
fn is_folder_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "name = \"x\"\n[data]\ndatasets = [\"scenes\"]\n";

    #[test]
    fn defaults_are_the_published_settings_and_read_back() {
        let config = PretrainConfig::parse(MINIMAL, &[]).unwrap();
        assert_eq!(config.dino(), DinoConfig::default());
        assert_eq!(PretrainConfig::parse(&config.to_toml().unwrap(), &[]).unwrap(), config);
    }

    /// The weights inside the program state a recipe: it is the one in `experiments/`.
    #[test]
    fn the_embedded_weights_are_of_the_recipe() {
        let file = include_bytes!("../../backbone/assets/scenes-micro.safetensors");
        assert!(file.len() <= 6_000_000, "{} bytes", file.len());
        let (_, header) = safetensors::SafeTensors::read_metadata(file).unwrap();
        let about = header.metadata().clone().unwrap();
        let recipe = include_str!("../../../experiments/pretrain/scenes-micro.toml");
        let recipe = PretrainConfig::parse(recipe, &[]).unwrap();
        assert_eq!(PretrainConfig::parse(&about["config"], &[]).unwrap(), recipe);
        assert_eq!(about["step"], (recipe.train.epochs * (27_000 / recipe.train.batch_size)).to_string());
    }

    #[test]
    fn every_recipe_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/pretrain");
        let recipes = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let recipes: Vec<_> =
            recipes.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
        assert!(recipes.len() >= 3);
        for recipe in recipes {
            PretrainConfig::read(&recipe, &[]).unwrap();
        }
    }

    #[test]
    fn mistakes_are_usage_errors_that_name_them() {
        for (item, word) in [
            ("train.epoch=3", "epoch"),
            ("data.tiles=0", "data.tiles"),
            ("data.tiles=100000", "data.tiles"),
            ("name=../x", "name must be"),
            ("optimizer.warmup_epochs=200", "warmup_epochs"),
            ("monitor.dataset=scenes", "monitor.res"),
        ] {
            let mut items = vec![item.to_owned()];
            if item.starts_with("monitor") {
                items.push("monitor.res=100".into());
            }
            let error = PretrainConfig::parse(MINIMAL, &items).unwrap_err();
            let line = crate::exit::one_line(&error);
            assert!(crate::exit::code(&error) == 2 && line.contains(word), "{line}");
        }
    }
}
