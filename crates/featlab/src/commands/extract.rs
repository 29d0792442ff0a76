//! `featlab extract`: a data set's features, into a cache.

use anyhow::Result;
use featcache::Store;
use serde_json::json;

use crate::Context;
use crate::cli::ExtractArgs;
use crate::commands::asked::Asked;
use crate::exit::{Status, usage};
use crate::progress::duration;
use crate::stages::extract::{Job, Outcome, Task};

pub(crate) fn run(args: ExtractArgs, context: &Context) -> Result<Status> {
    let started = std::time::Instant::now();
    #[cfg(feature = "cluster")]
    if let Some(cluster) = crate::cluster::Cluster::of(context)? {
        let (out, store) = (args.out.clone(), Store::open(&args.out)?);
        let written = cluster.write(crate::cluster::WritingJob::extract(args)?, "extract", &store)?;
        let outcome = Outcome::Complete { cache: written.cache, computed: written.computed };
        return report(outcome, &out, written.problems, started.elapsed().as_secs_f64(), context);
    }
    let task = task(args.task.as_deref(), context)?;
    let extraction = Extraction::open(args, context)?;
    let outcome = Job { task, ..extraction.job()? }.run(extraction.store()?, context)?;
    let seconds = started.elapsed().as_secs_f64();
    report(outcome, &extraction.args.out, extraction.problems(), seconds, context)
}

/// The command with its data set and backbone open.
pub(crate) struct Extraction {
    args: ExtractArgs,
    asked: Asked,
}

impl Extraction {
    /// Finds the data set and loads the backbone.
    ///
    /// # Errors
    /// If one of them cannot be found or read.
    pub(crate) fn open(args: ExtractArgs, context: &Context) -> Result<Self> {
        Ok(Self { asked: Asked::open(args.features.clone(), context)?, args })
    }

    /// The same, with data set and backbone called in the manifest as a user called them.
    #[cfg(feature = "cluster")]
    pub(crate) fn said(mut self, (dataset, backbone): (Option<String>, Option<String>)) -> Self {
        self.asked.call(dataset, backbone);
        self
    }

    /// What is to be computed.
    ///
    /// # Errors
    /// If an option cannot be.
    pub(crate) fn job(&self) -> Result<Job<'_>> {
        let args = &self.args;
        let mut job = Job {
            shard_rows: args.shard_rows,
            form: args.layout.as_deref().map(str::parse).transpose().map_err(|e| usage(format!("{e}")))?,
            overwrite: args.overwrite,
            repair: args.repair,
            ..self.asked.job()?
        };
        match args.batch {
            Some(0) => return Err(usage("--batch takes a number of images, got 0")),
            Some(batch) => job.forward.batch = batch,
            None => {}
        }
        Ok(job)
    }

    /// Where it goes.
    ///
    /// # Errors
    /// If there is no such store.
    pub(crate) fn store(&self) -> Result<Store> {
        Ok(Store::open(&self.args.out)?)
    }

    /// Inputs that are left out because they cannot be listed.
    pub(crate) fn problems(&self) -> usize {
        self.asked.problems()
    }
}

/// Prints what was done.
pub(super) fn report(
    outcome: Outcome,
    out: &str,
    problems: usize,
    seconds: f64,
    context: &Context,
) -> Result<Status> {
    let (cache, computed) = match outcome {
        Outcome::Waiting { computed, missing } => {
            let value =
                json!({ "out": out, "computed": computed, "missing_shards": missing, "complete": false });
            context.output.result(&value, |_| {
                format!("{out}: computed {computed} images; {missing} shards are left to other tasks, the last one commits")
            })?;
            return Ok(Status::Done);
        }
        Outcome::Complete { cache, computed } => (cache, computed),
    };
    let manifest = cache.manifest();
    for tombstone in &manifest.skipped {
        context.reporter.warn(format!("skipped {}: {}", tombstone.image_id, tombstone.reason));
    }
    let skipped = manifest.skipped.len() + problems;
    let value = json!({
        "out": out,
        "cache_id": manifest.cache_id,
        "rows": manifest.rows,
        "computed": computed,
        "skipped": skipped,
        "complete": true,
        "seconds": seconds,
    });
    context.output.result(&value, |_| {
        let work = match computed {
            0 => "nothing to compute".to_owned(),
            n => format!("computed {n} images in {} ({:.2} images/s)", duration(seconds), n as f64 / seconds),
        };
        let skipped = if skipped > 0 { format!(", {skipped} inputs skipped") } else { String::new() };
        format!(
            "{out}: {} rows of {} tokens × {}, {work}{skipped}",
            manifest.rows,
            cache.layout().tokens(),
            cache.layout().dim
        )
    })?;
    Ok(if skipped > 0 { Status::Skipped } else { Status::Done })
}

/// The task of `--task i/n`, or of a Slurm job array, or all shards.
fn task(argument: Option<&str>, context: &Context) -> Result<Task> {
    if let Some(text) = argument {
        return Task::parse(text);
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<usize>().ok());
    let (Some(id), Some(of)) = (number("SLURM_ARRAY_TASK_ID"), number("SLURM_ARRAY_TASK_COUNT")) else {
        return Ok(Task::ALL);
    };
    let first = number("SLURM_ARRAY_TASK_MIN").unwrap_or(0);
    let step = number("SLURM_ARRAY_TASK_STEP").filter(|&step| step > 0).unwrap_or(1);
    let this = id.checked_sub(first).filter(|above| above.is_multiple_of(step)).map(|above| above / step);
    match this {
        Some(this) if this < of => {
            context.reporter.say(format!("task {this}/{of} of a Slurm job array"));
            Ok(Task { this, of })
        }
        _ => {
            context.reporter.warn(format!(
                "task {id} of a Slurm job array of {of} is none of 0 to {}: all shards are computed; say --task I/N",
                of.saturating_sub(1)
            ));
            Ok(Task::ALL)
        }
    }
}
