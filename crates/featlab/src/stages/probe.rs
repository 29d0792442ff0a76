//! Probe: all cells of a study trained in one bank and scored in one pass: rows of the results.
//!
//! Predictions at label resolution come from upsampled *scores*; for both probes this equals the original's evaluation,
//! which upsamples features (a bilinear map commutes with the linear probe, and a positive scale does not move the
//! cluster probe's argmax). Intervals come from resampling images, with the cluster assignment held fixed.
//!
//! A bank in training is written down every so often, so that a kill costs a minute and not the whole bank.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use probe::{
    Assignment, Bank, BankCell, BankParams, BankProbe, BankScorer, BankSet, CellKind, ConfusionMatrix,
    Schedule, bootstrap, hungarian, majority,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bank_file;
use crate::Context;
use crate::config::Matching;
use crate::exit::usage;
use crate::stages::sources::Sources;
use crate::study::{Majority, StageCost};

/// Images scored at a time (the original's validation batch, which matters only for `scaler = "batch"`).
const SCORING_BATCH: usize = 8;

/// Confidence of the bootstrap interval.
const LEVEL: f64 = 0.95;

/// Time between two states of a bank on disk.
const SAVE_EVERY: Duration = Duration::from_secs(60);

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
    pub(crate) order_seed: u64,
    pub(crate) reset_step: Option<usize>,
    pub(crate) class_weights: ClassWeights,
    pub(crate) extra_clusters: usize,
    pub(crate) hungarian: Matching,
    pub(crate) bootstrap: usize,
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
    fn of(&self, train: &dyn BankSet, classes: usize) -> Result<Vec<f32>> {
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
    let count = |mut counts: Vec<u64>, i: usize| {
        train
            .label(i)
            .iter()
            .filter(|&&l| usize::from(l) < classes)
            .for_each(|&l| counts[usize::from(l)] += 1);
        counts
    };
    let counts = (0..train.len()).fold(vec![0_u64; classes], count);
    let (total, present) = (counts.iter().sum::<u64>(), counts.iter().filter(|&&n| n > 0).count());
    let weight = |&n: &u64| if n == 0 { 0.0 } else { (total as f64 / (present as f64 * n as f64)) as f32 };
    counts.iter().map(weight).collect()
}

/// A trained probe of either kind.
pub(crate) type Trained = BankProbe;

/// What one cell of a sweep found.
pub(crate) struct Scored {
    pub(crate) probe: Trained,
    /// `[c, c or m]` counts, row = truth.
    pub(crate) confusion: ConfusionMatrix,
    pub(crate) assignment: Option<Assignment>,
    /// Of clusters, scores when each is named after the class that has most of it.
    pub(crate) majority: Option<Majority>,
    pub(crate) scores: probe::Scores,
    pub(crate) miou_lo: f64,
    pub(crate) miou_hi: f64,
}

/// What is trained and scored together.
pub(crate) struct Job<'a> {
    pub(crate) cells: &'a [BankCell],
    pub(crate) classes: usize,
    pub(crate) settings: &'a Settings,
    /// Where the state of the training is kept, and the key that it must carry.
    pub(crate) state: (&'a Path, &'a str),
}

impl Job<'_> {
    /// Trains all cells on `train` and scores them on `val`. A cell that failed has an error of its own.
    ///
    /// # Errors
    /// If data cannot be read or do not fit together, or on interruption.
    pub(crate) fn run(
        &self,
        (train, val): (&Sources<'_>, &Sources<'_>),
        costs: &mut Vec<StageCost>,
        context: &Context,
    ) -> Result<Vec<Result<Scored>>> {
        let probes = self.cells.len();
        let clock = Clock::start();
        let trained = self.train(train, context)?;
        costs.push(clock.stop("train probes", format!("{probes} probes, {} steps", self.settings.steps)));
        let clock = Clock::start();
        let sound = |keep: fn(CellKind) -> bool| -> Vec<(usize, &BankProbe)> {
            let probes = trained.iter().enumerate().filter_map(|(i, probe)| Some((i, probe.as_ref().ok()?)));
            probes.filter(|&(i, _)| keep(self.cells[i].kind)).collect()
        };
        let mut scored = vec![None; trained.len()];
        for (i, images) in self.score(&sound(|_| true), val, "score", context)? {
            scored[i] = Some(images);
        }
        let mut matching = vec![None; trained.len()];
        if self.settings.hungarian == Matching::Train {
            let clusters = sound(|kind| kind != CellKind::Linear);
            for (i, images) in self.score(&clusters, train, "match on train", context)? {
                matching[i] = Some(total(&images));
            }
        }
        let parts: Vec<_> = trained.into_iter().zip(scored).zip(matching).collect();
        let finish = |(&cell, ((probe, images), matching)): (&BankCell, ((_, Option<Vec<_>>), _))| {
            let probe: BankProbe = Result::<_, probe::Error>::map_err(probe, anyhow::Error::from)?;
            let images = images.context("a trained probe is scored")?;
            Ok(self.scored(cell, probe, by_image(images, val), matching))
        };
        let scored = self.cells.par_iter().zip(parts).map(finish).collect();
        costs.push(clock.stop("score probes", format!("{probes} probes, {} images", val.len())));
        Ok(scored)
    }

    fn train(&self, train: &Sources<'_>, context: &Context) -> Result<Vec<probe::Result<BankProbe>>> {
        let Settings { steps, batch_size, learning_rate, order_seed, reset_step, .. } = *self.settings;
        let schedule = Schedule { steps, batch_size, learning_rate, order_seed, reset_step };
        let class_weights = self.settings.class_weights.of(train, self.classes)?;
        let mut bank = Bank::new(BankParams { schedule, class_weights }, train, self.cells)?;
        let (path, key) = self.state;
        if let Some(state) = bank_file::read(path, key)
            && bank.restore(&state).is_ok()
            && bank.step() > 0
        {
            context
                .reporter
                .say(format!("goes on at step {} of {steps} of the probes' training", bank.step()));
        }
        let what = format!("train {} probes", self.cells.len());
        let progress = context.reporter.start(&what, (steps - bank.step()) as u64, "steps");
        let mut saved = Instant::now();
        while bank.step() < steps && bank.is_alive() {
            let interrupted = context.interrupt.requested();
            if interrupted || saved.elapsed() > SAVE_EVERY {
                bank_file::write(path, key, &bank.state())?;
                saved = Instant::now();
            }
            if interrupted {
                break;
            }
            bank.advance().context("training probes")?;
            progress.tick(1);
        }
        drop(progress);
        context.interrupt.check()?;
        Ok(bank.finish())
    }

    /// One confusion matrix per image for each of some cells, in image order.
    fn score(
        &self,
        probes: &[(usize, &BankProbe)],
        data: &Sources<'_>,
        what: &str,
        context: &Context,
    ) -> Result<Vec<(usize, Vec<ConfusionMatrix>)>> {
        let cells: Vec<_> = probes.iter().map(|&(i, probe)| (self.cells[i], probe)).collect();
        let scorer = BankScorer::new(&cells, self.classes);
        let mut all: Vec<(usize, Vec<ConfusionMatrix>)> =
            probes.iter().map(|&(i, _)| (i, Vec::with_capacity(data.len()))).collect();
        let progress = context.reporter.start(what, data.len() as u64, "images");
        for from in (0..data.len()).step_by(SCORING_BATCH) {
            context.interrupt.check()?;
            let indices: Vec<usize> = (from..(from + SCORING_BATCH).min(data.len())).collect();
            let batch = data.batch(&indices).map_err(|e| anyhow!(e))?;
            let image = |place: usize| -> Result<Vec<ConfusionMatrix>> {
                let mut counts: Vec<_> = cells
                    .iter()
                    .map(|(_, probe)| ConfusionMatrix::new(self.classes, probe::Probe::outputs(*probe)))
                    .collect();
                let truth = data.label(indices[place]);
                let mut failed = None;
                let mut visit = |cell: usize, predicted: ndarray::Array2<u8>| {
                    failed = counts[cell].add(truth, predicted.view()).err().or(failed.take());
                };
                scorer.image(data, &*batch, place, &mut visit).map_err(|e| anyhow!(e))?;
                failed.map_or(Ok(counts), |error| Err(error.into()))
            };
            let images: Vec<_> = (0..indices.len()).into_par_iter().map(image).collect::<Result<_>>()?;
            for counts in images {
                all.iter_mut().zip(counts).for_each(|((_, all), counts)| all.push(counts));
                progress.tick(1);
            }
        }
        Ok(all)
    }

    /// Scores and interval from the counts of every image.
    fn scored(
        &self,
        cell: BankCell,
        probe: BankProbe,
        per_image: Vec<ConfusionMatrix>,
        matching: Option<ConfusionMatrix>,
    ) -> Scored {
        let confusion = total(&per_image);
        let assignment = match cell.kind {
            CellKind::Linear => None,
            CellKind::Cluster(_) => Some(hungarian(matching.as_ref().unwrap_or(&confusion))),
        };
        let scores_of = |counts: &ConfusionMatrix| match &assignment {
            Some(assignment) => counts.matched(assignment).scores(),
            None => counts.scores(),
        };
        let scores = scores_of(&confusion);
        let interval = bootstrap(
            &per_image,
            |counts| scores_of(counts).mean_iou,
            self.settings.bootstrap,
            LEVEL,
            cell.seed,
        );
        let majority = assignment.as_ref().map(|_| {
            let names = majority(matching.as_ref().unwrap_or(&confusion));
            Majority {
                miou: confusion.merged(&names).scores().mean_iou,
                coverage: covered(&confusion, &names),
            }
        });
        Scored { probe, confusion, assignment, majority, scores, miou_lo: interval.lo, miou_hi: interval.hi }
    }
}

/// Share of the classes that occur which some cluster is named after.
fn covered(counts: &ConfusionMatrix, names: &[Option<usize>]) -> f64 {
    let occurs = |&class: &usize| counts.counts().row(class).sum() > 0;
    let classes: Vec<usize> = (0..counts.classes()).filter(occurs).collect();
    let named = classes.iter().filter(|&&class| names.contains(&Some(class))).count();
    named as f64 / classes.len() as f64
}

/// Measures a stage that reads and writes nothing.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// What the stage cost.
    pub(crate) fn stop(self, name: &str, detail: String) -> StageCost {
        StageCost {
            name: name.into(),
            wall_s: self.0.elapsed().as_secs_f64(),
            detail,
            ..StageCost::default()
        }
    }
}

/// Rows (crops) of one image together: resampling is over images, and crops of one overlap.
fn by_image(rows: Vec<ConfusionMatrix>, data: &Sources<'_>) -> Vec<ConfusionMatrix> {
    let mut images: Vec<ConfusionMatrix> = Vec::with_capacity(rows.len());
    for (i, row) in rows.into_iter().enumerate() {
        match images.last_mut() {
            Some(image) if data.image_id(i) == data.image_id(i - 1) => image.merge(&row),
            _ => images.push(row),
        }
    }
    images
}

fn total(per_image: &[ConfusionMatrix]) -> ConfusionMatrix {
    let mut sum = per_image[0].clone();
    per_image[1..].iter().for_each(|counts| sum.merge(counts));
    sum
}
