//! What a step draws, and at which rates it moves.
//!
//! Both are functions of settings, seed and step, so that a run that is resumed draws what it would have drawn.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Beta, Distribution};
use sha2::{Digest, Sha256};

use super::AutoMixConfig;
use crate::schedule::cosine_schedule;

/// Blocks of which ManifoldMix draws one.
const MANIFOLD_BLOCKS: usize = 3;

/// Values for every step of the run.
#[derive(Debug)]
pub(super) struct Schedules {
    pub(super) lr: Vec<f64>,
    pub(super) mix_lr: Vec<f64>,
    pub(super) momentum: Vec<f64>,
    pub(super) mask: Vec<f64>,
    pub(super) steps_per_epoch: usize,
}

/// The dice of a step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dice {
    /// λ₀ and λ₁: for the mix block, and for the encoder.
    pub(super) lambdas: [f64; 2],
    /// π₀ and π₁.
    pub(super) partners: [Vec<usize>; 2],
    /// Block at which ManifoldMix mixes.
    pub(super) block: usize,
    /// Whether the mix block learns by `generate`.
    pub(super) generates: bool,
    /// Whether masks are rescaled.
    pub(super) adjusts: bool,
    pub(super) rng: ChaCha8Rng,
}

impl Schedules {
    pub(super) fn new(config: &AutoMixConfig, steps_per_epoch: usize) -> Self {
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
    pub(super) fn throw(config: &AutoMixConfig, entrances: usize, step: usize, images: usize) -> Self {
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
