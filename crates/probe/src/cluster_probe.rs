//! The cluster probe: unsupervised centres in token space, compared by cosine.
//!
//! Training maximises the mean cosine between every token and its nearest centre: spherical k-means by
//! gradient descent, without labels. Which class a cluster stands for is decided afterwards, by
//! [`hungarian`](crate::hungarian).
//!
//! Scores leave the token's own length out: a positive factor per pixel moves no argmax, and without it
//! scores are linear in the token and commute with upsampling. So the best upsampled score is the
//! original's prediction, which upsamples the tokens first and normalises them then.

use std::ops::ControlFlow;

use ndarray::{Array2, ArrayView2};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::bank::fit_one;
use crate::cluster_loss::unit_rows;
use crate::{BankProbe, BankSet, CellKind, Probe, Result, Schedule, Step};

/// A cluster probe that is not trained yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClusterProbeParams {
    /// Number of clusters `m`, 1 to 256: the classes, and extra ones if wanted.
    pub clusters: usize,
    /// Seed of the initial centres.
    pub seed: u64,
    /// Steps, batches and learning rate.
    pub schedule: Schedule,
}

/// Cluster centres.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterProbe {
    /// `[m, k]`; their lengths matter for training (a long centre turns slowly), not for scores.
    pub centres: Array2<f32>,
}

impl ClusterProbeParams {
    /// Trains a probe on the first source of a set: a bank of one. The same parameters and data give the same bits, for any
    /// number of threads, and a [`LinearProbe`](crate::LinearProbe) with the same schedule sees the same batches.
    ///
    /// `on_step` is called after every step and stops the training by returning `Break`.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty) and [`Error::Range`](crate::Error::Range) for nothing to train on,
    /// [`Error::Fetch`](crate::Error::Fetch), [`Error::Diverged`](crate::Error::Diverged), and
    /// [`Error::Interrupted`](crate::Error::Interrupted) after a `Break`.
    pub fn fit(
        &self,
        data: &dyn BankSet,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<ClusterProbe> {
        match fit_one(data, self.schedule, 1, (CellKind::Cluster(self.clusters), self.seed), on_step)? {
            BankProbe::Cluster(probe) => Ok(probe),
            BankProbe::Linear(_) => unreachable!("the cell is a cluster probe"),
        }
    }
}

impl ClusterProbe {
    /// Centres with independent standard normal coordinates.
    pub(crate) fn initial(clusters: usize, dim: usize, rng: &mut ChaCha8Rng) -> Self {
        Self { centres: Array2::from_shape_simple_fn((clusters, dim), || StandardNormal.sample(rng)) }
    }
}

impl Probe for ClusterProbe {
    fn outputs(&self) -> usize {
        self.centres.nrows()
    }

    /// Cosines times the lengths of the tokens.
    fn scores(&self, tokens: ArrayView2<'_, f32>) -> Array2<f32> {
        tokens.dot(&unit_rows(self.centres.view()).t())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Axis, array};

    use super::*;
    use crate::schedule::tests::Halves;
    use crate::{ConfusionMatrix, Error, hungarian, upsample_argmax};

    fn params(steps: usize, seed: u64) -> ClusterProbeParams {
        ClusterProbeParams {
            clusters: 3,
            seed,
            schedule: Schedule { steps, batch_size: 4, learning_rate: 0.05, ..Schedule::default() },
        }
    }

    fn fit(params: ClusterProbeParams, data: &Halves) -> ClusterProbe {
        params.fit(&data.set(), &mut |_| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn finds_directions_without_labels() {
        let mut data = Halves::new(12);
        let labels = std::mem::replace(&mut data.labels, Array3::from_elem((12, 8, 8), 255));
        let probe = fit(params(300, 1), &data);
        let mut counts = ConfusionMatrix::new(3, 3);
        for (tokens, labels) in data.tokens.outer_iter().zip(labels.outer_iter()) {
            let predicted = upsample_argmax(probe.scores(tokens).view(), (4, 4), (8, 8));
            counts.add(labels, predicted.view()).unwrap();
        }
        assert!(counts.matched(&hungarian(&counts)).scores().accuracy > 0.85, "{counts:?}");
    }

    #[test]
    fn scores_choose_as_the_cosine_does() {
        let probe = ClusterProbe { centres: array![[3.0, 0.0], [1.0, 1.0], [0.0, 0.1]] };
        let scores = probe.scores(array![[2.0, 0.1], [5.0, 5.0], [0.01, 3.0]].view());
        let best: Vec<usize> = (scores.axis_iter(Axis(0)))
            .map(|row| (0..3).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap())
            .collect();
        assert_eq!(best, [0, 1, 2]);
        assert!((scores[[0, 0]] - 2.0).abs() < 1e-6); // linear in the token
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_on_any_number_of_threads() {
        let data = Halves::new(9);
        let train = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fit(params(20, seed), &data))
        };
        assert_eq!(train(1, 3), train(4, 3));
        assert_ne!(train(1, 3), train(1, 4));
    }

    #[test]
    fn starts_standard_normal() {
        let params = ClusterProbeParams { clusters: 200, ..params(0, 0) };
        let centres = fit(params, &Halves::new(1)).centres;
        let mean = centres.mean().unwrap();
        let variance = centres.mapv(|v| (v - mean) * (v - mean)).mean().unwrap();
        assert!(mean.abs() < 0.1 && (variance - 1.0).abs() < 0.15, "{mean} {variance}");
    }

    #[test]
    fn broken_input_is_refused() {
        let mut data = Halves::new(2);
        data.tokens[[1, 3, 2]] = f32::INFINITY;
        let go_on = &mut |_| ControlFlow::Continue(());
        let result = params(5, 0).fit(&data.set(), go_on);
        assert!(matches!(result, Err(Error::Diverged { step: 1, .. })), "{result:?}");
        for clusters in [0, 257] {
            let result = ClusterProbeParams { clusters, ..params(5, 0) }.fit(&data.set(), go_on);
            assert!(matches!(result, Err(Error::Range { what: "number of clusters", .. })));
        }
    }
}
