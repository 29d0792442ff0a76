//! Caches that are written by many: extraction, projection, conversion.
//!
//! One executor begins or joins the cache, each shard is a unit, one executor commits what the units reported. A unit finds its shard
//! done if another executor, that was thought dead, was faster: shards are created conditionally, and there is one of each. A unit, which
//! may come late, deletes nothing and replaces nothing of a cache that was begun anew; `--overwrite` is the driver's.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use featcache::{Cache, Done, GoldenActivation, Manifest, Opened, Store, Writer};
use serde::{Deserialize, Serialize};

use super::{Cluster, Job, job::Step, paths, to_json};
use crate::Context;
use crate::cli::{ConvertArgs, ExtractArgs, ProjectArgs};
use crate::commands::{Extraction, projection};
use crate::exit::usage;
use crate::stages::reduce::features_name;
use crate::stages::reducer_file::ReducerFile;
use crate::sweep::Sweep;

/// Which cache is written, of what. Places are absolute.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum WritingJob {
    /// `featlab extract`.
    Extract {
        /// The command.
        args: Box<ExtractArgs>,
        /// Data set and backbone in the user's words, which the manifest keeps.
        said: (Option<String>, Option<String>),
    },
    /// One of the two caches of a sweep.
    Sweep {
        /// The file, with all that was set.
        config: String,
        /// Which split.
        train: bool,
    },
    /// `featlab cache project`.
    Project {
        /// The command.
        args: ProjectArgs,
        /// The reducer file, base64.
        reducer: String,
    },
    /// `featlab cache convert`.
    Convert(ConvertArgs),
}

/// What an executor finds when it begins.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    /// It is there already.
    complete: Option<Manifest>,
    /// Shards of the plan.
    shards: usize,
    /// Inputs that are left out because they cannot be listed.
    problems: usize,
}

/// A shard that is there.
#[derive(Serialize, Deserialize)]
struct Shard {
    done: Done,
    /// Whether this unit wrote it.
    computed: bool,
}

/// A cache that was written, and how much of it by this job.
pub(crate) struct Written {
    pub(crate) cache: Cache,
    /// Images that this job computed.
    pub(crate) computed: usize,
    /// Inputs that are left out because they cannot be listed.
    pub(crate) problems: usize,
}

impl WritingJob {
    /// An extraction with places that executors understand.
    pub(crate) fn extract(mut args: ExtractArgs) -> Result<Self> {
        if args.repair || args.task.is_some() {
            return Err(usage("--repair and --task are for one machine, not for --cluster"));
        }
        let said = (args.features.dataset.clone(), args.features.backbone.clone());
        args.out = paths::absolute(&args.out);
        args.features.dataset = args.features.dataset.as_deref().map(paths::dataset);
        args.features.backbone = args.features.backbone.as_deref().map(paths::backbone);
        Ok(Self::Extract { args: Box::new(args), said })
    }

    /// A projection; the reducer file goes along.
    pub(crate) fn project(mut args: ProjectArgs) -> Result<Self> {
        if args.repair {
            return Err(usage("--repair is for one machine, not for --cluster"));
        }
        let path = args.reducer.display();
        let bytes =
            std::fs::read(&args.reducer).map_err(|e| usage(format!("cannot read reducer {path}: {e}")))?;
        (args.url, args.out) = (paths::absolute(&args.url), paths::absolute(&args.out));
        Ok(Self::Project { args, reducer: BASE64.encode(bytes) })
    }

    /// A conversion.
    pub(crate) fn convert(mut args: ConvertArgs) -> Self {
        (args.url, args.out) = (paths::absolute(&args.url), paths::absolute(&args.out));
        Self::Convert(args)
    }

    /// Takes `overwrite` off: where it was set, the place that is to be emptied.
    fn overwrites(&mut self) -> Option<String> {
        match self {
            Self::Extract { args, .. } => std::mem::take(&mut args.overwrite).then(|| args.out.clone()),
            Self::Project { args, .. } => std::mem::take(&mut args.overwrite).then(|| args.out.clone()),
            Self::Sweep { .. } | Self::Convert(_) => None,
        }
    }
}

impl Cluster<'_> {
    /// Writes a cache at `out`, what is missing of it.
    ///
    /// # Errors
    /// If something else is there, inputs cannot be read, or the cluster fails; finished shards stay.
    pub(crate) fn write(&self, mut job: WritingJob, what: &str, out: &Store) -> Result<Written> {
        if let Some(place) = job.overwrites() {
            // Only once an executor could open all that the new one is made of.
            self.units((what, "units"), &Job::Write { job: Box::new(job.clone()), step: Step::Check }, &[0])?;
            featcache::remove(&Store::open(&place)?).with_context(|| format!("emptying {place}"))?;
        }
        let step = |step| Job::Write { job: Box::new(job.clone()), step };
        let begun: Begun = self.one(what, &step(Step::Plan))?;
        let problems = begun.problems;
        if let Some(manifest) = begun.complete {
            return Ok(Written { cache: Cache::new(out.clone(), manifest), computed: 0, problems });
        }
        let units: Vec<u64> = (0..begun.shards as u64).collect();
        let (mut shards, mut computed) = (BTreeMap::new(), 0);
        self.each_unit((what, "shards"), &step(Step::Shards), &units, |shard, done| {
            let Shard { done, computed: here } = serde_json::from_slice(&done)?;
            computed += if here { done.info.samples.len() } else { 0 };
            shards.insert(shard, done);
            Ok(())
        })?;
        let manifest = self.one(what, &step(Step::Commit(shards)))?;
        Ok(Written { cache: Cache::new(out.clone(), manifest), computed, problems })
    }
}

/// What is written, opened by an executor; kept for the next units of the same job.
pub(super) struct Opening {
    source: Source,
    writer: Mutex<Option<std::sync::Arc<Writer>>>,
}

/// Where the rows come from.
enum Source {
    Extract(Box<Extraction>),
    Sweep(Box<Sweep>, bool),
    Project(Box<projection::Projection>),
    Convert(Box<(Cache, ConvertArgs)>),
}

impl Opening {
    pub(super) fn new(job: &WritingJob, context: &Context) -> Result<Self> {
        let source = match job {
            WritingJob::Extract { args, said } => {
                Source::Extract(Box::new(Extraction::open((**args).clone(), context)?.said(said.clone())))
            }
            WritingJob::Sweep { config, train } => {
                Source::Sweep(Box::new(Sweep::of_executor(config, super::scratch("sweep"))?), *train)
            }
            WritingJob::Project { args, reducer } => {
                let source = context.cache(&args.url)?.with_column(&args.column)?;
                let reducer = ReducerFile::of_bytes(
                    &BASE64.decode(reducer)?,
                    &args.reducer,
                    (source.layout().dim, &features_name(&source)),
                )?;
                Source::Project(Box::new(projection::Projection::new(args, source, reducer)?))
            }
            WritingJob::Convert(args) => Source::Convert(Box::new((context.cache(&args.url)?, args.clone()))),
        };
        Ok(Self { source, writer: Mutex::new(None) })
    }

    /// Does one unit of one step.
    pub(super) fn unit(&self, step: &Step, unit: u64, context: &Context) -> Result<Vec<u8>> {
        match step {
            Step::Check => {
                match &self.source {
                    Source::Extract(extraction) => drop(extraction.job()?.key()?),
                    Source::Sweep(sweep, train) => drop(sweep.split(*train)?.key()?),
                    Source::Project(projection) => projection.job().keep_the_source(&projection.store()?)?,
                    Source::Convert(_) => {}
                }
                Ok(Vec::new())
            }
            Step::Plan => {
                let problems = match &self.source {
                    Source::Extract(extraction) => extraction.problems(),
                    _ => 0,
                };
                to_json(&match self.open()? {
                    Opened::Complete(cache) => {
                        Begun { complete: Some(cache.manifest().clone()), shards: 0, problems }
                    }
                    Opened::Resume(writer) => {
                        Begun { complete: None, shards: writer.total_shards(), problems }
                    }
                })
            }
            Step::Shards => {
                let index = unit as usize;
                let writer = match self.writer()? {
                    Ok(writer) => writer,
                    Err(cache) => {
                        let info = cache.manifest().shards.get(index).context("no such shard")?.clone();
                        let done = Done { info, skipped: Vec::new() };
                        return to_json(&Shard { done, computed: false });
                    }
                };
                if let Some(done) = writer.finished(index)? {
                    return to_json(&Shard { done, computed: false });
                }
                self.shard(&writer, index, context)?;
                let done =
                    writer.finished(index)?.with_context(|| format!("shard {index} was not written"))?;
                to_json(&Shard { done, computed: true })
            }
            Step::Commit(done) => {
                let writer = match self.open()? {
                    Opened::Complete(cache) => return to_json(cache.manifest()),
                    Opened::Resume(writer) => writer,
                };
                done.iter().for_each(|(&index, done)| writer.know(index as usize, done.clone()));
                to_json(writer.commit(self.golden()?)?.manifest())
            }
        }
    }

    fn open(&self) -> Result<Opened> {
        match &self.source {
            Source::Extract(extraction) => extraction.job()?.open(extraction.store()?, &self.golden()?, true),
            Source::Sweep(sweep, train) => {
                let job = sweep.split(*train)?;
                job.open(sweep.store(&job)?, &self.golden()?, true)
            }
            Source::Project(projection) => projection.job().open(projection.store()?, true),
            Source::Convert(conversion) => {
                let (source, args) = &**conversion;
                Ok(featcache::conversion(source, Store::open(&args.out)?, args.layout.parse()?, true)?)
            }
        }
    }

    /// The writer of this executor, or the cache if another driver asked for the same and was faster.
    fn writer(&self) -> Result<std::result::Result<std::sync::Arc<Writer>, Cache>> {
        let mut writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(writer) = &*writer {
            return Ok(Ok(writer.clone()));
        }
        let opened = match self.open()? {
            Opened::Resume(opened) => std::sync::Arc::new(opened),
            Opened::Complete(cache) => return Ok(Err(cache)),
        };
        *writer = Some(opened.clone());
        Ok(Ok(opened))
    }

    fn shard(&self, writer: &Writer, index: usize, context: &Context) -> Result<()> {
        let planned = writer.planned(index);
        match &self.source {
            Source::Extract(extraction) => extraction.job()?.shards(writer, &[planned], context),
            Source::Sweep(sweep, train) => sweep.split(*train)?.shards(writer, &[planned], context),
            Source::Project(projection) => projection.job().shard(&planned, writer, context),
            Source::Convert(conversion) => Ok(featcache::convert_shard(&conversion.0, writer, index)?),
        }
    }

    fn golden(&self) -> Result<GoldenActivation> {
        match &self.source {
            Source::Extract(extraction) => extraction.job()?.forward.golden(),
            Source::Sweep(sweep, train) => sweep.split(*train)?.forward.golden(),
            Source::Project(_) => Ok(GoldenActivation::absent()),
            Source::Convert(conversion) => Ok(conversion.0.manifest().golden.clone()),
        }
    }
}
