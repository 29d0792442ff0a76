//! AutoMix (Liu et al. 2022): a classifier learns from mixtures that a mix block learns to make; and the hand-made mixes.
//!
//! Four networks: the encoder `f_q` with two heads (`one` for clean images, `mix` for mixtures), the momentum encoder `f_k`
//! with the same, its running average, and the mix block `M`. One [`AutoMix::step`] makes two mixtures from maps of `f_k`: one for
//! `f_k`, with λ₀ and π₀, through which `M` learns, and one for `f_q`, with λ₁ and π₁, in which the mask is a constant.
//!
//! | | clean images | mixture for `f_q` | mixture for `f_k` | moved by |
//! |---|---|---|---|---|
//! | `f_q`, its heads | loss one | loss mix | – | the optimiser |
//! | `M` | – | nothing: its mask is a constant | loss generate, through `f_k` and its head; mask loss | the optimiser, at its own rate |
//! | `f_k`, its heads | maps only | – | passes the gradient on to the images, keeps none | average of `f_q` |
//!
//! A hand-made mix has `f_q` with one head and nothing else.

mod config;
mod dice;
mod mask;
mod training;

use std::path::Path;

use self::dice::{Dice, Schedules};
use self::mask::{adjust, blend, blend_backward, mask_loss, mask_signs};
use crate::batch_norm::Mode;
use crate::checkpoint::load_backbone;
use crate::classifier::{Classifier, ClassifierPass, Head};
use crate::drop_path::Drops;
use crate::hidden_mix::HiddenMix;
use crate::init::{self, Init};
use crate::mix_block::{MixActivations, MixBlock, MixInput};
use crate::mix_policies::{MixPolicy, mix_images};
use crate::mixed_labels::MixedLabels;
use crate::network::Stack;
use crate::optim::{Optimizer, StepSize, ema};
use crate::params::{Layout, TensorSpec};
use crate::swav::gradient_norm;
use crate::training::{Recipe as _, Report, Views, steps_per_epoch};
use crate::trunk::Trunk;
use crate::weights::Weights;
use crate::{Error, Result};

pub use self::config::{
    Anneal, AutoMixConfig, MixConfig, MixLossConfig, MixOptimizerConfig, MomentumConfig, SingleViewConfig,
    StartConfig,
};

/// What changes from step to step, and is stored to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct AutoMixState {
    /// Steps taken.
    pub step: usize,
    /// Parameters of `f_q` and its heads.
    pub query: Vec<f32>,
    /// Of `f_k` and its; empty for hand-made mixes.
    pub key: Vec<f32>,
    /// Running statistics of `f_q`'s batch norms.
    pub query_buffers: Vec<f32>,
    /// Of `f_k`'s, which sees its own images: they are not averaged.
    pub key_buffers: Vec<f32>,
    /// Of the mix block; empty for hand-made mixes.
    pub block: Vec<f32>,
    /// Moments and counts of `f_q`'s optimiser.
    pub optimizer: Optimizer,
    /// Of the mix block's.
    pub block_optimizer: Optimizer,
}

/// An AutoMix training in progress, or that of a baseline.
#[derive(Debug)]
pub struct AutoMix {
    config: AutoMixConfig,
    classifier: Classifier,
    block: Option<Generator>,
    schedules: Schedules,
    /// Where it stands.
    pub state: AutoMixState,
    grads: Vec<f32>,
    block_grads: Vec<f32>,
    scratch: Vec<f32>, // where gradients of `f_k` go, which nobody reads
    stack: Stack,
    mixed: Vec<f32>,
    pass: ClassifierPass,
}

/// The mix block, where it takes its maps from, and what it leaves behind.
#[derive(Debug)]
struct Generator {
    layout: Layout,
    block: MixBlock,
    stage: usize,
    grid: (usize, usize),
    maps: Vec<f32>,
    kept: MixActivations,
    constant: MixActivations,
    dimages: Vec<f32>,
}

/// Passes of a step that have stochastic depth of their own.
const PASSES: usize = 4;

impl AutoMix {
    /// A run's start.
    ///
    /// * `images`: number of training images; `classes`: of their classes.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot be, or there are fewer images than a batch or fewer than two classes.
    pub fn new(config: AutoMixConfig, images: usize, classes: usize) -> Result<Self> {
        config.check()?;
        if classes < 2 {
            let reason = format!("has {classes} classes; expected at least 2");
            return Err(Error::Config { setting: "data.datasets", reason });
        }
        let steps_per_epoch = steps_per_epoch(&config.train, images)?;
        let learns = config.mix.policy == MixPolicy::AutoMix;
        let classifier = Classifier::new(&config.backbone, classes, learns)?;
        let patch_size = config.backbone.trunk()?.granule();
        let init = Init { seed: config.train.seed, std: config.backbone.init_std, patch_size };
        let mut buffers = init::buffers(&classifier.buffers);
        let mut query = init.parameters(&classifier.layout);
        if let Some(weights) = &config.start.weights {
            let parts = [(&classifier.layout, &mut query[..]), (&classifier.buffers, &mut buffers[..])];
            load_backbone(Path::new(weights), parts)?;
        }
        let block = match learns {
            true => Some(Generator::new(&config, &classifier.trunk)?),
            false => None,
        };
        let block_layout = block.as_ref().map(|block| block.layout.clone()).unwrap_or_default();
        let block_init = Init { std: config.mix.init_std, ..init };
        let state = AutoMixState {
            step: 0,
            key: if learns { query.clone() } else { Vec::new() },
            key_buffers: if learns { buffers.clone() } else { Vec::new() },
            query_buffers: buffers,
            block: block_init.parameters(&block_layout),
            optimizer: Optimizer::new(config.optimizer.kind, &classifier.layout),
            block_optimizer: Optimizer::new(config.optimizer.kind, &block_layout),
            query,
        };
        let schedules = Schedules::new(&config, steps_per_epoch);
        let (grads, block_grads) = (vec![0.0; state.query.len()], vec![0.0; state.block.len()]);
        let (stack, pass) = (Stack::default(), ClassifierPass::default());
        let (scratch, mixed) = (Vec::new(), Vec::new());
        Ok(Self {
            config,
            classifier,
            block,
            schedules,
            state,
            grads,
            block_grads,
            scratch,
            stack,
            mixed,
            pass,
        })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &AutoMixConfig {
        &self.config
    }

    /// Names and places of `f_q`'s parameters, and of `f_k`'s.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.classifier.layout
    }

    /// The gradients of `f_q` and its heads of the last step, after clipping.
    #[must_use]
    pub fn grads(&self) -> &[f32] {
        &self.grads
    }

    /// Those of the mix block.
    #[must_use]
    pub fn block_grads(&self) -> &[f32] {
        &self.block_grads
    }

    /// One step on a batch of images with classes.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a loss or a gradient is not finite; the parameters are then those of before.
    ///
    /// # Panics
    /// If the run is over, or images, classes and configuration do not go together.
    pub fn step(&mut self, views: &[Views], classes: &[u32]) -> Result<Report> {
        assert_eq!(views.len(), classes.len(), "a class for every image");
        let step = self.state.step;
        let dice = Dice::throw(&self.config, self.classifier.trunk.entrances(), step, views.len());
        self.stack.fill(views, 0..1);
        self.grads.fill(0.0);
        self.block_grads.fill(0.0);
        let losses = match self.block {
            Some(_) => self.learned_mix(&dice, classes),
            None => self.hand_made_mix(dice, classes),
        };
        if !losses.total().is_finite() {
            return Err(Error::Diverged { step, what: "the loss is", value: losses.total() });
        }
        let (norm, block_norm) = self.update()?;
        let epoch = step / self.schedules.steps_per_epoch;
        let [mean, deviation] = losses.mask_signs;
        let values = vec![
            losses.one,
            losses.mix,
            losses.generate,
            losses.mask,
            losses.lambda_block,
            mean,
            deviation,
            losses.lambda,
            self.schedules.momentum[step],
            norm,
            block_norm,
            self.schedules.lr[step],
        ];
        Ok(Report { step, epoch, loss: losses.classification(&self.config), values })
    }

    /// Stochastic depth of one of a step's passes.
    fn drops(&self, pass: usize) -> Drops {
        let Self { config, classifier, state, stack, .. } = self;
        let number = PASSES * state.step + pass;
        let (rate, depth) = (config.backbone.drop_path, classifier.trunk.depth());
        Drops::of_images(rate, depth, config.train.seed, number, 1, 0..stack.rows)
    }

    /// Parameters and running statistics of the network that is used afterwards.
    fn used(&self) -> [&[f32]; 2] {
        let AutoMixState { query, key, query_buffers, key_buffers, .. } = &self.state;
        if key.is_empty() { [query, query_buffers] } else { [key, key_buffers] }
    }

    /// The step of a hand-made mix: one pass of `f_q`.
    fn hand_made_mix(&mut self, mut dice: Dice, classes: &[u32]) -> Losses {
        let drops = self.drops(0);
        let Self { config, classifier, state, stack, mixed, pass, grads, .. } = self;
        let policy = config.mix.policy;
        let lambda = if policy == MixPolicy::Vanilla { 1.0 } else { dice.lambdas[1] };
        let partners = &dice.partners[1];
        let lambda = mix_images(policy, &stack.pixels, stack.side, partners, lambda, &mut dice.rng, mixed);
        let hidden = (policy == MixPolicy::ManifoldMix).then(|| HiddenMix {
            block: dice.block,
            lambda: lambda as f32,
            partners: partners.clone(),
        });
        let labels = MixedLabels { classes, partners, lambda, smoothing: config.loss.smoothing };
        let AutoMixState { query, query_buffers, .. } = state;
        let mut weights = Weights { params: query, buffers: query_buffers, mode: Mode::Train };
        classifier.forward(&mut weights, (mixed, stack.side), &drops, hidden.as_ref(), Head::One, pass);
        let mix = pass.loss(labels, 1.0);
        classifier.backward(query, grads, Head::One, pass, None);
        Losses { mix, lambda, ..Losses::default() }
    }

    /// The step of AutoMix.
    fn learned_mix(&mut self, dice: &Dice, classes: &[u32]) -> Losses {
        let mut losses =
            Losses { lambda_block: dice.lambdas[0], lambda: dice.lambdas[1], ..Losses::default() };
        self.make_masks(dice);
        self.train_block(dice, classes, &mut losses);
        // `f_q`: clean images and mixtures in two passes.
        let weights = self.config.loss.clone();
        let identity: Vec<usize> = (0..classes.len()).collect();
        let clean = MixedLabels { classes, partners: &identity, lambda: 1.0, smoothing: weights.smoothing };
        let drops = [self.drops(2), self.drops(3)];
        let Self { classifier, block, state, stack, mixed, pass, grads, config, .. } = self;
        let pixels = (stack.pixels.as_slice(), stack.side);
        let AutoMixState { query, query_buffers, .. } = state;
        let mut own = Weights { params: query, buffers: query_buffers, mode: Mode::Train };
        classifier.forward(&mut own, pixels, &drops[0], None, Head::One, pass);
        losses.one = pass.loss(clean, weights.one);
        classifier.backward(query, grads, Head::One, pass, None);
        let Some(generator) = block else { return losses };
        let (lambda, partners) = (dice.lambdas[1], &dice.partners[1]);
        let margin = config.mix.lambda_margin;
        if lambda <= margin || 1.0 - lambda <= margin {
            mix_images(
                MixPolicy::Mixup,
                &stack.pixels,
                stack.side,
                partners,
                lambda,
                &mut dice.rng.clone(),
                mixed,
            );
        } else {
            let mut mask = generator.constant.mask().to_vec();
            if dice.adjusts {
                adjust(&mut mask, classes.len(), lambda);
            }
            blend(&stack.pixels, stack.side, partners, &mask, mixed);
        }
        let labels = MixedLabels { classes, partners, lambda, smoothing: weights.smoothing };
        let mut own = Weights { params: query, buffers: query_buffers, mode: Mode::Train };
        classifier.forward(&mut own, (mixed, stack.side), &drops[1], None, Head::Mix, pass);
        losses.mix = pass.loss(labels, weights.mix);
        classifier.backward(query, grads, Head::Mix, pass, None);
        losses
    }

    /// Both masks from the maps of `f_k`: one to learn through, one constant.
    fn make_masks(&mut self, dice: &Dice) {
        let drops = self.drops(0);
        let Self { classifier, block, state, stack, pass, .. } = self;
        let Some(generator) = block else { return };
        let pixels = (stack.pixels.as_slice(), stack.side);
        let mut weights = Weights { params: &state.key, buffers: &mut state.key_buffers, mode: Mode::Train };
        let Generator { stage, maps, .. } = generator;
        generator.grid = classifier.map(&mut weights, pixels, &drops, *stage, pass, maps);
        for which in [0, 1] {
            let input = MixInput {
                maps: &generator.maps,
                grid: generator.grid,
                partners: &dice.partners[which],
                lambda: dice.lambdas[which],
                side: stack.side,
            };
            let kept = if which == 0 { &mut generator.kept } else { &mut generator.constant };
            generator.block.forward(&state.block, input, kept);
        }
    }

    /// The mix block's losses and gradients: through `f_k`, whose own gradients nobody keeps, and of the mask's mean.
    fn train_block(&mut self, dice: &Dice, classes: &[u32], losses: &mut Losses) {
        let drops = self.drops(1);
        let step = self.state.step;
        let mask_weight = self.config.loss.mask * self.schedules.mask[step];
        let Self { config, classifier, block, state, stack, mixed, pass, scratch, block_grads, .. } = self;
        let Some(generator) = block else { return };
        let (lambda, partners) = (dice.lambdas[0], &dice.partners[0]);
        let mask = generator.kept.mask();
        let mut dmask = vec![0.0; mask.len()];
        if dice.generates {
            blend(&stack.pixels, stack.side, partners, mask, mixed);
            let labels = MixedLabels { classes, partners, lambda, smoothing: config.loss.smoothing };
            let mut weights =
                Weights { params: &state.key, buffers: &mut state.key_buffers, mode: Mode::Train };
            classifier.forward(&mut weights, (mixed, stack.side), &drops, None, Head::Mix, pass);
            losses.generate = pass.loss(labels, config.loss.generate);
            scratch.resize(state.key.len(), 0.0);
            classifier.backward(&state.key, scratch, Head::Mix, pass, Some(&mut generator.dimages));
            blend_backward(&stack.pixels, stack.side, partners, &generator.dimages, &mut dmask);
        }
        let (epsilon, rewards) = (config.loss.mask_epsilon, config.loss.mask_variance);
        losses.mask = mask_loss(mask, lambda, epsilon, rewards, mask_weight, &mut dmask);
        losses.mask_signs = mask_signs(mask, classes.len());
        let grid = generator.grid;
        let input = MixInput { maps: &generator.maps, grid, partners, lambda, side: stack.side };
        generator.block.backward(&state.block, block_grads, &dmask, input, &generator.kept);
    }

    /// Clips all gradients together, moves encoder and mix block, then the average; returns both norms from before.
    fn update(&mut self) -> Result<(f64, f64)> {
        let Self { config, classifier, block, schedules, state, grads, block_grads, .. } = self;
        let step = state.step;
        let (norm, block_norm) = (gradient_norm(grads, step)?, gradient_norm(block_grads, step)?);
        let clip = config.optimizer.clip_grad;
        let factor = clip / ((norm * norm + block_norm * block_norm).sqrt() + 1e-6);
        if clip > 0.0 && factor < 1.0 {
            grads.iter_mut().chain(&mut *block_grads).for_each(|g| *g *= factor as f32);
        }
        let weight_decay = config.optimizer.weight_decay;
        let size = StepSize { lr: schedules.lr[step], weight_decay };
        state.optimizer.step_decaying(&classifier.layout, &mut state.query, grads, size, decays, |_| false);
        if let Some(generator) = block {
            let size = StepSize { lr: schedules.mix_lr[step], weight_decay };
            let optimizer = &mut state.block_optimizer;
            optimizer
                .step_decaying(&generator.layout, &mut state.block, block_grads, size, decays, |_| false);
            ema(&mut state.key, &state.query, schedules.momentum[step]);
        }
        state.step += 1;
        Ok((norm, block_norm))
    }
}

/// Norms, biases, class token and positions do not decay.
fn decays(tensor: &TensorSpec) -> bool {
    let is_token = tensor.name.ends_with("cls_token") || tensor.name.ends_with("pos_embed");
    !is_token && !tensor.is_exempt_from_decay()
}

impl Generator {
    fn new(config: &AutoMixConfig, trunk: &Trunk) -> Result<Self> {
        let mut layout = Layout::default();
        let mix = &config.mix;
        let stage = mix.stage.unwrap_or(trunk.middle());
        if stage >= trunk.stages() {
            let last = trunk.stages() as i64 - 1;
            let reason = format!("{stage} must be one of 0 to {last}, which are followed by another");
            return Err(Error::Config { setting: "mix.stage", reason });
        }
        let block =
            MixBlock::add(&mut layout, trunk.stage_dim(stage), mix.encoding, mix.enlarge, mix.multiply_k);
        Ok(Self {
            layout,
            block,
            stage,
            grid: (0, 0),
            maps: Vec::new(),
            kept: MixActivations::default(),
            constant: MixActivations::default(),
            dimages: Vec::new(),
        })
    }
}

/// What a step's losses are.
#[derive(Debug, Clone, Copy, Default)]
struct Losses {
    one: f64,
    mix: f64,
    generate: f64,
    mask: f64,
    lambda_block: f64,
    lambda: f64,
    /// Mean of the partner's weight, and its deviation within an image.
    mask_signs: [f64; 2],
}

impl Losses {
    fn total(&self) -> f64 {
        self.one + self.mix + self.generate + self.mask
    }

    /// The mean of `f_q`'s losses by their weights: `ln C` for a network that knows nothing.
    fn classification(&self, config: &AutoMixConfig) -> f64 {
        let (one, mix) = match config.mix.policy {
            MixPolicy::AutoMix => (config.loss.one, config.loss.mix),
            _ => (0.0, 1.0),
        };
        (one * self.one + mix * self.mix) / (one + mix).max(f64::MIN_POSITIVE)
    }
}
