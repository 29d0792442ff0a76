//! `featlab extract`: a data set's features, into a cache.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use backbone::{Layer, LoadOptions};
use dataset::Transform;
use featcache::Store;
use serde_json::json;

use crate::Context;
use crate::cli::ExtractArgs;
use crate::exit::{Status, usage};
use crate::progress::duration;
use crate::sources;
use crate::stages::extract::{Job, Outcome, Task};

pub(crate) fn run(args: ExtractArgs, context: &Context) -> Result<Status> {
    let started = std::time::Instant::now();
    let split = args.split.parse().map_err(|e: dataset::Error| usage(e.to_string()))?;
    let task = task(args.task.as_deref(), context)?;
    let dataset = sources::open(&args.dataset, split)?;
    for problem in dataset.problems() {
        context.reporter.warn(format!("skipped {}: {}", problem.id, problem.reason));
    }
    let device = backbone::device(&args.device)?;
    let options = LoadOptions { num_heads: args.num_heads, device: device.clone() };
    let backbone =
        backbone::load(&args.backbone, &options).with_context(|| format!("backbone {}", args.backbone))?;
    for note in &backbone.note {
        context.reporter.say(format!("note: {note}"));
    }
    let defaults = Transform::default();
    let (mean, std) = backbone.normalization.unwrap_or((defaults.mean, defaults.std));
    let word = |e: dataset::Error| usage(e.to_string());
    let job = Job {
        dataset: &*dataset,
        split: args.split.clone(),
        transform: Transform {
            res: args.res,
            crop: args.crop.parse().map_err(word)?,
            crop_ratio: args.crop_ratio,
            resize: args.resize.parse().map_err(word)?,
            mean,
            std,
        },
        backbone: &backbone,
        device,
        layers: layers(&args)?,
        images: args.images,
        recipe: recipe(&args),
        dtype: args.dtype.parse().map_err(|e| usage(format!("{e}")))?,
        flip_average: args.flip_average,
        shard_rows: args.shard_rows,
        form: args.layout.as_deref().map(str::parse).transpose().map_err(|e| usage(format!("{e}")))?,
        task,
        overwrite: args.overwrite,
        repair: args.repair,
    };
    let outcome = job.run(Store::open(&args.out)?, context)?;
    let seconds = started.elapsed().as_secs_f64();
    report(outcome, &args.out, dataset.problems().len(), seconds, context)
}

/// What is read of the network: every facet of every block that was named, the first of them first.
fn layers(args: &ExtractArgs) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    for &block in &args.layer {
        for facet in &args.facet {
            layers.push(Layer { block, facet: facet.parse().map_err(|e| usage(format!("{e}")))? });
        }
    }
    Ok(layers)
}

/// What `cache repair` and `cache verify --backbone` need to know besides the key.
fn recipe(args: &ExtractArgs) -> BTreeMap<String, String> {
    let mut recipe = BTreeMap::from([
        ("--dataset".to_owned(), args.dataset.clone()),
        ("--backbone".to_owned(), args.backbone.clone()),
    ]);
    if let Some(heads) = args.num_heads {
        recipe.insert("--num-heads".into(), heads.to_string());
    }
    recipe
}

fn report(outcome: Outcome, out: &str, problems: usize, seconds: f64, context: &Context) -> Result<Status> {
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
    let array =
        (number("SLURM_ARRAY_TASK_ID"), number("SLURM_ARRAY_TASK_MIN"), number("SLURM_ARRAY_TASK_COUNT"));
    match array {
        (Some(id), Some(first), Some(of)) if id >= first && id - first < of => {
            let this = id - first;
            context.reporter.say(format!("task {this}/{of} of a Slurm job array"));
            Ok(Task { this, of })
        }
        _ => Ok(Task::ALL),
    }
}
