//! DINO (Caron et al. 2021): a student learns to predict, from any view of an image, what its own running average sees in the
//! two large ones.
//!
//! One [`Dino::step`], in the original's order: teacher on the global views, student on all of them, loss with the old
//! centre, centre, gradients, clipping per tensor, optimiser (the head's last layer held still at first), teacher.
//! A batch goes through the network in parts, over which gradients add up; the teacher never has a gradient.

use ndarray::Array3;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::config::DinoConfig;
use crate::drop_path::{self, Branch};
use crate::init::{self, Init};
use crate::loss::{Center, LossShape, student_loss, teacher_targets};
use crate::network::{Network, Stack, Workspace};
use crate::optim::{Optimizer, StepSize, clip_gradients, ema};
use crate::params::{Layout, TensorSpec};
use crate::schedule::{cosine_schedule, teacher_temperatures};
use crate::signs::{Signs, TargetSums, effective_rank};
use crate::{Error, Result};

/// The views of one image in their order, each `[3, side, side]`.
pub type Views = Vec<Array3<f32>>;

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
    work: Buffers,
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

/// Buffers that live from step to step.
#[derive(Debug, Default)]
struct Buffers {
    student: Workspace,
    teacher: Workspace,
    global: Stack,
    local: Stack,
    student_logits: Vec<f32>,
    teacher_logits: Vec<f32>,
    losses: Vec<f32>,
    entropies: Vec<f32>,
    teacher_cls: Vec<f32>,
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
    /// A run's start: teacher and student are the same.
    ///
    /// * `images`: number of training images.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot be, or there are fewer images than a batch.
    pub fn new(config: DinoConfig, images: usize) -> Result<Self> {
        config.check()?;
        let batch = config.train.batch_size;
        if images < batch {
            let reason = format!("{batch} is more than the {images} images of the data set; lower it");
            return Err(Error::Config { setting: "train.batch_size", reason });
        }
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
        let schedules = Schedules::new(&config, images / batch);
        let grads = vec![0.0; network.layout.len()];
        Ok(Self { config, network, schedules, state, grads, work: Buffers::default() })
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
    /// [`Error::Loss`] if the loss is not finite; the state is then that of before, save for the centre.
    ///
    /// # Panics
    /// If the run is over, or the views are not those of the configuration.
    pub fn step(&mut self, batch: &[Views]) -> Result<StepReport> {
        let step = self.state.step;
        let epoch = step / self.schedules.steps_per_epoch;
        let teacher_temp = self.schedules.teacher_temp[epoch];
        self.grads.fill(0.0);
        self.network.head.prepare(&self.state.student, &mut self.work.student.head);
        self.network.head.prepare(&self.state.teacher, &mut self.work.teacher.head);
        self.work.teacher_cls.clear();
        let mut sums = TargetSums::new(self.config.head.out_dim);
        let mut loss = 0.0;
        let part = self.config.micro_batch();
        for (i, images) in batch.chunks(part).enumerate() {
            self.teacher_pass(images, teacher_temp, &mut sums);
            loss += self.student_pass(images, (i * part, batch.len()), step);
        }
        self.state.center.update();
        if !loss.is_finite() {
            return Err(Error::Loss { step, loss });
        }
        self.network.head.finish(&self.state.student, &mut self.grads, &self.work.student.head);
        let grad_norm = self.update(step, epoch);
        let rank = effective_rank(&self.work.teacher_cls, self.network.vit.config().embed_dim);
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
            signs: sums.signs(loss, self.state.center.norm(), rank),
        })
    }

    /// The teacher's targets for the global views of a part of the batch.
    fn teacher_pass(&mut self, images: &[Views], temperature: f64, sums: &mut TargetSums) {
        let Self { network, state, work, .. } = self;
        stack(images, 0..2, &mut work.global);
        let (no_drop, logits) = (|_, _| [Branch::new(), Branch::new()], &mut work.teacher_logits);
        let buffers = &mut state.teacher_buffers;
        network.forward(&state.teacher, buffers, &[&work.global], no_drop, &mut work.teacher, logits);
        work.teacher_cls.extend_from_slice(network.cls(&work.teacher));
        state.center.observe(logits);
        teacher_targets(logits, &state.center.values, temperature, &mut work.entropies);
        sums.add(logits, &work.entropies);
    }

    /// The student on all views of a part of the batch, there and back; returns its share of the loss.
    ///
    /// * `first`: the number of its first image in the batch; `batch`: images of the batch.
    fn student_pass(&mut self, images: &[Views], (first, batch): (usize, usize), step: usize) -> f64 {
        let Self { config, network, state, work, grads, .. } = self;
        stack(images, 2..config.views.count(), &mut work.local);
        let stacks =
            if config.views.locals > 0 { vec![&work.global, &work.local] } else { vec![&work.global] };
        let drops = Drops::draw(config, network.vit.config().depth, step, first..first + images.len());
        let logits = &mut work.student_logits;
        let buffers = &mut state.student_buffers;
        let drop = |group, block| drops.of(group, block);
        network.forward(&state.student, buffers, &stacks, drop, &mut work.student, logits);
        let shape = LossShape {
            images: images.len(),
            views: config.views.count(),
            batch,
            temperature: config.loss.student_temp,
        };
        let loss = student_loss(logits, &work.teacher_logits, shape, &mut work.losses);
        network.backward(&state.student, grads, &stacks, logits, &mut work.student);
        loss
    }

    /// Clips, moves the student, then the teacher; returns the norm of the gradient.
    fn update(&mut self, step: usize, epoch: usize) -> f64 {
        let Self { config, network, schedules, state, grads, .. } = self;
        let norms = clip_gradients(&network.layout, grads, config.optimizer.clip_grad);
        let size = StepSize { lr: schedules.lr[step], weight_decay: schedules.weight_decay[step] };
        let holds_last = epoch < config.optimizer.freeze_last_layer;
        let frozen = |tensor: &TensorSpec| {
            let is_magnitude = tensor.name.ends_with("last_layer.weight_g") && config.head.norm_last_layer;
            is_magnitude || (holds_last && tensor.name.contains("last_layer"))
        };
        state.optimizer.step(&network.layout, &mut state.student, grads, size, frozen);
        ema(&mut state.teacher, &state.student, schedules.momentum[step]);
        norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt()
    }
}

/// Stacks views `range` of the images, view-major.
fn stack(images: &[Views], range: std::ops::Range<usize>, stack: &mut Stack) {
    stack.pixels.clear();
    stack.rows = range.len() * images.len();
    for view in range {
        for image in images {
            stack.side = image[view].dim().1;
            stack.pixels.extend(image[view].iter());
        }
    }
}

/// The student's stochastic depth in one pass: scales for every block, branch, view and image.
struct Drops {
    rates: Vec<f64>,
    views: usize,
    images: Vec<Vec<f32>>, // [image][(block · 2 + branch) · views + view]
}

impl Drops {
    /// Every image has dice of its own, so that the batch may come in any parts.
    fn draw(config: &DinoConfig, depth: usize, step: usize, images: std::ops::Range<usize>) -> Self {
        let rates = drop_path::rates(config.backbone.drop_path, depth);
        let views = config.views.count();
        let of_image = |image: usize| {
            let key = format!("drop path, seed {}, step {step}, image {image}", config.train.seed);
            let mut rng = ChaCha8Rng::from_seed(Sha256::digest(key).into());
            let branches = rates.iter().flat_map(|&rate| [rate, rate]);
            branches.flat_map(|rate| drop_path::draw(&mut rng, rate, views)).collect()
        };
        let images =
            if config.backbone.drop_path > 0.0 { images.map(of_image).collect() } else { Vec::new() };
        Self { rates, views, images }
    }

    /// The scales of a block's branches for the views of group 0 (global) or 1 (local), view-major.
    fn of(&self, group: usize, block: usize) -> [Branch; 2] {
        let views = if group == 0 { 0..2 } else { 2..self.views };
        if self.images.is_empty() || self.rates[block] == 0.0 {
            return [Branch::new(), Branch::new()];
        }
        // Blocks whose rate is 0 drew nothing.
        let before = self.rates[..block].iter().filter(|rate| **rate > 0.0).count();
        [0, 1].map(|branch| {
            let at = |view: usize| (before * 2 + branch) * self.views + view;
            views.clone().flat_map(|view| self.images.iter().map(move |image| image[at(view)])).collect()
        })
    }
}
