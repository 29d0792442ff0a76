//! The settings of a DeepCluster-v2 run, in the tables of its TOML file.

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::config::{BackboneConfig, TrainConfig, ViewsConfig};
use crate::deepcluster::DeepCluster;
use crate::projector::ProjectorConfig;
use crate::swav_config::{ClusterOptimizerConfig, Rule, first_broken, shared_rules, swav_crops, swav_views};
use crate::training::{Augment, DataShape, Recipe, Training};

/// A DeepCluster-v2 run. Defaults are published ones, but for batch and rate, which are SwAV's for one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeepClusterConfig {
    /// The backbone.
    pub backbone: BackboneConfig,
    /// Projection and prototypes of each head.
    pub head: ProjectorConfig,
    /// The random views.
    pub views: ViewsConfig,
    /// Clusters and loss.
    pub loss: DeepClusterLossConfig,
    /// The optimiser.
    pub optimizer: ClusterOptimizerConfig,
    /// Length, batch and seed.
    pub train: TrainConfig,
}

impl Default for DeepClusterConfig {
    fn default() -> Self {
        Self {
            backbone: BackboneConfig::default(),
            head: ProjectorConfig::default(),
            views: swav_views(),
            loss: DeepClusterLossConfig::default(),
            optimizer: ClusterOptimizerConfig::default(),
            train: TrainConfig { epochs: 200, batch_size: 256, ..TrainConfig::default() },
        }
    }
}

/// `[loss]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeepClusterLossConfig {
    /// T.
    pub temperature: f64,
    /// Heads, each with its own clusters.
    pub heads: usize,
    /// Rounds of k-means.
    pub kmeans_iterations: usize,
}

impl Default for DeepClusterLossConfig {
    fn default() -> Self {
        Self { temperature: 0.1, heads: 3, kmeans_iterations: 10 }
    }
}

impl Recipe for DeepClusterConfig {
    const METHOD: &'static str = "deepcluster";

    fn check(&self) -> Result<()> {
        let Self { backbone, head, views, loss, optimizer, train } = self;
        let mut rules: Vec<Rule> = shared_rules(backbone, head, views, optimizer, train)?;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        rules.extend([
            (positive(loss.temperature), "loss.temperature", "must be above 0".into()),
            (loss.heads > 0, "loss.heads", "must be at least 1".to_owned()),
        ]);
        first_broken(rules)?;
        Ok(swav_crops(views).check()?)
    }

    fn train(&self) -> &TrainConfig {
        &self.train
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }

    fn augment(&self) -> Augment {
        swav_crops(&self.views).into()
    }

    fn granule(&self) -> Result<usize> {
        Ok(self.backbone.trunk()?.granule())
    }

    fn start(&self, data: &DataShape, device: &Device) -> Result<Box<dyn Training>> {
        crate::training::only_on_the_processor("deepcluster", &self.train, device)?;
        Ok(Box::new(DeepCluster::new(self.clone(), data.images)?))
    }
}
