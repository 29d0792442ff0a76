//! `featlab report`: the report of a finished sweep, from its `study.json` and the pictures beside it, and exports of its runs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::Context;
use crate::cli::{Export, Format, ReportArgs};
use crate::exit::{Status, usage};
use crate::study::Study;

pub(crate) fn run(args: ReportArgs, context: &Context) -> Result<Status> {
    let path = args.dir.join("study.json");
    let bytes = std::fs::read(&path).map_err(|e| {
        usage(format!("{} has no finished sweep ({}: {e})", args.dir.display(), path.display()))
    })?;
    let study: Study =
        serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?;
    let exported = export(&study, &args, &path)?;
    match args.format {
        Format::Html => {
            let report = crate::report::write_all(&study, &args.dir)?;
            context.output.result(&json!({ "report": report, "exported": exported }), |_| {
                let exports = exported.iter().map(|folder| format!("\nexported: {}", folder.display()));
                format!("report: {}", report.display()) + &exports.collect::<String>()
            })?;
        }
        Format::Md => context.output.result(&study, crate::report::markdown)?,
        Format::Csv if context.output.is_json() => {
            for run in &study.runs {
                context.output.result(run, |_| String::new())?;
            }
        }
        Format::Csv => context.output.result(&(), |()| crate::report::results_csv(&study))?,
    }
    Ok(Status::Done)
}

/// Writes the runs for the trackers that were asked for. Their time is that of the finished study.
fn export(study: &Study, args: &ReportArgs, path: &Path) -> Result<Vec<PathBuf>> {
    let finished = std::fs::metadata(path).and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let one = |tracker: &Export| match tracker {
        Export::Tensorboard => crate::report::tensorboard(study, &args.dir, finished),
        Export::Mlflow => crate::report::mlflow(study, &args.dir, finished),
    };
    args.export.iter().map(one).collect()
}
