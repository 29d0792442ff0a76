//! `featlab segment co-occurrence`: precision and recall of "these two points bear the same label".

use anyhow::{Context as _, Result};
use dimred::Map;
use segment::co_occurrence::Void;
use serde_json::{Value, json};

use crate::Context;
use crate::cli::{CoOccurrenceArgs, VoidPixels};
use crate::exit::{Status, usage};
use crate::records::{check_local, write_atomically};
use crate::report::precision_recall_figure;
use crate::stages::co_occurrence::{Found, Job};
use crate::stages::reducer_file::ReducerFile;

/// Points of a curve that are written down.
const CURVE_POINTS: usize = 200;

pub(super) fn run(args: &CoOccurrenceArgs, context: &Context) -> Result<Status> {
    check_local(&args.out)?;
    for (option, number) in [("--images", args.images), ("--samples", args.samples)] {
        if number == 0 {
            return Err(usage(format!("{option} must be at least 1, got 0")));
        }
    }
    let cache = context.cache(&args.cache)?.with_column(&args.column)?;
    if !cache.layout().has_label {
        return Err(usage(format!("{}: this cache has no labels, and pairs are judged by them", args.cache)));
    }
    let codes =
        args.reducer.iter().map(|path| codes(args, path, &cache)).collect::<Result<Vec<(String, Map)>>>()?;
    let with_crf = cache.layout().has_image;
    if !with_crf {
        context
            .reporter
            .say("the cache has no pictures (featlab extract --images): the CRF kernel is left out");
    }
    let void = match args.void {
        VoidPixels::LeftOut => Void::LeftOut,
        VoidPixels::Class => Void::Class,
    };
    let (images, samples, seed) = (args.images, args.samples, args.seed);
    let job = Job { cache: &cache, codes: &codes, with_crf, images, samples, void, seed };
    let Found { images, curves } = job.run(context)?;
    let mut csv = String::from("score,threshold,precision,recall\n");
    for (name, curve) in &curves {
        for point in curve.thinned(CURVE_POINTS) {
            let name = name.replace('"', "\"\"");
            csv += &format!("\"{name}\",{},{},{}\n", point.score, point.precision, point.recall);
        }
    }
    write_atomically(&args.out.join("curves.csv"), csv.as_bytes())?;
    let title = format!("{} images of {}", images, cache.manifest().key.dataset);
    let figure = precision_recall_figure(&title, &curves);
    write_atomically(&args.out.join("curves.svg"), figure.as_bytes())?;
    let scores: Vec<Value> = curves
        .iter()
        .map(|(name, curve)| {
            json!({ "score": name, "average_precision": curve.average_precision,
                    "pairs": curve.pairs, "matches": curve.matches })
        })
        .collect();
    let value = json!({
        "out": args.out, "images": images, "samples": samples, "seed": seed,
        "void": match void { Void::LeftOut => "left-out", Void::Class => "class" }, "scores": scores,
    });
    write_atomically(&args.out.join("co-occurrence.json"), &serde_json::to_vec_pretty(&value)?)?;
    context.output.result(&value, |_| {
        let mut lines = vec![format!("{}: pairs of points in {images} images", args.out.display())];
        if let Some((_, first)) = curves.first() {
            let chance = 100.0 * first.matches as f64 / first.pairs as f64;
            lines.push(format!("  {:5.1} %  of {} pairs bear the same label", chance, first.pairs));
        }
        lines.extend(curves.iter().map(|(name, curve)| {
            format!("  {:5.1} %  average precision of {name}", 100.0 * curve.average_precision)
        }));
        lines.join("\n")
    })?;
    Ok(Status::Done)
}

/// A reducer's map under a name of its own.
fn codes(args: &CoOccurrenceArgs, path: &std::path::Path, cache: &featcache::Cache) -> Result<(String, Map)> {
    let reducer = ReducerFile::read(path, cache)?.reducer;
    let dim = args.dims.unwrap_or_else(|| reducer.max_dim());
    let map = reducer.at(dim).with_context(|| format!("reducer {}", path.display()))?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((format!("{stem}, {dim} d"), map))
}
