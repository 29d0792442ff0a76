//! `featlab sweep`: a grid from a TOML file.

use anyhow::Result;
use serde_json::json;

use crate::Context;
use crate::cli::SweepArgs;
use crate::config::SweepConfig;
use crate::exit::Status;
use crate::sweep::{Finished, Plan, Sweep, default_out};
use crate::toml_file::TomlFile as _;

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
    let estimate = &plan.estimate;
    for ((split, id, images, complete), cost) in plan.caches.iter().zip(&estimate.caches) {
        let state = match complete {
            true => "there".to_owned(),
            false => format!(
                "to compute: {:.2} GFLOP an image, {:.1} MB to write, {}",
                cost.gflop_per_image,
                cost.bytes as f64 / 1e6,
                about(cost.seconds)
            ),
        };
        lines.push(format!("cache {split:8} {id}  {images} images  {state}"));
    }
    for (method, dim, probe, seed, key, done) in &plan.cells {
        let state = if *done { "there" } else { "to compute" };
        lines.push(format!("probe {method:10} {dim:5}  {probe:8} seed {seed}  {key}  {state}"));
    }
    let todo = plan.cells.iter().filter(|cell| !cell.5).count();
    lines.push(format!("{todo} of {} probes to compute", plan.cells.len()));
    if estimate.seconds > 0.0 {
        lines.push(format!(
            "features {}, training {}, scoring {}: {} in all",
            about(estimate.extract_seconds),
            about(estimate.train_seconds),
            about(estimate.score_seconds),
            about(estimate.seconds)
        ));
        lines.push(format!("the estimate rests on: {}", estimate.rests_on));
    }
    lines.join("\n")
}

/// A time that nobody knows to the second.
fn about(seconds: f64) -> String {
    match seconds {
        0.0 => "nothing".to_owned(),
        ..1.0 => "less than 1 s".to_owned(),
        ..90.0 => format!("about {seconds:.0} s"),
        ..5400.0 => format!("about {:.0} min", seconds / 60.0),
        _ => format!("about {:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_to_what_is_known() {
        for (seconds, said) in [
            (0.0, "nothing"),
            (0.2, "less than 1 s"),
            (42.4, "about 42 s"),
            (125.0, "about 2 min"),
            (9000.0, "about 2.5 h"),
        ] {
            assert_eq!(about(seconds), said);
        }
    }
}
