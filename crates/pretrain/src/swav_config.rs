//! The settings of SwAV (Caron et al. 2020), as its TOML file says them. Defaults are the published recipe for one machine:
//! batches of 256 with a queue.

use candle_core::Device;
use dataset::augment::MultiCrop;
use serde::{Deserialize, Serialize};

use crate::config::{BackboneConfig, TrainConfig, ViewsConfig};
use crate::optim::OptimizerKind;
use crate::projector::ProjectorConfig;
use crate::sinkhorn::{Sinkhorn, SinkhornForm};
use crate::swav::Swav;
use crate::training::{Augment, DataShape, Recipe, Training};
use crate::{Error, Result};

/// A SwAV run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwavConfig {
    /// The backbone.
    pub backbone: BackboneConfig,
    /// Projection and prototypes.
    pub head: ProjectorConfig,
    /// The random views.
    pub views: ViewsConfig,
    /// Assignments and loss.
    pub loss: SwavLossConfig,
    /// The optimiser.
    pub optimizer: ClusterOptimizerConfig,
    /// Length, batch and seed.
    pub train: TrainConfig,
}

impl Default for SwavConfig {
    fn default() -> Self {
        Self {
            backbone: BackboneConfig::default(),
            head: ProjectorConfig::default(),
            views: swav_views(),
            loss: SwavLossConfig::default(),
            optimizer: ClusterOptimizerConfig::default(),
            train: TrainConfig { epochs: 200, batch_size: 256, ..TrainConfig::default() },
        }
    }
}

/// Sizes and scales of SwAV's main recipe.
pub(crate) fn swav_views() -> ViewsConfig {
    ViewsConfig {
        global_size: 224,
        global_scale: (0.14, 1.0),
        locals: 6,
        local_size: 96,
        local_scale: (0.05, 0.14),
        blur: None,
        jitter: 1.0,
    }
}

/// `[loss]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwavLossConfig {
    /// T.
    pub temperature: f64,
    /// ε of the assignments; 0.03 helps where the loss sticks at ln K.
    pub epsilon: f64,
    /// Rounds of Sinkhorn–Knopp.
    pub sinkhorn_iterations: usize,
    /// How they are written: `current`, `marginals` or `log`.
    pub sinkhorn: SinkhornForm,
    /// Whether infinities are replaced by the largest finite number (`marginals` only).
    pub shoot_infs: bool,
    /// Whether the largest score is taken off before `exp`.
    pub subtract_max: bool,
    /// Views that are assigned, and predicted by the others.
    pub assign: Vec<usize>,
    /// Rows of past batches that take part in assignments, for each assigned view; 0 is no queue.
    pub queue_length: usize,
    /// The epoch, from 0, in which the queue begins to fill.
    pub queue_start_epoch: usize,
    /// Steps in which prototypes are not trained.
    pub freeze_prototypes_steps: usize,
}

impl Default for SwavLossConfig {
    fn default() -> Self {
        Self {
            temperature: 0.1,
            epsilon: 0.05,
            sinkhorn_iterations: 3,
            sinkhorn: SinkhornForm::Current,
            shoot_infs: false,
            subtract_max: false,
            assign: vec![0, 1],
            queue_length: 3840,
            queue_start_epoch: 15,
            freeze_prototypes_steps: 5005,
        }
    }
}

impl SwavLossConfig {
    /// The assignment.
    #[must_use]
    pub fn assignment(&self) -> Sinkhorn {
        Sinkhorn {
            form: self.sinkhorn,
            epsilon: self.epsilon,
            iterations: self.sinkhorn_iterations,
            shoot_infs: self.shoot_infs,
            subtract_max: self.subtract_max,
        }
    }
}

/// `[optimizer]` of SwAV and DeepCluster-v2. Rates are used as they are, whatever the batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterOptimizerConfig {
    /// larc (published), sgd, lars or adamw.
    pub kind: OptimizerKind,
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Where its cosine ends.
    pub final_lr: f64,
    /// Where its warm-up starts.
    pub start_lr: f64,
    /// Epochs of the linear warm-up.
    pub warmup_epochs: usize,
    /// Weight decay.
    pub weight_decay: f64,
}

impl Default for ClusterOptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Larc,
            lr: 0.6,
            final_lr: 6e-4,
            start_lr: 0.0,
            warmup_epochs: 0,
            weight_decay: 1e-6,
        }
    }
}

/// A rule and the setting that it is about.
pub(crate) type Rule = (bool, &'static str, String);

/// The first rule that does not hold, as an error.
///
/// # Errors
/// [`Error::Config`].
pub(crate) fn first_broken(rules: Vec<Rule>) -> Result<()> {
    match rules.into_iter().find(|(holds, ..)| !holds) {
        Some((_, setting, reason)) => Err(Error::Config { setting, reason }),
        None => Ok(()),
    }
}

/// What views, backbone, optimiser and length must keep in every method of prototypes.
pub(crate) fn shared_rules(
    backbone: &BackboneConfig,
    head: &ProjectorConfig,
    views: &ViewsConfig,
    optimizer: &ClusterOptimizerConfig,
    train: &TrainConfig,
) -> Result<Vec<Rule>> {
    let granule = backbone.trunk()?.granule();
    let side = |side: usize| side > 0 && side.is_multiple_of(granule);
    let not_negative = |x: f64| x.is_finite() && x >= 0.0;
    let reason =
        format!("must be a multiple of {granule}, the side of a patch or of a pixel of the last map");
    let warmup = optimizer.warmup_epochs;
    Ok(vec![
        (side(views.global_size), "views.global_size", reason.clone()),
        (views.locals == 0 || side(views.local_size), "views.local_size", reason),
        (head.out_dim > 0, "head.out_dim", "must be at least 1".into()),
        (head.prototypes > 1, "head.prototypes", "must be at least 2".into()),
        ((0.0..1.0).contains(&backbone.drop_path), "backbone.drop_path", "must be in [0, 1)".into()),
        ((0.0..=1.0).contains(&backbone.init_std), "backbone.init_std", "must be in [0, 1]".into()),
        (not_negative(optimizer.lr), "optimizer.lr", "must be 0 or more".into()),
        (not_negative(optimizer.final_lr), "optimizer.final_lr", "must be 0 or more".into()),
        (not_negative(optimizer.start_lr), "optimizer.start_lr", "must be 0 or more".into()),
        (not_negative(optimizer.weight_decay), "optimizer.weight_decay", "must be 0 or more".into()),
        (
            warmup <= train.epochs,
            "optimizer.warmup_epochs",
            format!("{warmup} is more than the {} epochs of the run", train.epochs),
        ),
        (
            train.batch_size > 1,
            "train.batch_size",
            "must be at least 2: batch norm needs more than one image".into(),
        ),
        (train.epochs > 0, "train.epochs", "must be at least 1".into()),
        (
            train.micro_batch.is_none_or(|images| images >= train.batch_size),
            "train.micro_batch",
            "assignments need the whole batch at once: leave it unset".into(),
        ),
    ])
}

/// The views of a recipe with SwAV's colours.
pub(crate) fn swav_crops(views: &ViewsConfig) -> MultiCrop {
    views.multi_crop_of(MultiCrop::swav())
}

impl Recipe for SwavConfig {
    const METHOD: &'static str = "swav";

    fn check(&self) -> Result<()> {
        let Self { backbone, head, views, loss, optimizer, train } = self;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let mut rules = shared_rules(backbone, head, views, optimizer, train)?;
        let mut assigned = loss.assign.clone();
        assigned.sort_unstable();
        assigned.dedup();
        rules.extend([
            (positive(loss.temperature), "loss.temperature", "must be above 0".into()),
            (positive(loss.epsilon), "loss.epsilon", "must be above 0".into()),
            (
                !assigned.is_empty()
                    && assigned.len() == loss.assign.len()
                    && assigned.iter().all(|&view| view < views.count()),
                "loss.assign",
                format!("must name at least one of the views 0 to {}, each once", views.count() - 1),
            ),
            (
                assigned.iter().all(|&view| view < 2) || views.global_size == views.local_size,
                "loss.assign",
                "only the two large views (0, 1) are assigned, unless all views have one size".into(),
            ),
            (
                !loss.shoot_infs || loss.sinkhorn == SinkhornForm::Marginals,
                "loss.shoot_infs",
                "belongs to the form marginals; log needs no such thing".into(),
            ),
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
        crate::training::only_on_the_processor("swav", &self.train, device)?;
        Ok(Box::new(Swav::new(self.clone(), data.images)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_published_recipe_for_small_batches() {
        let config = SwavConfig::default();
        config.check().unwrap();
        assert_eq!(swav_crops(&config.views), MultiCrop::swav());
        let (loss, optimizer) = (&config.loss, &config.optimizer);
        assert_eq!((loss.temperature, loss.epsilon, loss.sinkhorn_iterations), (0.1, 0.05, 3));
        assert_eq!(
            (loss.queue_length, loss.queue_start_epoch, loss.freeze_prototypes_steps),
            (3840, 15, 5005)
        );
        assert_eq!((optimizer.lr, optimizer.final_lr, optimizer.weight_decay), (0.6, 6e-4, 1e-6));
        assert_eq!((config.head.hidden_dim, config.head.out_dim, config.head.prototypes), (2048, 128, 3000));
        assert_eq!((config.train.epochs, config.train.batch_size), (200, 256));
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        let refuse = |change: fn(&mut SwavConfig), name: &str| {
            let mut config = SwavConfig::default();
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        };
        refuse(|c| c.views.local_size = 50, "views.local_size");
        refuse(|c| c.loss.assign = vec![], "loss.assign");
        refuse(|c| c.loss.assign = vec![0, 0], "loss.assign");
        refuse(|c| c.loss.assign = vec![8], "loss.assign");
        refuse(|c| c.loss.assign = vec![0, 3], "large views");
        refuse(|c| c.loss.epsilon = 0.0, "loss.epsilon");
        refuse(|c| c.loss.shoot_infs = true, "loss.shoot_infs");
        refuse(|c| c.head.prototypes = 1, "head.prototypes");
        refuse(|c| c.train.batch_size = 1, "train.batch_size");
        refuse(|c| c.train.micro_batch = Some(2), "train.micro_batch");
        refuse(|c| c.optimizer.lr = f64::NAN, "optimizer.lr");
    }
}
