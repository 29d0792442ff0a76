//! The settings of AutoMix (Liu et al. 2022), of the hand-made mixes it is compared with, and of plain training. Defaults are those
//! published for a DeiT-S on ImageNet.

use candle_core::Device;
use dataset::augment::{SingleView, ViewConfig};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::automix::AutoMix;
use crate::config::{BackboneConfig, TrainConfig};
use crate::mix_block::{Enlarge, LambdaEncoding};
use crate::mix_policies::MixPolicy;
use crate::optim::OptimizerKind;
use crate::swav_config::first_broken;
use crate::training::{Augment, DataShape, Recipe, Training};

/// An AutoMix run, or one of its baselines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoMixConfig {
    /// The backbone.
    pub backbone: BackboneConfig,
    /// What its weights are at first.
    pub start: StartConfig,
    /// How an image is seen.
    pub views: SingleViewConfig,
    /// How images are mixed.
    pub mix: MixConfig,
    /// Weights of the losses.
    pub loss: MixLossConfig,
    /// The momentum encoder.
    pub momentum: MomentumConfig,
    /// The optimisers.
    pub optimizer: MixOptimizerConfig,
    /// Length, batch and seed.
    pub train: TrainConfig,
}

impl Default for AutoMixConfig {
    fn default() -> Self {
        Self {
            backbone: BackboneConfig::default(),
            start: StartConfig::default(),
            views: SingleViewConfig::default(),
            mix: MixConfig::default(),
            loss: MixLossConfig::default(),
            momentum: MomentumConfig::default(),
            optimizer: MixOptimizerConfig::default(),
            train: TrainConfig { epochs: 300, batch_size: 1024, ..TrainConfig::default() },
        }
    }
}

/// `[start]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StartConfig {
    /// `backbone.safetensors` of another run, whose backbone has the sizes of this one's; unset: random numbers. With plain
    /// training (`mix.policy = "vanilla"`) on a share of the labels (`data.label_share`) that is fine-tuning with few labels.
    pub weights: Option<String>,
}

/// `[views]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SingleViewConfig {
    /// Side of the view in pixels.
    pub size: usize,
    /// Smallest and largest part of the image's area that it shows.
    pub scale: (f64, f64),
    /// Probability of mirroring.
    pub flip: f64,
}

impl Default for SingleViewConfig {
    fn default() -> Self {
        Self { size: 224, scale: (0.08, 1.0), flip: 0.5 }
    }
}

impl SingleViewConfig {
    /// The recipe for training.
    #[must_use]
    pub fn training(&self) -> SingleView {
        let single = SingleView::crop_and_flip(self.size);
        SingleView { view: ViewConfig { scale: self.scale, flip: self.flip, ..single.view }, ..single }
    }

    /// The whole image, or of one that is not square the largest square in its middle.
    #[must_use]
    pub fn testing(&self) -> SingleView {
        let single = SingleView::crop_and_flip(self.size);
        let view = ViewConfig { scale: (1.0, 1.0), ratio: (1.0, 1.0), flip: 0.0, ..single.view };
        SingleView { view, ..single }
    }
}

/// `[mix]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixConfig {
    /// vanilla, mixup, cutmix, manifoldmix, saliencymix, resizemix or automix.
    pub policy: MixPolicy,
    /// λ ~ Beta(α, α), one for the batch.
    pub alpha: f64,
    /// The block, or stage of a ResNet, after which the maps are taken that masks are made of; unset: the middle one, the third.
    pub stage: Option<usize>,
    /// How the mix block is told λ: none, concat, value or multiply.
    pub encoding: LambdaEncoding,
    /// k of `multiply`; -1 takes λ itself.
    pub multiply_k: f64,
    /// How masks are enlarged: nearest (AutoMix) or bilinear (SAMix).
    pub enlarge: Enlarge,
    /// Deviation of the mix block's initial weights.
    pub init_std: f64,
    /// Below this λ, or above 1 minus this, images are blended as in Mixup.
    pub lambda_margin: f64,
    /// Probability with which masks of a step are rescaled to the mean that λ says.
    pub adjust: f64,
}

impl Default for MixConfig {
    fn default() -> Self {
        Self {
            policy: MixPolicy::AutoMix,
            alpha: 2.0,
            stage: None,
            encoding: LambdaEncoding::Concat,
            multiply_k: -1.0,
            enlarge: Enlarge::Nearest,
            init_std: 0.01,
            lambda_margin: 0.08,
            adjust: 0.0,
        }
    }
}

/// `[loss]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixLossConfig {
    /// Weight of the cross-entropy of clean images.
    pub one: f64,
    /// Of mixed images.
    pub mix: f64,
    /// Of mixed images as the momentum encoder sees them, which trains the mix block.
    pub generate: f64,
    /// Of the mask's mean.
    pub mask: f64,
    /// How far the mask's mean may be from λ.
    pub mask_epsilon: f64,
    /// Whether a mask's variance is rewarded (SAMix).
    pub mask_variance: bool,
    /// How the mask's weight falls: constant, linear, cosine, or compound (as published: the weight is annealed again and
    /// again, and gone after a small part of the run).
    pub mask_anneal: Anneal,
    /// Share of a target that goes to all classes alike.
    pub smoothing: f64,
    /// Probability with which a step trains the mix block by `generate`; 0 is always too.
    pub switch_off: f64,
}

impl Default for MixLossConfig {
    fn default() -> Self {
        Self {
            one: 1.0,
            mix: 1.0,
            generate: 1.0,
            mask: 0.1,
            mask_epsilon: 0.1,
            mask_variance: false,
            mask_anneal: Anneal::Compound,
            smoothing: 0.1,
            switch_off: 0.8,
        }
    }
}

/// How a weight falls over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anneal {
    /// Not at all.
    Constant,
    /// `1 - t / T`.
    Linear,
    /// `(1 + cos(π t / T)) / 2`.
    Cosine,
    /// The product of all cosines so far.
    Compound,
}

impl Anneal {
    /// The factor at each of `steps` steps.
    #[must_use]
    pub fn factors(self, steps: usize) -> Vec<f64> {
        let cosine = |t: usize| (1.0 + (std::f64::consts::PI * t as f64 / steps as f64).cos()) / 2.0;
        let mut product = 1.0;
        let factor = |t: usize| match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - t as f64 / steps as f64,
            Self::Cosine => cosine(t),
            Self::Compound => {
                product *= cosine(t);
                product
            }
        };
        (0..steps).map(factor).collect()
    }
}

/// `[momentum]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MomentumConfig {
    /// Momentum of the average in the first part of the run. Short runs want less: its memory is about `1 / (1 - m)` steps.
    pub base: f64,
    /// Where it ends.
    pub end: f64,
    /// Share of the run that keeps the first value.
    pub scope: f64,
}

impl Default for MomentumConfig {
    fn default() -> Self {
        Self { base: 0.999, end: 0.99999, scope: 0.25 }
    }
}

impl MomentumConfig {
    /// The momentum of every step. The cosine counts from the first step, so that it jumps where it begins.
    #[must_use]
    pub fn schedule(&self, steps: usize) -> Vec<f64> {
        let Self { base, end, scope } = *self;
        let at = |t: usize| {
            if (t as f64) < scope * steps as f64 {
                return base;
            }
            end - (end - base) * (1.0 + (std::f64::consts::PI * t as f64 / steps as f64).cos()) / 2.0
        };
        let whole_copy = |t: usize| if scope == 0.0 && t == 0 { 0.0 } else { at(t) };
        (0..steps).map(whole_copy).collect()
    }
}

/// `[optimizer]`. Rates are used as they are, whatever the batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixOptimizerConfig {
    /// adamw, sgd, lars or larc.
    pub kind: OptimizerKind,
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Where its cosine ends.
    pub min_lr: f64,
    /// The mix block's.
    pub mix_lr: f64,
    /// Where its cosine ends.
    pub mix_min_lr: f64,
    /// Epochs of the linear warm-up from 0.
    pub warmup_epochs: usize,
    /// Weight decay; norms, biases, class token and positions have none.
    pub weight_decay: f64,
    /// Largest norm of all gradients together; 0 does not clip.
    pub clip_grad: f64,
}

impl Default for MixOptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Adamw,
            lr: 1e-3,
            min_lr: 1e-5,
            mix_lr: 1e-3,
            mix_min_lr: 1e-4,
            warmup_epochs: 5,
            weight_decay: 0.05,
            clip_grad: 5.0,
        }
    }
}

impl Recipe for AutoMixConfig {
    const METHOD: &'static str = "automix";

    fn check(&self) -> Result<()> {
        let Self { backbone, views, mix, loss, momentum, optimizer, train, start: _ } = self;
        let granule = backbone.trunk()?.granule();
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let warmup = optimizer.warmup_epochs;
        let mut rules = vec![
            (
                views.size > 0 && views.size.is_multiple_of(granule),
                "views.size",
                format!("must be a multiple of {granule}, the side of a patch or of a pixel of the last map"),
            ),
            (positive(mix.alpha), "mix.alpha", "must be above 0".to_owned()),
            ((0.0..0.5).contains(&mix.lambda_margin), "mix.lambda_margin", "must be in [0, 0.5)".into()),
            (share(mix.adjust), "mix.adjust", "must be in [0, 1]".into()),
            (not_negative(mix.init_std), "mix.init_std", "must be 0 or more".into()),
            (
                mix.multiply_k == -1.0 || mix.multiply_k > -1.0 / 3.0,
                "mix.multiply_k",
                "must be -1, or above -1/3 (where the factor has a pole)".into(),
            ),
            ((0.0..1.0).contains(&loss.smoothing), "loss.smoothing", "must be in [0, 1)".into()),
            (share(loss.switch_off), "loss.switch_off", "must be in [0, 1]".into()),
            (not_negative(loss.mask_epsilon), "loss.mask_epsilon", "must be 0 or more".into()),
            (
                share(momentum.base) && share(momentum.end) && share(momentum.scope),
                "momentum",
                "base, end and scope must be in [0, 1]".into(),
            ),
            ((0.0..1.0).contains(&backbone.drop_path), "backbone.drop_path", "must be in [0, 1)".into()),
            (share(backbone.init_std), "backbone.init_std", "must be in [0, 1]".into()),
            (
                warmup <= train.epochs,
                "optimizer.warmup_epochs",
                format!("{warmup} is more than the {} epochs of the run", train.epochs),
            ),
            (
                train.batch_size > 1,
                "train.batch_size",
                "must be at least 2: images are mixed with others".into(),
            ),
            (train.epochs > 0, "train.epochs", "must be at least 1".into()),
            (
                train.micro_batch.is_none(),
                "train.micro_batch",
                "images of the whole batch are mixed: leave it unset".into(),
            ),
        ];
        for (setting, number) in [
            ("loss.one", loss.one),
            ("loss.mix", loss.mix),
            ("loss.generate", loss.generate),
            ("loss.mask", loss.mask),
            ("optimizer.lr", optimizer.lr),
            ("optimizer.min_lr", optimizer.min_lr),
            ("optimizer.mix_lr", optimizer.mix_lr),
            ("optimizer.mix_min_lr", optimizer.mix_min_lr),
            ("optimizer.weight_decay", optimizer.weight_decay),
            ("optimizer.clip_grad", optimizer.clip_grad),
        ] {
            rules.push((not_negative(number), setting, "must be 0 or more".into()));
        }
        first_broken(rules)?;
        Ok(views.training().check()?)
    }

    fn train(&self) -> &TrainConfig {
        &self.train
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }

    fn augment(&self) -> Augment {
        Augment::Single(self.views.training())
    }

    fn granule(&self) -> Result<usize> {
        Ok(self.backbone.trunk()?.granule())
    }

    fn test_view(&self) -> Option<Augment> {
        Some(Augment::Single(self.views.testing()))
    }

    fn start(&self, data: &DataShape, device: &Device) -> Result<Box<dyn Training>> {
        crate::training::only_on_the_processor("automix", &self.train, device)?;
        Ok(Box::new(AutoMix::new(self.clone(), data.images, data.classes)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-8, "{got} {want}");
    }

    /// Specification 3.6.
    #[test]
    fn momentum_is_constant_then_jumps_onto_the_cosine() {
        let momentum = MomentumConfig { base: 0.999, end: 1.0, scope: 0.1 }.schedule(1000);
        assert_eq!(momentum[99], 0.999);
        close(momentum[100], 0.999_024_47);
        close(momentum[500], 0.9995);
        assert_eq!(MomentumConfig { base: 0.9, end: 1.0, scope: 0.0 }.schedule(10)[0], 0.0);
    }

    /// Specification 3.5: the compounding weight is at 1/e after about (12 T² / π²)^⅓ steps.
    #[test]
    fn a_compounding_weight_is_gone_early() {
        let factors = Anneal::Compound.factors(500_400);
        let below = |limit: f64| factors.iter().position(|&factor| factor < limit).unwrap();
        assert!(below((-1.0_f64).exp()).abs_diff(6727) <= 1, "{}", below((-1.0_f64).exp()));
        assert!(below(0.01).abs_diff(11_192) <= 1, "{}", below(0.01));
        assert_eq!(Anneal::Linear.factors(4), [1.0, 0.75, 0.5, 0.25]);
        assert_eq!(Anneal::Constant.factors(2), [1.0, 1.0]);
        close(Anneal::Cosine.factors(4)[2], 0.5);
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        AutoMixConfig::default().check().unwrap();
        let refuse = |change: fn(&mut AutoMixConfig), name: &str| {
            let mut config = AutoMixConfig::default();
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        };
        refuse(|c| c.views.size = 50, "views.size");
        refuse(|c| c.mix.alpha = 0.0, "mix.alpha");
        refuse(|c| c.mix.multiply_k = -0.5, "mix.multiply_k");
        refuse(|c| c.loss.one = -1.0, "loss.one");
        refuse(|c| c.momentum.base = 1.1, "momentum");
        refuse(|c| c.train.batch_size = 1, "batch_size");
        refuse(|c| c.train.micro_batch = Some(8), "micro_batch");
    }
}
