//! Probe: all cells of a study trained together and scored in one pass: rows of the results.
//!
//! Probes that take gradient steps are trained in one bank, the others from sums and samples of one more pass. Predictions at
//! label resolution come from upsampled *scores*; for linear and cluster probes this equals the original's evaluation,
//! which upsamples features (a bilinear map commutes with the linear probe, and a positive scale does not move the
//! cluster probe's argmax).
//!
//! A bank in training is written down every so often, so that a kill costs a minute and not the whole bank.

mod closed_form;
mod kind;
mod outcome;
mod settings;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use ndarray::{Array2, s};
use probe::{
    Bank, BankBatch, BankCell, BankParams, BankProbe, BankScorer, BankSet, ConfusionMatrix, KnnGallery,
    KnnVote, Probe as _, upsample_argmax,
};
use rayon::prelude::*;

pub(crate) use closed_form::rows;
pub(crate) use kind::Kind;
pub(crate) use outcome::{ImageCounts, Scored, by_image};
pub(crate) use settings::{ClassWeights, ClosedForm, IntervalMethod, Settings};

use super::bank_file;
use crate::Context;
use crate::config::Matching;
use crate::stages::sources::Sources;
use crate::study::StageCost;

/// Images scored at a time (the original's validation batch, which matters only for `scaler = "batch"`).
const SCORING_BATCH: usize = 8;

/// Time between two states of a bank on disk.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// A trained probe.
pub(crate) enum Trained {
    /// Scores that are linear in the tokens, or cosines with centres.
    Weights(BankProbe),
    /// Labelled tokens, of which the nearest vote.
    Neighbours(KnnGallery),
}

impl Trained {
    fn outputs(&self, classes: usize) -> usize {
        match self {
            Self::Weights(probe) => probe.outputs(),
            Self::Neighbours(_) => classes,
        }
    }

    fn weights(self) -> Option<BankProbe> {
        match self {
            Self::Weights(probe) => Some(probe),
            Self::Neighbours(_) => None,
        }
    }
}

/// A probe, what was counted in every image, and the counts that its clusters are named by.
type Part = ((Result<Trained>, Option<Vec<ImageCounts>>), Option<ConfusionMatrix>);

/// What is trained and scored together.
pub(crate) struct Job<'a> {
    pub(crate) cells: &'a [(Kind, BankCell)],
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
        let sound = |keep: fn(Kind) -> bool| -> Vec<(usize, &Trained)> {
            let probes = trained.iter().enumerate().filter_map(|(i, probe)| Some((i, probe.as_ref().ok()?)));
            probes.filter(|&(i, _)| keep(self.cells[i].0)).collect()
        };
        let mut scored: Vec<Option<Vec<ImageCounts>>> = vec![None; probes];
        for (i, images) in self.score(&sound(|_| true), val, "score", self.settings.boundary_iou, context)? {
            scored[i] = Some(images);
        }
        let mut matching: Vec<Option<ConfusionMatrix>> = vec![None; probes];
        if self.settings.hungarian == Matching::Train {
            let clusters = sound(Kind::is_unsupervised);
            for (i, images) in self.score(&clusters, train, "match on train", false, context)? {
                matching[i] = Some(outcome::total(images.iter().map(|image| &image.confusion)));
            }
        }
        let parts: Vec<_> = trained.into_iter().zip(scored).zip(matching).collect();
        let finish = |(&(kind, cell), ((probe, images), matching)): (&(Kind, BankCell), Part)| {
            let (probe, images) = (probe?, images.context("a trained probe is scored")?);
            let images = outcome::by_image(images, val);
            Ok(Scored::new(
                kind,
                &self.settings.resampling(cell.seed),
                probe.weights(),
                &images,
                matching.as_ref(),
            ))
        };
        let scored = self.cells.par_iter().zip(parts).map(finish).collect();
        costs.push(clock.stop("score probes", format!("{probes} probes, {} images", val.len())));
        Ok(scored)
    }

    fn train(&self, train: &Sources<'_>, context: &Context) -> Result<Vec<Result<Trained>>> {
        let class_weights = self.settings.class_weights.of(train, self.classes)?;
        let mut trained: Vec<Option<Result<Trained>>> = self.cells.iter().map(|_| None).collect();
        let stepped: Vec<usize> = (0..self.cells.len()).filter(|&i| self.cells[i].0.takes_steps()).collect();
        let cells: Vec<BankCell> = stepped.iter().map(|&i| self.cells[i].1).collect();
        for (i, probe) in stepped.into_iter().zip(self.bank(train, &cells, class_weights.clone(), context)?) {
            trained[i] = Some(probe.map(Trained::Weights).map_err(anyhow::Error::from));
        }
        let fit = closed_form::Fit {
            cells: self.cells,
            train,
            classes: self.classes,
            settings: self.settings,
            class_weights: &class_weights,
            context,
        };
        for (i, probe) in fit.run()? {
            trained[i] = Some(probe);
        }
        Ok(trained
            .into_iter()
            .map(|probe| probe.unwrap_or_else(|| Err(anyhow!("was not trained"))))
            .collect())
    }

    fn bank(
        &self,
        train: &Sources<'_>,
        cells: &[BankCell],
        class_weights: Vec<f32>,
        context: &Context,
    ) -> Result<Vec<probe::Result<BankProbe>>> {
        if cells.is_empty() {
            return Ok(Vec::new());
        }
        let (schedule, steps) = (self.settings.schedule(), self.settings.steps);
        let mut bank = Bank::new(BankParams { schedule, class_weights }, train, cells)?;
        let (path, key) = self.state;
        if let Some(state) = bank_file::read(path, key)
            && bank.restore(&state).is_ok()
            && bank.step() > 0
        {
            context
                .reporter
                .say(format!("goes on at step {} of {steps} of the probes' training", bank.step()));
        }
        let what = format!("train {} probes", cells.len());
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

    /// The counts of every image for each of some cells, in image order.
    fn score(
        &self,
        probes: &[(usize, &Trained)],
        data: &Sources<'_>,
        what: &str,
        boundary: bool,
        context: &Context,
    ) -> Result<Vec<(usize, Vec<ImageCounts>)>> {
        let scorer = Scorer::new(probes, self, data);
        let sizes: Vec<_> =
            probes.iter().map(|(_, probe)| (self.classes, probe.outputs(self.classes))).collect();
        let mut all: Vec<(usize, Vec<ImageCounts>)> =
            probes.iter().map(|&(i, _)| (i, Vec::with_capacity(data.len()))).collect();
        let progress = context.reporter.start(what, data.len() as u64, "images");
        for from in (0..data.len()).step_by(SCORING_BATCH) {
            context.interrupt.check()?;
            let indices: Vec<usize> = (from..(from + SCORING_BATCH).min(data.len())).collect();
            let batch = data.batch(&indices).map_err(|e| anyhow!(e))?;
            let image = |place: usize| -> Result<Vec<ImageCounts>> {
                let mut counts: Vec<_> = sizes.iter().map(|&size| ImageCounts::new(size, boundary)).collect();
                let truth = data.label(indices[place]);
                let mut failed = None;
                scorer.image(&*batch, place, &mut |at, predicted| {
                    failed = counts[at].add(truth, &predicted).err().or(failed.take());
                })?;
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
}

/// Trained probes, asked image by image.
struct Scorer<'a> {
    data: &'a Sources<'a>,
    /// Places of the probes that have weights.
    weighted: Vec<usize>,
    bank: BankScorer,
    /// Places of those that have neighbours.
    neighbours: Vec<(usize, BankCell, &'a KnnGallery)>,
    vote: (usize, f64),
}

impl<'a> Scorer<'a> {
    fn new(probes: &[(usize, &'a Trained)], job: &Job<'_>, data: &'a Sources<'a>) -> Self {
        let (mut weighted, mut cells, mut neighbours) = (Vec::new(), Vec::new(), Vec::new());
        for (at, &(i, probe)) in probes.iter().enumerate() {
            let cell = job.cells[i].1;
            match probe {
                Trained::Weights(probe) => {
                    weighted.push(at);
                    cells.push((cell, probe));
                }
                Trained::Neighbours(gallery) => neighbours.push((at, cell, gallery)),
            }
        }
        let closed = &job.settings.closed_form;
        Self {
            data,
            weighted,
            bank: BankScorer::new(&cells, job.classes),
            neighbours,
            vote: (closed.knn_k, closed.knn_temperature),
        }
    }

    /// Calls `visit(place, label map [h, w])` for every probe.
    fn image(
        &self,
        batch: &dyn BankBatch,
        place: usize,
        visit: &mut dyn FnMut(usize, Array2<u8>),
    ) -> Result<()> {
        let mut of_bank = |at: usize, predicted| visit(self.weighted[at], predicted);
        self.bank.image(self.data, batch, place, &mut of_bank).map_err(|e| anyhow!(e))?;
        for (at, cell, gallery) in &self.neighbours {
            let rows = closed_form::rows(self.data, batch, cell.source, place)?;
            let (k, temperature) = self.vote;
            let vote = KnnVote { ks: vec![k.min(gallery.len())], temperature };
            for votes in gallery.scores(&vote, rows.slice(s![.., ..cell.dim]))? {
                visit(*at, upsample_argmax(votes.view(), self.data.grid(), self.data.label_size()));
            }
        }
        Ok(())
    }
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
