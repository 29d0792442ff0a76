//! Probe: one (method, dim, probe, seed) trained on projected features and scored on others: one row of the results.
//!
//! Predictions at label resolution come from upsampled *scores*; for both probes this equals the original's evaluation,
//! which upsamples features (a bilinear map commutes with the linear probe, and a positive scale does not move the
//! cluster probe's argmax). Intervals come from resampling images, with the cluster assignment held fixed.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use ndarray::{Array2, Axis};
use probe::{
    Assignment, ClusterProbe, ClusterProbeParams, ConfusionMatrix, LinearProbe, LinearProbeParams, Probe,
    Schedule, Step, TrainSet, bootstrap, hungarian, upsample_argmax,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Context;
use crate::config::Matching;
use crate::exit::usage;
use crate::stages::features::Projected;

/// Images scored at a time (the original's validation batch, which matters only for `scaler = "batch"`).
const SCORING_BATCH: usize = 8;

/// Confidence of the bootstrap interval.
const LEVEL: f64 = 0.95;

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Linear,
    Cluster,
}

impl Kind {
    /// The name used on the command line and in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cluster => "cluster",
        }
    }

    /// Reads a name.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        match word {
            "linear" => Ok(Self::Linear),
            "cluster" => Ok(Self::Cluster),
            _ => Err(usage(format!("unknown probe \"{word}\", expected linear or cluster"))),
        }
    }
}

/// Everything but the data that determines a probe's scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) steps: usize,
    pub(crate) batch_size: usize,
    pub(crate) learning_rate: f32,
    pub(crate) extra_clusters: usize,
    pub(crate) hungarian: Matching,
    pub(crate) bootstrap: usize,
}

/// A trained probe of either kind.
pub(crate) enum Trained {
    Linear(LinearProbe),
    Cluster(ClusterProbe),
}

impl Trained {
    fn as_probe(&self) -> &(dyn Probe + Sync) {
        match self {
            Self::Linear(probe) => probe,
            Self::Cluster(probe) => probe,
        }
    }

    /// Scores of classes or clusters, `[t, c]` or `[t, m]`, from the tokens `[t, k]` of one image.
    pub(crate) fn scores(&self, tokens: ndarray::ArrayView2<'_, f32>) -> Array2<f32> {
        self.as_probe().scores(tokens)
    }

    /// Predicted class or cluster per pixel, `[h, w]`, from the tokens `[t, k]` of one image.
    pub(crate) fn predict(
        &self,
        tokens: ndarray::ArrayView2<'_, f32>,
        grid: (usize, usize),
        size: (usize, usize),
    ) -> Array2<u8> {
        upsample_argmax(self.as_probe().scores(tokens).view(), grid, size)
    }
}

/// What one cell of a sweep found.
pub(crate) struct Scored {
    pub(crate) probe: Trained,
    /// `[c, c or m]` counts, row = truth.
    pub(crate) confusion: ConfusionMatrix,
    pub(crate) assignment: Option<Assignment>,
    pub(crate) scores: probe::Scores,
    pub(crate) miou_lo: f64,
    pub(crate) miou_hi: f64,
    pub(crate) wall_s: f64,
}

/// Trains one probe on `train` and scores it on `val`.
///
/// # Errors
/// If training diverges or data do not fit together, or on interruption.
pub(crate) fn run(
    kind: Kind,
    classes: usize,
    settings: &Settings,
    seed: u64,
    (train, val): (&Projected<'_>, &Projected<'_>),
    what: &str,
    context: &Context,
) -> Result<Scored> {
    let started = Instant::now();
    let probe = fit(kind, classes, settings, seed, train, what, context)?;
    let outputs = probe.as_probe().outputs();
    let per_image = confusions(&probe, val, classes, outputs, context)?;
    let confusion = total(&per_image, classes, outputs);
    let assignment = match (kind, settings.hungarian) {
        (Kind::Linear, _) => None,
        (Kind::Cluster, Matching::Eval) => Some(hungarian(&confusion)),
        (Kind::Cluster, Matching::Train) => {
            Some(hungarian(&total(&confusions(&probe, train, classes, outputs, context)?, classes, outputs)))
        }
    };
    let scores_of = |counts: &ConfusionMatrix| match &assignment {
        Some(assignment) => counts.matched(assignment).scores(),
        None => counts.scores(),
    };
    let scores = scores_of(&confusion);
    let interval = bootstrap(
        &by_image(per_image, val),
        |counts| scores_of(counts).mean_iou,
        settings.bootstrap,
        LEVEL,
        seed,
    );
    let wall_s = started.elapsed().as_secs_f64();
    Ok(Scored { probe, confusion, assignment, scores, miou_lo: interval.lo, miou_hi: interval.hi, wall_s })
}

fn fit(
    kind: Kind,
    classes: usize,
    settings: &Settings,
    seed: u64,
    train: &Projected<'_>,
    what: &str,
    context: &Context,
) -> Result<Trained> {
    let Settings { steps, batch_size, learning_rate, .. } = *settings;
    let schedule = Schedule { steps, batch_size, learning_rate, seed };
    let progress = context.reporter.start(what, steps as u64, "steps");
    let mut on_step = |_: Step| {
        progress.tick(1);
        if context.interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let fitted = match kind {
        Kind::Linear => LinearProbeParams { classes, schedule }.fit(train, &mut on_step).map(Trained::Linear),
        Kind::Cluster => {
            let clusters = classes + settings.extra_clusters;
            ClusterProbeParams { clusters, schedule }.fit(train, &mut on_step).map(Trained::Cluster)
        }
    };
    drop(progress);
    context.interrupt.check()?;
    fitted.with_context(|| format!("training {what}"))
}

/// One confusion matrix per image, in image order.
fn confusions(
    probe: &Trained,
    data: &Projected<'_>,
    classes: usize,
    outputs: usize,
    context: &Context,
) -> Result<Vec<ConfusionMatrix>> {
    let (grid, size) = (data.grid(), data.label_size());
    let mut all = Vec::with_capacity(data.len());
    for from in (0..data.len()).step_by(SCORING_BATCH) {
        context.interrupt.check()?;
        let to = (from + SCORING_BATCH).min(data.len());
        let batch = data.consecutive(from, to)?; // [b, t, k]
        let counted: Vec<_> = (batch.axis_iter(Axis(0)).into_par_iter().enumerate())
            .map(|(b, tokens)| {
                let predicted = probe.predict(tokens, grid, size);
                let mut counts = ConfusionMatrix::new(classes, outputs);
                counts.add(data.label(from + b), predicted.view()).map(|()| counts)
            })
            .collect::<probe::Result<_>>()
            .map_err(|e| anyhow!(e))?;
        all.extend(counted);
    }
    Ok(all)
}

/// Rows (crops) of one image together: resampling is over images, and crops of one overlap.
fn by_image(rows: Vec<ConfusionMatrix>, data: &Projected<'_>) -> Vec<ConfusionMatrix> {
    let mut images: Vec<ConfusionMatrix> = Vec::with_capacity(rows.len());
    for (i, row) in rows.into_iter().enumerate() {
        match images.last_mut() {
            Some(image) if data.image_id(i) == data.image_id(i - 1) => image.merge(&row),
            _ => images.push(row),
        }
    }
    images
}

fn total(per_image: &[ConfusionMatrix], classes: usize, outputs: usize) -> ConfusionMatrix {
    let mut sum = ConfusionMatrix::new(classes, outputs);
    per_image.iter().for_each(|counts| sum.merge(counts));
    sum
}
