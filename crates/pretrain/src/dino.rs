//! DINO (Caron et al. 2021): a student learns to predict, from any view of an image, what its own running average sees in the
//! two large ones.
//!
//! One [`Dino::step`], in the original's order: teacher on the global views, student on all of them, loss with the old
//! centre, centre, gradients, clipping per tensor, optimiser (the head's last layer held still at first), teacher.
//! A batch goes through the network in parts, over which gradients add up; the teacher never has a gradient. The passes
//! are an [`Engine`]'s: this file says what happens in which order.

use candle_core::Device;

use crate::candle_engine::CandleEngine;
use crate::config::{DinoConfig, Precision};
use crate::engine::{Engine, Part, TeacherSeen};
use crate::init::{self, Init};
use crate::kernel_engine::KernelEngine;
use crate::loss::Center;
use crate::network::Network;
use crate::optim::{Optimizer, StepSize, clip_gradients, ema};
use crate::params::{Layout, TensorSpec};
use crate::schedule::{cosine_schedule, teacher_temperatures};
use crate::signs::{Signs, TargetSums, Watch, effective_rank};
use crate::training::{Views, steps_per_epoch};
use crate::{Error, Result};

/// What changes from step to step, and is stored to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct DinoState {
    /// Steps taken.
    pub step: usize,
    /// The student's parameters.
    pub student: Vec<f32>,
    /// The teacher's.
    pub teacher: Vec<f32>,
    /// Running statistics of the student's batch norms.
    pub student_buffers: Vec<f32>,
    /// Of the teacher's.
    pub teacher_buffers: Vec<f32>,
    /// Moments and counts.
    pub optimizer: Optimizer,
    /// The centre.
    pub center: Center,
}

/// A DINO training in progress.
#[derive(Debug)]
pub struct Dino {
    config: DinoConfig,
    network: Network,
    schedules: Schedules,
    /// Where it stands.
    pub state: DinoState,
    grads: Vec<f32>,
    engine: Box<dyn Engine>,
    pub(crate) watch: Watch,
}

/// Values for every step of the run, and for every epoch.
#[derive(Debug)]
struct Schedules {
    lr: Vec<f64>,
    weight_decay: Vec<f64>,
    momentum: Vec<f64>,
    teacher_temp: Vec<f64>,
    steps_per_epoch: usize,
}

impl Schedules {
    fn new(config: &DinoConfig, steps_per_epoch: usize) -> Self {
        let (epochs, optimizer) = (config.train.epochs, &config.optimizer);
        let steps = epochs * steps_per_epoch;
        let lr = optimizer.lr * config.train.batch_size as f64 / 256.0;
        let teacher = &config.teacher;
        Self {
            lr: cosine_schedule(lr, optimizer.min_lr, steps, optimizer.warmup_epochs * steps_per_epoch, 0.0),
            weight_decay: cosine_schedule(optimizer.weight_decay, optimizer.weight_decay_end, steps, 0, 0.0),
            momentum: cosine_schedule(teacher.momentum, 1.0, steps, 0, 0.0),
            teacher_temp: teacher_temperatures(
                teacher.warmup_temp,
                teacher.temp,
                teacher.warmup_temp_epochs,
                epochs,
            ),
            steps_per_epoch,
        }
    }
}

/// What a step reports.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Number of the step, from 0.
    pub step: usize,
    /// Epoch that it belongs to, from 0.
    pub epoch: usize,
    /// Mean cross-entropy over pairs of views, in nats.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// The teacher's momentum.
    pub momentum: f64,
    /// The teacher's temperature.
    pub teacher_temp: f64,
    /// `√Σ ‖g‖²` over all tensors, before clipping.
    pub grad_norm: f64,
    /// Signs of health and of collapse.
    pub signs: Signs,
}

impl Dino {
    /// A run's start on the processor: teacher and student are the same.
    ///
    /// * `images`: number of training images.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot be, or there are fewer images than a batch.
    pub fn new(config: DinoConfig, images: usize) -> Result<Self> {
        if config.train.precision != Precision::F32 {
            let reason =
                "bf16 is for GPUs; the processor computes in f32: set it to f32, or choose a GPU".into();
            return Err(Error::Config { setting: "train.precision", reason });
        }
        Self::with_engine(config, images, Box::<KernelEngine>::default())
    }

    /// As [`Dino::new`], with candle on a device. The numbers are those of the processor but for rounding, which differs from
    /// device to device and, with atomic sums, from run to run.
    ///
    /// # Errors
    /// As [`Dino::new`].
    pub fn on_device(config: DinoConfig, images: usize, device: &Device) -> Result<Self> {
        let engine = CandleEngine::new(device, config.train.precision);
        Self::with_engine(config, images, Box::new(engine))
    }

    fn with_engine(config: DinoConfig, images: usize, engine: Box<dyn Engine>) -> Result<Self> {
        config.check()?;
        let steps_per_epoch = steps_per_epoch(&config.train, images)?;
        let vit = config.backbone.vit()?;
        let network = Network::new(&vit, config.backbone.readout, &config.head);
        let init =
            Init { seed: config.train.seed, std: config.backbone.init_std, patch_size: vit.patch_size };
        let student = init.parameters(&network.layout);
        let buffers = init::buffers(&network.buffers);
        let state = DinoState {
            step: 0,
            teacher: student.clone(),
            student,
            student_buffers: buffers.clone(),
            teacher_buffers: buffers,
            optimizer: Optimizer::new(config.optimizer.kind, &network.layout),
            center: Center::new(config.head.out_dim, config.loss.center_momentum),
        };
        let schedules = Schedules::new(&config, steps_per_epoch);
        let grads = vec![0.0; network.layout.len()];
        Ok(Self { config, network, schedules, state, grads, engine, watch: Watch::default() })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &DinoConfig {
        &self.config
    }

    /// Names, shapes and places of all tensors.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.network.layout
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The gradients of the last step, after clipping.
    #[must_use]
    pub fn grads(&self) -> &[f32] {
        &self.grads
    }

    /// Steps of an epoch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> usize {
        self.schedules.steps_per_epoch
    }

    /// Steps of the whole run.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.schedules.lr.len()
    }

    /// Learning rate and weight decay of step `step`.
    ///
    /// # Panics
    /// If the run has no such step.
    #[must_use]
    pub fn schedule_at(&self, step: usize) -> (f64, f64) {
        (self.schedules.lr[step], self.schedules.weight_decay[step])
    }

    /// One step on the views of a batch of images.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or a gradient is not finite; the parameters are then those of before.
    /// [`Error::Device`] if a device fails.
    ///
    /// # Panics
    /// If the run is over, or the views are not those of the configuration.
    pub fn step(&mut self, batch: &[Views]) -> Result<StepReport> {
        let step = self.state.step;
        let epoch = step / self.schedules.steps_per_epoch;
        let teacher_temp = self.schedules.teacher_temp[epoch];
        self.grads.fill(0.0);
        let part = self.part();
        let Self { config, network, state, engine, grads, .. } = self;
        engine.begin(network, state)?;
        let mut seen = TeacherSeen { sums: TargetSums::new(config.head.out_dim), readouts: Vec::new() };
        let mut loss = 0.0;
        for (i, images) in batch.chunks(part).enumerate() {
            let part = Part { config, images, first: i * part, batch: batch.len(), step };
            engine.teacher(network, state, part, teacher_temp, &mut seen)?;
            loss += engine.student(network, state, part, grads)?;
        }
        state.center.update();
        if !loss.is_finite() {
            return Err(Error::Diverged { step, what: "the loss is", value: loss });
        }
        engine.finish(network, state, grads)?;
        let grad_norm = self.update(step, epoch)?;
        let rank = effective_rank(&seen.readouts, self.network.vit.config().embed_dim);
        self.state.step += 1;
        Ok(StepReport {
            step,
            epoch,
            loss,
            lr: self.schedules.lr[step],
            weight_decay: self.schedules.weight_decay[step],
            momentum: self.schedules.momentum[step],
            teacher_temp,
            grad_norm,
            signs: seen.sums.signs(loss, self.state.center.norm(), rank),
        })
    }

    /// Where the passes are computed, in a word.
    #[must_use]
    pub fn device(&self) -> String {
        self.engine.device()
    }

    /// Images that go through the networks at a time.
    #[must_use]
    pub fn part(&self) -> usize {
        let open = || self.engine.part(&self.config);
        self.config.train.micro_batch.unwrap_or_else(open).min(self.config.train.batch_size)
    }

    /// Whether every number of the networks is finite.
    ///
    /// # Errors
    /// [`Error::Diverged`] if one is not: such a state is worth nothing, and must not replace a better one.
    pub fn check_finite(&self) -> Result<()> {
        crate::training::Training::check_finite(self)
    }

    /// Clips, moves the student, then the teacher; returns the norm of the gradient.
    fn update(&mut self, step: usize, epoch: usize) -> Result<f64> {
        let Self { config, network, schedules, state, grads, .. } = self;
        let norms = clip_gradients(&network.layout, grads, config.optimizer.clip_grad);
        let norm = norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Err(Error::Diverged { step, what: "the gradient's norm is", value: norm });
        }
        let size = StepSize { lr: schedules.lr[step], weight_decay: schedules.weight_decay[step] };
        let holds_last = epoch < config.optimizer.freeze_last_layer;
        let frozen = |tensor: &TensorSpec| {
            let is_magnitude = tensor.name.ends_with("last_layer.weight_g") && config.head.norm_last_layer;
            is_magnitude || (holds_last && tensor.name.contains("last_layer"))
        };
        state.optimizer.step(&network.layout, &mut state.student, grads, size, frozen);
        ema(&mut state.teacher, &state.student, schedules.momentum[step]);
        Ok(norm)
    }
}
