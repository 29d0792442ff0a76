//! Bench: two labelled caches (one to train on, one to score) and the grid of cells to be run on them.
//!
//! A [`Cell`] is one (method, dim, probe, seed). Its key hashes both cache ids, the reducer, the probe's settings and the
//! protocol, so a cell whose record exists is done. Cells that share a projection run together, and each is recorded
//! the moment it is scored. `sweep` and `probe` differ only in where their reducers come from.

use std::path::Path;

use anyhow::{Context as _, Result};
use dataset::ClassTable;
use dimred::Reducer;
use featcache::Cache;
use serde::Serialize;

use crate::Context;
use crate::config::Protocol;
use crate::exit::{integrity, usage};
use crate::records::{Records, key_of};
use crate::stages::features::{Features, Projected};
use crate::stages::probe::{self, Kind, Scored, Settings};
use crate::study::{ClassScore, RunRecord};

/// Raised when the meaning of a run record changes, so that old ones are computed again.
const RECORD_VERSION: u32 = 1;

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

    /// Runs cells, asking `reducer` for each fitted reducer once, and records every result at once.
    pub(crate) fn run(
        &self,
        cells: &[&Cell],
        (train, val): (&Features, &Features),
        mut reducer: impl FnMut(&ReducerId) -> Result<Reducer>,
        records: &Records,
        context: &Context,
    ) -> Result<()> {
        self.check(train.cache(), val.cache())?;
        let mut at = 0;
        let mut fitted: Option<(ReducerId, Reducer)> = None;
        while at < cells.len() {
            let first = cells[at];
            let together =
                cells[at..].iter().take_while(|c| c.reducer == first.reducer && c.dim == first.dim).count();
            if fitted.as_ref().is_none_or(|(id, _)| *id != first.reducer) {
                fitted = Some((first.reducer.clone(), reducer(&first.reducer)?));
            }
            let map = match &fitted {
                Some((_, Reducer::Identity(_))) | None => None,
                Some((_, reducer)) => Some(reducer.at(first.dim).map_err(|e| usage(e.to_string()))?),
            };
            let projected = (train.project(map.as_ref())?, val.project(map.as_ref())?);
            for cell in &cells[at..at + together] {
                self.run_cell(cell, (&projected.0, &projected.1), records, context)?;
            }
            at += together;
        }
        Ok(())
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

    fn run_cell(
        &self,
        cell: &Cell,
        projected: (&Projected<'_>, &Projected<'_>),
        records: &Records,
        context: &Context,
    ) -> Result<()> {
        let Cell { reducer, dim, probe, seed } = cell;
        let what = format!("{} {dim} {} seed {seed}", reducer.method, probe.name());
        let scored =
            probe::run(*probe, self.classes.names.len(), &self.settings, *seed, projected, &what, context)?;
        let record = self.record(cell, &scored)?;
        records.put(&record, &scored.probe).with_context(|| format!("recording {what}"))?;
        context.reporter.say(format!(
            "{what:32} mIoU {:5.2} %  accuracy {:5.2} %  {:.1} s",
            100.0 * record.miou,
            100.0 * record.accuracy,
            record.wall_s
        ));
        Ok(())
    }

    fn record(&self, cell: &Cell, scored: &Scored) -> Result<RunRecord> {
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
            wall_s: scored.wall_s,
            per_class,
            class_of_cluster: scored.assignment.as_ref().map(|a| a.class_of_cluster.clone()),
            confusion: counts.outer_iter().map(|row| row.to_vec()).collect(),
            ..RunRecord::default()
        })
    }
}

/// Writes the tables and the report of a study below `out`, and `study.json` for `featlab report`.
pub(crate) fn publish(study: &crate::study::Study, out: &Path) -> Result<std::path::PathBuf> {
    crate::records::write_atomically(&out.join("study.json"), &serde_json::to_vec_pretty(study)?)?;
    crate::report::write_all(study, out)
}
