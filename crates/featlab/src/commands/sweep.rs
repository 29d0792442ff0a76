//! `featlab sweep`: a grid from a TOML file.

use anyhow::Result;
use serde_json::json;

use crate::Context;
use crate::cli::SweepArgs;
use crate::config::SweepConfig;
use crate::exit::Status;
use crate::sweep::{Finished, Plan, Sweep, default_out};

pub(crate) fn run(args: SweepArgs, context: &Context) -> Result<Status> {
    let config = SweepConfig::read(&args.file, &args.set)?;
    let out = args.out.unwrap_or_else(|| default_out(&config.name));
    let sweep = Sweep::open(config, out)?;
    if args.dry_run {
        context.output.result(&sweep.plan()?, plan_text)?;
        return Ok(Status::Done);
    }
    print(&sweep.run(context)?, context)
}

/// Prints the table and where the report is.
pub(crate) fn print(finished: &Finished, context: &Context) -> Result<Status> {
    let Finished { study, report, status, failures } = finished;
    let value = json!({
        "name": study.name,
        "report": report,
        "skipped": study.skipped,
        "failed": failures,
        "notes": study.notes,
        "results": crate::report::summary(study),
    });
    let report = std::path::absolute(report).unwrap_or_else(|_| report.clone());
    context.output.result(&value, |_| {
        let table = crate::report::text_table(study, context.output.color());
        format!("{}\n\nreport: {}", table.trim_end(), report.display())
    })?;
    Ok(*status)
}

fn plan_text(plan: &Plan) -> String {
    let mut lines = Vec::new();
    for (split, id, images, complete) in &plan.caches {
        let state = if *complete { "there" } else { "to compute" };
        lines.push(format!("cache {split:8} {id}  {images} images  {state}"));
    }
    for (method, dim, probe, seed, key, done) in &plan.cells {
        let state = if *done { "there" } else { "to compute" };
        lines.push(format!("probe {method:10} {dim:5}  {probe:8} seed {seed}  {key}  {state}"));
    }
    let todo = plan.cells.iter().filter(|cell| !cell.5).count();
    lines.push(format!("{todo} of {} probes to compute", plan.cells.len()));
    lines.join("\n")
}
