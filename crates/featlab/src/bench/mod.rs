//! Bench: two labelled caches (one to train on, one to score) and the grid of cells to be run on them.
//!
//! A [`Cell`] is one (method, dim, probe, seed), refined by a CRF or not. Its key hashes both cache ids, the reducer, the probe's
//! settings and the protocol, so a cell whose record exists is done. All cells that are not done are trained together, in one
//! bank; refined ones take the probes that their plain ones recorded. `sweep` and `probe` differ only in where their reducers
//! come from.

mod seen;

use std::path::Path;
use std::time::Instant;

use ::probe::BankCell;
use anyhow::{Context as _, Result};
use dataset::ClassTable;
use dimred::Reducer;
use featcache::Cache;
use serde::Serialize;

use seen::Seen;

use crate::Context;
use crate::config::Protocol;
use crate::exit::integrity;
use crate::records::{Records, key_of};
use crate::stages::crf;
use crate::stages::features::Features;
use crate::stages::probe::{self, Kind, Scored, Settings};
use crate::stages::sources::Sources;
use crate::study::{ClassScore, RunRecord, StageCost};

/// Raised when the meaning of a run record changes, so that old ones are computed again.
const RECORD_VERSION: u32 = 4;

/// What identifies a fitted reducer: enough to tell two reductions of one cache apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ReducerId {
    /// `none`, `pca`, `rp`, `rp-sparse`, `umap`, `hnne`.
    pub(crate) method: String,
    /// How it came about: scaler, seed and so on, or the hash of the reducer file.
    pub(crate) recipe: String,
    /// The seed of that, if it takes one.
    #[serde(skip)]
    pub(crate) seed: u64,
    /// The one dimension that it is fitted for, if it is.
    #[serde(skip)]
    pub(crate) dim: Option<usize>,
}

/// One probe on one projection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    pub(crate) reducer: ReducerId,
    pub(crate) dim: usize,
    pub(crate) probe: Kind,
    pub(crate) seed: u64,
    /// Whether a dense CRF refines its predictions.
    pub(crate) crf: bool,
}

/// What all cells have in common.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) dataset: String,
    pub(crate) split: String,
    pub(crate) backbone: String,
    pub(crate) train_id: String,
    pub(crate) val_id: String,
    pub(crate) classes: ClassTable,
    pub(crate) full_dim: usize,
    pub(crate) protocol: Protocol,
    pub(crate) settings: Settings,
    /// Bytes of projected training features that are kept in memory; changes no number.
    pub(crate) memory: usize,
}

/// What cells are run on.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) train: &'a Features,
    pub(crate) val: &'a Features,
    /// The pixels that the network saw of a scored image, by its id, `[h, w, 3]`. Only refined cells need them.
    pub(crate) pictures: Option<&'a crf::Pictures<'a>>,
}

/// A cell without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(crate) struct FailedCell {
    /// The cell in words.
    pub(crate) cell: String,
    /// Why.
    pub(crate) reason: String,
}

impl FailedCell {
    fn new(cell: &Cell, error: &anyhow::Error) -> Self {
        Self { cell: cell.name(), reason: crate::exit::one_line(error) }
    }
}

impl Cell {
    /// The cell in words.
    pub(crate) fn name(&self) -> String {
        let Self { reducer, dim, probe, seed, crf } = self;
        let crf = if *crf { " + crf" } else { "" };
        format!("{}{crf} {dim} {} seed {seed}", reducer.method, probe.name())
    }
}

impl Bench {
    /// The key of a cell's record.
    pub(crate) fn key(&self, cell: &Cell) -> Result<String> {
        key_of(&(
            RECORD_VERSION,
            (&self.train_id, &self.val_id, self.protocol),
            (&cell.reducer, cell.dim, cell.probe, cell.seed, cell.crf),
            self.settings.of(cell.probe),
        ))
    }

    /// The protocol as printed with every number.
    pub(crate) fn protocol_name(&self) -> String {
        match self.settings.hungarian {
            crate::config::Matching::Eval => self.protocol.to_string(),
            crate::config::Matching::Train => format!("{}, hungarian on train", self.protocol),
        }
    }

    /// Cells without a record.
    pub(crate) fn pending<'c>(&self, cells: &'c [Cell], records: &Records) -> Result<Vec<&'c Cell>> {
        let mut pending = Vec::new();
        for cell in cells {
            if records.get(&self.key(cell)?).is_none() {
                pending.push(cell);
            }
        }
        Ok(pending)
    }

    /// Trains and scores cells, asking `reducer` for each fitted reducer once, and records what came of them. Returns the cells
    /// that failed, with the reason; the others are not held up by them.
    ///
    /// # Errors
    /// If features cannot be read or do not belong together, or on interruption.
    pub(crate) fn run(
        &self,
        cells: &[&Cell],
        inputs: &Inputs<'_>,
        mut reducer: impl FnMut(&ReducerId) -> Result<Reducer>,
        records: &Records,
        costs: &mut Vec<StageCost>,
        context: &Context,
    ) -> Result<Vec<FailedCell>> {
        let Inputs { train, val, .. } = *inputs;
        self.check(train.cache(), val.cache())?;
        let mut failures = Vec::new();
        let clock = probe::Clock::start();
        let mut seen = Seen::default();
        for &cell in cells {
            if let Err(error) = seen.add(cell, cells, &mut reducer, self.settings.clusters(self.classes())) {
                context.interrupt.check()?;
                // A mistake of the user's and files that do not belong together are not a cell's own misfortune.
                if crate::exit::code(&error) != 1 {
                    return Err(error);
                }
                failures.push(FailedCell::new(cell, &error));
            }
        }
        let Seen { maps, cells: found, bank, .. } = seen;
        costs.push(clock.stop("fit reducers", format!("{} sources", maps.len())));
        let of_train = Sources::new(train, maps.clone(), self.memory);
        let of_val = Sources::new(val, maps, 0);
        let found: Vec<_> = found.into_iter().zip(bank).collect();
        let (refined, plain): (Vec<_>, Vec<_>) = found.into_iter().partition(|(cell, _)| cell.crf);
        self.train(&plain, (&of_train, &of_val), records, costs, &mut failures, context)?;
        self.refine(&refined, (&of_val, inputs), records, costs, &mut failures, context)?;
        Ok(failures)
    }

    /// Trains, scores and records plain cells.
    fn train(
        &self,
        cells: &[(Cell, (Kind, BankCell))],
        (train, val): (&Sources<'_>, &Sources<'_>),
        records: &Records,
        costs: &mut Vec<StageCost>,
        failures: &mut Vec<FailedCell>,
        context: &Context,
    ) -> Result<()> {
        if cells.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let bank: Vec<(Kind, BankCell)> = cells.iter().map(|(_, bank)| *bank).collect();
        let keys = cells.iter().map(|(cell, _)| self.key(cell)).collect::<Result<Vec<_>>>()?;
        let key = key_of(&keys)?;
        let state = records.bank(&key);
        let job = probe::Job {
            cells: &bank,
            classes: self.classes(),
            settings: &self.settings,
            state: (&state, &key),
        };
        let scored = job.run((train, val), costs, context)?;
        let wall_s = started.elapsed().as_secs_f64() / cells.len() as f64;
        for ((cell, _), scored) in cells.iter().zip(scored) {
            self.write(cell, scored, wall_s, records, failures, context)?;
        }
        // All it was for is recorded.
        let _ = std::fs::remove_file(state);
        Ok(())
    }

    /// Refines the predictions of recorded probes, scores and records that.
    fn refine(
        &self,
        cells: &[(Cell, (Kind, BankCell))],
        (val, inputs): (&Sources<'_>, &Inputs<'_>),
        records: &Records,
        costs: &mut Vec<StageCost>,
        failures: &mut Vec<FailedCell>,
        context: &Context,
    ) -> Result<()> {
        let (mut found, mut probes) = (Vec::new(), Vec::new());
        for (cell, bank) in cells {
            let plain = records.get(&self.key(&Cell { crf: false, ..cell.clone() })?);
            let weights = plain.with_context(|| "its plain probe has no result".to_owned());
            match weights.and_then(|plain| records.probe(&plain)) {
                Ok(probe) => {
                    found.push(cell);
                    probes.push((bank.0, bank.1, probe));
                }
                Err(error) => failures.push(FailedCell::new(cell, &error)),
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let clock = probe::Clock::start();
        let started = Instant::now();
        let pictures = inputs.pictures.context("a CRF needs the pictures of the scored images")?;
        let job = crf::Job { probes: &probes, classes: self.classes(), settings: &self.settings, pictures };
        let scored = job.run(val, context)?;
        costs.push(
            clock.stop("dense CRF", format!("{} probes, {} images", found.len(), val.features().len())),
        );
        let wall_s = started.elapsed().as_secs_f64() / found.len() as f64;
        for (cell, scored) in found.into_iter().zip(scored) {
            self.write(cell, Ok(scored), wall_s, records, failures, context)?;
        }
        Ok(())
    }

    /// Records one cell's result, or lists its failure.
    fn write(
        &self,
        cell: &Cell,
        scored: Result<Scored>,
        wall_s: f64,
        records: &Records,
        failures: &mut Vec<FailedCell>,
        context: &Context,
    ) -> Result<()> {
        let scored = match scored {
            Ok(scored) => scored,
            Err(error) => {
                failures.push(FailedCell::new(cell, &error));
                return Ok(());
            }
        };
        let record = self.record(cell, &scored, wall_s)?;
        let put = records.put(&record, scored.probe.as_ref(), &scored.per_image);
        put.with_context(|| format!("recording {}", cell.name()))?;
        self.announce(cell, &record, context);
        Ok(())
    }

    /// Says how a cell scored.
    pub(crate) fn announce(&self, cell: &Cell, record: &RunRecord, context: &Context) {
        context.reporter.say(format!(
            "{:32} mIoU {:5.2} %  accuracy {:5.2} %",
            cell.name(),
            100.0 * record.miou,
            100.0 * record.accuracy,
        ));
    }

    /// Number of classes `c`.
    fn classes(&self) -> usize {
        self.classes.names.len()
    }

    fn check(&self, train: &Cache, val: &Cache) -> Result<()> {
        let (a, b) = (&train.manifest().key, &val.manifest().key);
        if (&a.checkpoint_sha256, a.layer, &a.facet) != (&b.checkpoint_sha256, b.layer, &b.facet) {
            return Err(integrity(format!(
                "the two caches hold different features: {} of checkpoint {}, block {} {}, and {} of checkpoint {}, block {} {}",
                a.architecture,
                a.checkpoint_sha256,
                a.layer,
                a.facet,
                b.architecture,
                b.checkpoint_sha256,
                b.layer,
                b.facet
            )));
        }
        Ok(())
    }

    fn record(&self, cell: &Cell, scored: &Scored, wall_s: f64) -> Result<RunRecord> {
        let counts = scored.confusion.counts();
        let per_class = (self.classes.names.iter().enumerate())
            .map(|(c, name)| ClassScore {
                name: name.clone(),
                iou: scored.scores.per_class_iou.get(c).copied().flatten(),
                pixels: counts.row(c).sum(),
            })
            .collect();
        Ok(RunRecord {
            key: self.key(cell)?,
            dataset: self.dataset.clone(),
            split: self.split.clone(),
            backbone: self.backbone.clone(),
            cache_id: self.val_id.clone(),
            train_cache_id: self.train_id.clone(),
            method: cell.reducer.method.clone(),
            dim: cell.dim,
            probe: cell.probe.name().to_owned(),
            seed: cell.seed,
            protocol: self.protocol_name(),
            crf: cell.crf,
            steps: self.settings.steps_of(cell.probe),
            miou: scored.scores.mean_iou,
            accuracy: scored.scores.accuracy,
            miou_lo: scored.interval.lo,
            miou_hi: scored.interval.hi,
            wall_s,
            per_class,
            class_of_cluster: scored.assignment.as_ref().map(|a| a.class_of_cluster.clone()),
            confusion: counts.outer_iter().map(|row| row.to_vec()).collect(),
            boundary_iou: scored.boundary_iou,
            majority: scored.majority,
        })
    }
}

/// Writes the tables and the report of a study below `out`, and `study.json` for `featlab report`.
pub(crate) fn publish(study: &crate::study::Study, out: &Path) -> Result<std::path::PathBuf> {
    crate::records::write_atomically(&out.join("study.json"), &serde_json::to_vec_pretty(study)?)?;
    crate::report::write_all(study, out)
}
