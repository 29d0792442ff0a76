//! Sweep: a configuration file to a finished study, computing only what is not there yet.
//!
//! Straight line: extract both splits → fit each reducer once → run every cell of the grid → pictures → report.
//! Everything lives below one folder: `features/` (caches), `projections/` (reducers), `runs/` (records), `figures/`,
//! `results.*`, `report.html`, `config.toml`. Killing the process loses at most the shard or the probe in work.

mod comparisons;
mod cost;
mod geometry;
mod grid;
mod jobs;
#[cfg(feature = "cluster")]
mod on_cluster;
mod plan;
mod reducers;
mod study;

pub(crate) use plan::Plan;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use backbone::{LoadOptions, Loaded, Origin, Precision};
use dataset::{Dataset, Split};
use featcache::Cache;

use reducers::Reducers;

use crate::Context;
use crate::bench::{Bench, Cell, FailedCell, Inputs, ReducerId, publish};
use crate::config::SweepConfig;
use crate::exit::{Status, usage};
use crate::progress::duration;
use crate::records::{Records, check_local, write_atomically};
use crate::sources;
use crate::stages::features::Features;
use crate::stages::probe::Clock;
use crate::stages::{extract, gallery};
use crate::study::{RunRecord, StageCost, Study};
use crate::toml_file::TomlFile as _;

/// A configuration with everything looked up that does not need computing.
pub(crate) struct Sweep {
    config: SweepConfig,
    out: PathBuf,
    train: Box<dyn Dataset>,
    val: Box<dyn Dataset>,
    backbone: Loaded,
    device: candle_core::Device,
    /// The same with `features.compare_methods`, of each backbone to compare with.
    others: Vec<Self>,
    /// Whether this is one of those.
    is_other: bool,
}

/// What there is to be trained and scored.
struct Grid<'a> {
    bench: &'a Bench,
    /// All cells of the sweep.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "executors know cells by their place among all")
    )]
    cells: &'a [Cell],
    /// Those without a record.
    pending: &'a [&'a Cell],
    records: &'a Records,
}

/// A finished sweep.
pub(crate) struct Finished {
    pub(crate) study: Study,
    pub(crate) report: PathBuf,
    pub(crate) status: Status,
    /// Cells without a result.
    pub(crate) failures: Vec<FailedCell>,
}

impl Sweep {
    /// Opens data sets and backbone.
    ///
    /// # Errors
    /// If one of them cannot be found or does not fit the configuration.
    pub(crate) fn open(config: SweepConfig, out: PathBuf) -> Result<Self> {
        check_local(&out)?;
        let spec = config.dataset.spec();
        let open = |split: &str| -> Result<Box<dyn Dataset>> {
            let split: Split = split.parse().map_err(|e| usage(format!("{e}")))?;
            sources::open(&spec, split)
        };
        let (train, val) = (open(&config.dataset.train_split)?, open(&config.dataset.val_split)?);
        if train.classes().is_none() {
            return Err(usage(format!("data set {} has no labels; a sweep needs them", config.dataset.name)));
        }
        let device = backbone::device(&config.how.device)?;
        let precision = Precision::of(&config.features.precision, &device)?;
        let options = LoadOptions { num_heads: config.features.num_heads, device: device.clone(), precision };
        let backbone = backbone::load(&config.features.backbone, &options)
            .with_context(|| format!("backbone {}", config.features.backbone))?;
        let others = config.features.compare.iter().map(|name| {
            let mut other = config.clone();
            (other.features.backbone, other.features.compare) = (name.clone(), Vec::new());
            other.reduce.methods = config.features.compare_methods.clone();
            let opened = Self::open(other, out.clone()).context("features.compare")?;
            Ok::<_, anyhow::Error>(Self { is_other: true, ..opened })
        });
        let others = others.collect::<Result<_>>()?;
        Ok(Self { config, out, train, val, backbone, device, others, is_other: false })
    }

    /// The runs of a backbone that stands beside another one: features, then probes, what is missing of them.
    fn runs(&self, records: &Records, context: &Context) -> Result<(Vec<RunRecord>, Vec<FailedCell>)> {
        let (train_job, val_job) = self.jobs()?;
        let bench = self.bench(&train_job, &val_job)?;
        let cells = self.cells(bench.full_dim)?;
        let (train, _) = self.extract(&train_job, context)?;
        let (val, _) = self.extract(&val_job, context)?;
        let pending = bench.pending(&cells, records)?;
        let grid = Grid { bench: &bench, cells: &cells, pending: &pending, records };
        let (failures, _) = self.probes(&grid, (&train, &val), &mut Vec::new(), context)?;
        Ok((recorded(&bench, &cells, records)?, failures))
    }

    fn load(&self, train: &Cache, val: &Cache, context: &Context) -> Result<(Features, Features)> {
        let what = |split: &str| match self.is_other {
            true => format!("{split} features of {}", self.backbone.name),
            false => format!("{split} features"),
        };
        Ok((
            Features::load(train.clone(), &what("training"), context)?,
            Features::load(val.clone(), &what("validation"), context)?,
        ))
    }

    /// Trains and scores the cells that are pending, here or on a cluster; returns those that failed, and the scored features if
    /// they were read here.
    fn probes(
        &self,
        grid: &Grid<'_>,
        (train, val): (&Cache, &Cache),
        costs: &mut Vec<StageCost>,
        context: &Context,
    ) -> Result<(Vec<FailedCell>, Option<Features>)> {
        if grid.pending.is_empty() {
            return Ok((Vec::new(), None));
        }
        let reducers = Reducers { sweep: self, cache: train, context };
        #[cfg(feature = "cluster")]
        if let Some(cluster) = crate::cluster::Cluster::of(context)? {
            return Ok((self.probes_on(&cluster, grid, &reducers, costs)?, None));
        }
        let clock = Clock::start();
        let loaded = self.load(train, val, context)?;
        let bytes_read = loaded.0.bytes() + loaded.1.bytes();
        let detail = format!("{} + {} images, once for all probes", loaded.0.len(), loaded.1.len());
        costs.push(StageCost { bytes_read, ..clock.stop("read features", detail) });
        let failures = self.probes_here(grid, &loaded, &reducers, costs)?;
        Ok((failures, Some(loaded.1)))
    }

    /// Trains and scores cells on features that have been read; reducers are fitted on the same rows.
    fn probes_here(
        &self,
        grid: &Grid<'_>,
        (train, val): &(Features, Features),
        reducers: &Reducers<'_>,
        costs: &mut Vec<StageCost>,
    ) -> Result<Vec<FailedCell>> {
        let mut moments = None;
        let fit = |id: &ReducerId| reducers.get(id, Some(train), &mut moments);
        let pictures = |id: &str| self.picture(id);
        let inputs = Inputs { train, val, pictures: Some(&pictures) };
        let failures = grid.bench.run(grid.pending, &inputs, fit, grid.records, costs, reducers.context)?;
        if !self.is_other {
            let clock = Clock::start();
            self.measure(train, &mut moments, reducers.context)?;
            costs.push(clock.stop("measure features", "spectrum, intrinsic dimension".to_owned()));
        }
        Ok(failures)
    }

    /// Computes what is missing and writes the report.
    ///
    /// # Errors
    /// See the stages; on interruption everything finished so far is kept.
    pub(crate) fn run(&self, context: &Context) -> Result<Finished> {
        let started = std::time::Instant::now();
        let config_toml = self.config.to_toml()?;
        write_atomically(&self.out.join("config.toml"), config_toml.as_bytes())?;
        self.announce(context);

        let (train_job, val_job) = self.jobs()?;
        let bench = self.bench(&train_job, &val_job)?;
        let cells = self.cells(bench.full_dim)?;
        let mut costs = Vec::new();
        let clock = Clock::start();
        let (train, train_images) = self.extract(&train_job, context)?;
        let (val, val_images) = self.extract(&val_job, context)?;
        costs.push(clock.stop("extract", format!("{} images", train_images + val_images)));

        let records = Records::new(&self.out);
        let pending = bench.pending(&cells, &records)?;
        let reducers = Reducers { sweep: self, cache: &train, context };
        let grid = Grid { bench: &bench, cells: &cells, pending: &pending, records: &records };
        let (mut failures, features) = self.probes(&grid, (&train, &val), &mut costs, context)?;
        let mut runs = recorded(&bench, &cells, &records)?;
        let gallery = gallery::Job {
            out: &self.out,
            records: &records,
            runs: &runs,
            classes: &bench.classes,
            dataset: &*self.val,
            transform: &val_job.forward.transform,
            pictures: self.config.eval.gallery,
            pca: reducers.pca()?,
        };
        let gallery = gallery.run(features, &val, context)?;
        for other in &self.others {
            let (found, failed) = other.runs(&records, context)?;
            runs.extend(found);
            failures.extend(failed);
        }
        let mut study = self.study(&bench, runs, gallery, (&train, &val), &reducers, config_toml)?;
        let before = std::fs::read(self.out.join("study.json")).ok();
        let before: Option<Study> = before.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        study.comparisons = self.compared(&study.runs, &records, before.as_ref())?;
        let wall_s = started.elapsed().as_secs_f64();
        study::account(&mut study, costs, (pending.len(), wall_s), before, context);
        let report = publish(&study, &self.out)?;

        let computed = train_images + val_images;
        context.reporter.say(if computed == 0 && pending.is_empty() {
            format!(
                "nothing to compute: features of {} images and {} probes are there",
                study.images.0 + study.images.1,
                cells.len()
            )
        } else {
            format!(
                "computed features of {computed} images and {} probes in {}",
                pending.len(),
                duration(started.elapsed().as_secs_f64())
            )
        });
        for FailedCell { cell, reason } in &failures {
            context.reporter.warn(format!("no result for {cell}: {reason}"));
        }
        let status = match (failures.is_empty(), study.skipped.is_empty()) {
            (false, _) => Status::Incomplete,
            (true, false) => Status::Skipped,
            (true, true) => Status::Done,
        };
        Ok(Finished { study, report, status, failures })
    }

    fn announce(&self, context: &Context) {
        let spec = self.backbone.backbone.spec();
        context.reporter.say(format!(
            "{}: {} {} + {} images, {} ({} d, patch {})",
            self.config.name,
            self.config.dataset.name,
            self.train.len(),
            self.val.len(),
            self.backbone.name,
            spec.embed_dim,
            spec.patch_size
        ));
        for note in self.notes() {
            context.reporter.say(format!("note: {note}"));
        }
        for problem in self.train.problems().iter().chain(self.val.problems()) {
            context.reporter.warn(format!("skipped {}: {}", problem.id, problem.reason));
        }
    }

    fn notes(&self) -> Vec<String> {
        match &self.backbone.origin {
            Origin::Random { seed } => vec![format!(
                "the backbone has seeded random weights (seed {seed}), it was never trained: the numbers show that \
                 the line works, not what DINO features can do"
            )],
            Origin::Embedded => vec![
                "the backbone is the one carried inside: trained on drawn scenes, it knows nothing of photographs"
                    .to_owned(),
            ],
            _ => self.backbone.note.clone(),
        }
    }

    fn extract(&self, job: &extract::Job<'_>, context: &Context) -> Result<(Cache, usize)> {
        #[cfg(feature = "cluster")]
        if let Some(cluster) = crate::cluster::Cluster::of(context)? {
            return self.extract_on(&cluster, job);
        }
        match job.run(self.store(job)?, context)? {
            extract::Outcome::Complete { cache, computed } => {
                for tombstone in &cache.manifest().skipped {
                    context.reporter.warn(format!("skipped {}: {}", tombstone.image_id, tombstone.reason));
                }
                Ok((context.near(cache), computed))
            }
            extract::Outcome::Waiting { missing, .. } => {
                anyhow::bail!(
                    "{missing} shards are missing although all were computed; another process may have removed them"
                )
            }
        }
    }
}

/// The records of the cells that have one, in order.
fn recorded(bench: &Bench, cells: &[Cell], records: &Records) -> Result<Vec<RunRecord>> {
    let keys = cells.iter().map(|cell| bench.key(cell)).collect::<Result<Vec<_>>>()?;
    Ok(keys.iter().filter_map(|key| records.get(key)).collect())
}

/// Default output folder of a sweep.
pub(crate) fn default_out(name: &str) -> PathBuf {
    Path::new("runs").join(name)
}
