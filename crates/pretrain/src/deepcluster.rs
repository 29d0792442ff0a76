//! DeepCluster-v2 (Caron et al. 2020): clusters of last epoch's embeddings are this epoch's classes.
//!
//! A memory holds one embedding of every image for each assigned view. At the start of an epoch every head's prototypes become the
//! centroids of spherical k-means on one view of the memory (view `i mod 2` for head `i`), and are never trained. A step
//! predicts each image's cluster from all its views, with the mean cross-entropy over heads, and writes the batch's
//! embeddings over the oldest ones; images that the memory does not have are left out of the loss.

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::cluster_network::{ClusterNetwork, ClusterWork, drops};
use crate::deepcluster_config::DeepClusterConfig;
use crate::drop_path::Drops;
use crate::optim::{Optimizer, StepSize};
use crate::params::{Layout, TensorSpec};
use crate::signs::effective_rank;
use crate::spherical_kmeans::spherical_kmeans;
use crate::swav::{ClusterWatch, gradient_norm, rates};
use crate::target_cross_entropy::target_cross_entropy;
use crate::torch_file::TorchValue;
use crate::training::{Batch, Exported, Look, Notes, Plan, Recipe, Report, Training, steps_per_epoch, value};
use crate::{Error, Result};

/// Views whose embeddings the memory holds: the two large ones.
const ASSIGNED: usize = 2;

/// What changes from step to step, and is stored to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct DeepClusterState {
    /// Steps taken.
    pub step: usize,
    /// All parameters; the prototypes are the centroids.
    pub params: Vec<f32>,
    /// Running statistics of batch norms.
    pub buffers: Vec<f32>,
    /// Moments and counts.
    pub optimizer: Optimizer,
    /// Embeddings, `[assigned views, n, d]`.
    pub memory: Vec<f32>,
    /// The image of each row of the memory, counted from 1; 0 before it is filled. `[n]`.
    pub memory_images: Vec<u64>,
    /// The cluster of each image in each head, counted from 1; 0 for none. `[heads, images]`.
    pub clusters: Vec<u64>,
}

/// A DeepCluster-v2 training in progress.
#[derive(Debug)]
pub struct DeepCluster {
    config: DeepClusterConfig,
    network: ClusterNetwork,
    images: usize,
    lr: Vec<f64>,
    steps_per_epoch: usize,
    /// Where it stands.
    pub state: DeepClusterState,
    grads: Vec<f32>,
    work: ClusterWork,
    scores: Vec<f32>,
    dz: Vec<f32>,
    watch: ClusterWatch,
}

/// Names of what a step reports.
const COLUMNS: [&str; 5] = ["clusters_used", "assigned_share", "feature_rank", "grad_norm", "lr"];

impl DeepCluster {
    /// A run's start.
    ///
    /// * `images`: number of training images.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot be, or there are fewer images than a batch or than prototypes.
    pub fn new(config: DeepClusterConfig, images: usize) -> Result<Self> {
        config.check()?;
        let steps_per_epoch = steps_per_epoch(&config.train, images)?;
        let rows = steps_per_epoch * config.train.batch_size;
        if rows < config.head.prototypes {
            let reason = format!(
                "{} are more than the {rows} embeddings of an epoch; lower it",
                config.head.prototypes
            );
            return Err(Error::Config { setting: "head.prototypes", reason });
        }
        let network = ClusterNetwork::new(&config.backbone, &config.head, config.loss.heads)?;
        let (params, buffers) = network.start(&config.backbone, config.train.seed)?;
        let state = DeepClusterState {
            step: 0,
            params,
            buffers,
            optimizer: Optimizer::new(config.optimizer.kind, &network.layout),
            memory: vec![0.0; ASSIGNED * rows * config.head.out_dim],
            memory_images: vec![0; rows],
            clusters: vec![0; config.loss.heads * images],
        };
        let lr = rates(&config.optimizer, config.train.epochs, steps_per_epoch);
        let grads = vec![0.0; network.layout.len()];
        let warm = (config.optimizer.warmup_epochs * steps_per_epoch).min(lr.len() / 2);
        let watch = ClusterWatch::new(config.head.prototypes, warm);
        let work = ClusterWork::default();
        let (scores, dz) = (Vec::new(), Vec::new());
        Ok(Self { config, network, images, lr, steps_per_epoch, state, grads, work, scores, dz, watch })
    }

    /// Writes the embeddings of a batch over rows `first..` of the memory.
    fn remember(&mut self, first: usize, images: &[usize]) {
        let d = self.config.head.out_dim;
        let z = self.work.projector.embeddings();
        let rows = self.state.memory_images.len();
        for view in 0..ASSIGNED {
            let from = &z[view * images.len() * d..][..images.len() * d];
            self.state.memory[(view * rows + first) * d..][..from.len()].copy_from_slice(from);
        }
        for (row, &image) in self.state.memory_images[first..].iter_mut().zip(images) {
            *row = image as u64 + 1;
        }
    }

    /// Every head's prototypes become the centroids of its view of the memory.
    fn cluster(&mut self, epoch: usize) {
        let (d, k) = (self.config.head.out_dim, self.config.head.prototypes);
        let rows = self.state.memory_images.len();
        self.state.clusters.fill(0);
        for head in 0..self.config.loss.heads {
            let memory = &self.state.memory[head % ASSIGNED * rows * d..][..rows * d];
            let key = format!("centroids, seed {}, epoch {epoch}, head {head}", self.config.train.seed);
            let mut rng = ChaCha8Rng::from_seed(Sha256::digest(key).into());
            let chosen = index::sample(&mut rng, rows, k);
            let mut centroids: Vec<f32> =
                chosen.iter().flat_map(|row| memory[row * d..(row + 1) * d].iter().copied()).collect();
            let nearest = spherical_kmeans(memory, &mut centroids, d, self.config.loss.kmeans_iterations);
            self.network.projector.tables()[head].of_mut(&mut self.state.params).copy_from_slice(&centroids);
            for (&image, &cluster) in self.state.memory_images.iter().zip(&nearest) {
                if let Some(image) = image.checked_sub(1) {
                    self.state.clusters[head * self.images + image as usize] = u64::from(cluster) + 1;
                }
            }
        }
    }

    /// The clusters of images in a head; none for images that the memory did not have.
    fn targets(&self, head: usize, images: &[usize]) -> Vec<Option<usize>> {
        let clusters = &self.state.clusters[head * self.images..];
        images.iter().map(|&image| (clusters[image] as usize).checked_sub(1)).collect()
    }
}

impl Training for DeepCluster {
    fn plan(&self) -> Plan {
        Plan {
            method: DeepClusterConfig::METHOD,
            steps: self.lr.len(),
            steps_per_epoch: self.steps_per_epoch,
            part: self.config.train.batch_size,
            uniform_loss: ("ln K", (self.config.head.prototypes as f64).ln()),
        }
    }

    fn step_number(&self) -> usize {
        self.state.step
    }

    /// Fills the memory before the first epoch, without learning, and clusters it before every one.
    fn begin_epoch(&mut self, order: &[usize], look: &mut Look<'_>) -> Result<()> {
        let batch = self.config.train.batch_size;
        if self.state.memory_images.contains(&0) {
            let none = Drops::of_images(0.0, self.network.trunk.depth(), 0, 0, ASSIGNED, 0..batch);
            for number in 0..self.steps_per_epoch {
                let places = &order[number * batch..][..batch];
                let views = look(places)?;
                let state = &mut self.state;
                let (params, buffers) = (&state.params, &mut state.buffers);
                self.network.forward(params, buffers, &views, ASSIGNED, &none, &mut self.work);
                self.remember(number * batch, places);
            }
        }
        self.cluster(self.state.step / self.steps_per_epoch);
        Ok(())
    }

    fn step(&mut self, batch: Batch<'_>) -> Result<Report> {
        let (step, images) = (self.state.step, batch.images.len());
        let epoch = step / self.steps_per_epoch;
        let Self { config, network, state, work, .. } = self;
        let (k, views, heads) = (config.head.prototypes, config.views.count(), config.loss.heads);
        let dice = drops(&config.backbone, &network.trunk, (config.train.seed, step), &config.views, images);
        network.forward(&state.params, &mut state.buffers, batch.views, views, &dice, work);
        self.grads.fill(0.0);
        self.dz.clear();
        self.dz.resize(self.work.projector.embeddings().len(), 0.0);
        let (mut loss, mut used, mut assigned) = (0.0, 0.0, 0.0);
        for head in 0..heads {
            let targets = self.targets(head, batch.images);
            let Self { config, network, state, grads, work, scores, dz, .. } = self;
            let z = work.projector.embeddings();
            network.projector.scores(&state.params, head, z, scores);
            loss += target_cross_entropy(scores, &targets, k, config.loss.temperature, 1.0 / heads as f64)
                / heads as f64;
            network.projector.scores_backward(&state.params, grads, head, scores, z, dz);
            let mut seen: Vec<usize> = targets.iter().flatten().copied().collect();
            assigned += seen.len() as f64 / (heads * images) as f64;
            seen.sort_unstable();
            seen.dedup();
            used += seen.len() as f64 / heads as f64;
        }
        if !loss.is_finite() {
            return Err(Error::Diverged { step, what: "the loss is", value: loss });
        }
        let first = step % self.steps_per_epoch * self.config.train.batch_size;
        self.remember(first, batch.images);
        let Self { config, network, state, grads, work, dz, .. } = self;
        network.backward(&state.params, grads, dz, work);
        let grad_norm = gradient_norm(grads, step)?;
        let size = StepSize { lr: self.lr[step], weight_decay: config.optimizer.weight_decay };
        let frozen = |tensor: &TensorSpec| tensor.name.starts_with("prototypes.");
        state.optimizer.step(&network.layout, &mut state.params, grads, size, frozen);
        state.step += 1;
        let dim = network.trunk.dim();
        let rank = effective_rank(&work.readouts()[..ASSIGNED * images * dim], dim);
        Ok(Report { step, epoch, loss, values: vec![used, assigned, rank, grad_norm, self.lr[step]] })
    }

    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }

    fn summary(&self, mean: &dyn Fn(&str) -> f64) -> String {
        format!(
            "clusters {:.0} of {} · assigned {:.0} % · rank {:.1}",
            mean("clusters_used"),
            self.config.head.prototypes,
            100.0 * mean("assigned_share"),
            mean("feature_rank")
        )
    }

    fn warning(&mut self, report: &Report) -> Option<String> {
        self.watch.observe(report.step, report.loss, value(&COLUMNS, report, "clusters_used"))
    }

    fn layout(&self) -> &Layout {
        &self.network.layout
    }

    fn vectors(&self) -> Vec<(&'static str, &Vec<f32>)> {
        let DeepClusterState { params, buffers, optimizer, memory, .. } = &self.state;
        vec![
            ("params", params),
            ("first_moments", &optimizer.first),
            ("second_moments", &optimizer.second),
            ("buffers", buffers),
            ("memory", memory),
        ]
    }

    fn vectors_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)> {
        let DeepClusterState { params, buffers, optimizer, memory, .. } = &mut self.state;
        vec![
            ("params", params),
            ("first_moments", &mut optimizer.first),
            ("second_moments", &mut optimizer.second),
            ("buffers", buffers),
            ("memory", memory),
        ]
    }

    fn counts(&self) -> Vec<(&'static str, Vec<u64>)> {
        vec![
            ("optimizer_steps", self.state.optimizer.steps.clone()),
            ("memory_images", self.state.memory_images.clone()),
            ("clusters", self.state.clusters.clone()),
        ]
    }

    fn set_counts(&mut self, step: usize, counts: Vec<(&'static str, Vec<u64>)>) {
        self.state.step = step;
        for (name, numbers) in counts {
            match name {
                "optimizer_steps" => self.state.optimizer.set_steps(numbers),
                "memory_images" => self.state.memory_images = numbers,
                _ => self.state.clusters = numbers,
            }
        }
    }

    fn exported(&self) -> Exported<'_> {
        self.network.exported(&self.state.params, &self.state.buffers)
    }

    fn checkpoint(&self, notes: &Notes) -> TorchValue<'_> {
        let DeepClusterState { step, params, buffers, optimizer, .. } = &self.state;
        let weight_decay = self.config.optimizer.weight_decay;
        let size = StepSize { lr: self.lr[step.saturating_sub(1)], weight_decay };
        self.network.checkpoint([params, buffers], (optimizer, size), step / self.steps_per_epoch, notes)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::projector::ProjectorConfig;
    use crate::training::Views;

    const IMAGES: usize = 7;

    fn config() -> DeepClusterConfig {
        let mut config = DeepClusterConfig::default();
        config.backbone.arch = "vit_micro_patch8".into();
        (config.backbone.embed_dim, config.backbone.depth) = (Some(12), Some(1));
        (config.backbone.num_heads, config.backbone.patch_size) = (Some(2), Some(4));
        (config.backbone.table_size, config.backbone.init_std) = (8, 0.3);
        config.head = ProjectorConfig { hidden_dim: 6, out_dim: 5, prototypes: 3 };
        (config.views.global_size, config.views.locals) = (8, 0);
        (config.train.epochs, config.train.batch_size) = (3, 3);
        config
    }

    fn views(places: &[usize]) -> Vec<Views> {
        let pixel = |place: usize, view: usize| {
            move |(c, y, x): (usize, usize, usize)| {
                ((place * 31 + view * 7 + c * 64 + y * 8 + x) as f32 * 0.61).sin()
            }
        };
        places
            .iter()
            .map(|&p| (0..2).map(|v| Array3::from_shape_fn((3, 8, 8), pixel(p, v))).collect())
            .collect()
    }

    fn epoch(run: &mut DeepCluster, order: &[usize]) -> Vec<f64> {
        run.begin_epoch(order, &mut |places| Ok(views(places))).unwrap();
        let step = |run: &mut DeepCluster, places: &[usize]| {
            run.step(Batch { views: &views(places), images: places, classes: &[] }).unwrap()
        };
        order[..6].chunks_exact(3).map(|places| step(run, places).loss).collect()
    }

    #[test]
    fn clusters_are_those_of_the_memory_of_the_epoch_before() {
        let mut run = DeepCluster::new(config(), IMAGES).unwrap();
        epoch(&mut run, &[0, 1, 2, 3, 4, 5, 6]);
        let memory = run.state.memory.clone();
        // Image 6 was left out by the incomplete last batch: it has no cluster in the next epoch.
        assert_eq!(run.state.memory_images, [1, 2, 3, 4, 5, 6]);
        run.cluster(1);
        for head in 0..3 {
            let table = run.network.projector.tables()[head].of(&run.state.params);
            let rows = &memory[head % 2 * 6 * 5..][..30];
            let nearest = crate::spherical_kmeans::nearest_centroids(rows, table, 5, &mut Vec::new());
            let wanted: Vec<_> = nearest.iter().map(|&cluster| Some(cluster as usize)).collect();
            assert_eq!(run.targets(head, &[0, 1, 2, 3, 4, 5]), wanted);
            assert_eq!(run.targets(head, &[6]), [None]);
        }
        let losses = epoch(&mut run, &[6, 0, 1, 2, 3, 4, 5]);
        assert!(losses.iter().all(|loss| loss.is_finite()));
        assert_eq!(run.state.memory_images, [7, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn prototypes_are_the_centroids_and_are_not_trained() {
        let mut run = DeepCluster::new(config(), IMAGES).unwrap();
        let order = [0, 1, 2, 3, 4, 5, 6];
        run.begin_epoch(&order, &mut |places| Ok(views(places))).unwrap();
        let tables = |run: &DeepCluster| {
            run.network
                .projector
                .tables()
                .iter()
                .flat_map(|t| t.of(&run.state.params).to_vec())
                .collect::<Vec<_>>()
        };
        let before = tables(&run);
        assert!(crate::swav::unit_error(&before, 5) < 1e-6);
        let places = [0, 1, 2];
        run.step(Batch { views: &views(&places), images: &places, classes: &[] }).unwrap();
        assert_eq!(tables(&run), before);
    }

    #[test]
    fn what_goes_on_from_a_state_is_the_same_run() {
        let order = [2, 0, 1, 3, 6, 5, 4];
        let mut whole = DeepCluster::new(config(), IMAGES).unwrap();
        (0..3).for_each(|_| drop(epoch(&mut whole, &order)));
        let mut first = DeepCluster::new(config(), IMAGES).unwrap();
        epoch(&mut first, &order);
        let mut second = DeepCluster::new(config(), IMAGES).unwrap();
        second.state = first.state.clone();
        (1..3).for_each(|_| drop(epoch(&mut second, &order)));
        assert_eq!(second.state, whole.state);
    }
}
