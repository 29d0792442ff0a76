//! What a probe's scores depend on beside its cell: one structure of all settings, of which each kind of probe has its part.

use anyhow::Result;
use probe::{BankSet, Method, Resampling, RidgeParams, Schedule};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Kind;
use crate::config::Matching;
use crate::exit::usage;

/// Confidence of an interval.
const LEVEL: f64 = 0.95;

/// How probes are trained and scored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) steps: usize,
    pub(crate) batch_size: usize,
    pub(crate) learning_rate: f32,
    pub(crate) order_seed: u64,
    pub(crate) reset_step: Option<usize>,
    pub(crate) class_weights: ClassWeights,
    pub(crate) extra_clusters: usize,
    pub(crate) closed_form: ClosedForm,
    pub(crate) hungarian: Matching,
    pub(crate) interval: IntervalMethod,
    pub(crate) resamples: usize,
    pub(crate) boundary_iou: bool,
}

/// Settings of the probes that take no gradient steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClosedForm {
    /// Penalties that a ridge probe chooses from, as shares of the mean variance of a feature.
    pub(crate) ridge_lambdas: Vec<f64>,
    /// Starts of k-means, of which the best counts.
    pub(crate) kmeans_restarts: usize,
    /// Training tokens that k-means sees, drawn by the seed.
    pub(crate) kmeans_tokens: usize,
    /// Neighbours that vote.
    pub(crate) knn_k: usize,
    /// Temperature of a neighbour's vote `exp(cos / T)`.
    pub(crate) knn_temperature: f64,
    /// Labelled training tokens among which neighbours are looked for, drawn by the seed.
    pub(crate) knn_tokens: usize,
}

impl Default for ClosedForm {
    fn default() -> Self {
        Self {
            ridge_lambdas: RidgeParams::default().lambdas,
            kmeans_restarts: 10,
            kmeans_tokens: 20_000,
            knn_k: 20,
            knn_temperature: 0.07,
            knn_tokens: 10_000,
        }
    }
}

impl ClosedForm {
    /// # Errors
    /// A usage error that names what cannot be.
    pub(crate) fn check(&self) -> Result<()> {
        let counts = [
            ("kmeans_restarts", self.kmeans_restarts),
            ("kmeans_tokens", self.kmeans_tokens),
            ("knn_k", self.knn_k),
            ("knn_tokens", self.knn_tokens),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(usage(format!("{name} must be at least 1, got 0")));
        }
        if !(self.knn_temperature.is_finite() && self.knn_temperature > 0.0) {
            return Err(usage(format!("knn_temperature must be above 0, got {}", self.knn_temperature)));
        }
        let sound = |&lambda: &f64| lambda.is_finite() && lambda >= 0.0;
        if self.ridge_lambdas.is_empty() || !self.ridge_lambdas.iter().all(sound) {
            return Err(usage(format!(
                "ridge_lambdas must be a list of numbers from 0 on, got {:?}",
                self.ridge_lambdas
            )));
        }
        Ok(())
    }
}

/// How the interval beside a score is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IntervalMethod {
    /// Student's, of the scores without one image each.
    #[default]
    Jackknife,
    /// Percentiles of redrawn scores.
    Percentile,
    /// The same, corrected for bias and skew.
    Bca,
}

impl IntervalMethod {
    /// As a reader knows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Jackknife => "jackknife",
            Self::Percentile => "percentile bootstrap",
            Self::Bca => "BCa bootstrap",
        }
    }

    /// The method, with so many resamples.
    pub(crate) fn resampling(self, resamples: usize, seed: u64) -> Resampling {
        let method = match self {
            Self::Jackknife => Method::Jackknife,
            Self::Percentile => Method::Percentile,
            Self::Bca => Method::Bca,
        };
        Resampling { resamples, level: LEVEL, seed, method }
    }
}

impl Settings {
    /// The schedule of a bank.
    pub(crate) fn schedule(&self) -> Schedule {
        let Self { steps, batch_size, learning_rate, order_seed, reset_step, .. } = *self;
        Schedule { steps, batch_size, learning_rate, order_seed, reset_step }
    }

    /// Outputs of an unsupervised probe.
    pub(crate) fn clusters(&self, classes: usize) -> usize {
        classes + self.extra_clusters
    }

    /// How intervals are made; the seed is the probe's.
    pub(crate) fn resampling(&self, seed: u64) -> Resampling {
        self.interval.resampling(self.resamples, seed)
    }

    /// Gradient steps of a probe.
    pub(crate) fn steps_of(&self, kind: Kind) -> usize {
        if kind.takes_steps() { self.steps } else { 0 }
    }

    /// What the scores of one kind of probe depend on, for the key of its record.
    pub(crate) fn of(&self, kind: Kind) -> Value {
        let closed = &self.closed_form;
        let training = match kind {
            Kind::Linear | Kind::Cluster => json!([
                self.steps,
                self.batch_size,
                self.learning_rate,
                self.order_seed,
                self.reset_step,
                (kind == Kind::Linear).then_some(&self.class_weights),
            ]),
            Kind::Ridge => json!([closed.ridge_lambdas, self.class_weights]),
            Kind::KMeans => json!([closed.kmeans_restarts, closed.kmeans_tokens]),
            Kind::Knn => json!([closed.knn_k, closed.knn_temperature, closed.knn_tokens]),
        };
        let clusters = kind.is_unsupervised().then_some((self.extra_clusters, self.hungarian));
        let drawn = (self.interval != IntervalMethod::Jackknife).then_some(self.resamples);
        json!([training, clusters, self.interval, drawn, self.boundary_iou])
    }
}

/// How much a pixel of each class counts in the linear probe's loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum ClassWeights {
    /// `none`: all the same, as published; `balanced`: each class as much as every other, by its pixels in the training split.
    Named(String),
    /// One number for each class.
    Listed(Vec<f32>),
}

impl Default for ClassWeights {
    fn default() -> Self {
        Self::Named("none".into())
    }
}

impl ClassWeights {
    /// The weights, `[c]`.
    ///
    /// # Errors
    /// A usage error for another name or number of classes.
    pub(super) fn of(&self, train: &dyn BankSet, classes: usize) -> Result<Vec<f32>> {
        match self {
            Self::Named(name) if name == "none" => Ok(vec![1.0; classes]),
            Self::Named(name) if name == "balanced" => Ok(balanced(train, classes)),
            Self::Named(name) => Err(usage(format!(
                "class_weights: unknown \"{name}\", expected none, balanced or a list of {classes} numbers"
            ))),
            Self::Listed(weights) if weights.len() == classes => Ok(weights.clone()),
            Self::Listed(weights) => {
                Err(usage(format!("class_weights has {} numbers for {classes} classes", weights.len())))
            }
        }
    }
}

/// `n / (c · n_class)`, which scikit-learn calls balanced; 0 for a class that does not occur.
fn balanced(train: &dyn BankSet, classes: usize) -> Vec<f32> {
    let mut counts = vec![0.0; classes];
    for i in 0..train.len() {
        for &label in train.label(i) {
            if let Some(count) = counts.get_mut(usize::from(label)) {
                *count += 1.0;
            }
        }
    }
    probe::balancing_weights(&counts).into_iter().map(|weight| weight as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_depends_on_its_own_settings_only() {
        let settings = Settings {
            steps: 5,
            batch_size: 2,
            learning_rate: 0.1,
            order_seed: 0,
            reset_step: None,
            class_weights: ClassWeights::default(),
            extra_clusters: 0,
            closed_form: ClosedForm::default(),
            hungarian: Matching::Eval,
            interval: IntervalMethod::default(),
            resamples: 10,
            boundary_iou: false,
        };
        type Change = (fn(&mut Settings), &'static [Kind]);
        let changes: [Change; 6] = [
            (|s| s.steps = 6, &[Kind::Linear, Kind::Cluster]),
            (|s| s.closed_form.knn_k = 3, &[Kind::Knn]),
            (|s| s.closed_form.ridge_lambdas = vec![1.0], &[Kind::Ridge]),
            (|s| s.closed_form.kmeans_tokens = 7, &[Kind::KMeans]),
            (|s| s.extra_clusters = 2, &[Kind::Cluster, Kind::KMeans]),
            (|s| s.resamples = 11, &[]),
        ];
        for (change, kinds) in changes {
            let mut changed = settings.clone();
            change(&mut changed);
            for kind in Kind::ALL {
                assert_eq!(changed.of(kind) != settings.of(kind), kinds.contains(&kind), "{kind:?}");
            }
        }
    }
}
