//! `featlab segment eval`: a model's scores on a labelled data set.

use anyhow::Result;
use dataset::Split;
use serde_json::json;

use super::Opened;
use crate::Context;
use crate::cli::SegmentEvalArgs;
use crate::exit::{Status, integrity, usage};
use crate::records::check_local;
use crate::sources;
use crate::stages::segment::evaluate::{self, Job, Naming, Outcome, class_of_cluster};
use crate::stages::segment::train::resampling;

pub(super) fn run(args: SegmentEvalArgs, context: &Context) -> Result<Status> {
    if let Some(folder) = &args.save {
        check_local(folder)?;
    }
    let naming = match args.naming.as_str() {
        "eval" => Naming::Eval,
        "model" => Naming::Model,
        other => return Err(usage(format!("--naming: unknown \"{other}\", expected eval or model"))),
    };
    let split: Split = args.split.parse().map_err(|e: dataset::Error| usage(e.to_string()))?;
    let dataset = sources::open(&args.dataset, split)?;
    let Some(classes) = dataset.classes().cloned() else {
        return Err(usage(format!("{} has no labels to score against", args.dataset)));
    };
    for problem in dataset.problems() {
        context.reporter.warn(format!("skipped {}: {}", problem.id, problem.reason));
    }
    let opened = Opened::new(&args.look.model, args.look.backbone.as_deref(), &args.look.loading, context)?;
    let own = opened.model.card.classes.names.len();
    if own != classes.names.len() {
        return Err(integrity(format!(
            "the model has {own} classes, {} has {}: {}",
            args.dataset,
            classes.names.len(),
            classes.names.join(", ")
        )));
    }
    if naming == Naming::Model && opened.model.card.class_of_cluster.is_none() {
        return Err(usage("--naming model: this model's clusters have no names".to_owned()));
    }
    let segmenter = opened.segmenter(&args.look)?;
    let probes = opened.probes(&args.look.probe)?;
    let job = Job {
        segmenter: &segmenter,
        probes: &probes,
        dataset: &*dataset,
        classes: classes.names.len(),
        naming,
        boundary_iou: args.boundary_iou,
        resampling: resampling(),
        on_cpu: opened.device.is_cpu(),
    };
    let outcome = job.run(context)?;
    if let Some(folder) = &args.save {
        let mut model = opened.model.clone();
        model.card.classes = classes.clone();
        let clusters = model.cluster.as_ref().map_or(0, |probe| probe.centres.nrows());
        let named = outcome.scored.iter().find_map(|scored| class_of_cluster(scored, clusters));
        model.card.class_of_cluster = named.or(model.card.class_of_cluster);
        model.write(folder, args.overwrite)?;
    }
    let names: Vec<&str> = probes.iter().map(|(name, _)| *name).collect();
    report(&args, &names, &classes.names, &outcome, dataset.problems().len(), context)
}

fn report(
    args: &SegmentEvalArgs,
    names: &[&str],
    classes: &[String],
    outcome: &Outcome,
    problems: usize,
    context: &Context,
) -> Result<Status> {
    for (picture, reason) in &outcome.skipped {
        context.reporter.warn(format!("skipped {picture}: {reason}"));
    }
    let look = &args.look;
    let protocol = format!(
        "{} view of {} pixels{}{}, clusters named by {}",
        look.view,
        look.res,
        if look.flip_average { ", flip average" } else { "" },
        if look.crf { ", CRF" } else { "" },
        if args.naming == "eval" { "the labels they are scored on" } else { "the model" }
    );
    let rate = outcome.pictures as f64 / outcome.wall_s;
    let value = json!({
        "model": look.model,
        "dataset": args.dataset,
        "split": args.split,
        "protocol": protocol,
        "pictures": outcome.pictures,
        "skipped": outcome.skipped.len() + problems,
        "images_per_s": rate,
        "probes": names.iter().zip(&outcome.scored)
            .map(|(name, scored)| evaluate::json(name, scored, classes)).collect::<Vec<_>>(),
    });
    context.output.result(&value, |_| {
        let mut lines = vec![format!(
            "{} on {} {}: {} pictures, {rate:.2} images/s\n  {protocol}",
            look.model.display(),
            args.dataset,
            args.split,
            outcome.pictures
        )];
        lines.extend(names.iter().zip(&outcome.scored).map(|(name, scored)| evaluate::line(name, scored)));
        lines.join("\n")
    })?;
    Ok(if outcome.skipped.len() + problems > 0 { Status::Skipped } else { Status::Done })
}
