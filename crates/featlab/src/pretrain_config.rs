//! A pretraining file: what is trained on, how it is watched, and the method's own settings.
//!
//! `[data]`, `[monitor]` and `[save]` say where images come from and what happens around the training. All other tables are the
//! method's [`Recipe`]; what a file does not say has the method's published default, also within a table.

use std::path::Path;

use anyhow::Result;
use pretrain::Recipe;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::exit::usage;
use crate::toml_file::TomlFile;

/// The whole file of a method.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PretrainConfig<R> {
    /// Name of the run.
    pub name: String,
    /// Images.
    pub data: DataConfig,
    /// A labelled set to watch the features on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<MonitorConfig>,
    /// Which checkpoints are kept.
    pub save: SaveConfig,
    /// The method's tables.
    #[serde(flatten)]
    pub method: R,
}

/// The part that all methods have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Around {
    name: String,
    data: DataConfig,
    monitor: Option<MonitorConfig>,
    #[serde(default)]
    save: SaveConfig,
}

impl<'de, R: Recipe> Deserialize<'de> for PretrainConfig<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut own = toml::Table::deserialize(deserializer)?;
        let mut around = toml::Table::new();
        for key in ["name", "data", "monitor", "save"] {
            around.extend(own.remove(key).map(|value| (key.to_owned(), value)));
        }
        let Around { name, data, monitor, save } = around.try_into().map_err(D::Error::custom)?;
        let mut all = toml::Table::try_from(R::default()).map_err(D::Error::custom)?;
        overlay(&mut all, own);
        let method = all.try_into().map_err(D::Error::custom)?;
        Ok(Self { name, data, monitor, save, method })
    }
}

/// Puts one table over another, tables within them too.
fn overlay(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => overlay(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataConfig {
    /// Data sets as `--dataset` spells them; only methods with classes use labels.
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
    /// Share of the images of each class that is trained on, at least one of each: 0.01 and 0.1 are the usual tests of
    /// learning with few labels. Only methods that use labels.
    #[serde(default = "whole")]
    pub label_share: f64,
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

impl<R: Recipe> TomlFile for PretrainConfig<R> {
    const WHAT: &'static str = "pretraining file";

    fn check(&self) -> Result<()> {
        let data = &self.data;
        let rules = [
            (!data.datasets.is_empty(), "data.datasets must name at least one data set"),
            ((1..=64).contains(&data.tiles), "data.tiles must be between 1 and 64"),
            (is_folder_name(&self.name), "name must be a folder's name, without / or .."),
            (data.tile_size > 0.0 && data.tile_size <= 1.0, "data.tile_size must be above 0 and at most 1"),
            (
                data.label_share > 0.0 && data.label_share <= 1.0,
                "data.label_share must be above 0 and at most 1",
            ),
            (
                data.label_share == 1.0 || self.method.is_supervised(),
                "data.label_share belongs to methods that use labels",
            ),
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
            let patch = self.method.granule()?;
            if !monitor.res.is_multiple_of(patch) || monitor.res == 0 {
                return Err(usage(format!(
                    "monitor.res {} is not a multiple of patches of {patch}",
                    monitor.res
                )));
            }
        }
        Ok(self.method.check()?)
    }
}

/// Whether a name may stand in `runs/NAME`.
fn is_folder_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None))
}

#[cfg(test)]
mod tests {
    use pretrain::{AutoMixConfig, DeepClusterConfig, DinoConfig, SwavConfig};

    use super::*;

    type Dino = PretrainConfig<DinoConfig>;
    type Swav = PretrainConfig<SwavConfig>;

    const MINIMAL: &str = "name = \"x\"\n[data]\ndatasets = [\"scenes\"]\n";

    #[test]
    fn defaults_are_the_published_settings_and_read_back() {
        let config = Dino::parse(MINIMAL, &[]).unwrap();
        assert_eq!(config.method, DinoConfig::default());
        assert_eq!(Dino::parse(&config.to_toml().unwrap(), &[]).unwrap(), config);
        // Within a table too: a SwAV file that names one size keeps SwAV's others.
        let swav = Swav::parse(MINIMAL, &["views.global_size=160".into()]).unwrap();
        assert_eq!((swav.method.views.locals, swav.method.views.global_scale), (6, (0.14, 1.0)));
        assert_eq!(Swav::parse(&swav.to_toml().unwrap(), &[]).unwrap(), swav);
    }

    /// The weights inside the program state a recipe: it is the one in `experiments/`.
    #[test]
    fn the_embedded_weights_are_of_the_recipe() {
        let file = include_bytes!("../../backbone/assets/scenes-micro.safetensors");
        assert!(file.len() <= 6_000_000, "{} bytes", file.len());
        let (_, header) = safetensors::SafeTensors::read_metadata(file).unwrap();
        let about = header.metadata().clone().unwrap();
        let recipe = include_str!("../../../experiments/pretrain/scenes-micro.toml");
        let recipe = Dino::parse(recipe, &[]).unwrap();
        assert_eq!(Dino::parse(&about["config"], &[]).unwrap(), recipe);
        let train = &recipe.method.train;
        assert_eq!(about["step"], (train.epochs * (27_000 / train.batch_size)).to_string());
    }

    #[test]
    fn every_recipe_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/pretrain");
        let recipes = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let recipes: Vec<_> =
            recipes.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
        assert!(recipes.len() >= 3);
        for recipe in recipes {
            let name = recipe.file_stem().unwrap().to_string_lossy().into_owned();
            match name.split('-').next().unwrap() {
                "swav" => drop(Swav::read(&recipe, &[]).unwrap()),
                "automix" => drop(PretrainConfig::<AutoMixConfig>::read(&recipe, &[]).unwrap()),
                "deepcluster" => drop(PretrainConfig::<DeepClusterConfig>::read(&recipe, &[]).unwrap()),
                _ => drop(Dino::read(&recipe, &[]).unwrap()),
            }
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
            let error = Dino::parse(MINIMAL, &items).unwrap_err();
            let line = crate::exit::one_line(&error);
            assert!(crate::exit::code(&error) == 2 && line.contains(word), "{line}");
        }
    }
}
