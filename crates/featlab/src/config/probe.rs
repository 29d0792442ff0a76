//! `[probe]`: which probes, trained how.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::exit::usage;
use crate::stages::probe::{ClassWeights, ClosedForm};

/// `[probe]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ProbeConfig {
    /// `linear`, `cluster`, `knn`, `ridge`, `kmeans`.
    pub probes: Vec<String>,
    /// One run for each.
    pub seeds: Vec<u64>,
    /// Training steps (STEGO's default configuration: 5000).
    pub steps: usize,
    /// Images per step (16).
    pub batch_size: usize,
    /// Adam's learning rate (5e-3).
    pub learning_rate: f32,
    /// Seed of the order of the images, which all probes of a sweep share (0).
    pub order_seed: u64,
    /// Step before which probes and optimisers are made anew (none).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_probe_steps: Option<usize>,
    /// Weight of a pixel of each class in the linear probe's loss: `"none"`, `"balanced"`, or a list of numbers (none).
    pub class_weights: ClassWeights,
    /// Clusters beyond the number of classes (0).
    pub extra_clusters: usize,
    /// Penalties that a ridge probe chooses from, as shares of the mean variance of a feature (1e-6 to 1e4 by tens).
    pub ridge_lambdas: Vec<f64>,
    /// Starts of k-means, of which the best counts (10).
    pub kmeans_restarts: usize,
    /// Training tokens that k-means sees (20 000).
    pub kmeans_tokens: usize,
    /// Neighbours that vote in a k-NN probe (20).
    pub knn_k: usize,
    /// Temperature of a neighbour's vote (0.07).
    pub knn_temperature: f64,
    /// Labelled training tokens among which neighbours are looked for (10 000).
    pub knn_tokens: usize,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        let closed = ClosedForm::default();
        Self {
            probes: ["linear", "cluster"].map(String::from).into(),
            seeds: vec![0],
            steps: 5000,
            batch_size: 16,
            learning_rate: 5e-3,
            order_seed: 0,
            reset_probe_steps: None,
            class_weights: ClassWeights::default(),
            extra_clusters: 0,
            ridge_lambdas: closed.ridge_lambdas,
            kmeans_restarts: closed.kmeans_restarts,
            kmeans_tokens: closed.kmeans_tokens,
            knn_k: closed.knn_k,
            knn_temperature: closed.knn_temperature,
            knn_tokens: closed.knn_tokens,
        }
    }
}

impl ProbeConfig {
    /// Settings of the probes that take no gradient steps.
    pub(crate) fn closed_form(&self) -> ClosedForm {
        ClosedForm {
            ridge_lambdas: self.ridge_lambdas.clone(),
            kmeans_restarts: self.kmeans_restarts,
            kmeans_tokens: self.kmeans_tokens,
            knn_k: self.knn_k,
            knn_temperature: self.knn_temperature,
            knn_tokens: self.knn_tokens,
        }
    }
}

/// Refuses a training schedule that trains nothing.
pub(crate) fn check_schedule(steps: usize, batch_size: usize, learning_rate: f32) -> Result<()> {
    for (name, value) in [("steps", steps), ("batch_size", batch_size)] {
        if value == 0 {
            return Err(usage(format!("{name} must be at least 1, got 0")));
        }
    }
    if !(learning_rate.is_finite() && learning_rate > 0.0) {
        return Err(usage(format!("learning_rate must be a number above 0, got {learning_rate}")));
    }
    Ok(())
}
