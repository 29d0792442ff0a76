//! SwAV (Caron et al. 2020): views of an image are assigned to prototypes, evenly over a batch, and predict each other's
//! assignments.
//!
//! One [`Swav::step`], in the original's order: prototypes to length 1, all views through the network, for each assigned view
//! its scores, behind those of the queue once that is full, through [`Sinkhorn`](crate::Sinkhorn), the batch into the queue;
//! loss, gradients (none through assignments), prototypes held still at first, optimiser.
//!
//! The loss starts near ln K. It sticks there if all embeddings are equal: then the only even assignment is uniform, and
//! predicting it is easy. [`ClusterWatch`] tells.

use std::collections::VecDeque;

use crate::cluster_network::{ClusterNetwork, ClusterWork, drops};
use crate::optim::{Optimizer, StepSize};
use crate::params::{Layout, TensorSpec};
use crate::queue::FeatureQueue;
use crate::schedule::cosine_schedule;
use crate::signs::effective_rank;
use crate::sinkhorn::SinkhornBuffers;
use crate::swapped::{SwappedShape, assignment_signs, swapped_loss};
use crate::swav_config::{ClusterOptimizerConfig, SwavConfig};
use crate::torch_file::TorchValue;
use crate::training::{
    Batch, Exported, Notes, Plan, Recipe as _, Report, Training, Views, steps_per_epoch, value,
};
use crate::{Error, Result};

/// What changes from step to step, and is stored to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct SwavState {
    /// Steps taken.
    pub step: usize,
    /// All parameters, prototypes among them.
    pub params: Vec<f32>,
    /// Running statistics of batch norms.
    pub buffers: Vec<f32>,
    /// Moments and counts.
    pub optimizer: Optimizer,
    /// Embeddings of past batches.
    pub queue: FeatureQueue,
}

/// A SwAV training in progress.
#[derive(Debug)]
pub struct Swav {
    config: SwavConfig,
    network: ClusterNetwork,
    lr: Vec<f64>,
    steps_per_epoch: usize,
    /// Where it stands.
    pub state: SwavState,
    grads: Vec<f32>,
    work: ClusterWork,
    tables: Tables,
    watch: ClusterWatch,
}

/// Tables that are kept from step to step.
#[derive(Debug, Default)]
struct Tables {
    scores: Vec<f32>,      // [V · B, K]
    queued: Vec<f32>,      // [L + B, K]
    assignments: Vec<f32>, // [assigned · B, K]
    one: Vec<f32>,
    losses: Vec<f32>,
    sinkhorn: SinkhornBuffers,
    dz: Vec<f32>,
}

/// Names of what a step reports.
const COLUMNS: [&str; 7] = [
    "assignment_entropy",
    "prototypes_used",
    "prototype_norm_error",
    "feature_rank",
    "queue_rows",
    "grad_norm",
    "lr",
];

impl Swav {
    /// A run's start.
    ///
    /// * `images`: number of training images.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot be, or there are fewer images than a batch.
    pub fn new(config: SwavConfig, images: usize) -> Result<Self> {
        config.check()?;
        let steps_per_epoch = steps_per_epoch(&config.train, images)?;
        let network = ClusterNetwork::new(&config.backbone, &config.head, 1)?;
        let (params, buffers) = network.start(&config.backbone, config.train.seed)?;
        let loss = &config.loss;
        let state = SwavState {
            step: 0,
            params,
            buffers,
            optimizer: Optimizer::new(config.optimizer.kind, &network.layout),
            queue: FeatureQueue::new(
                loss.assign.len(),
                loss.queue_length,
                config.train.batch_size,
                config.head.out_dim,
            ),
        };
        let lr = rates(&config.optimizer, config.train.epochs, steps_per_epoch);
        let grads = vec![0.0; network.layout.len()];
        let (work, tables) = (ClusterWork::default(), Tables::default());
        let warm = loss.freeze_prototypes_steps.max(config.optimizer.warmup_epochs * steps_per_epoch);
        let watch = ClusterWatch::new(config.head.prototypes, warm.min(lr.len() / 2));
        Ok(Self { config, network, lr, steps_per_epoch, state, grads, work, tables, watch })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &SwavConfig {
        &self.config
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &ClusterNetwork {
        &self.network
    }

    /// The gradients of the last step; those of frozen prototypes are there as well, though they move nothing.
    #[must_use]
    pub fn grads(&self) -> &[f32] {
        &self.grads
    }

    /// The assignments of the last step, `[assigned · B, K]`.
    #[must_use]
    pub fn assignments(&self) -> &[f32] {
        &self.tables.assignments
    }

    /// One step on the views of a batch of images.
    ///
    /// # Errors
    /// [`Error::Diverged`] if assignments, loss or a gradient are not finite; parameters are then those of before, but for
    /// the prototypes' lengths.
    ///
    /// # Panics
    /// If the run is over, or the views are not those of the configuration.
    pub fn step(&mut self, batch: &[Views]) -> Result<Report> {
        let Self { config, network, state, work, .. } = self;
        let (step, images, views) = (state.step, batch.len(), config.views.count());
        let epoch = step / self.steps_per_epoch;
        network.projector.normalize_prototypes(&mut state.params);
        let norm_error = unit_error(network.projector.tables()[0].of(&state.params), config.head.out_dim);
        let dice = drops(&config.backbone, &network.trunk, (config.train.seed, step), &config.views, images);
        network.forward(&state.params, &mut state.buffers, batch, views, &dice, work);
        self.assign(epoch, images)?;
        let Self { config, network, state, work, tables, grads, .. } = self;
        let k = config.head.prototypes;
        let shape = SwappedShape {
            images,
            views,
            assigned: &config.loss.assign,
            temperature: config.loss.temperature,
        };
        let loss = swapped_loss(&mut tables.scores, &tables.assignments, shape, &mut tables.losses);
        if !loss.is_finite() {
            return Err(Error::Diverged { step, what: "the loss is", value: loss });
        }
        grads.fill(0.0);
        let z = work.projector.embeddings();
        tables.dz.clear();
        tables.dz.resize(z.len(), 0.0);
        network.projector.scores_backward(&state.params, grads, 0, &tables.scores, z, &mut tables.dz);
        network.backward(&state.params, grads, &tables.dz, work);
        let grad_norm = gradient_norm(grads, step)?;
        let is_frozen = step < config.loss.freeze_prototypes_steps;
        let frozen = |tensor: &TensorSpec| is_frozen && tensor.name.starts_with("prototypes.");
        let size = StepSize { lr: self.lr[step], weight_decay: config.optimizer.weight_decay };
        state.optimizer.step(&network.layout, &mut state.params, grads, size, frozen);
        state.step += 1;
        let (entropy, used) = assignment_signs(&tables.assignments, k);
        let rank = effective_rank(&work.readouts()[..2 * images * network.trunk.dim()], network.trunk.dim());
        let queued = if state.queue.is_full(0) { state.queue.len() } else { 0 };
        let values = vec![entropy, used as f64, norm_error, rank, queued as f64, grad_norm, self.lr[step]];
        Ok(Report { step, epoch, loss, values })
    }

    /// Scores of all views, assignments of those that have them; the batch goes into the queue.
    fn assign(&mut self, epoch: usize, images: usize) -> Result<()> {
        let Self { config, network, state, work, tables, .. } = self;
        let (k, d) = (config.head.prototypes, config.head.out_dim);
        let z = work.projector.embeddings();
        network.projector.scores(&state.params, 0, z, &mut tables.scores);
        tables.assignments.clear();
        let queues = epoch >= config.loss.queue_start_epoch;
        for (place, &view) in config.loss.assign.iter().enumerate() {
            let own = &tables.scores[view * images * k..][..images * k];
            let queue = &mut state.queue;
            if queues && queue.is_full(place) {
                network.projector.scores(&state.params, 0, queue.rows(place), &mut tables.queued);
            } else {
                tables.queued.clear();
            }
            tables.queued.extend_from_slice(own);
            if queues {
                queue.push(place, &z[view * images * d..][..images * d]);
            }
            let sinkhorn = config.loss.assignment();
            if !sinkhorn.assign(&tables.queued, k, images, &mut tables.sinkhorn, &mut tables.one) {
                return Err(Error::Assignments { step: state.step, epsilon: sinkhorn.epsilon });
            }
            tables.assignments.extend_from_slice(&tables.one);
        }
        Ok(())
    }
}

/// The rate of every step.
pub(crate) fn rates(optimizer: &ClusterOptimizerConfig, epochs: usize, steps_per_epoch: usize) -> Vec<f64> {
    let (steps, warmup) = (epochs * steps_per_epoch, optimizer.warmup_epochs * steps_per_epoch);
    cosine_schedule(optimizer.lr, optimizer.final_lr, steps, warmup, optimizer.start_lr)
}

/// `‖g‖₂` of all gradients.
///
/// # Errors
/// [`Error::Diverged`] if it is not finite.
pub(crate) fn gradient_norm(grads: &[f32], step: usize) -> Result<f64> {
    let norm = grads.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
    match norm.is_finite() {
        true => Ok(norm),
        false => Err(Error::Diverged { step, what: "the gradient's norm is", value: norm }),
    }
}

/// The largest distance of a row's length from 1.
pub(crate) fn unit_error(rows: &[f32], d: usize) -> f64 {
    let length = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    rows.chunks_exact(d).map(|row| (length(row) - 1.0).abs()).fold(0.0, f64::max)
}

/// Watches the last steps and tells when nothing is learned.
#[derive(Debug)]
pub(crate) struct ClusterWatch {
    recent: VecDeque<(f64, f64)>,
    ln_k: f64,
    warm: usize,
    told: bool,
}

impl ClusterWatch {
    /// Steps over which the signs must be bad.
    pub(crate) const WINDOW: usize = 100;

    /// * `warm`: the step from which on signs count.
    pub(crate) fn new(prototypes: usize, warm: usize) -> Self {
        Self { recent: VecDeque::new(), ln_k: (prototypes as f64).ln(), warm, told: false }
    }

    /// Takes note of a step; says once what is wrong, when the last [`ClusterWatch::WINDOW`] steps show it.
    pub(crate) fn observe(&mut self, step: usize, loss: f64, used: f64) -> Option<String> {
        if step < self.warm {
            return None;
        }
        self.recent.push_back((loss, used));
        if self.recent.len() > Self::WINDOW {
            self.recent.pop_front();
        }
        let n = self.recent.len() as f64;
        let loss = self.recent.iter().map(|r| r.0).sum::<f64>() / n;
        let used = self.recent.iter().map(|r| r.1).sum::<f64>() / n;
        let (is_stuck, is_narrow) = (loss > 0.98 * self.ln_k, used < 1.5);
        if self.recent.len() < Self::WINDOW || !(is_stuck || is_narrow) {
            self.told &= self.recent.len() < Self::WINDOW;
            return None;
        }
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        let advice = "lower loss.epsilon to 0.03, freeze prototypes longer, use softer views or a lower optimizer.lr; narrow \
                      transformers want a larger backbone.init_std";
        Some(match is_narrow {
            true => format!(
                "collapse: a batch uses {used:.1} prototypes on average. All embeddings are about equal: {advice}"
            ),
            false => format!(
                "no progress: the loss stays at ln K = {:.3} (last {n} steps: {loss:.3}): {advice}",
                self.ln_k
            ),
        })
    }
}

impl Training for Swav {
    fn plan(&self) -> Plan {
        Plan {
            method: SwavConfig::METHOD,
            steps: self.lr.len(),
            steps_per_epoch: self.steps_per_epoch,
            part: self.config.train.batch_size,
            uniform_loss: ("ln K", (self.config.head.prototypes as f64).ln()),
        }
    }

    fn step_number(&self) -> usize {
        self.state.step
    }

    fn step(&mut self, batch: Batch<'_>) -> Result<Report> {
        Self::step(self, batch.views)
    }

    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }

    fn summary(&self, mean: &dyn Fn(&str) -> f64) -> String {
        format!(
            "entropy {:.3} · prototypes {:.0} of {} · rank {:.1}",
            mean("assignment_entropy"),
            mean("prototypes_used"),
            self.config.head.prototypes,
            mean("feature_rank")
        )
    }

    fn cautions(&self) -> Vec<String> {
        let samples = self.config.train.batch_size + self.state.queue.len();
        let (k, mut cautions) = (self.config.head.prototypes, Vec::new());
        if k > samples {
            cautions.push(format!(
                "{k} prototypes share {samples} samples (batch and queue): some stay empty. Set head.prototypes to about ten \
                 times the expected classes and at most {samples}, or loss.queue_length to {k} or more"
            ));
        }
        let (wanted, got) = (self.config.loss.queue_length, self.state.queue.len());
        if wanted != got {
            cautions.push(format!("loss.queue_length {wanted} is cut to {got}, a multiple of the batch"));
        }
        cautions
    }

    fn warning(&mut self, report: &Report) -> Option<String> {
        let used = value(&COLUMNS, report, "prototypes_used");
        self.watch.observe(report.step, report.loss, used)
    }

    fn layout(&self) -> &Layout {
        &self.network.layout
    }

    fn vectors(&self) -> Vec<(&'static str, &Vec<f32>)> {
        let SwavState { params, buffers, optimizer, queue, .. } = &self.state;
        vec![
            ("params", params),
            ("first_moments", &optimizer.first),
            ("second_moments", &optimizer.second),
            ("buffers", buffers),
            ("queue", &queue.rows),
        ]
    }

    fn vectors_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)> {
        let SwavState { params, buffers, optimizer, queue, .. } = &mut self.state;
        vec![
            ("params", params),
            ("first_moments", &mut optimizer.first),
            ("second_moments", &mut optimizer.second),
            ("buffers", buffers),
            ("queue", &mut queue.rows),
        ]
    }

    fn counts(&self) -> Vec<(&'static str, Vec<u64>)> {
        vec![("optimizer_steps", self.state.optimizer.steps.clone())]
    }

    fn set_counts(&mut self, step: usize, counts: Vec<(&'static str, Vec<u64>)>) {
        self.state.step = step;
        for (_, steps) in counts {
            self.state.optimizer.set_steps(steps);
        }
    }

    fn exported(&self) -> Exported<'_> {
        self.network.exported(&self.state.params, &self.state.buffers)
    }

    fn checkpoint(&self, notes: &Notes) -> TorchValue<'_> {
        let SwavState { step, params, buffers, optimizer, .. } = &self.state;
        let weight_decay = self.config.optimizer.weight_decay;
        let size = StepSize { lr: self.lr[step.saturating_sub(1)], weight_decay };
        self.network.checkpoint([params, buffers], (optimizer, size), step / self.steps_per_epoch, notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_once_and_only_after_the_window() {
        let tell = |loss: f64, used: f64| {
            let mut watch = ClusterWatch::new(32, 10);
            (0..3 * ClusterWatch::WINDOW)
                .filter_map(|step| watch.observe(step, loss, used))
                .collect::<Vec<_>>()
        };
        assert!(matches!(&tell(3.46, 20.0)[..], [one] if one.contains("ln K = 3.466")));
        assert!(matches!(&tell(3.0, 1.0)[..], [one] if one.contains("1.0 prototypes")));
        assert!(tell(2.0, 30.0).is_empty());
    }
}
