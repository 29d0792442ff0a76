//! `featlab report`: the report of a finished sweep, from its `study.json` alone.

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::Context;
use crate::cli::{Format, ReportArgs};
use crate::exit::{Status, usage};
use crate::study::Study;

pub(crate) fn run(args: ReportArgs, context: &Context) -> Result<Status> {
    let path = args.dir.join("study.json");
    let bytes = std::fs::read(&path).map_err(|e| {
        usage(format!("{} has no finished sweep ({}: {e})", args.dir.display(), path.display()))
    })?;
    let study: Study =
        serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?;
    match args.format {
        Format::Html => {
            let report = crate::report::write_all(&study, &args.dir)?;
            context
                .output
                .result(&json!({ "report": report }), |_| format!("report: {}", report.display()))?;
        }
        Format::Md => context.output.result(&study, crate::report::markdown)?,
        Format::Csv => context.output.result(&study.runs, |_| crate::report::results_csv(&study))?,
    }
    Ok(Status::Done)
}
