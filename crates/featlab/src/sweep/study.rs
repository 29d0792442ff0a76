//! From the runs of a sweep to its study: what a report shows beside them.

use anyhow::Result;
use featcache::Cache;

use super::reducers::Reducers;
use super::{Sweep, comparisons};
use crate::Context;
use crate::bench::Bench;
use crate::records::Records;
use crate::study::{Comparison, GalleryItem, RunRecord, StageCost, Study, VarianceCurve};

impl Sweep {
    /// Paired comparisons of a study's runs; those of the sweep before, if the runs are the same.
    pub(super) fn compared(
        &self,
        runs: &[RunRecord],
        records: &Records,
        before: Option<&Study>,
    ) -> Result<Vec<Comparison>> {
        let keys = |runs: &[RunRecord]| runs.iter().map(|run| run.key.clone()).collect::<Vec<_>>();
        let known = before.filter(|study| keys(runs) == keys(&study.runs) && !study.comparisons.is_empty());
        match known {
            Some(before) => Ok(before.comparisons.clone()),
            None => comparisons::comparisons(
                runs,
                records,
                (self.config.eval.interval, self.config.eval.bootstrap),
            ),
        }
    }

    /// The study of some runs, without comparisons and costs.
    ///
    /// # Errors
    /// If the PCA cannot be read.
    pub(super) fn study(
        &self,
        bench: &Bench,
        runs: Vec<RunRecord>,
        gallery: Vec<GalleryItem>,
        (train, val): (&Cache, &Cache),
        reducers: &Reducers<'_>,
        config: String,
    ) -> Result<Study> {
        let problems =
            self.train.problems().iter().chain(self.val.problems()).map(|p| (p.id.clone(), p.reason.clone()));
        let tombstones = [train, val].into_iter().flat_map(|cache| &cache.manifest().skipped);
        let skipped = problems.chain(tombstones.map(|t| (t.image_id.clone(), t.reason.clone()))).collect();
        let variance = reducers.pca()?.map(|pca| VarianceCurve {
            cumulative: pca
                .explained_variance_ratio()
                .iter()
                .scan(0.0, |sum, r| {
                    *sum += r;
                    Some(*sum)
                })
                .collect(),
            scaler: self.config.reduce.scaler.clone(),
        });
        Ok(Study {
            name: self.config.name.clone(),
            dataset: bench.dataset.clone(),
            backbone: bench.backbone.clone(),
            notes: self.notes(),
            classes: bench.classes.names.clone(),
            palette: bench.classes.palette.clone(),
            full_dim: bench.full_dim,
            images: (train.rows(), val.rows()),
            protocol: bench.protocol_name(),
            interval: self.config.eval.interval.name().to_owned(),
            skipped,
            runs,
            variance,
            gallery,
            config,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            versions: vec![
                ("instruction set".into(), kernels::Level::current().name().to_owned()),
                ("system".into(), format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
            ],
            geometry: self.geometry(&train.manifest().cache_id),
            ..Study::default()
        })
    }
}

/// Puts the costs of this run into the study, or those of the run before if nothing was computed, and says what was read.
pub(super) fn account(
    study: &mut Study,
    costs: Vec<StageCost>,
    (probes, wall_s): (usize, f64),
    before: Option<Study>,
    context: &Context,
) {
    if probes == 0 {
        if let Some(before) = before {
            (study.stages, study.wall_s) = (before.stages, before.wall_s);
        }
        return;
    }
    let read = match costs.iter().map(|cost| cost.bytes_read).sum::<u64>() {
        0 => "features read by executors".to_owned(),
        bytes => format!("one pass, {:.1} MB of features read", bytes as f64 / 1e6),
    };
    let each: String = seconds_by_stage(&costs).map(|(name, s)| format!("{name} {s:.1} s, ")).collect();
    context.reporter.say(format!("{probes} probes, {read}: {each}in all {wall_s:.1} s"));
    (study.stages, study.wall_s) = (costs, Some(wall_s));
}

/// What each stage took, however often it came, in the order in which they began.
fn seconds_by_stage(costs: &[StageCost]) -> impl Iterator<Item = (&str, f64)> {
    let mut stages: Vec<(&str, f64)> = Vec::new();
    for cost in costs {
        match stages.iter_mut().find(|(name, _)| *name == cost.name) {
            Some((_, seconds)) => *seconds += cost.wall_s,
            None => stages.push((&cost.name, cost.wall_s)),
        }
    }
    stages.into_iter()
}
