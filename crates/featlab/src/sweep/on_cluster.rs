//! A sweep on a cluster: the driver's half, which gives out caches and groups of cells and puts together what comes back, and what
//! an executor makes of a sweep file.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use dimred::Reducer;
use featcache::Cache;

use super::reducers::Reducers;
use super::{Grid, Sweep, extract};
use crate::Context;
use crate::bench::{Bench, Cell, FailedCell, ReducerId};
use crate::cluster::{Cells, CellsOf, Cluster, WritingJob, paths};
use crate::config::SweepConfig;
use crate::exit::integrity;
use crate::records::write_atomically;
use crate::stages::features::Features;
use crate::stages::probe::Clock;
use crate::stages::reduce;
use crate::study::StageCost;
use crate::toml_file::TomlFile as _;

impl Sweep {
    /// The file with all that was set, and places that executors understand.
    fn for_executors(&self) -> Result<String> {
        let mut config = self.config.clone();
        let root = config.dataset.root.as_deref();
        config.dataset.root = root.map(|root| paths::root_of(&config.dataset.name, root));
        config.features.backbone = paths::backbone(&config.features.backbone);
        config.features.compare = Vec::new();
        config.how.cache = Some(paths::absolute(&self.root()));
        config.to_toml()
    }

    /// Writes a cache on the cluster; with the images that were computed.
    pub(super) fn extract_on(&self, cluster: &Cluster<'_>, job: &extract::Job<'_>) -> Result<(Cache, usize)> {
        let train = std::ptr::addr_eq(job.dataset, &*self.train);
        let what = format!("extract {}", job.split);
        let writing = WritingJob::Sweep { config: self.for_executors()?, train };
        let written = cluster.write(writing, &what, &self.store(job)?)?;
        if written.cache.manifest().key != job.key()? {
            return Err(integrity(format!(
                "executors see another data set, backbone or precision than this machine: their cache is {}, expected {}",
                written.cache.manifest().cache_id,
                job.key()?.fingerprint()
            )));
        }
        let context = cluster.context();
        for tombstone in &written.cache.manifest().skipped {
            context.reporter.warn(format!("skipped {}: {}", tombstone.image_id, tombstone.reason));
        }
        Ok((context.near(written.cache), written.computed))
    }

    /// Trains and scores the pending cells on the cluster.
    pub(super) fn probes_on(
        &self,
        cluster: &Cluster<'_>,
        grid: &Grid<'_>,
        reducers: &Reducers<'_>,
        costs: &mut Vec<StageCost>,
    ) -> Result<Vec<FailedCell>> {
        let of = CellsOf::Sweep { config: self.for_executors()? };
        let mut moments = None;
        let mut fit = |id: &ReducerId, cell: usize| -> Result<Option<Vec<u8>>> {
            let path = reducers.path(id)?;
            if !path.exists() {
                if reducers.is_trained(id) {
                    write_atomically(&path, &cluster.reducer(&of, cell)?)?;
                } else {
                    if moments.is_none() && reducers.linear(id)?.needs_moments() {
                        moments = Some(cluster.moments(reducers.cache)?);
                    }
                    let fitted = reducers.get(id, None, &mut moments)?;
                    if matches!(fitted, Reducer::Identity(_)) {
                        return Ok(None);
                    }
                }
            }
            let file = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            Ok(Some(file))
        };
        let clock = Clock::start();
        let cells = Cells { of: of.clone(), bench: grid.bench, all: grid.cells, pending: grid.pending };
        let failures = cluster.cells(&cells, &mut fit, grid.records)?;
        costs.push(clock.stop("train probes", format!("{} probes, on a cluster", grid.pending.len())));
        let cache_id = &reducers.cache.manifest().cache_id;
        if !self.is_other && self.geometry(cache_id).is_none() {
            write_atomically(&self.geometry_file(cache_id), &cluster.measure(&of)?)?;
        }
        Ok(failures)
    }

    /// A sweep file as an executor has it; what it writes beside its caches goes to `folder`.
    pub(crate) fn of_executor(config: &str, folder: PathBuf) -> Result<Self> {
        Self::open(SweepConfig::parse(config, &[])?, folder)
    }

    /// The extraction of one of the splits.
    pub(crate) fn split(&self, train: bool) -> Result<extract::Job<'_>> {
        let dataset = if train { &*self.train } else { &*self.val };
        self.job(dataset, train)
    }

    /// What an executor numbers cells by.
    pub(crate) fn bench_and_cells(&self) -> Result<(Bench, Vec<Cell>)> {
        let bench = self.bench(&self.split(true)?, &self.split(false)?)?;
        let cells = self.cells(bench.full_dim)?;
        Ok((bench, cells))
    }

    /// The two caches, which are there.
    pub(crate) fn caches(&self, context: &Context) -> Result<(Cache, Cache)> {
        let open =
            |train| -> Result<Cache> { Ok(context.near(Cache::open(self.store(&self.split(train)?)?)?)) };
        Ok((open(true)?, open(false)?))
    }

    /// Fits a reducer on features in memory; its file.
    pub(crate) fn reducer_file(
        &self,
        id: &ReducerId,
        train: &Features,
        context: &Context,
    ) -> Result<Vec<u8>> {
        let cache = train.cache();
        let reducer = Reducers { sweep: self, cache, context }.get(id, Some(train), &mut None)?;
        Ok(reducer.to_bytes(&reduce::Job::provenance(cache))?)
    }

    /// What is measured of features; its file.
    pub(crate) fn geometry_of(&self, train: &Features, context: &Context) -> Result<Vec<u8>> {
        self.measure(train, &mut None, context)?;
        let path = self.geometry_file(&train.cache().manifest().cache_id);
        std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }
}
