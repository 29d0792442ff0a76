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

use std::path::Path;

use ndarray::{Array2, Array3};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Beta, Distribution};
use sha2::{Digest, Sha256};

use crate::automix_config::AutoMixConfig;
use crate::batch_norm::Mode;
use crate::checkpoint::load_backbone;
use crate::classifier::{Classifier, ClassifierPass, Head};
use crate::drop_path::Drops;
use crate::init::{self, Init};
use crate::mix_block::{MixActivations, MixBlock, MixInput};
use crate::mix_policies::{MixPolicy, mix_images};
use crate::mixed_labels::MixedLabels;
use crate::network::{BACKBONE, Stack};
use crate::optim::{Optimizer, StepSize, ema};
use crate::params::{Layout, TensorSpec};
use crate::resnet::Weights;
use crate::schedule::cosine_schedule;
use crate::swav::gradient_norm;
use crate::torch_checkpoint::{dict, int, optimizer, tensors, text};
use crate::torch_file::TorchValue;
use crate::training::{
    Batch, Exported, MixedSample, Notes, Plan, Recipe as _, Report, Training, Views, steps_per_epoch,
};
use crate::trunk::Trunk;
use crate::vit::HiddenMix;
use crate::{Error, Result};

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

/// Values for every step of the run.
#[derive(Debug)]
struct Schedules {
    lr: Vec<f64>,
    mix_lr: Vec<f64>,
    momentum: Vec<f64>,
    mask: Vec<f64>,
    steps_per_epoch: usize,
}

/// The dice of a step.
#[derive(Debug, Clone, PartialEq)]
struct Dice {
    /// λ₀ and λ₁: for the mix block, and for the encoder.
    lambdas: [f64; 2],
    /// π₀ and π₁.
    partners: [Vec<usize>; 2],
    /// Block at which ManifoldMix mixes.
    block: usize,
    /// Whether the mix block learns by `generate`.
    generates: bool,
    /// Whether masks are rescaled.
    adjusts: bool,
    rng: ChaCha8Rng,
}

/// Names of what a step reports.
const COLUMNS: [&str; 12] = [
    "loss_one",
    "loss_mix",
    "loss_generate",
    "loss_mask",
    "lambda_block",
    "mask_mean",
    "mask_deviation",
    "lambda",
    "momentum",
    "grad_norm",
    "block_grad_norm",
    "lr",
];

/// Blocks of which ManifoldMix draws one.
const MANIFOLD_BLOCKS: usize = 3;

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

impl Schedules {
    fn new(config: &AutoMixConfig, steps_per_epoch: usize) -> Self {
        let (steps, optimizer) = (config.train.epochs * steps_per_epoch, &config.optimizer);
        let warmup = optimizer.warmup_epochs * steps_per_epoch;
        let rates = |lr: f64, min_lr: f64| cosine_schedule(lr, min_lr, steps, warmup, 0.0);
        Self {
            lr: rates(optimizer.lr, optimizer.min_lr),
            mix_lr: rates(optimizer.mix_lr, optimizer.mix_min_lr),
            momentum: config.momentum.schedule(steps),
            mask: config.loss.mask_anneal.factors(steps),
            steps_per_epoch,
        }
    }
}

impl Dice {
    /// A function of seed and step; `entrances` are the blocks at which images could be mixed.
    fn throw(config: &AutoMixConfig, entrances: usize, step: usize, images: usize) -> Self {
        let key = format!("mixing, seed {}, step {step}", config.train.seed);
        let mut rng = ChaCha8Rng::from_seed(Sha256::digest(key).into());
        let beta = Beta::new(config.mix.alpha, config.mix.alpha).expect("alpha was checked to be positive");
        let lambdas = [0, 1].map(|_| beta.sample(&mut rng));
        let partners = [0, 1].map(|_| {
            let mut partners: Vec<usize> = (0..images).collect();
            partners.shuffle(&mut rng);
            partners
        });
        let block = rng.random_range(0..entrances.clamp(1, MANIFOLD_BLOCKS));
        let off = config.loss.switch_off;
        let generates = off == 0.0 || rng.random::<f64>() < off;
        let adjusts = rng.random::<f64>() < config.mix.adjust;
        Self { lambdas, partners, block, generates, adjusts, rng }
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

/// `x ⊙ (1 - m) + x[π] ⊙ m`.
fn blend(images: &[f32], side: usize, partners: &[usize], mask: &[f32], mixed: &mut Vec<f32>) {
    let plane = side * side;
    mixed.clear();
    mixed.reserve(images.len());
    for (image, &partner) in partners.iter().enumerate() {
        let mask = &mask[image * plane..][..plane];
        for channel in 0..3 {
            let own = &images[(image * 3 + channel) * plane..][..plane];
            let other = &images[(partner * 3 + channel) * plane..][..plane];
            mixed.extend(own.iter().zip(other).zip(mask).map(|((x, y), m)| x + m * (y - x)));
        }
    }
}

/// Adds the gradient of the mask from that of the mixtures.
fn blend_backward(images: &[f32], side: usize, partners: &[usize], dmixed: &[f32], dmask: &mut [f32]) {
    let plane = side * side;
    for (image, &partner) in partners.iter().enumerate() {
        let dmask = &mut dmask[image * plane..][..plane];
        for channel in 0..3 {
            let own = &images[(image * 3 + channel) * plane..][..plane];
            let other = &images[(partner * 3 + channel) * plane..][..plane];
            let d = &dmixed[(image * 3 + channel) * plane..][..plane];
            for i in 0..plane {
                dmask[i] += d[i] * (other[i] - own[i]);
            }
        }
    }
}

/// `max(|1 - μ - λ| - ε, 0)`, less twice the variance if that is rewarded, times `weight`; its gradient is added.
///
/// μ is the mean of the partner's weight over the whole batch. What is returned is without the weight.
fn mask_loss(mask: &[f32], lambda: f64, epsilon: f64, rewards: bool, weight: f64, dmask: &mut [f32]) -> f64 {
    let n = mask.len() as f64;
    let mean = mask.iter().map(|&m| f64::from(m)).sum::<f64>() / n;
    let off = 1.0 - mean - lambda;
    let mut loss = (off.abs() - epsilon).max(0.0);
    if off.abs() > epsilon {
        let slope = (-off.signum() * weight / n) as f32;
        dmask.iter_mut().for_each(|d| *d += slope);
    }
    if rewards {
        loss -= 2.0 * mask.iter().map(|&m| (f64::from(m) - mean).powi(2)).sum::<f64>() / n;
        let scale = -4.0 * weight / n;
        dmask.iter_mut().zip(mask).for_each(|(d, &m)| *d += (scale * (f64::from(m) - mean)) as f32);
    }
    loss
}

/// Rescales each image's mask to the mean `1 - λ` of the partner's weight.
fn adjust(mask: &mut [f32], images: usize, lambda: f64) {
    let plane = mask.len() / images.max(1);
    for mask in mask.chunks_exact_mut(plane) {
        let own = 1.0 - mask.iter().map(|&m| f64::from(m)).sum::<f64>() / plane as f64;
        if own > lambda {
            let factor = (lambda / own) as f32;
            mask.iter_mut().for_each(|m| *m = 1.0 - (1.0 - *m) * factor);
        } else if own < lambda {
            let factor = ((1.0 - lambda) / (1.0 - own)) as f32;
            mask.iter_mut().for_each(|m| *m *= factor);
        }
    }
}

/// Mean over the batch, and the mean over images of the deviation within one.
fn mask_signs(mask: &[f32], images: usize) -> [f64; 2] {
    let plane = mask.len() / images.max(1);
    let mean = |mask: &[f32]| mask.iter().map(|&m| f64::from(m)).sum::<f64>() / mask.len().max(1) as f64;
    let deviation = |mask: &[f32]| {
        let own = mean(mask);
        (mask.iter().map(|&m| (f64::from(m) - own).powi(2)).sum::<f64>() / plane as f64).sqrt()
    };
    [mean(mask), mask.chunks_exact(plane.max(1)).map(deviation).sum::<f64>() / images.max(1) as f64]
}

impl Training for AutoMix {
    fn plan(&self) -> Plan {
        Plan {
            method: AutoMixConfig::METHOD,
            steps: self.schedules.lr.len(),
            steps_per_epoch: self.schedules.steps_per_epoch,
            part: self.config.train.batch_size,
            uniform_loss: ("ln C", (self.classifier.classes as f64).ln()),
        }
    }

    fn step_number(&self) -> usize {
        self.state.step
    }

    fn step(&mut self, batch: Batch<'_>) -> Result<Report> {
        Self::step(self, batch.views, batch.classes)
    }

    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }

    fn summary(&self, mean: &dyn Fn(&str) -> f64) -> String {
        match self.block {
            Some(_) => format!(
                "one {:.3} · mix {:.3} · generate {:.3} · mask {:.3} ± {:.3}",
                mean("loss_one"),
                mean("loss_mix"),
                mean("loss_generate"),
                mean("mask_mean"),
                mean("mask_deviation")
            ),
            None => format!("mix {:.3}", mean("loss_mix")),
        }
    }

    fn warning(&mut self, _report: &Report) -> Option<String> {
        None
    }

    fn predict(&mut self, views: &[Views]) -> Vec<(&'static str, Vec<u32>)> {
        self.stack.fill(views, 0..1);
        let none = Drops::of_images(0.0, self.classifier.trunk.depth(), 0, 0, 1, 0..views.len());
        let Self { classifier, state, stack, pass, .. } = self;
        let AutoMixState { query, key, query_buffers, key_buffers, .. } = state;
        let mut predict = |params: &[f32], buffers: &mut [f32], head: Head| {
            let mut weights = Weights { params, buffers, mode: Mode::Eval };
            classifier.forward(&mut weights, (&stack.pixels, stack.side), &none, None, head, pass);
            pass.predictions(classifier.classes)
        };
        let mut heads = vec![("one_q", predict(query, query_buffers, Head::One))];
        if !key.is_empty() {
            heads.push(("mix_q", predict(query, query_buffers, Head::Mix)));
            heads.push(("one_k", predict(key, key_buffers, Head::One)));
            heads.push(("mix_k", predict(key, key_buffers, Head::Mix)));
        }
        heads
    }

    /// Running statistics are left as they were: looking changes nothing.
    fn mixed(&mut self, views: &[Views]) -> Vec<MixedSample> {
        let statistics = self.state.key_buffers.clone();
        self.stack.fill(views, 0..1);
        let mut dice = Dice::throw(&self.config, 1, 0, views.len());
        // Each with its neighbour, so that pairs are different images.
        let partners: Vec<usize> = (0..views.len()).map(|i| (i + 1) % views.len()).collect();
        (dice.lambdas, dice.partners) = ([0.5; 2], [partners.clone(), partners.clone()]);
        self.make_masks(&dice);
        self.state.key_buffers = statistics;
        let Self { config, block, stack, mixed, .. } = self;
        let (side, mut lambda) = (stack.side, dice.lambdas[1]);
        let plane = side * side;
        match block {
            Some(generator) => blend(&stack.pixels, side, &partners, generator.constant.mask(), mixed),
            None => {
                let rng = &mut dice.rng;
                lambda = mix_images(config.mix.policy, &stack.pixels, side, &partners, lambda, rng, mixed);
            }
        }
        let image = |pixels: &[f32], i: usize| {
            let own = pixels[i * 3 * plane..][..3 * plane].to_vec();
            Array3::from_shape_vec((3, side, side), own).expect("three planes")
        };
        let mask = |i: usize| {
            let own = block.as_ref()?.constant.mask()[i * plane..][..plane].iter().map(|m| 1.0 - m).collect();
            Array2::from_shape_vec((side, side), own).ok()
        };
        (0..views.len())
            .map(|i| MixedSample {
                image: image(&stack.pixels, i),
                partner: image(&stack.pixels, partners[i]),
                mixed: image(mixed, i),
                mask: mask(i),
                lambda,
            })
            .collect()
    }

    fn layout(&self) -> &Layout {
        &self.classifier.layout
    }

    fn vectors(&self) -> Vec<(&'static str, &Vec<f32>)> {
        let AutoMixState {
            query, key, query_buffers, key_buffers, block, optimizer, block_optimizer, ..
        } = &self.state;
        vec![
            ("query", query),
            ("key", key),
            ("query_buffers", query_buffers),
            ("key_buffers", key_buffers),
            ("block", block),
            ("first_moments", &optimizer.first),
            ("second_moments", &optimizer.second),
            ("block_first_moments", &block_optimizer.first),
            ("block_second_moments", &block_optimizer.second),
        ]
    }

    fn vectors_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)> {
        let AutoMixState {
            query, key, query_buffers, key_buffers, block, optimizer, block_optimizer, ..
        } = &mut self.state;
        vec![
            ("query", query),
            ("key", key),
            ("query_buffers", query_buffers),
            ("key_buffers", key_buffers),
            ("block", block),
            ("first_moments", &mut optimizer.first),
            ("second_moments", &mut optimizer.second),
            ("block_first_moments", &mut block_optimizer.first),
            ("block_second_moments", &mut block_optimizer.second),
        ]
    }

    fn counts(&self) -> Vec<(&'static str, Vec<u64>)> {
        vec![
            ("optimizer_steps", self.state.optimizer.steps.clone()),
            ("block_optimizer_steps", self.state.block_optimizer.steps.clone()),
        ]
    }

    fn set_counts(&mut self, step: usize, counts: Vec<(&'static str, Vec<u64>)>) {
        self.state.step = step;
        for (name, steps) in counts {
            match name {
                "optimizer_steps" => self.state.optimizer.set_steps(steps),
                _ => self.state.block_optimizer.set_steps(steps),
            }
        }
    }

    /// The momentum encoder, which is what is used afterwards; of hand-made mixes the only one.
    fn exported(&self) -> Exported<'_> {
        let Classifier { layout, buffers, trunk, .. } = &self.classifier;
        let [parameters, statistics] = self.used();
        let network = if self.state.key.is_empty() { "encoder" } else { "momentum encoder" };
        trunk.exported(network, (layout, parameters), (buffers, statistics))
    }

    /// `state_dict` with the original's prefixes (`backbone_q.`, `backbone_k.`, `backbone.` again for the one that is used,
    /// `head_one_q.`, …, `mix_block.`), `optimizer`, `meta` with the epoch (the next one), and `args` with our sizes.
    fn checkpoint(&self, notes: &Notes) -> TorchValue<'_> {
        let AutoMixState { step, query, key, query_buffers, key_buffers, block, .. } = &self.state;
        let (layout, buffers) = (&self.classifier.layout, &self.classifier.buffers);
        let named = |suffix: &'static str| {
            move |name: &str| {
                let (part, rest) = name.split_once('.').unwrap_or((name, ""));
                format!("{part}_{suffix}.{rest}")
            }
        };
        let mut entries = tensors(&[(layout, query), (buffers, query_buffers)], named("q"));
        if !key.is_empty() {
            entries.extend(tensors(&[(layout, key), (buffers, key_buffers)], named("k")));
        }
        let [parameters, statistics] = self.used();
        let used = tensors(&[(layout, parameters), (buffers, statistics)], str::to_owned);
        entries.extend(used.into_iter().filter(|(name, _)| name.starts_with(BACKBONE)));
        if let Some(generator) = &self.block {
            entries.extend(tensors(&[(&generator.layout, block)], str::to_owned));
        }
        let weight_decay = self.config.optimizer.weight_decay;
        let lr = self.schedules.lr[step.saturating_sub(1)];
        let group = |decaying: bool| {
            let tensors =
                layout.tensors().iter().enumerate().filter(|(_, tensor)| decays(tensor) == decaying);
            let weight_decay = if decaying { weight_decay } else { 0.0 };
            (tensors.map(|(place, _)| place).collect(), StepSize { lr, weight_decay })
        };
        let mut args = self.classifier.trunk.arguments();
        args.push(("data_path", text(&notes.data)));
        dict([
            ("state_dict", TorchValue::OrderedDict(entries)),
            ("optimizer", optimizer(layout, &self.state.optimizer, &[group(true), group(false)])),
            ("meta", dict([("epoch", int(step / self.schedules.steps_per_epoch))])),
            ("args", dict(args)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adjusted_mask_has_the_mean_that_lambda_says() {
        for lambda in [0.2, 0.5, 0.9] {
            let mut mask: Vec<f32> =
                (0..2 * 36).map(|i| 0.3 + 0.2 * (i as f32).sin() + 0.2 * (i / 36) as f32).collect();
            adjust(&mut mask, 2, lambda);
            for mask in mask.chunks_exact(36) {
                let own = 1.0 - mask.iter().map(|&m| f64::from(m)).sum::<f64>() / 36.0;
                assert!((own - lambda).abs() < 1e-6 && mask.iter().all(|m| (0.0..=1.0).contains(m)), "{own}");
            }
        }
    }

    /// Specification 4.6.
    #[test]
    fn the_mask_loss_is_the_originals_and_its_gradient_a_slope() {
        let mask: Vec<f32> = (0..32).map(|i| 0.45 + 0.05 * (i as f32 * 0.9).sin()).collect();
        for (rewards, lambda) in [(false, 0.3), (true, 0.3), (true, 0.8), (false, 0.55)] {
            let loss = |mask: &[f32]| mask_loss(mask, lambda, 0.1, rewards, 0.0, &mut [0.0; 32]);
            let mut grads = vec![0.0; 32];
            mask_loss(&mask, lambda, 0.1, rewards, 1.0, &mut grads);
            for i in 0..32 {
                let moved = |step: f32| {
                    let mut mask = mask.clone();
                    mask[i] += step;
                    loss(&mask)
                };
                let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((slope - f64::from(grads[i])).abs() < 1e-4, "{slope} {}", grads[i]);
            }
        }
        let mean = mask.iter().map(|&m| f64::from(m)).sum::<f64>() / 32.0;
        let loss = mask_loss(&mask, 0.3, 0.1, false, 1.0, &mut [0.0; 32]);
        assert!((loss - ((1.0 - mean - 0.3) - 0.1)).abs() < 1e-9);
    }

    #[test]
    fn blending_is_linear_in_the_mask() {
        let images: Vec<f32> = (0..2 * 3 * 16).map(|i| (i as f32 * 0.7).sin()).collect();
        let mask: Vec<f32> = (0..32).map(|i| 0.5 + 0.4 * (i as f32).cos()).collect();
        let (mut mixed, mut dmask) = (Vec::new(), vec![0.0; 32]);
        blend(&images, 4, &[1, 1], &mask, &mut mixed);
        assert_eq!(mixed[48..], images[48..], "an image that is its own partner");
        let weight: Vec<f32> = (0..96).map(|i| (i as f32).sin()).collect();
        blend_backward(&images, 4, &[1, 1], &weight, &mut dmask);
        let value = |mask: &[f32]| {
            let mut mixed = Vec::new();
            blend(&images, 4, &[1, 1], mask, &mut mixed);
            mixed.iter().zip(&weight).map(|(m, w)| m * w).sum::<f32>()
        };
        for i in 0..32 {
            let mut moved = mask.clone();
            moved[i] += 0.5;
            assert!(((value(&moved) - value(&mask)) / 0.5 - dmask[i]).abs() < 1e-4);
        }
    }
}
