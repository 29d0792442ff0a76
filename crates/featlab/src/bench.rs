//! Bench: two labelled caches (one to train on, one to score) and the grid of cells to be run on them.
//!
//! A [`Cell`] is one (method, dim, probe, seed). Its key hashes both cache ids, the reducer, the probe's settings and the
//! protocol, so a cell whose record exists is done. All cells that are not done are trained together, in one bank. `sweep` and
//! `probe` differ only in where their reducers come from.

use std::path::Path;
use std::time::Instant;

use ::probe::{BankCell, CellKind};
use anyhow::{Context as _, Result};
use dataset::ClassTable;
use dimred::{Map, Reducer};
use featcache::Cache;
use serde::Serialize;

use crate::Context;
use crate::config::Protocol;
use crate::exit::{integrity, usage};
use crate::records::{Records, key_of};
use crate::stages::features::Features;
use crate::stages::probe::{self, Kind, Scored, Settings};
use crate::stages::sources::Sources;
use crate::study::{ClassScore, RunRecord, StageCost};

/// Raised when the meaning of a run record changes, so that old ones are computed again.
const RECORD_VERSION: u32 = 2;

/// What identifies a fitted reducer: enough to tell two reductions of one cache apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ReducerId {
    /// `none`, `pca`, `rp`, `rp-sparse`.
    pub(crate) method: String,
    /// How it came about: scaler and seed, or the hash of the reducer file.
    pub(crate) recipe: String,
}

/// One probe on one projection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    pub(crate) reducer: ReducerId,
    pub(crate) dim: usize,
    pub(crate) probe: Kind,
    pub(crate) seed: u64,
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

/// A cell without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
        let Self { reducer, dim, probe, seed } = self;
        format!("{} {dim} {} seed {seed}", reducer.method, probe.name())
    }
}

/// A reducer that was asked for.
struct Fitted {
    id: ReducerId,
    /// What it is and which source shows it, or why there is none.
    found: Result<(Reducer, usize), String>,
}

/// The reducers that cells need, as sources of a bank, and the cells as the bank knows them.
#[derive(Default)]
struct Seen {
    reducers: Vec<Fitted>,
    maps: Vec<Option<Map>>,
    cells: Vec<Cell>,
    bank: Vec<BankCell>,
}

impl Seen {
    /// Adds a cell; its reducer is fitted when it is the first to need it.
    fn add(
        &mut self,
        cell: &Cell,
        all: &[&Cell],
        fit: &mut impl FnMut(&ReducerId) -> Result<Reducer>,
        outputs: (usize, usize),
    ) -> Result<()> {
        let known = self.reducers.iter().position(|fitted| fitted.id == cell.reducer);
        let at = match known {
            Some(at) => at,
            None => {
                let fitted = fit(&cell.reducer).and_then(|reducer| {
                    let map = widest(&reducer, &cell.reducer, all)?;
                    Ok((reducer, map))
                });
                let (found, error) = match fitted {
                    Ok((reducer, map)) => {
                        self.maps.push(map);
                        (Ok((reducer, self.maps.len() - 1)), None)
                    }
                    Err(error) => (Err(crate::exit::one_line(&error)), Some(error)),
                };
                self.reducers.push(Fitted { id: cell.reducer.clone(), found });
                if let Some(error) = error {
                    return Err(error);
                }
                self.reducers.len() - 1
            }
        };
        let (reducer, source) =
            self.reducers[at].found.as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))?;
        let kind = match cell.probe {
            Kind::Linear => CellKind::Linear,
            Kind::Cluster => CellKind::Cluster(outputs.1),
        };
        let scale = match reducer.prefix_scale(cell.dim) {
            Some(scale) => scale,
            None => {
                reducer.at(cell.dim).map_err(|e| usage(e.to_string()))?;
                1.0
            }
        };
        self.bank.push(BankCell { source: *source, dim: cell.dim, scale, kind, seed: cell.seed });
        self.cells.push(cell.clone());
        Ok(())
    }
}

/// A reducer at the most dimensions that any cell asks of it. Where dimensions nest, the numbers are those of the reducer's
/// widest map, so that they do not depend on which cells there are.
fn widest(reducer: &Reducer, id: &ReducerId, cells: &[&Cell]) -> Result<Option<Map>> {
    if matches!(reducer, Reducer::Identity(_)) {
        return Ok(None);
    }
    let most = cells.iter().filter(|cell| cell.reducer == *id).map(|cell| cell.dim).max().unwrap_or(1);
    let map = reducer.at(most).map_err(|e| usage(e.to_string()))?;
    let nested = reducer.prefix_scale(most).is_some();
    let widest = reducer.at(reducer.max_dim())?;
    Ok(Some(match widest.affine() {
        Some(affine) if nested => Map::Affine(affine.first(most)),
        _ => map,
    }))
}

impl Bench {
    /// The key of a cell's record.
    pub(crate) fn key(&self, cell: &Cell) -> Result<String> {
        key_of(&(
            RECORD_VERSION,
            (&self.train_id, &self.val_id, self.protocol),
            (&cell.reducer, cell.dim, cell.probe, cell.seed),
            &self.settings,
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
        (train, val): (&Features, &Features),
        mut reducer: impl FnMut(&ReducerId) -> Result<Reducer>,
        records: &Records,
        costs: &mut Vec<StageCost>,
        context: &Context,
    ) -> Result<Vec<FailedCell>> {
        self.check(train.cache(), val.cache())?;
        let started = Instant::now();
        let mut failures = Vec::new();
        let clock = probe::Clock::start();
        let mut seen = Seen::default();
        let classes = self.classes.names.len();
        let outputs = (classes, classes + self.settings.extra_clusters);
        for &cell in cells {
            if let Err(error) = seen.add(cell, cells, &mut reducer, outputs) {
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
        if bank.is_empty() {
            return Ok(failures);
        }
        let keys = found.iter().map(|cell| self.key(cell)).collect::<Result<Vec<_>>>()?;
        let key = key_of(&keys)?;
        let state = records.bank(&key);
        let job = probe::Job { cells: &bank, classes, settings: &self.settings, state: (&state, &key) };
        let of_train = Sources::new(train, maps.clone(), self.memory);
        let of_val = Sources::new(val, maps, 0);
        let scored = job.run((&of_train, &of_val), costs, context)?;
        let wall_s = started.elapsed().as_secs_f64() / found.len() as f64;
        for (cell, scored) in found.iter().zip(scored) {
            match scored {
                Ok(scored) => {
                    let record = self.record(cell, &scored, wall_s)?;
                    records
                        .put(&record, &scored.probe)
                        .with_context(|| format!("recording {}", cell.name()))?;
                    context.reporter.say(format!(
                        "{:32} mIoU {:5.2} %  accuracy {:5.2} %",
                        cell.name(),
                        100.0 * record.miou,
                        100.0 * record.accuracy,
                    ));
                }
                Err(error) => failures.push(FailedCell::new(cell, &error)),
            }
        }
        // All it was for is recorded.
        let _ = std::fs::remove_file(state);
        Ok(failures)
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
            crf: false,
            steps: self.settings.steps,
            miou: scored.scores.mean_iou,
            accuracy: scored.scores.accuracy,
            miou_lo: scored.miou_lo,
            miou_hi: scored.miou_hi,
            wall_s,
            per_class,
            class_of_cluster: scored.assignment.as_ref().map(|a| a.class_of_cluster.clone()),
            confusion: counts.outer_iter().map(|row| row.to_vec()).collect(),
            majority: scored.majority,
            ..RunRecord::default()
        })
    }
}

/// Writes the tables and the report of a study below `out`, and `study.json` for `featlab report`.
pub(crate) fn publish(study: &crate::study::Study, out: &Path) -> Result<std::path::PathBuf> {
    crate::records::write_atomically(&out.join("study.json"), &serde_json::to_vec_pretty(study)?)?;
    crate::report::write_all(study, out)
}
