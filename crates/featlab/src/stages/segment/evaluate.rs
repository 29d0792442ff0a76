//! Evaluate: label maps of a model counted against a data set's, as [`Segmenter`] sees its pictures.
//!
//! With the original's view labels go through the same centre square, so that the numbers are its own; with a sliding window
//! they are those of the whole picture, pixel by pixel.

use std::time::Instant;

use anyhow::Result;
use dataset::{Dataset, Sample};
use ndarray::Array2;
use probe::{BankProbe, ConfusionMatrix, Probe as _, Resampling};

use super::segmenter::{Segmenter, View};
use super::workers;
use crate::Context;
use crate::stages::probe::{ImageCounts, Kind, Scored};

/// By what clusters are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// The labels that they are scored on, as published.
    Eval,
    /// The names that the model has.
    Model,
}

/// What is evaluated.
pub(crate) struct Job<'a> {
    pub(crate) segmenter: &'a Segmenter<'a>,
    pub(crate) probes: &'a [(&'static str, BankProbe)],
    pub(crate) dataset: &'a dyn Dataset,
    pub(crate) classes: usize,
    pub(crate) naming: Naming,
    pub(crate) boundary_iou: bool,
    pub(crate) resampling: Resampling,
    pub(crate) on_cpu: bool,
}

/// Scores, in the order of the probes.
pub(crate) struct Outcome {
    pub(crate) scored: Vec<Scored>,
    /// Pictures that were counted.
    pub(crate) pictures: usize,
    /// Pictures that cannot be read or have no label, with the reason.
    pub(crate) skipped: Vec<(String, String)>,
    pub(crate) wall_s: f64,
}

impl Job<'_> {
    /// Counts every picture that has a label.
    ///
    /// # Errors
    /// If there is none, a store fails, or on interruption.
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome> {
        let start = Instant::now();
        let n = self.dataset.len();
        let alone = workers::each_alone(n, self.on_cpu);
        let outcomes = workers::in_turn(n, alone, ("evaluate", context), |i| self.picture(i))?;
        let (mut images, mut skipped) = (Vec::with_capacity(n), Vec::new());
        for (i, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(counts) => images.push(counts),
                Err(reason) => skipped.push((self.dataset.id(i).to_owned(), reason)),
            }
        }
        anyhow::ensure!(!images.is_empty(), "no picture of the data set could be counted");
        let scored = self.probes.iter().enumerate().map(|(at, (name, probe))| {
            let counts: Vec<ImageCounts> = images.iter().map(|probes| probes[at].clone()).collect();
            Scored::new(kind(name), &self.resampling, None, &counts, self.names(probe).as_ref())
        });
        Ok(Outcome {
            scored: scored.collect(),
            pictures: images.len(),
            skipped,
            wall_s: start.elapsed().as_secs_f64(),
        })
    }

    /// The counts of one picture for every probe, or why there are none.
    fn picture(&self, i: usize) -> Result<std::result::Result<Vec<ImageCounts>, String>> {
        let sample = match self.dataset.load(i) {
            Ok(sample) => sample,
            Err(error) if error.is_sample() => return Ok(Err(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let Some(truth) = self.truth(i, &sample)? else { return Ok(Err("it has no label".into())) };
        let seen = match self.segmenter.look(&sample) {
            Ok(seen) => seen,
            Err(error) => return Ok(Err(crate::exit::one_line(&error))),
        };
        let count = |(_, probe): &(&str, BankProbe)| -> Result<ImageCounts> {
            let mut counts = ImageCounts::new((self.classes, probe.outputs()), self.boundary_iou);
            counts.add(truth.view(), &self.segmenter.labels(probe, &seen, truth.dim())?)?;
            Ok(counts)
        };
        Ok(Ok(self.probes.iter().map(count).collect::<Result<_>>()?))
    }

    /// The labels `[h, w]` of what is looked at.
    fn truth(&self, i: usize, sample: &Sample) -> Result<Option<Array2<u8>>> {
        Ok(match self.segmenter.view() {
            View::Slide { .. } => sample.label.clone(),
            View::Center => self.segmenter.transform().apply(i as u64, sample)?.swap_remove(0).label,
        })
    }

    /// Counts by which clusters get the names that the model has: one for every name.
    fn names(&self, probe: &BankProbe) -> Option<ConfusionMatrix> {
        let names = self.segmenter.model().card.class_of_cluster.as_ref()?;
        let BankProbe::Cluster(_) = probe else { return None };
        if self.naming == Naming::Eval {
            return None;
        }
        let mut counts = Array2::zeros((self.classes, names.len()));
        for (cluster, class) in names.iter().enumerate() {
            class.iter().for_each(|class| counts[[*class, cluster]] = 1);
        }
        Some(ConfusionMatrix::from_counts(counts))
    }
}

/// The kind of a probe by its name.
pub(super) fn kind(name: &str) -> Kind {
    if name == "linear" { Kind::Linear } else { Kind::Cluster }
}

/// The class of every cluster after an evaluation.
pub(crate) fn class_of_cluster(scored: &Scored, clusters: usize) -> Option<Vec<Option<usize>>> {
    let assignment = scored.assignment.as_ref()?;
    let class = |cluster: usize| assignment.cluster_of_class.iter().position(|named| *named == Some(cluster));
    Some((0..clusters).map(class).collect())
}

/// One probe's line of results.
pub(crate) fn line(name: &str, scored: &Scored) -> String {
    format!(
        "  {name:8} mIoU {:5.1} % [{:.1}, {:.1}]  accuracy {:5.1} %",
        100.0 * scored.scores.mean_iou,
        100.0 * scored.interval.lo,
        100.0 * scored.interval.hi,
        100.0 * scored.scores.accuracy
    )
}

/// The same as JSON, with the IoU of every class.
pub(crate) fn json(name: &str, scored: &Scored, classes: &[String]) -> serde_json::Value {
    let of_class: serde_json::Map<String, serde_json::Value> =
        classes.iter().cloned().zip(scored.scores.per_class_iou.iter().map(|iou| (*iou).into())).collect();
    serde_json::json!({
        "probe": name,
        "miou": scored.scores.mean_iou,
        "miou_lo": scored.interval.lo,
        "miou_hi": scored.interval.hi,
        "accuracy": scored.scores.accuracy,
        "boundary_iou": scored.boundary_iou,
        "majority_miou": scored.majority.as_ref().map(|majority| majority.miou),
        "per_class_iou": of_class,
    })
}
